//! The state machine, by what is decided: which desired state counts (`newest`), what a stage begins with
//! and leads to (`stages`), what waits (`pending`), whether it went well (`judge`), what follows if not (`failing`), and
//! what time alone brings (`timing`).

mod failing;
mod judge;
mod newest;
mod part_status;
mod pending;
mod settling;
mod stages;
mod timing;

use std::collections::{BTreeMap, VecDeque};

use aos_time::Timestamp;
use aos_types::InstanceIdent;

use crate::{
    Config, Effect, EffectId, Input, InstanceView, Output, Record, Report, Target, UpdateState,
};

/// The step inside a stage whose answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Download,
    NodeStates,
    Readiness,
    UnitConfig,
    Images,
    Launch,
    Commit,
}

/// The update engine of one Unit; see the crate's description.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    record: Record,
    awaited: Option<(EffectId, Step)>,
    /// Effects asked for in this generation.
    asked: u64,
    instances: BTreeMap<InstanceIdent, InstanceView>,
    retry_commit_at: Option<Timestamp>,
    settling: Option<settling::Settling>,
    waiting: pending::Waiting,
    outputs: VecDeque<Output>,
    wake: Option<Timestamp>,
}

pub use part_status::{PartState, PartStatus};
pub use pending::{Order, Refused};

impl Engine {
    /// Goes on from the stored record, or from nothing. What was under way is asked for again.
    pub fn restore(config: Config, record: Option<Record>, now: Timestamp) -> Self {
        let mut engine = Self {
            config,
            record: record.unwrap_or_default(),
            awaited: None,
            asked: 0,
            instances: BTreeMap::new(),
            retry_commit_at: None,
            settling: None,
            waiting: pending::Waiting::default(),
            outputs: VecDeque::new(),
            wake: None,
        };
        engine.look_at_parts();
        if engine.config.policy.resumes() {
            engine.act(now);
        }
        engine.watch_time(now);
        engine
    }

    /// Takes in what happened at `now`; then [`Engine::poll`] until it is empty.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Desired { desired, actual } => self.desired(now, desired, &actual),
            Input::ItemDownloaded {
                effect,
                item,
                error,
            } => {
                if self.awaited == Some((effect, Step::Download))
                    && let Some(cycle) = &mut self.record.cycle
                {
                    cycle.downloaded.insert(item, error);
                    self.report(Report::Changed);
                }
            }
            Input::Downloaded { effect, failures } | Input::Done { effect, failures } => {
                self.done(now, effect, failures);
            }
            Input::Instances(instances) => {
                self.instances = instances;
                self.restart_deadline(now);
                self.judge(now);
            }
            Input::Readiness { effect, readiness } => self.readiness(now, effect, readiness),
            Input::LookAgain => self.look_again(now),
            Input::Wake => {
                self.wake = None;
                self.time_passed(now);
            }
        }
        if self.state() == UpdateState::Pending {
            self.ask_gates(now);
        }
        self.watch_time(now);
    }

    /// The next thing to do, or nothing until the next input.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All that is kept; [`Output::Persist`] carries copies of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the update stands.
    pub fn state(&self) -> UpdateState {
        self.record
            .cycle
            .as_ref()
            .map_or(UpdateState::None, |cycle| cycle.state)
    }

    /// The set the Nodes shall run at this moment: the committed one, or the one that was launched last. It is what a Node
    /// that connects is given, with or without a cloud.
    pub fn in_force(&self) -> &Target {
        self.record
            .launched
            .as_ref()
            .unwrap_or(&self.record.committed)
    }

    fn ask(&mut self, step: Step, effect: Effect) {
        let id = self.next_id();
        self.awaited = Some((id, step));
        self.outputs.push_back(Output::Do(id, effect));
    }

    fn next_id(&mut self) -> EffectId {
        self.asked += 1;
        EffectId((self.record.generation << 16) | (self.asked & 0xffff))
    }

    fn persist(&mut self) {
        self.record.generation += 1;
        self.look_at_parts();
        if self.config.policy.stores(&self.record) {
            let record = Box::new(self.record.clone());
            self.outputs.push_back(Output::Persist(record));
        }
    }

    fn report(&mut self, report: Report) {
        if !self.config.policy.tells(&report) {
            return;
        }
        if report == Report::Changed && self.outputs.contains(&Output::Report(Report::Changed)) {
            return;
        }
        self.outputs.push_back(Output::Report(report));
    }
}
