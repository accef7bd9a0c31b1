//! Notices storages and roots that are about to be full, so that people learn it before, or when, the service fails of it.
//!
//! No file system tells it by itself, so usage is read now and then, as long as there are instances.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use aos_launch::Instance;
use aos_quota::{Backend, Usage};
use aos_types::{InstanceIdent, Quotas};
use tokio::time::Instant;

use crate::{alerts::Alerts, launcher::Launcher, places::Places};

/// From so many percent on something counts as full, and below the second it does not any more.
const FULL: u64 = 95;
const ROOMY: u64 = 85;
/// Where nothing counts usage, whole folders have to be walked: so much less often.
const WALKS: u32 = 6;

/// What of an instance may be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Storage,
    Root,
}

/// What is full, and at which limit: the next version may have another one.
type Full = BTreeMap<(InstanceIdent, Part), Used>;

/// Looks after what the instances of this Node may fill.
pub(crate) struct Fullness {
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) places: Places,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) interval: Duration,
}

impl Fullness {
    /// Never ends; dropping it is safe.
    pub(crate) async fn run(self) {
        let between = match self.places.backend() {
            Backend::Accounting => self.interval * WALKS,
            _ => self.interval,
        };
        let mut full: Full = Full::new();
        let mut next = Instant::now();
        let mut snapshots = self.launcher.snapshots();
        loop {
            snapshots.borrow_and_update();
            let all = self.launcher.kept();
            full.retain(|(ident, _), _| all.iter().any(|(instance, _)| instance.ident == *ident));
            if all.is_empty() {
                // Waiting for a state is cancel-safe.
                if snapshots.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            self.look_at_roots(&all, &mut full);
            let bounded = all.into_iter().filter(|(instance, quotas)| {
                !instance.storage_path.is_empty() && quotas.storage_limit.unwrap_or(0) > 0
            });
            let bounded: Vec<_> = bounded.collect();
            if !bounded.is_empty() && next <= Instant::now() {
                self.look_at_storages(bounded, &mut full).await;
                next = Instant::now() + between;
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    async fn look_at_storages(&self, bounded: Vec<(Instance, Quotas)>, full: &mut Full) {
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
            let used = Used::scarcer(
                (usage.used, limit(&quotas, usage)),
                (usage.files, usage.files_limit),
            );
            let Some(now) = note(full, &instance, Part::Storage, &used) else {
                continue;
            };
            let message = if now {
                self.full_storage(&used)
            } else {
                format!("its storage has room again: {used} are used")
            };
            self.alerts
                .instance(&instance.ident, &instance.version, message);
        }
    }

    fn look_at_roots(&self, all: &[(Instance, Quotas)], full: &mut Full) {
        for (instance, _) in all {
            let Some(found) = self.launcher.root_use(&instance.ident) else {
                continue;
            };
            let used = Used::scarcer((found.used, found.limit), (found.files, found.files_limit));
            let Some(now) = note(full, instance, Part::Root, &used) else {
                continue;
            };
            let message = if now {
                format!(
                    "the writable part of its root is full: {used} are used. Its writes fail with \"No space left on \
                     device\"; other instances are not affected. Let it keep what it needs in its storage, give it a \
                     `quotas.tmpLimit` for `/tmp`, or raise `runtime.root_limit` of its Node"
                )
            } else {
                format!("its root has room again: {used} are used")
            };
            self.alerts
                .instance(&instance.ident, &instance.version, message);
        }
    }

    fn full_storage(&self, used: &Used) -> String {
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
            "its storage is full: {used} are used. {then}. Let it remove what it does not need, or raise \
             `quotas.storageLimit` in its next version"
        )
    }
}

/// What is used of something, and how much of it there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    now: u64,
    limit: u64,
    /// Files; bytes otherwise.
    files: bool,
}

impl Used {
    /// Of bytes and files what will be used up first; a limit of 0 files is none.
    fn scarcer(bytes: (u64, u64), files: (u64, u64)) -> Self {
        let share = |(now, limit): (u64, u64)| u128::from(now) * 1_000 / u128::from(limit.max(1));
        let counts = files.1 > 0 && share(files) > share(bytes);
        let (now, limit) = if counts { files } else { bytes };
        Self {
            now,
            limit,
            files: counts,
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        if self.files {
            return write!(f, "{} of {} files", self.now, self.limit);
        }
        let (now, limit) = (self.now as f64 / MIB, self.limit as f64 / MIB);
        write!(f, "{now:.1} of {limit:.1} MiB")
    }
}

/// Notes what is used; whether that has become full, or roomy. Nothing if it is as it was.
fn note(full: &mut Full, instance: &Instance, part: Part, used: &Used) -> Option<bool> {
    let key = (instance.ident.clone(), part);
    let was = full.get(&key).is_some_and(|full| {
        // Another limit is another matter; what was full of files may be full of bytes now.
        (full.limit, full.files) == (used.limit, used.files)
    });
    let now = turned(was, used.now, used.limit)?;
    if now {
        full.insert(key, *used);
    } else {
        full.remove(&key);
    }
    Some(now)
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

    #[test]
    fn of_bytes_and_files_the_scarcer_counts() {
        let told = |bytes, files| Used::scarcer(bytes, files).to_string();
        assert_eq!(told((500, 1_000), (6, 10)), "6 of 10 files");
        assert_eq!(told((7 << 20, 10 << 20), (6, 10)), "7.0 of 10.0 MiB");
        assert_eq!(told((1 << 20, 2 << 20), (600, 0)), "1.0 of 2.0 MiB");
    }
}
