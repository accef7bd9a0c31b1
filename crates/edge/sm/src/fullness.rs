//! Notices storages that are about to be full, so that people learn it before, or when, the service fails of it.
//!
//! No file system tells it by itself, so usage is read now and then, as long as there are storages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_launch::Instance;
use aos_quota::{Backend, Usage};
use aos_types::{InstanceIdent, Quotas};

use crate::{alerts::Alerts, launcher::Launcher, places::Places};

/// From so many percent on a storage counts as full, and below the second it does not any more.
const FULL: u64 = 95;
const ROOMY: u64 = 85;
/// Where nothing counts usage, whole folders have to be walked: so much less often.
const WALKS: u32 = 6;

/// Whose storage is full, and at which limit: the next version may have another one.
type Full = BTreeMap<InstanceIdent, u64>;

/// Looks after the storages of this Node.
pub(crate) struct Fullness {
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) places: Places,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) interval: Duration,
}

impl Fullness {
    /// Never ends; dropping it is safe.
    pub(crate) async fn run(self) {
        let interval = match self.places.backend() {
            Backend::Accounting => self.interval * WALKS,
            _ => self.interval,
        };
        let mut full: Full = Full::new();
        let mut snapshots = self.launcher.snapshots();
        loop {
            snapshots.borrow_and_update();
            let bounded: Vec<_> = self
                .launcher
                .kept()
                .into_iter()
                .filter(|(instance, quotas)| {
                    !instance.storage_path.is_empty() && quotas.storage_limit.unwrap_or(0) > 0
                })
                .collect();
            full.retain(|ident, _| bounded.iter().any(|(instance, _)| instance.ident == *ident));
            if bounded.is_empty() {
                // Waiting for a state is cancel-safe.
                if snapshots.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            self.look(bounded, &mut full).await;
            tokio::time::sleep(interval).await;
        }
    }

    async fn look(&self, bounded: Vec<(Instance, Quotas)>, full: &mut Full) {
        let places = self.places.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let all = bounded.into_iter().filter_map(|(instance, quotas)| {
                let usage = places
                    .storage_usage(&instance)
                    .inspect_err(|error| tracing::debug!(ident = %instance.ident, error, "usage"))
                    .ok()??;
                Some((instance, quotas, usage))
            });
            all.collect::<Vec<_>>()
        });
        for (instance, quotas, usage) in reading.await.unwrap_or_default() {
            let limit = limit(&quotas, usage);
            let was = full.get(&instance.ident) == Some(&limit);
            let Some(now) = turned(was, usage.used, limit) else {
                continue;
            };
            let message = if now {
                full.insert(instance.ident.clone(), limit);
                self.full(usage.used, limit)
            } else {
                full.remove(&instance.ident);
                format!(
                    "its storage has room again: {} are used",
                    of(usage.used, limit)
                )
            };
            self.alerts
                .instance(&instance.ident, &instance.version, message);
        }
    }

    fn full(&self, used: u64, limit: u64) -> String {
        let then = match self.places.backend() {
            Backend::Accounting => {
                "This Node cannot enforce the limit: it goes on growing at the expense of the others"
            }
            _ => {
                "At its limit its writes fail with \"Disk quota exceeded\" or \"No space left on device\"; other instances \
                 are not affected"
            }
        };
        format!(
            "its storage is full: {} are used. {then}. Let it remove what it does not need, or raise \
             `quotas.storageLimit` in its next version",
            of(used, limit)
        )
    }
}

/// What the usage is held against.
fn limit(quotas: &Quotas, usage: Usage) -> u64 {
    let storage = quotas.storage_limit.unwrap_or(0);
    if usage.together {
        storage.saturating_add(quotas.state_limit.unwrap_or(0))
    } else {
        storage
    }
}

/// Whether a storage has become full, or roomy; nothing if it is as it was.
fn turned(was: bool, used: u64, limit: u64) -> Option<bool> {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    if !was && percent >= u128::from(FULL) {
        Some(true)
    } else if was && percent < u128::from(ROOMY) {
        Some(false)
    } else {
        None
    }
}

fn of(used: u64, limit: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    format!("{:.1} of {:.1} MiB", used as f64 / MIB, limit as f64 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_is_told_once_when_it_fills_and_once_when_it_empties() {
        let told = |was, used| turned(was, used, 1000);
        assert_eq!(told(false, 949), None);
        assert_eq!(told(false, 950), Some(true));
        assert_eq!(told(true, 1200), None);
        assert_eq!(told(true, 850), None);
        assert_eq!(told(true, 849), Some(false));
        assert_eq!(turned(false, u64::MAX, 1), Some(true));
    }
}
