use std::{collections::BTreeMap, future, sync::Arc, time::Duration};

use aos_time::{Clock, SystemClock};
use aos_types::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Placing;
use crate::{unit_config::UnitConfigs, updates::InForce};

/// Changes are gathered this long before places are looked at again.
const GATHER: Duration = Duration::from_millis(200);
/// Cached instances are looked at again at least this often.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Placing {
    /// Follows the Nodes and whatever else decides about places, until `stop`: gives the Nodes their configuration and their
    /// lists when they connect or something changes, and ends variables at their time.
    pub(crate) async fn follow(
        self: Arc<Self>,
        configs: Arc<UnitConfigs>,
        mut in_force: watch::Receiver<InForce>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let mut changes = self.world.changes();
        let mut usages = self.usages.changes();
        let mut subjects = self.subjects.clone();
        let mut overrides = self.overrides.subscribe();
        let mut connections = BTreeMap::new();
        loop {
            changes.borrow_and_update();
            usages.borrow_and_update();
            subjects.borrow_and_update();
            overrides.borrow_and_update();
            let next_end = self.end_overrides().await?;
            let nodes = self.world.nodes();
            let now: BTreeMap<NodeId, u64> = nodes
                .iter()
                .filter_map(|(id, node)| Some((id.clone(), node.sm.as_ref()?.connection)))
                .collect();
            if now != connections {
                connections = now;
                // What does not take its configuration now is tried again on its next connection.
                configs.bring_to_nodes().await;
            }
            if !nodes.is_empty() {
                self.nodes.keep_only(nodes.into_keys().collect()).await;
            }
            let now = in_force.borrow_and_update().clone();
            if !now.hold {
                self.reconcile(&now.target).await?;
            }
            let left = next_end.map_or(DAY, |at| at.since(SystemClock.now()).min(DAY));
            // Every arm waits for a state; nothing is lost when one is dropped.
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = usages.changed() => {}
                Ok(()) = subjects.changed() => {}
                Ok(()) = overrides.changed() => {}
                Ok(()) = in_force.changed() => {}
                () = tokio::time::sleep(left) => {}
                () = stop.cancelled() => return Ok(()),
                else => future::pending().await,
            }
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}
