use std::{sync::Arc, time::Duration};

use aos_update::{Order, PartStatus, Refused, UpdatePart};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::UnitReadiness;
use crate::{contract::Images, status::EngineStatus};

/// How long the engine may take for an order: it stores something.
const PATIENCE: Duration = Duration::from_secs(10);

/// An order on its way to the engine.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) order: Order,
    /// Told when it is stored, or refused.
    pub(crate) done: oneshot::Sender<Result<(), Refused>>,
}

/// Where programs and people on the Unit turn to about an update that waits.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) orders: mpsc::Sender<Ordered>,
    pub(crate) status: watch::Receiver<Arc<EngineStatus>>,
    pub(crate) readiness: Arc<UnitReadiness>,
    pub(crate) images: Arc<dyn Images>,
}

impl Desk {
    /// Where a part stands.
    pub(crate) fn part(&self, part: UpdatePart) -> PartStatus {
        self.status.borrow().parts.of(part).clone()
    }

    /// Gives an order. What does not fit the state of the update is `FAILED_PRECONDITION`.
    pub(crate) async fn order(&self, order: Order) -> Result<(), Status> {
        let (done, answer) = oneshot::channel();
        let ordered = Ordered { order, done };
        let stopping = || Status::unavailable("CM is stopping");
        let ask = async {
            self.orders.send(ordered).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(answer) => {
                answer?.map_err(|refused| Status::failed_precondition(refused.to_string()))
            }
            Err(_) => Err(Status::deadline_exceeded("CM is busy; try again")),
        }
    }
}
