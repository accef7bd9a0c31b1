use std::{sync::Arc, time::Duration};

use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};
use tokio::{sync::watch, time::Instant};

use super::{Launcher, entry::Entry};

/// The one record's key.
const KEY: &str = "since";
/// The clock of the day may be set: it is looked at least this often whether an instance has to rest.
const LOOK: Duration = Duration::from_secs(10);
/// Time to look again when a limit is all but reached.
const SOON: Duration = Duration::from_millis(50);

impl Launcher {
    /// Stops instances whose `offlineTTL` has passed without a link to the cloud and starts them when it is back. The
    /// time counts across restarts.
    pub(super) async fn watch_offline(self: &Arc<Self>, mut online: watch::Receiver<bool>) {
        let mut since = self.offline_since().await;
        let mut snapshots = self.snapshots();
        loop {
            snapshots.mark_unchanged();
            let connected = *online.borrow_and_update();
            let now = SystemClock.now();
            match (connected, since) {
                (true, Some(_)) => {
                    since = None;
                    if let Err(error) = self.setup.kept.offline.remove(KEY).await {
                        tracing::warn!(%error, "it is not noted that the Unit is online");
                    }
                    self.wake();
                }
                (false, None) => {
                    since = Some(now);
                    if let Err(error) = self.setup.kept.offline.put(KEY, &now).await {
                        tracing::warn!(%error, "it is not noted that the Unit is offline");
                    }
                }
                (false, Some(_)) | (true, None) => {}
            }
            if let Some(since) = since {
                self.rest(SystemClock.now().since(since)).await;
            }
            let next = since.and_then(|since| self.next_rest(SystemClock.now().since(since)));
            let limit = async {
                match next {
                    Some(pause) => tokio::time::sleep(pause.clamp(SOON, LOOK)).await,
                    None => std::future::pending().await,
                }
            };
            // Waiting for a state is cancel-safe.
            tokio::select! {
                changed = online.changed() => if changed.is_err() {
                    self.stop.cancelled().await;
                    return;
                },
                () = limit => {}
                // A list may bring an instance with a limit.
                _ = snapshots.changed(), if !connected => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Since when the Unit is offline, as it was noted.
    pub(super) async fn offline_since(&self) -> Option<Timestamp> {
        self.setup
            .kept
            .offline
            .get(KEY)
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "nobody knows since when the Unit is offline");
                None
            })
    }

    /// How long until the next instance has to rest.
    fn next_rest(&self, offline: Duration) -> Option<Duration> {
        let entries = self.entries();
        let limits = entries.values().filter(|entry| entry.may_rest());
        let left = limits.filter_map(|entry| entry.offline_ttl?.checked_sub(offline));
        left.min()
    }

    async fn rest(&self, offline: Duration) {
        let over: Vec<_> = self
            .entries()
            .iter()
            .filter(|(_, entry)| entry.is_over_time(offline))
            .map(|(ident, _)| ident.clone())
            .collect();
        for ident in over {
            self.let_rest(&ident, offline).await;
        }
    }

    async fn let_rest(&self, ident: &InstanceIdent, offline: Duration) {
        let _turn = self.switching.write().await;
        let (over, runs) = match self.entries().get(ident) {
            Some(entry) => (entry.is_over_time(offline), entry.pid.is_some()),
            None => return,
        };
        if !over {
            return;
        }
        tracing::warn!(%ident, "stopped: the Unit is offline for longer than the item allows");
        let result = match runs {
            true => self.stop_one(ident).await,
            false => Ok(()),
        };
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(ident) {
                match result {
                    Ok(()) => entry.rest(),
                    Err(error) => entry.error = Some(error),
                }
            }
        });
    }

    /// What rests is due again.
    fn wake(&self) {
        self.change(|entries| {
            for entry in entries.values_mut().filter(|entry| entry.resting) {
                entry.resting = false;
                entry.held = Some(Instant::now());
                entry.state = InstanceState::Activating;
                entry.error = None;
            }
        });
    }
}

impl Entry {
    /// Whether it has a limit and is not resting or over.
    fn may_rest(&self) -> bool {
        self.offline_ttl.is_some() && !self.resting && self.finished.is_none()
    }

    /// Whether it has to rest when the Unit is offline for so long.
    pub(super) fn is_over_time(&self, offline: Duration) -> bool {
        self.may_rest() && self.offline_ttl.is_some_and(|ttl| offline >= ttl)
    }

    /// It is stopped until the link is back.
    pub(super) fn rest(&mut self) {
        self.give_up_retry();
        self.stopped();
        self.held = None;
        self.resting = true;
        self.unrecoverable = false;
        self.state = InstanceState::Inactive;
        self.error = Some(ErrorInfo::new(
            AosCode::Timeout,
            "the Unit was offline for longer than the item's offlineTTL; \
             it is started when the link is back",
        ));
    }
}
