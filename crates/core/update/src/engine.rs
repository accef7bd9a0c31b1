use std::collections::{BTreeMap, VecDeque};

use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};

use crate::{
    Actual, Config, Cycle, Desired, Direction, Effect, EffectId, Failure, Failures, Input,
    InstanceView, Output, Record, Report, Target, UpdateState, differences, resolve,
};

/// The step inside a stage whose answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Download,
    NodeStates,
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
    outputs: VecDeque<Output>,
    wake: Option<Timestamp>,
}

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
            outputs: VecDeque::new(),
            wake: None,
        };
        engine.act(now);
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
                self.judge(now);
            }
            Input::Wake => {
                self.wake = None;
                self.time_passed(now);
            }
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

    /// The newest set that was asked for, whether it was reached, is under way, or waits.
    fn newest(&self) -> &Target {
        let cycle = self.record.cycle.as_ref();
        cycle
            .and_then(|cycle| cycle.next.as_ref())
            .or_else(|| {
                cycle
                    .filter(|cycle| cycle.direction == Direction::Forward)
                    .map(|cycle| &cycle.target)
            })
            .unwrap_or(&self.record.committed)
    }

    fn desired(&mut self, now: Timestamp, desired: Desired, actual: &Actual) {
        let (target, notes) = resolve(desired, self.newest());
        if !notes.is_empty() {
            self.report(Report::Notes(notes));
        }
        let differs = !differences(&target, &self.record.committed, actual).is_empty();
        let Some(cycle) = &mut self.record.cycle else {
            if differs {
                self.start(now, target, false);
            } else {
                self.nothing_to_do(target);
            }
            return;
        };
        let same = cycle.direction == Direction::Forward && cycle.target.asks_the_same(&target);
        if same && cycle.next.is_none() {
            return;
        }
        match cycle.state {
            UpdateState::Launching | UpdateState::Finalizing => {
                cycle.next = (!same).then_some(target);
                self.persist();
            }
            _ => {
                let touched = cycle.touched;
                self.cancel();
                if touched || differs {
                    self.start(now, target, touched);
                } else {
                    self.record.cycle = None;
                    self.nothing_to_do(target);
                }
            }
        }
    }

    /// The Unit is as desired; what is no end in itself (certificates, kinds of subjects) is taken over all the same.
    fn nothing_to_do(&mut self, target: Target) {
        if self.record.committed != target || self.record.failure.is_some() {
            self.record.committed = target;
            self.record.failure = None;
        }
        self.persist();
        self.report(Report::Full);
    }

    fn start(&mut self, now: Timestamp, target: Target, touched: bool) {
        self.record.cycle = Some(Cycle {
            target,
            direction: Direction::Forward,
            state: UpdateState::Downloading,
            deadline: None,
            touched,
            downloaded: BTreeMap::new(),
            next: None,
        });
        self.enter(now, UpdateState::Downloading);
    }

    fn enter(&mut self, now: Timestamp, state: UpdateState) {
        let limits = &self.config.deadlines;
        let limit = match state {
            UpdateState::Downloading => Some(limits.downloading),
            UpdateState::Installing => Some(limits.installing),
            UpdateState::Launching => Some(limits.launching),
            UpdateState::WaitingActive => Some(limits.waiting_active),
            // A gate may take as long as it likes; a commit is repeated until it succeeds.
            UpdateState::None | UpdateState::Pending | UpdateState::Finalizing => None,
        };
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        cycle.state = state;
        cycle.deadline = limit.map(|limit| now + limit);
        match state {
            UpdateState::Installing => cycle.touched = true,
            UpdateState::Launching => {
                self.record.launched = match cycle.direction {
                    Direction::Forward => Some(cycle.target.clone()),
                    Direction::Back => None,
                };
            }
            // The decision is this record; what follows tidies up and cannot fail the update any more.
            UpdateState::Finalizing => {
                self.record.committed = cycle.target.clone();
                self.record.launched = None;
                self.record.failure = None;
            }
            _ => {}
        }
        self.awaited = None;
        self.persist();
        self.report(Report::Changed);
        self.act(now);
    }

    /// Asks for what the present stage begins with. The same after a restart.
    fn act(&mut self, now: Timestamp) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        match cycle.state {
            UpdateState::None => {}
            UpdateState::Downloading => {
                let target = &cycle.target;
                let effect = Effect::Download {
                    items: target.items.clone(),
                    certificates: target.certificates.clone(),
                    certificate_chains: target.certificate_chains.clone(),
                };
                self.ask(Step::Download, effect);
            }
            // Update gates are asked here.
            UpdateState::Pending => self.enter(now, UpdateState::Installing),
            UpdateState::Installing => self.install_from(now, Step::NodeStates),
            UpdateState::Launching => {
                let target = cycle.target.clone();
                // What the Nodes said before says nothing about what comes now.
                self.instances.clear();
                self.ask(Step::Launch, Effect::Launch { target });
            }
            UpdateState::WaitingActive => self.judge(now),
            UpdateState::Finalizing => {
                let target = cycle.target.clone();
                self.ask(Step::Commit, Effect::Commit { target });
            }
        }
    }

    /// Asks for the next step of Installing at or after `step` that has something to do.
    fn install_from(&mut self, now: Timestamp, step: Step) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        let (target, back) = (&cycle.target, cycle.direction == Direction::Back);
        match step {
            Step::NodeStates if target.nodes.is_empty() => {
                self.install_from(now, Step::UnitConfig);
            }
            Step::NodeStates => {
                let nodes = target.nodes.clone();
                self.ask(Step::NodeStates, Effect::ApplyNodeStates { nodes });
            }
            Step::UnitConfig if target.unit_config.is_none() && !back => {
                self.install_from(now, Step::Images);
            }
            Step::UnitConfig => {
                let effect = Effect::ApplyUnitConfig {
                    config: target.unit_config.clone(),
                    restore: back,
                };
                self.ask(Step::UnitConfig, effect);
            }
            Step::Images => {
                let target = target.clone();
                self.ask(Step::Images, Effect::InstallOnNodes { target });
            }
            Step::Download | Step::Launch | Step::Commit => {
                self.enter(now, UpdateState::Launching);
            }
        }
    }

    fn done(&mut self, now: Timestamp, effect: EffectId, failures: Failures) {
        let Some((awaited, step)) = self.awaited else {
            return;
        };
        if awaited != effect {
            return;
        }
        self.awaited = None;
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if step == Step::Commit {
            if failures.is_empty() {
                self.committed(now);
            } else {
                self.retry_commit_at = Some(now + self.config.commit_retry);
            }
            return;
        }
        if step == Step::Launch && cycle.next.is_some() {
            self.start_next(now);
            return;
        }
        // On the way back there is nothing better to go to: each step is tried, and the next one follows.
        if cycle.direction == Direction::Forward && self.decides(step, &failures) {
            self.fail(now, failures);
            return;
        }
        match step {
            Step::Download => self.enter(now, UpdateState::Pending),
            Step::NodeStates => self.install_from(now, Step::UnitConfig),
            Step::UnitConfig => self.install_from(now, Step::Images),
            Step::Images => self.enter(now, UpdateState::Launching),
            Step::Launch => self.enter(now, UpdateState::WaitingActive),
            Step::Commit => {}
        }
    }

    /// Whether these failures end the update. Trouble with what the update does not change, or with a Node that none of
    /// its changes needs, does not.
    fn decides(&self, step: Step, failures: &Failures) -> bool {
        let nodes_decide = step == Step::NodeStates;
        !failures.items.is_empty()
            || failures.unit_config.is_some()
            || failures.step.is_some()
            || (nodes_decide && !failures.nodes.is_empty())
            || failures.instances.keys().any(|ident| self.changes(ident))
    }

    /// Whether the present cycle brings this instance, or another version of it.
    fn changes(&self, ident: &InstanceIdent) -> bool {
        let committed = &self.record.committed;
        let target = self.record.cycle.as_ref().map(|cycle| &cycle.target);
        let before = committed.item(&ident.item);
        let same_item =
            before.is_some() && before == target.and_then(|target| target.item(&ident.item));
        let was_there = committed.instances.iter().any(|entry| {
            entry.item == ident.item
                && entry.subject == ident.subject
                && (ident.index < entry.num_instances || entry.num_instances == 0)
        });
        !(same_item && was_there)
    }

    fn fail(&mut self, now: Timestamp, failures: Failures) {
        let Some(cycle) = self.record.cycle.take() else {
            return;
        };
        let touched = cycle.touched;
        let next = cycle.next.clone();
        self.record.failure = Some(Failure {
            state: cycle.state,
            at: now,
            target: cycle.target,
            failures,
        });
        if let Some(next) = next {
            self.start(now, next, touched);
        } else if touched {
            self.record.cycle = Some(Cycle {
                target: self.record.committed.clone(),
                direction: Direction::Back,
                state: UpdateState::Installing,
                deadline: None,
                touched: true,
                downloaded: BTreeMap::new(),
                next: None,
            });
            self.enter(now, UpdateState::Installing);
        } else {
            self.end();
        }
    }

    fn committed(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take() {
            match cycle.next {
                Some(next) => self.start(now, next, false),
                None => self.end(),
            }
        }
    }

    fn start_next(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take()
            && let Some(next) = cycle.next
        {
            self.start(now, next, cycle.touched);
        }
    }

    fn end(&mut self) {
        self.record.cycle = None;
        self.awaited = None;
        self.persist();
        self.report(Report::Full);
    }

    /// In WaitingActive: whether it is over, one way or the other.
    fn judge(&mut self, now: Timestamp) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.state != UpdateState::WaitingActive {
            return;
        }
        let forward = cycle.direction == Direction::Forward;
        let over = cycle.deadline.is_some_and(|at| now >= at);
        let mut failures = Failures::default();
        let mut waiting = false;
        for wanted in cycle.target.wanted_instances() {
            if forward && !self.changes(&wanted.ident) {
                continue;
            }
            let view = self
                .instances
                .get(&wanted.ident)
                .filter(|view| view.version == wanted.version);
            match view.map(|view| view.state) {
                Some(InstanceState::Active | InstanceState::Inactive) => {}
                Some(InstanceState::Failed) => {
                    let error = view.and_then(|view| view.error.clone());
                    let error = error.unwrap_or_else(|| {
                        ErrorInfo::new(AosCode::Failed, "the instance failed without saying why")
                    });
                    failures.instances.insert(wanted.ident, error);
                }
                Some(InstanceState::Activating) | None if over => {
                    let error = ErrorInfo::new(
                        AosCode::Timeout,
                        "did not become active in time; look at its log and its Node",
                    );
                    failures.instances.insert(wanted.ident, error);
                }
                Some(InstanceState::Activating) | None => waiting = true,
            }
        }
        if forward && !failures.instances.is_empty() {
            self.fail(now, failures);
        } else if !waiting && forward {
            self.enter(now, UpdateState::Finalizing);
        } else if !waiting {
            self.end();
        }
    }

    fn time_passed(&mut self, now: Timestamp) {
        if self.retry_commit_at.is_some_and(|at| at <= now) {
            self.retry_commit_at = None;
            self.act(now);
            return;
        }
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.deadline.is_none_or(|at| at > now) {
            return;
        }
        let (state, direction) = (cycle.state, cycle.direction);
        match (state, direction) {
            (UpdateState::WaitingActive, _) => self.judge(now),
            (UpdateState::None | UpdateState::Pending | UpdateState::Finalizing, _) => {}
            (_, Direction::Forward) => {
                self.cancel();
                let error = ErrorInfo::new(
                    AosCode::Timeout,
                    format!("{state} took longer than it may; the update was given up"),
                );
                self.fail(now, Failures::of_step(error));
            }
            (UpdateState::Launching, Direction::Back) => {
                self.awaited = None;
                self.enter(now, UpdateState::WaitingActive);
            }
            (_, Direction::Back) => {
                self.cancel();
                self.enter(now, UpdateState::Launching);
            }
        }
    }

    fn cancel(&mut self) {
        if let Some((effect, Step::Download | Step::Images)) = self.awaited.take() {
            let id = self.next_id();
            self.outputs
                .push_back(Output::Do(id, Effect::Cancel { effect }));
        }
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
        self.outputs
            .push_back(Output::Persist(Box::new(self.record.clone())));
    }

    fn report(&mut self, report: Report) {
        if report == Report::Changed && self.outputs.contains(&Output::Report(Report::Changed)) {
            return;
        }
        self.outputs.push_back(Output::Report(report));
    }

    fn watch_time(&mut self, now: Timestamp) {
        let deadline = self.record.cycle.as_ref().and_then(|cycle| cycle.deadline);
        let wake = match (deadline, self.retry_commit_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if wake != self.wake {
            self.wake = wake;
            if let Some(at) = wake {
                self.outputs.push_back(Output::WakeAt(at.max(now)));
            }
        }
    }
}
