use std::{collections::VecDeque, pin::Pin, sync::Arc};

use aos_ipc::proto::{
    common::v1 as common,
    communicationmanager::v3::{self as pb, scheduler_notifications::SchedulerNotification},
};
use aos_types::{ErrorInfo, ItemType};
use aos_update::{DesiredItem, Order, PartState, PartStatus, UpdatePart};
use futures::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status};

use super::Desk;
use crate::{contract::Images, local::Local, status::EngineStatus};

/// How many may follow at the same time.
const SUBSCRIBERS: usize = 64;

/// communicationmanager.v3 `UpdateSchedulerService`.
pub(crate) struct Scheduler {
    local: Local,
    places: Arc<Semaphore>,
}

impl Scheduler {
    pub(crate) fn new(local: Local) -> Self {
        Self {
            local,
            places: Arc::new(Semaphore::new(SUBSCRIBERS)),
        }
    }

    async fn start<T>(
        &self,
        request: &Request<T>,
        part: UpdatePart,
    ) -> Result<Response<()>, Status> {
        self.local.allow(request)?;
        let order = Order::Start { part, again: false };
        self.local.desk()?.order(order).await?;
        tracing::info!(%part, "somebody on the Unit starts the update");
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl pb::update_scheduler_service_server::UpdateSchedulerService for Scheduler {
    type SubscribeNotificationsStream =
        Pin<Box<dyn Stream<Item = Result<pb::SchedulerNotifications, Status>> + Send>>;

    async fn start_fota_update(&self, request: Request<()>) -> Result<Response<()>, Status> {
        self.start(&request, UpdatePart::Firmware).await
    }

    async fn start_sota_update(&self, request: Request<()>) -> Result<Response<()>, Status> {
        self.start(&request, UpdatePart::Software).await
    }

    async fn subscribe_notifications(
        &self,
        request: Request<()>,
    ) -> Result<Response<Self::SubscribeNotificationsStream>, Status> {
        self.local.allow(&request)?;
        let desk: &Desk = self.local.desk()?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{SUBSCRIBERS} programs follow already"))
        })?;
        let follow = Follow {
            status: desk.status.clone(),
            images: desk.images.clone(),
            told: (None, None),
            to_tell: VecDeque::new(),
            _place: place,
        };
        let stream = stream::unfold(follow, |mut follow| async {
            let next = follow.next().await?;
            Some((Ok(next), follow))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// What one subscriber was told. It holds at most one notification of each kind: whoever reads slowly misses states in
/// between, never the newest one.
struct Follow {
    status: watch::Receiver<Arc<EngineStatus>>,
    images: Arc<dyn Images>,
    told: (Option<pb::UpdateFotaStatus>, Option<pb::UpdateSotaStatus>),
    to_tell: VecDeque<SchedulerNotification>,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    /// `None` when CM stops.
    async fn next(&mut self) -> Option<pb::SchedulerNotifications> {
        loop {
            if let Some(next) = self.to_tell.pop_front() {
                return Some(pb::SchedulerNotifications {
                    scheduler_notification: Some(next),
                });
            }
            let status = self.status.borrow_and_update().clone();
            let sota = sota(&status.parts.software);
            let fota = self.fota(&status.parts.firmware).await;
            if self.told.0.as_ref() != Some(&fota) {
                self.told.0 = Some(fota.clone());
                self.to_tell
                    .push_back(SchedulerNotification::FotaStatus(fota));
            }
            if self.told.1.as_ref() != Some(&sota) {
                self.told.1 = Some(sota.clone());
                self.to_tell
                    .push_back(SchedulerNotification::SotaStatus(sota));
            }
            if self.to_tell.is_empty() {
                self.status.changed().await.ok()?;
            }
        }
    }
}

impl Follow {
    async fn fota(&self, status: &PartStatus) -> pb::UpdateFotaStatus {
        let mut components = Vec::new();
        for item in &status.changes.install {
            components.push(pb::ComponentInfo {
                component_id: item.id.to_string(),
                component_type: self.component_type(item).await,
                version: item.version.clone(),
            });
        }
        for item in gone(status) {
            components.push(pb::ComponentInfo {
                component_id: item.id.to_string(),
                component_type: self.component_type(item).await,
                version: String::new(),
            });
        }
        pb::UpdateFotaStatus {
            state: state(status.state),
            components,
            error: error(status),
        }
    }

    /// The type of runtime it is made for; empty while its images are not here.
    async fn component_type(&self, item: &DesiredItem) -> String {
        let images = self.images.images_of(item).await.unwrap_or_default();
        let mut types = images.iter().flat_map(|image| &image.config.runtimes);
        types.next().cloned().unwrap_or_default()
    }
}

/// Items that go and are not replaced.
fn gone(status: &PartStatus) -> impl Iterator<Item = &DesiredItem> {
    let comes = &status.changes.install;
    let gone = status.changes.remove.iter();
    gone.filter(|item| !comes.iter().any(|new| new.id == item.id))
}

fn state(state: PartState) -> i32 {
    let state = match state {
        PartState::NoUpdate => pb::UpdateState::NoUpdate,
        PartState::Downloading => pb::UpdateState::Downloading,
        PartState::Ready => pb::UpdateState::ReadyToUpdate,
        PartState::Updating => pb::UpdateState::Updating,
    };
    state.into()
}

/// Why the last update did not happen; or, as no error, what this one waits for.
fn error(status: &PartStatus) -> Option<common::ErrorInfo> {
    let waits = status.waits.as_ref().map(|reason| ErrorInfo {
        message: format!("waits: {reason}"),
        ..ErrorInfo::default()
    });
    let failed = status
        .error
        .clone()
        .filter(|_| status.state == PartState::NoUpdate);
    waits.or(failed).map(|error| common::ErrorInfo {
        aos_code: error.aos_code,
        exit_code: error.exit_code,
        message: error.message,
    })
}

fn sota(status: &PartStatus) -> pb::UpdateSotaStatus {
    let services = |items: &[DesiredItem]| -> Vec<pb::ServiceInfo> {
        items
            .iter()
            .filter(|item| item.item_type != ItemType::Layer)
            .map(|item| pb::ServiceInfo {
                service_id: item.id.to_string(),
                version: item.version.clone(),
            })
            .collect()
    };
    let layers = |items: &[DesiredItem]| -> Vec<pb::LayerInfo> {
        items
            .iter()
            .filter(|item| item.item_type == ItemType::Layer)
            .map(|item| pb::LayerInfo {
                layer_id: item.id.to_string(),
                digest: item.index_digest.to_string(),
                version: item.version.clone(),
            })
            .collect()
    };
    let config = status.changes.unit_config.clone();
    pb::UpdateSotaStatus {
        state: state(status.state),
        unit_config: config.map(|version| pb::UnitConfigInfo { version }),
        install_services: services(&status.changes.install),
        remove_services: services(&status.changes.remove),
        install_layers: layers(&status.changes.install),
        remove_layers: layers(&status.changes.remove),
        rebalance_request: status.changes.rearranged,
        error: error(status),
    }
}
