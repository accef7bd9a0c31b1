use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_time::{Clock, SystemClock};
use aos_types::Probe;
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    Error, Exit, ExitCause, InstanceId, InstanceSpec, Runtime, Started, Status, StopPolicy,
    Unhealthy,
};

/// A runtime in memory. Clones share it, so a test can hand one away and go on looking into the other.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    exits: mpsc::Sender<Exit>,
}

#[derive(Default)]
struct State {
    next: u32,
    running: BTreeMap<InstanceId, (u32, InstanceSpec)>,
    refuse: BTreeMap<InstanceId, String>,
    unhealthy: BTreeMap<InstanceId, i32>,
    probes: u64,
    calls: Vec<String>,
    ended: Vec<Exit>,
    acknowledged: Vec<u64>,
}

impl FakeRuntime {
    /// An empty one, with the channel of its exits.
    pub fn new() -> (Self, mpsc::Receiver<Exit>) {
        let (exits, receiver) = mpsc::channel(64);
        let fake = Self {
            state: Arc::default(),
            exits,
        };
        (fake, receiver)
    }

    /// Lets every start of `id` fail with this text.
    pub fn refuse(&self, id: InstanceId, why: impl Into<String>) {
        self.state().refuse.insert(id, why.into());
    }

    /// Lets every probe of `id` fail with this exit code; 0 makes it healthy again.
    pub fn health(&self, id: InstanceId, code: i32) {
        self.state().unhealthy.insert(id, code);
    }

    /// How many probes were made.
    pub fn probes(&self) -> u64 {
        self.state().probes
    }

    /// Lets a running instance end by itself.
    pub async fn end(&self, id: InstanceId, cause: ExitCause) {
        let exit = {
            let mut state = self.state();
            state.next += 1;
            let seq = u64::from(state.next);
            state.running.remove(&id).map(|(pid, _)| Exit {
                id,
                seq,
                pid,
                cause,
                oom: false,
                at: SystemClock.now(),
            })
        };
        if let Some(exit) = exit {
            self.state().ended.push(exit.clone());
            let _ = self.exits.send(exit).await;
        }
    }

    /// What it was started with, if it runs.
    pub fn spec(&self, id: InstanceId) -> Option<InstanceSpec> {
        self.state().running.get(&id).map(|(_, spec)| spec.clone())
    }

    /// `start <ident>` and `stop <id>` in the order they came.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The numbers of the exits that were acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.state().acknowledged.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Started, Error> {
        let mut state = self.state();
        state.calls.push(format!("start {}", spec.ident));
        if let Some(why) = state.refuse.get(&spec.id) {
            return Err(Error::Command {
                command: "fake run".into(),
                message: why.clone(),
            });
        }
        let already = state.running.contains_key(&spec.id);
        state.next += 1;
        let pid = state.next;
        let (pid, _) = state
            .running
            .entry(spec.id)
            .or_insert_with(|| (pid, spec.clone()));
        Ok(Started {
            id: spec.id,
            pid: *pid,
            already,
        })
    }

    async fn stop(&self, id: InstanceId, _policy: StopPolicy) -> Result<(), Error> {
        let mut state = self.state();
        state.calls.push(format!("stop {id}"));
        state.running.remove(&id);
        Ok(())
    }

    async fn status(&self, id: InstanceId) -> Result<Status, Error> {
        Ok(self
            .state()
            .running
            .get(&id)
            .map_or(Status::Absent, |(pid, _)| Status::Running { pid: *pid }))
    }

    async fn running(&self) -> Result<Vec<Started>, Error> {
        Ok(self
            .state()
            .running
            .iter()
            .map(|(id, (pid, _))| Started {
                id: *id,
                pid: *pid,
                already: true,
            })
            .collect())
    }

    async fn adopt(
        &self,
        known: &[InstanceId],
        _others: StopPolicy,
    ) -> Result<Vec<Started>, Error> {
        self.state().running.retain(|id, _| known.contains(id));
        self.running().await
    }

    async fn probe(
        &self,
        id: InstanceId,
        _pid: u32,
        _probe: &Probe,
        _timeout: Duration,
    ) -> Result<(), Unhealthy> {
        let mut state = self.state();
        state.probes += 1;
        match state.unhealthy.get(&id).copied() {
            None | Some(0) => Ok(()),
            Some(code) => Err(Unhealthy::ExitCode {
                code,
                output: String::new(),
            }),
        }
    }

    async fn exits(&self) -> Result<Vec<Exit>, Error> {
        let state = self.state();
        let told = |exit: &&Exit| !state.acknowledged.contains(&exit.seq);
        Ok(state.ended.iter().filter(told).cloned().collect())
    }

    async fn acknowledge(&self, exit: &Exit) -> Result<(), Error> {
        self.state().acknowledged.push(exit.seq);
        Ok(())
    }
}
