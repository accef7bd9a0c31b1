//! Instances that are being ended for a list. One that takes long holds up nobody but its own successor.
//!
//! ```text
//!   exchange ──► all are asked to end ── a moment ──► those that are gone: exchanged at once
//!                                                └──► those that take longer: their successors start when they are gone
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_launch::Stop;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::Launcher;
use crate::records::Kept;

/// How long an exchange waits for those that end, so that mostly all are gone before the next ones start. Also how long
/// one that ends counts among those that are ended at the same time.
const PROMPT: Duration = Duration::from_secs(2);

/// How the ends of instances came out.
type Ended = Vec<(InstanceIdent, Result<(), ErrorInfo>)>;

impl Launcher {
    /// One turn an instance: whoever ends it, or does something while it must not run, is alone with it.
    pub(super) async fn turn(&self, ident: &InstanceIdent) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(ident.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Whose process is being ended for a list.
    pub(super) fn leaving(&self) -> BTreeSet<InstanceIdent> {
        self.leaving.borrow().keys().cloned().collect()
    }

    /// Waits until nobody is leaving any more. Cancel-safe.
    pub(super) async fn all_left(&self) {
        let mut leaving = self.leaving.subscribe();
        // The sender is our own.
        let _ = leaving.wait_for(BTreeMap::is_empty).await;
    }

    /// Ends instances, dependents before what they depend on; gives those that could not be ended. Whoever takes longer than
    /// a moment stays [leaving](Self::leaving). The caller holds the lock of exchanges.
    pub(super) async fn end_all(
        self: &Arc<Self>,
        stop: &[Stop],
    ) -> Vec<(InstanceIdent, ErrorInfo)> {
        if stop.is_empty() {
            return Vec::new();
        }
        self.leaving.send_modify(|leaving| {
            for Stop { ident, .. } in stop {
                *leaving.entry(ident.clone()).or_default() += 1;
            }
        });
        self.change(|entries| {
            for Stop { ident, reason, .. } in stop {
                tracing::info!(%ident, %reason, "an instance is stopped");
                if let Some(entry) = entries.get_mut(ident) {
                    entry.give_up_retry();
                    entry.probing = None;
                    entry.leaving = true;
                }
            }
        });
        let waves: Vec<Vec<InstanceIdent>> = self
            .waves(stop)
            .into_iter()
            .map(|wave| wave.into_iter().map(|stop| stop.ident.clone()).collect())
            .collect();
        // Taken away when nobody waits for them any more.
        let prompt: Arc<Mutex<Option<Ended>>> = Arc::new(Mutex::new(Some(Vec::new())));
        let (launcher, told) = (self.clone(), prompt.clone());
        let ending = self.tasks.spawn(async move {
            tokio::select! {
                () = launcher.end_waves(waves, &told) => {}
                // The next SM ends them.
                () = launcher.stop.cancelled() => {}
            }
        });
        let _ = tokio::time::timeout(PROMPT, ending).await;
        let ended = prompt.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(ident, result)| Some((ident, result.err()?)))
            .collect()
    }

    async fn end_waves(
        self: &Arc<Self>,
        waves: Vec<Vec<InstanceIdent>>,
        prompt: &Mutex<Option<Ended>>,
    ) {
        // Of those that only take their time any number may do so side by side.
        let at_work = Semaphore::new(self.parallel());
        for wave in waves {
            let mut ending: FuturesUnordered<_> = wave
                .into_iter()
                .map(|ident| async {
                    let permit = at_work.acquire().await;
                    let _own = self.turn(&ident).await;
                    let result = {
                        let mut stopping = Box::pin(self.stop_one(&ident));
                        match tokio::time::timeout(PROMPT, &mut stopping).await {
                            Ok(result) => result,
                            Err(_) => {
                                drop(permit);
                                stopping.await
                            }
                        }
                    };
                    (ident, result)
                })
                .collect();
            while let Some((ident, result)) = ending.next().await {
                let late = {
                    let mut prompt = prompt.lock().unwrap_or_else(PoisonError::into_inner);
                    match &mut *prompt {
                        Some(ended) => {
                            self.has_left(&ident);
                            ended.push((ident, result));
                            None
                        }
                        None => Some((ident, result)),
                    }
                };
                if let Some((ident, result)) = late {
                    self.late(&ident, result).await;
                    self.has_left(&ident);
                    // Its successor may start.
                    self.moved.notify_one();
                }
            }
        }
    }

    fn has_left(&self, ident: &InstanceIdent) {
        self.leaving.send_modify(|leaving| {
            if let Some(count) = leaving.get_mut(ident) {
                *count -= 1;
                if *count == 0 {
                    leaving.remove(ident);
                }
            }
        });
    }

    /// Does for one that took its time what the exchange has done for the others.
    async fn late(self: &Arc<Self>, ident: &InstanceIdent, result: Result<(), ErrorInfo>) {
        let _turn = self.switching.read().await;
        match result {
            Ok(()) => {
                let leaves = self.entries().get(ident).is_some_and(|entry| entry.leaving);
                if leaves {
                    self.part_with_states(std::slice::from_ref(ident)).await;
                }
                let gone = self.change(|entries| {
                    let gone = entries.get(ident).is_some_and(|entry| entry.leaving);
                    if gone {
                        entries.remove(ident);
                    }
                    gone
                });
                if gone {
                    // What could not be made is told to those whom it concerns when they start.
                    let _ = self.setup.networks.apply(self.networked()).await;
                    self.let_go(vec![ident.clone()]).await;
                } else {
                    self.forget_replaced([ident].into_iter()).await;
                }
            }
            Err(error) => {
                tracing::error!(%ident, %error, "an instance cannot be stopped");
                self.change(|entries| {
                    let Some(entry) = entries.get_mut(ident) else {
                        return;
                    };
                    if !std::mem::take(&mut entry.leaving) {
                        // Only another list brings another attempt.
                        entry.held = None;
                        entry.state = InstanceState::Failed;
                        entry.unrecoverable = true;
                    }
                    entry.error = Some(error);
                });
            }
        }
    }

    /// The old processes of these are gone: what runs under their names from now on is new.
    pub(super) async fn forget_replaced<'a>(&self, gone: impl Iterator<Item = &'a InstanceIdent>) {
        let gone: Vec<_> = gone.map(|ident| (Kept::key(ident), None)).collect();
        if let Err(error) = self.setup.kept.replacing.apply(gone).await {
            // The next SM then starts them once more than needed.
            tracing::warn!(%error, "that old processes are gone cannot be stored");
        }
    }
}

/// What is told of one that waits for its predecessor.
pub(super) fn predecessor_ends() -> ErrorInfo {
    ErrorInfo::new(
        AosCode::WrongState,
        "it is started when the process that ran under its name before has ended; that one takes its `stopGracePeriod`",
    )
}
