use std::sync::Arc;

use aos_runtime::InstanceId;
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Launcher;
use crate::{
    health::{Health, Verdict},
    records::Kept,
};

impl Launcher {
    /// Looks after the health of an instance that has just been started or adopted, if its item says how. `passed`: it was
    /// healthy before.
    pub(super) fn probe(self: &Arc<Self>, ident: &InstanceIdent, pid: u32, passed: bool) {
        let stop = self.stop.child_token();
        let check = self.change(|entries| {
            let entry = entries.get_mut(ident).filter(|e| e.pid == Some(pid))?;
            entry.probing = Some(stop.clone().drop_guard());
            entry.health_check.clone()
        });
        let Some(check) = check else {
            return;
        };
        let (launcher, ident) = (self.clone(), ident.clone());
        let health = Health::new(check, passed);
        self.tasks
            .spawn(async move { launcher.look_after(ident, pid, health, stop).await });
    }

    async fn look_after(
        self: Arc<Self>,
        ident: InstanceIdent,
        pid: u32,
        mut health: Health,
        stop: CancellationToken,
    ) {
        let began = Instant::now();
        let id = InstanceId::of(&ident);
        loop {
            // Spread: instances that were started together need not be looked at together.
            let pause = health.pause().mul_f64(rand::random_range(0.9..1.1));
            let check = health.check();
            let look = async {
                tokio::time::sleep(pause).await;
                let runtime = self.runtime_of(&ident).ok()?;
                Some(runtime.probe(id, pid, &check.probe, check.timeout).await)
            };
            // A probe that is dropped leaves nothing behind.
            let found = tokio::select! {
                found = look => found,
                () = stop.cancelled() => return,
            };
            // It is not on this Node any more.
            let Some(found) = found else { return };
            let found = match found {
                Err(why) if why.is_untried() => {
                    tracing::warn!(%ident, error = &why as &dyn std::error::Error, "no probe");
                    continue;
                }
                found => found.map_err(|why| why.to_string()),
            };
            match health.looked(began.elapsed(), found) {
                Verdict::Same => {}
                Verdict::Healthy => self.healthy(&ident, pid).await,
                Verdict::NotYet(why) => self.not_yet(&ident, pid, why),
                Verdict::Unhealthy(why) => return self.unhealthy(&ident, pid, why, &stop).await,
            }
        }
    }

    async fn healthy(&self, ident: &InstanceIdent, pid: u32) {
        let now = SystemClock.now();
        let current = self.change(|entries| {
            let entry = entries.get_mut(ident).filter(|e| e.pid == Some(pid))?;
            entry.state = InstanceState::Active;
            entry.unrecoverable = false;
            entry.error = None;
            entry.restarts.healthy(now);
            Some(())
        });
        // SM may restart; the instance must not count as starting then.
        if current.is_some()
            && let Err(error) = self.setup.kept.healthy.put(&Kept::key(ident), &pid).await
        {
            tracing::warn!(%ident, %error, "its health is not noted");
        }
    }

    /// What keeps it from being active is told once, not at each look.
    fn not_yet(&self, ident: &InstanceIdent, pid: u32, why: String) {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(ident).filter(|e| e.pid == Some(pid)) {
                entry.error = Some(ErrorInfo::new(AosCode::Failed, why));
            }
        });
    }

    /// Ends an instance that is not healthy; what follows is as if it had ended by itself.
    async fn unhealthy(
        self: &Arc<Self>,
        ident: &InstanceIdent,
        pid: u32,
        why: String,
        stop: &CancellationToken,
    ) {
        let (_own, turn) = tokio::select! {
            turns = async { (self.turn(ident).await, self.switching.read().await) } => turns,
            () = stop.cancelled() => return,
        };
        let error = ErrorInfo::new(AosCode::Failed, why);
        let current = self.change(|entries| {
            let entry = entries.get_mut(ident).filter(|e| e.pid == Some(pid))?;
            entry.state = InstanceState::Activating;
            entry.error = Some(error.clone());
            Some(())
        });
        drop(turn);
        if current.is_none() {
            return;
        }
        tracing::warn!(%ident, %error, "an instance is not healthy and is started again");
        let stopped = tokio::select! {
            stopped = self.stop_one(ident) => stopped,
            // The next SM finds it as it is.
            () = self.stop.cancelled() => return,
        };
        if let Err(error) = stopped {
            // The next start cleans up what is left.
            tracing::error!(%ident, %error, "an instance cannot be stopped");
        }
        // Nothing, if it has ended by itself or was exchanged meanwhile.
        self.over(ident, pid, None, error).await;
    }
}
