use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use aos_launch::Instance;
use aos_types::{InstanceIdent, Quotas};

use super::Launcher;

/// How long CM may take to have the last states of instances that leave this Node.
const LAST_STATES: Duration = Duration::from_secs(5);

/// Instances that have been stopped for good and whose last state CM may not have yet.
pub(super) type Parting = BTreeMap<InstanceIdent, (Instance, Quotas)>;

impl Launcher {
    /// Has CM told what these instances wrote last, before their end is told: they may be about to start elsewhere with it.
    pub(super) async fn part_with_states(&self, gone: &[InstanceIdent]) {
        let last: Parting = {
            let entries = self.entries();
            let gone = gone.iter().filter_map(|ident| entries.get(ident));
            let with_state = gone.filter(|entry| !entry.instance.state_path.is_empty());
            with_state
                .map(|entry| {
                    let ident = entry.instance.ident.clone();
                    (ident, (entry.instance.clone(), entry.quotas))
                })
                .collect()
        };
        let mut telling = self.telling.subscribe();
        if last.is_empty() || !*telling.borrow_and_update() {
            return;
        }
        *self.parting() = last;
        self.last_states.notify_one();
        let told = async {
            loop {
                let one = self.parted.notified();
                if self.parting().is_empty() {
                    return;
                }
                tokio::select! {
                    () = one => {}
                    // Nobody tells states any more.
                    _ = telling.wait_for(|telling| !telling) => return,
                }
            }
        };
        if tokio::time::timeout(LAST_STATES, told).await.is_err() {
            tracing::warn!(
                "CM does not take the last states of instances that leave this Node in time"
            );
        }
        self.parting().clear();
    }

    /// CM has the last state of an instance, if it is one that leaves.
    pub(crate) fn last_state_is_kept(&self, ident: &InstanceIdent) {
        if self.parting().remove(ident).is_some() {
            self.parted.notify_one();
        }
    }

    /// Whether an instance leaves and CM may not have its last state.
    pub(crate) fn is_parting(&self, ident: &InstanceIdent) -> bool {
        self.parting().contains_key(ident)
    }

    /// Says whether states are being told.
    pub(crate) fn tells_states(&self, telling: bool) {
        self.telling.send_replace(telling);
    }

    /// Waits until there are last states to tell.
    pub(crate) async fn last_states(&self) {
        self.last_states.notified().await;
    }

    pub(super) fn parting(&self) -> MutexGuard<'_, Parting> {
        // Plain data, whole at every moment.
        self.parting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
