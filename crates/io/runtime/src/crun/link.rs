use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    Error, Exit, ExitCause, InstanceId,
    keeper::{self, Client, Events, ExitRecord},
};
use aos_time::{Clock, SystemClock};

/// How long a caller waits for a keeper that is being started anew.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest pause between two attempts to start a keeper.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The connection to the keeper, which may be between two keepers.
pub(super) struct Link(watch::Sender<Option<Client>>);

impl Default for Link {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Link {
    /// The connection, waited for if it is being made.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        let mut watch = self.0.subscribe();
        let found = time::timeout(PATIENCE, watch.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(client)) => client.clone().ok_or(Error::Keeper(keeper::Error::Lost)),
            _ => Err(Error::Keeper(keeper::Error::Lost)),
        }
    }
}

/// Passes exits on for as long as it lives, and makes a new connection, with a new keeper if need be, when one is lost.
pub(super) async fn tend(
    shared: Arc<Shared>,
    first: (Client, Events, bool),
    stop: CancellationToken,
) {
    let mut connection = Some(first);
    let mut pause = Duration::from_millis(50);
    loop {
        let (client, mut events) = match connection.take() {
            Some((client, events, _)) => (client, events),
            None => {
                // Cancel-safe: an attempt that is dropped leaves at most a keeper behind, which the next one finds.
                let attempt = tokio::select! {
                    () = stop.cancelled() => return,
                    attempt = shared.options.keeper.connect() => attempt,
                };
                match attempt {
                    Ok((client, events, new)) => {
                        if new {
                            tracing::warn!("the keeper had died; a new one takes over what runs");
                        }
                        (client, events)
                    }
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "no keeper");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = time::sleep(pause) => {}
                        }
                        pause = (pause * 2).min(MAX_PAUSE);
                        continue;
                    }
                }
            }
        };
        pause = Duration::from_millis(50);
        shared.link.0.send_replace(Some(client));
        readopt(&shared).await;
        loop {
            // Cancel-safe: an exit not taken is told again by the keeper.
            let exit = tokio::select! {
                () = stop.cancelled() => return,
                exit = events.next() => exit,
            };
            match exit {
                Some(exit) => passed_on(&shared, exit).await,
                None => break,
            }
        }
        shared.link.0.send_replace(None);
    }
}

/// Hands everything that should run to the keeper; what is gone has ended unseen.
async fn readopt(shared: &Shared) {
    let running: Vec<_> = shared
        .state()
        .running
        .iter()
        .map(|(id, kept)| (*id, kept.clone()))
        .collect();
    if running.is_empty() {
        return;
    }
    for (id, kept) in running {
        match shared.take_over(id, kept.pid).await {
            Ok(Some(kept)) => {
                shared.state().running.insert(id, kept);
            }
            Ok(None) => {
                // Recorded by the old keeper in its last moments, or seen by nobody.
                shared.tell_unseen_end(id).await;
                let mut state = shared.state();
                state.running.remove(&id);
                if let Some(waiting) = state.stopping.get(&id) {
                    let _ = waiting.send(0);
                }
            }
            Err(error) => {
                tracing::error!(%id, error = &error as &dyn std::error::Error, "cannot be adopted");
            }
        }
    }
}

async fn passed_on(shared: &Shared, exit: ExitRecord) {
    let Ok(id) = exit.id.parse::<InstanceId>() else {
        tracing::warn!(id = exit.id, "an exit of something that is no instance");
        return;
    };
    {
        let mut state = shared.state();
        // A newer run of the same instance is not ended by the exit of an older one.
        if state
            .running
            .get(&id)
            .is_some_and(|kept| kept.pid == exit.pid)
        {
            state.running.remove(&id);
        }
        if let Some(waiting) = state.stopping.get(&id)
            && waiting.send(exit.seq).is_ok()
        {
            return;
        }
        if !state.told.insert(exit.seq) {
            return;
        }
    }
    if let Some(exit) = read(shared, exit) {
        shared.tell(exit).await;
    }
}

/// An exit as the keeper recorded it, with what the kernel says of it.
pub(super) fn read(shared: &Shared, exit: ExitRecord) -> Option<Exit> {
    let id = exit.id.parse::<InstanceId>().ok()?;
    let killed = matches!(exit.cause, ExitCause::Signal(9) | ExitCause::Code(137))
        || exit.cause == ExitCause::Unknown;
    let oom = killed && shared.layout.oom_kills(&shared.cgroup(id)) > 0;
    let at = if exit.at == aos_time::Timestamp::EPOCH {
        SystemClock.now()
    } else {
        exit.at
    };
    Some(Exit {
        id,
        seq: exit.seq,
        pid: exit.pid,
        cause: exit.cause,
        oom,
        at,
    })
}
