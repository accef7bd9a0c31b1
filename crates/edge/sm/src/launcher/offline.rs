use std::{sync::Arc, time::Duration};

use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};
use tokio::sync::watch;

use super::{Launcher, start::Failed};

/// The one record's key.
const KEY: &str = "since";
/// How often it is looked whether an instance has to rest.
const LOOK: Duration = Duration::from_secs(10);

impl Launcher {
    /// Stops instances whose `offlineTTL` has passed without a link to the cloud and starts them when it is back. The
    /// time counts across restarts.
    pub(super) async fn watch_offline(self: &Arc<Self>, mut online: watch::Receiver<bool>) {
        let stored = self.setup.kept.offline.get(KEY).await.ok().flatten();
        let mut since: Option<Timestamp> = stored;
        let mut snapshots = self.snapshots();
        loop {
            let connected = *online.borrow_and_update();
            let now = SystemClock.now();
            match (connected, since) {
                (true, Some(_)) => {
                    since = None;
                    let _ = self.setup.kept.offline.remove(KEY).await;
                    self.wake().await;
                }
                (false, None) => {
                    since = Some(now);
                    let _ = self.setup.kept.offline.put(KEY, &now).await;
                }
                (false, Some(since)) => self.rest(now.since(since)).await,
                (true, None) => {}
            }
            let limited = self.entries().values().any(|e| e.offline_ttl.is_some());
            // Waiting for a state is cancel-safe.
            tokio::select! {
                changed = online.changed() => if changed.is_err() {
                    self.stop.cancelled().await;
                    return;
                },
                () = tokio::time::sleep(LOOK), if !connected && limited => {}
                // A list may bring an instance with a limit.
                _ = snapshots.changed(), if !connected && !limited => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn rest(&self, offline: Duration) {
        let over: Vec<_> = self
            .entries()
            .iter()
            .filter(|(_, entry)| !entry.resting && entry.pid.is_some())
            .filter(|(_, entry)| entry.offline_ttl.is_some_and(|ttl| offline >= ttl))
            .map(|(ident, _)| ident.clone())
            .collect();
        for ident in over {
            self.let_rest(&ident).await;
        }
    }

    async fn let_rest(&self, ident: &InstanceIdent) {
        let _turn = self.switching.write().await;
        if !self.knows(ident) {
            return;
        }
        tracing::warn!(%ident, "stopped: the Unit is offline for longer than the item allows");
        let result = self.stop_one(ident).await;
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(ident) {
                match result {
                    Ok(()) => {
                        entry.give_up_retry();
                        entry.stopped();
                        entry.resting = true;
                        entry.state = InstanceState::Inactive;
                        entry.error = Some(ErrorInfo::new(
                            AosCode::Timeout,
                            "the Unit was offline for longer than the item's offlineTTL; \
                             it is started when the link is back",
                        ));
                    }
                    Err(error) => entry.error = Some(error),
                }
            }
        });
    }

    async fn wake(self: &Arc<Self>) {
        let resting: Vec<_> = self
            .entries()
            .iter()
            .filter(|(_, entry)| entry.resting)
            .map(|(ident, entry)| (ident.clone(), entry.instance.clone()))
            .collect();
        for (ident, instance) in resting {
            let _turn = self.switching.write().await;
            self.change(|entries| {
                if let Some(entry) = entries.get_mut(&ident) {
                    entry.resting = false;
                    entry.state = InstanceState::Activating;
                }
            });
            let result = match self.setup.images.get(instance.manifest).await {
                Some(image) => self.start_one(&instance, &image).await,
                None => Err(Failed::hopeless(ErrorInfo::new(
                    AosCode::NotFound,
                    "its image is gone",
                ))),
            };
            self.started(&ident, result);
        }
    }
}
