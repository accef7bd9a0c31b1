//! Nodes shall be provisioned or paused as the set in force says, also those that were away or unknown when it came: they
//! are paused or resumed when they are back.

use std::{collections::BTreeMap, future, sync::Arc, time::Duration};

use aos_types::{ErrorInfo, NodeId, NodeState};
use aos_update::{DesiredNode, DesiredNodeState};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::Iam,
    unit_config::Troubles,
    updates::InForce,
    world::{KnownNode, World},
};

/// A Node that cannot be paused or resumed is tried again after this time, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// Whether a Node is to be paused (true) or resumed; `None` if it is as wanted, or in no state that can be left so.
pub(crate) const fn change(wanted: DesiredNodeState, is: NodeState) -> Option<bool> {
    match (wanted, is) {
        (DesiredNodeState::Paused, NodeState::Provisioned) => Some(true),
        (DesiredNodeState::Provisioned, NodeState::Paused) => Some(false),
        _ => None,
    }
}

/// Nodes that are not in the state of the set in force, and are to be: paused (true) or resumed.
fn changes(wanted: &[DesiredNode], world: &BTreeMap<NodeId, KnownNode>) -> BTreeMap<NodeId, bool> {
    let changes = wanted.iter().filter_map(|wanted| {
        let known = world.get(&wanted.node)?;
        // One that is lost counts as in error here; IAM knows it as provisioned.
        let is = if known.is_lost() {
            NodeState::Provisioned
        } else {
            known.info.state
        };
        Some((wanted.node.clone(), change(wanted.state, is)?))
    });
    changes.collect()
}

/// Keeps Nodes in the state of the set in force.
pub(crate) struct NodeStates {
    iam: Arc<dyn Iam>,
    world: Arc<World>,
    troubles: watch::Sender<Troubles>,
}

impl NodeStates {
    pub(crate) fn new(iam: Arc<dyn Iam>, world: Arc<World>) -> Self {
        Self {
            iam,
            world,
            troubles: watch::channel(Arc::default()).0,
        }
    }

    /// Nodes that could not be paused or resumed as ordered.
    pub(crate) fn troubles(&self) -> watch::Receiver<Troubles> {
        self.troubles.subscribe()
    }

    /// Runs until `stop`.
    pub(crate) async fn follow(
        &self,
        mut in_force: watch::Receiver<InForce>,
        stop: CancellationToken,
    ) {
        let mut news = self.world.changes();
        let (mut pause, mut again) = (RETRY.0, None::<Instant>);
        let mut tried = BTreeMap::new();
        loop {
            news.borrow_and_update();
            let now = in_force.borrow_and_update().clone();
            let world = self.world.nodes();
            // An update that is under way moves the Nodes itself.
            let wanted = match now.hold {
                true => BTreeMap::new(),
                false => changes(&now.target.nodes, &world),
            };
            // What is news about one of them: the order, or that it has come or gone.
            let signs: BTreeMap<NodeId, (bool, Option<u64>)> = wanted
                .iter()
                .map(|(id, paused)| {
                    let sm = world.get(id).and_then(|node| node.sm.as_ref());
                    (id.clone(), (*paused, sm.map(|sm| sm.connection)))
                })
                .collect();
            let fresh = signs != tried;
            if fresh || again.is_some_and(|at| at <= Instant::now()) {
                tried = signs;
                let failed = tokio::select! {
                    failed = self.bring(&wanted) => failed,
                    () = stop.cancelled() => return,
                };
                pause = match fresh {
                    true => RETRY.0,
                    false => (pause * 2).min(RETRY.1),
                };
                again = (!failed.is_empty()).then(|| Instant::now() + pause);
                self.tell(failed);
            }
            // Every arm waits for a state; nothing is lost when one is dropped.
            tokio::select! {
                Ok(()) = news.changed() => {}
                Ok(()) = in_force.changed() => {}
                () = until(again) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Gives those that could not be moved.
    async fn bring(&self, wanted: &BTreeMap<NodeId, bool>) -> BTreeMap<NodeId, ErrorInfo> {
        let mut failed = BTreeMap::new();
        for (node, paused) in wanted {
            let what = if *paused { "paused" } else { "resumed" };
            match self.iam.set_paused(node, *paused).await {
                Ok(()) => tracing::info!(%node, "the node is {what}, as the desired state says"),
                Err(error) => {
                    tracing::warn!(%node, %error, "the node is to be {what}; it is tried again");
                    let error = ErrorInfo {
                        message: format!(
                            "it is to be {what} and cannot be yet ({error}); this is tried again when it connects, and from time to time"
                        ),
                        ..error
                    };
                    failed.insert(node.clone(), error);
                }
            }
        }
        failed
    }

    fn tell(&self, failed: BTreeMap<NodeId, ErrorInfo>) {
        self.troubles.send_if_modified(|current| {
            let differs = **current != failed;
            if differs {
                *current = Arc::new(failed);
            }
            differs
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
