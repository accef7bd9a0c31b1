use std::{future, sync::Arc, time::Duration};

use aos_cloud_protocol::{Body, UnitStatus};
use aos_session::{Keep, Priority};
use aos_types::{SubjectId, UnitConfig};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    compose::{EngineStatus, Parts, anything_comes_up, compose},
    delta::{delta, is_empty},
};
use crate::{
    cloud::{Answer, Link, Outgoing},
    placing::Lists,
    states::{States, Waiting},
    unit_config::Troubles,
    world::World,
};

/// Statuses replace each other on their way.
const TOPIC: &str = "unitStatus";

/// Where a status comes from.
pub(crate) struct Sources {
    pub(crate) world: Arc<World>,
    pub(crate) lists: watch::Receiver<Arc<Lists>>,
    pub(crate) states: watch::Receiver<Waiting>,
    /// Whoever has the states. That one has changed is told by itself; a status says it only beside something else.
    pub(crate) kept: Arc<States>,
    pub(crate) engine: watch::Receiver<Arc<EngineStatus>>,
    pub(crate) config: watch::Receiver<Option<Arc<UnitConfig>>>,
    pub(crate) subjects: watch::Receiver<Arc<Vec<SubjectId>>>,
    /// Nodes that did not take their configuration, and those that could not be paused or resumed.
    pub(crate) config_troubles: watch::Receiver<Troubles>,
    pub(crate) state_troubles: watch::Receiver<Troubles>,
    /// Asks for a full status.
    pub(crate) full: Arc<Notify>,
}

/// Sends statuses.
pub(crate) struct Keeper {
    sources: Sources,
    link: Link,
    delay: Duration,
    /// What the cloud has acknowledged on this connection.
    acked: Option<UnitStatus>,
    /// What is on its way, whole.
    on_the_way: Option<(UnitStatus, oneshot::Receiver<Answer>)>,
    /// When the changes gathered so far are sent.
    due: Option<Instant>,
    want_full: bool,
    /// An instance was on its way up when it was last looked.
    coming_up: bool,
    /// When it was last told at once that all are up.
    hurried: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(sources: Sources, link: Link, delay: Duration) -> Self {
        Self {
            sources,
            link,
            delay,
            acked: None,
            on_the_way: None,
            due: None,
            want_full: false,
            coming_up: false,
            hurried: None,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut world = self.sources.world.changes();
        let mut lists = self.sources.lists.clone();
        let mut states = self.sources.states.clone();
        let mut engine = self.sources.engine.clone();
        let mut config = self.sources.config.clone();
        let mut subjects = self.sources.subjects.clone();
        let mut config_troubles = self.sources.config_troubles.clone();
        let mut state_troubles = self.sources.state_troubles.clone();
        let mut connected = self.link.connected.clone();
        let full = Arc::clone(&self.sources.full);
        self.connection(*connected.borrow_and_update());
        loop {
            let due = self.due;
            // Every arm waits for a state or a notice that is kept until it is seen.
            tokio::select! {
                Ok(()) = connected.changed() => {
                    let now = *connected.borrow_and_update();
                    self.connection(now);
                }
                answer = answered(&mut self.on_the_way) => self.answered(answer),
                () = full.notified() => {
                    self.want_full = true;
                    self.due = Some(Instant::now());
                }
                Ok(()) = world.changed() => self.changed(),
                Ok(()) = lists.changed() => self.changed(),
                Ok(()) = states.changed() => self.changed(),
                Ok(()) = engine.changed() => self.changed(),
                Ok(()) = config.changed() => self.changed(),
                Ok(()) = subjects.changed() => self.changed(),
                Ok(()) = config_troubles.changed() => self.changed(),
                Ok(()) = state_troubles.changed() => self.changed(),
                () = until(due) => self.send().await,
                () = stop.cancelled() => return,
            }
        }
    }

    /// A connection begins with a full status; without one there is nobody to tell.
    fn connection(&mut self, connected: bool) {
        self.acked = None;
        self.on_the_way = None;
        self.want_full = connected;
        self.due = connected.then(Instant::now);
    }

    fn changed(&mut self) {
        let coming_up =
            anything_comes_up(&self.sources.world.nodes(), &self.sources.lists.borrow());
        let all_up = std::mem::replace(&mut self.coming_up, coming_up) && !coming_up;
        if !self.link.is_connected() {
            return;
        }
        let now = Instant::now();
        // People wait for the last instance to come up. One that goes up and down all the time is in no hurry.
        let hurry = all_up && self.hurried.is_none_or(|last| now - last >= self.delay);
        if hurry {
            self.hurried = Some(now);
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + self.delay);
        }
    }

    fn answered(&mut self, answer: Answer) {
        let on_the_way = self.on_the_way.take();
        match (answer, on_the_way) {
            (Answer::Acked, Some((status, _))) => self.acked = Some(status),
            // What it said is still to be said.
            _ => self.changed(),
        }
    }

    async fn send(&mut self) {
        self.due = None;
        let now = self.now();
        let partial = match &self.acked {
            Some(acked) if !self.want_full => delta(acked, &now),
            _ => None,
        };
        if let Some(partial) = &partial
            && is_empty(partial)
        {
            return;
        }
        self.want_full = false;
        let status = partial.unwrap_or_else(|| now.clone());
        let message = Outgoing {
            body: Body::UnitStatus(status),
            correlation_id: None,
            priority: Priority::High,
            keep: Keep::Connection,
            topic: Some(TOPIC),
        };
        let answer = self.link.send_and_watch(message).await;
        self.on_the_way = Some((now, answer));
    }

    fn now(&self) -> UnitStatus {
        let sources = &self.sources;
        let world = sources.world.nodes();
        let lists = sources.lists.borrow().clone();
        let states = sources.states.borrow().clone();
        let engine = sources.engine.borrow().clone();
        let config = sources.config.borrow().clone();
        let subjects = sources.subjects.borrow().clone();
        let config_troubles = sources.config_troubles.borrow().clone();
        let state_troubles = sources.state_troubles.borrow().clone();
        compose(&Parts {
            world: &world,
            lists: &lists,
            states: &states,
            checksums: &sources.kept.checksums(),
            engine: &engine,
            config: config.as_deref(),
            subjects: &subjects,
            config_troubles: &config_troubles,
            state_troubles: &state_troubles,
        })
    }
}

async fn answered(on_the_way: &mut Option<(UnitStatus, oneshot::Receiver<Answer>)>) -> Answer {
    match on_the_way {
        Some((_, answer)) => answer.await.unwrap_or(Answer::Dropped),
        None => future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
