use std::sync::Arc;

use aos_runtime::{Exit, ExitCause, InstanceId};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, RuntimeId};

use tokio::sync::mpsc;

use super::Launcher;
use crate::{
    records::{End, Finished, Kept},
    restart::Outcome,
    runtimes::Ended,
};

impl Launcher {
    /// Takes in the ends of instances until the stop.
    pub(super) async fn take_exits(self: &Arc<Self>, mut exits: mpsc::Receiver<Ended>) {
        loop {
            // Receiving is cancel-safe; an exit that is not acknowledged is told again.
            let exit = tokio::select! {
                exit = exits.recv() => exit,
                () = self.stop.cancelled() => return,
            };
            let Some((runtime, exit)) = exit else {
                self.stop.cancelled().await;
                return;
            };
            self.ended(runtime, exit).await;
        }
    }

    async fn ended(self: &Arc<Self>, runtime: RuntimeId, exit: Exit) {
        let known = self
            .entries()
            .iter()
            .find(|(ident, _)| InstanceId::of(ident) == exit.id)
            .map(|(ident, entry)| (ident.clone(), entry.instance.version.clone()));
        let Some((ident, version)) = known else {
            // Of an instance that was removed since.
            self.acknowledge(&runtime, &exit).await;
            return;
        };
        tracing::warn!(%ident, version, cause = %exit.cause, oom = exit.oom, "an instance ended");
        let end = end_of(&ident, version, &exit);
        // Before it is started again: what it says then is not its last word.
        self.setup.logs.crashed(&end).await;
        // Told by the keeper until it is stored here, told by us until CM has heard it.
        let stored = self.setup.kept.add_end(&end).await;
        self.ends.notify_one();
        let current = self.change(|entries| {
            let Some(entry) = entries.get_mut(&ident) else {
                return false;
            };
            let current = entry.pid == Some(exit.pid);
            if current {
                entry.last_end = Some(end.clone());
            } else {
                // Perhaps it ended before its start came back to us: whoever notes the start looks here.
                entry.early = Some((exit.pid, end.clone(), told(&exit)));
            }
            current
        });
        if current {
            self.over(&ident, exit.pid, end.code, told(&exit)).await;
        }
        match stored {
            Ok(()) => self.acknowledge(&runtime, &exit).await,
            Err(error) => tracing::error!(%error, "the end of an instance cannot be stored"),
        }
    }

    /// A run is over, in this way: the item says whether another one follows.
    pub(super) async fn over(
        self: &Arc<Self>,
        ident: &InstanceIdent,
        pid: u32,
        code: Option<i32>,
        error: ErrorInfo,
    ) {
        let outcome = self
            .entries()
            .get(ident)
            // Of one that is being ended the end is nothing new.
            .filter(|entry| entry.pid == Some(pid) && !entry.leaving)
            .map(|entry| entry.restarts.outcome(code));
        let failed = match outcome {
            None => return,
            Some(Outcome::Again) => return self.down(ident, error.into()),
            Some(Outcome::Completed) => None,
            Some(Outcome::Failed) => Some(error),
        };
        let finished = Finished {
            at: SystemClock.now(),
            failed,
        };
        tracing::info!(%ident, completed = finished.failed.is_none(), "an instance is over");
        self.note_finished(ident, &finished).await;
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(ident).filter(|one| one.pid == Some(pid)) {
                entry.finish(finished);
            }
        });
        let (launcher, ident) = (self.clone(), ident.clone());
        self.tasks.spawn(async move { launcher.tidy(ident).await });
    }

    /// Takes away what is left of an instance that is over.
    pub(super) async fn tidy(self: Arc<Self>, ident: InstanceIdent) {
        let _turn = tokio::select! {
            turn = self.switching.read() => turn,
            // The next SM does it.
            () = self.stop.cancelled() => return,
        };
        // From here on no launch starts it anew.
        let over = self
            .entries()
            .get(&ident)
            .is_some_and(|one| one.finished.is_some());
        if over && let Err(error) = self.stop_one(&ident).await {
            tracing::warn!(%ident, %error, "something is left of an instance that is over");
        }
    }

    /// Keeps it over restarts: it shall not run once more.
    pub(super) async fn note_finished(&self, ident: &InstanceIdent, finished: &Finished) {
        let kept = &self.setup.kept.finished;
        if let Err(error) = kept.put(&Kept::key(ident), finished).await {
            tracing::error!(%ident, %error, "an instance that is over may run once more");
        }
    }

    async fn acknowledge(&self, runtime: &RuntimeId, exit: &Exit) {
        let Ok(runtime) = self.setup.runtimes.get(runtime) else {
            return;
        };
        if let Err(error) = runtime.acknowledge(exit).await {
            tracing::warn!(%error, "an exit will be told again");
        }
    }

    /// Ends that CM was not told of, with their keys.
    pub(crate) async fn untold_ends(&self) -> Vec<(String, End)> {
        self.setup.kept.ends.all().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "ends of instances cannot be read");
            Vec::new()
        })
    }

    /// CM was told of these.
    pub(crate) async fn ends_told(&self, keys: Vec<String>) {
        let changes: Vec<(String, Option<End>)> = keys.into_iter().map(|key| (key, None)).collect();
        if let Err(error) = self.setup.kept.ends.apply(changes).await {
            tracing::warn!(%error, "ends of instances will be told again");
        }
    }
}

pub(super) fn end_of(ident: &InstanceIdent, version: String, exit: &Exit) -> End {
    let (code, signal) = match exit.cause {
        ExitCause::Code(code) => (Some(code), None),
        ExitCause::Signal(signal) => (None, Some(signal)),
        ExitCause::Unknown => (None, None),
    };
    End {
        ident: ident.clone(),
        version,
        code,
        signal,
        oom: exit.oom,
        at: exit.at,
    }
}

pub(super) fn told(exit: &Exit) -> ErrorInfo {
    let why = match (exit.oom, exit.cause) {
        (true, _) => "it was killed because it wanted more memory than its limit".to_owned(),
        (false, ExitCause::Code(code)) => format!("it ended by itself with exit code {code}"),
        (false, ExitCause::Signal(signal)) => format!("it was ended by signal {signal}"),
        (false, ExitCause::Unknown) => "it ended; how is not known".to_owned(),
    };
    let mut error = ErrorInfo::new(AosCode::Failed, why);
    // Of a service this is its own exit code, as a shell would say it.
    error.exit_code = match exit.cause {
        ExitCause::Code(code) => code,
        ExitCause::Signal(signal) => 128 + signal,
        ExitCause::Unknown => 0,
    };
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_end_is_told_as_a_number_too() {
        let exit = |cause| Exit {
            id: InstanceId::of(&InstanceIdent::service(
                "web".parse().unwrap(),
                "s".parse().unwrap(),
                0,
            )),
            seq: 1,
            pid: 1,
            cause,
            oom: false,
            at: aos_time::Timestamp::EPOCH,
        };
        for (cause, code) in [
            (ExitCause::Code(3), 3),
            (ExitCause::Signal(9), 137),
            (ExitCause::Unknown, 0),
        ] {
            assert_eq!(told(&exit(cause)).exit_code, code, "{cause}");
        }
    }
}
