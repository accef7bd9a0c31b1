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
                self.rest(SystemClock.now().since(since));
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

    /// Ends those whose time is over, each by itself: one may take long to end.
    fn rest(self: &Arc<Self>, offline: Duration) {
        let over: Vec<InstanceIdent> = self.change(|entries| {
            let over = entries.iter_mut();
            let over = over.filter(|(_, entry)| entry.is_over_time(offline));
            over.map(|(ident, entry)| {
                entry.pausing = true;
                ident.clone()
            })
            .collect()
        });
        for ident in over {
            let launcher = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = launcher.let_rest(&ident) => {}
                    // The next SM does it.
                    () = launcher.stop.cancelled() => {}
                }
            });
        }
    }

    async fn let_rest(&self, ident: &InstanceIdent) {
        let _own = self.turn(ident).await;
        let pid = {
            // Whoever is starting instances has done so.
            let _turn = self.switching.read().await;
            let entries = self.entries();
            // A list may have put another one in its place, or the link may be back.
            match entries.get(ident).filter(|entry| entry.pausing) {
                Some(entry) => entry.pid,
                None => return,
            }
        };
        tracing::warn!(%ident, "stopped: the Unit is offline for longer than the item allows");
        let result = match pid {
            Some(_) => self.stop_one(ident).await,
            None => Ok(()),
        };
        let _turn = self.switching.read().await;
        self.change(|entries| {
            let entry = entries.get_mut(ident).filter(|entry| entry.pid == pid);
            let Some(entry) = entry.filter(|entry| !entry.leaving) else {
                return;
            };
            let offline = std::mem::take(&mut entry.pausing);
            match result {
                Ok(()) if offline => entry.rest(),
                // The link came back while it ended.
                Ok(()) => {
                    entry.stopped();
                    entry.wake();
                }
                Err(error) => entry.error = Some(error),
            }
        });
    }

    /// What rests is due again.
    fn wake(&self) {
        self.change(|entries| {
            for entry in entries.values_mut() {
                entry.pausing = false;
                if entry.resting {
                    entry.wake();
                }
            }
        });
    }
}

impl Entry {
    /// Whether it has a limit and is not resting or over.
    fn may_rest(&self) -> bool {
        self.offline_ttl.is_some()
            && !self.resting
            && !self.pausing
            && !self.leaving
            && self.finished.is_none()
    }

    /// It is due again.
    fn wake(&mut self) {
        self.resting = false;
        self.held = Some(Instant::now());
        self.state = InstanceState::Activating;
        self.error = None;
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
