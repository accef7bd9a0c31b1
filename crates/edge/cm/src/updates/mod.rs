//! Drives the update engine (`aos-update`): stores what it says before doing what it says.
//!
//! One task owns the engine. Effects run beside it and report back over a channel with the id they were given; when CM was
//! killed in between, the engine asks for them again.

mod desired;
mod effects;

use std::{collections::BTreeMap, future, sync::Arc, time::Duration};

use aos_cloud_protocol::{AlertEvent, DesiredStatus, Unreadable};
use aos_session::Handled;
use aos_store::Records;
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{InstanceIdent, InstanceState, ItemType, NodeId};
use aos_update::{
    Actual, Config, Effect, EffectId, Engine, Input, InstanceView, Output, Record, Report, Target,
    UpdatePart, UpdateState,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use desired::{Most, readable};
pub(crate) use effects::Doer;

use crate::{
    contract::{AlertSink, InstanceReport, SmNode},
    gates::{Ordered, ZoneSource},
    placing::Placing,
    states::{Undelivered, Waiting},
    status::{EngineStatus, UpdateParts},
    unit_config::UnitConfigs,
    world::World,
};

const KEY: &str = "engine";
/// How often clock and time zone are looked at while something waits for a local time.
const CLOCK: Duration = Duration::from_secs(60);

/// A desired state of the cloud.
#[derive(Debug)]
pub(crate) struct NewDesired {
    pub(crate) status: DesiredStatus,
    pub(crate) unreadable: Vec<Unreadable>,
    /// Told when it is stored or known to be nothing new.
    pub(crate) done: oneshot::Sender<Handled>,
}

/// What the Nodes shall run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct InForce {
    pub(crate) target: Arc<Target>,
    /// An update is about to change it, or has just begun to: the configuration may be that of the new set already, and the
    /// launch gives the Nodes their lists itself. So nothing is placed anew.
    pub(crate) hold: bool,
}

impl InForce {
    /// Whether what was seen of it earlier still holds.
    pub(crate) fn is_still(&self, seen: &Self) -> bool {
        !self.hold && Arc::ptr_eq(&self.target, &seen.target)
    }
}

/// The task that owns the engine.
pub(crate) struct Updates {
    pub(crate) engine: Engine,
    pub(crate) records: Records<Record>,
    pub(crate) doer: Arc<Doer>,
    pub(crate) world: Arc<World>,
    pub(crate) placing: Arc<Placing>,
    pub(crate) configs: Arc<UnitConfigs>,
    pub(crate) states: watch::Receiver<Waiting>,
    pub(crate) alerts: Arc<dyn AlertSink>,
    pub(crate) node: NodeId,
    pub(crate) most: Most,
    pub(crate) desired: mpsc::Receiver<NewDesired>,
    pub(crate) orders: mpsc::Receiver<Ordered>,
    pub(crate) zone: ZoneSource,
    pub(crate) status: watch::Sender<Arc<EngineStatus>>,
    pub(crate) in_force: watch::Sender<InForce>,
    pub(crate) full: Arc<Notify>,
    /// The launch whose result the engine has not heard yet.
    pub(crate) launching: Option<EffectId>,
}

/// What runs beside the engine's task.
struct Running {
    effects: JoinSet<()>,
    cancels: BTreeMap<EffectId, CancellationToken>,
    results: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    wake: Option<Timestamp>,
    /// The view the engine was given last.
    view: BTreeMap<InstanceIdent, InstanceView>,
    /// Something has changed that others are shown.
    changed: bool,
}

impl Updates {
    /// Reads where the last run ended.
    pub(crate) async fn restore(
        records: &Records<Record>,
        config: Config,
    ) -> Result<Engine, aos_store::Error> {
        let record = records.get(KEY).await?;
        Ok(Engine::restore(config, record, SystemClock.now()))
    }

    /// Runs until `stop`. An error is one of the database: nothing can be promised without it.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), aos_store::Error> {
        let mut running = Running {
            effects: JoinSet::new(),
            cancels: BTreeMap::new(),
            results: mpsc::channel(256),
            wake: None,
            view: BTreeMap::new(),
            changed: false,
        };
        let mut world = self.world.changes();
        let mut lists = self.placing.lists();
        let mut states = self.states.clone();
        let mut reported = self.doer.readiness.changes();
        self.publish();
        // What was known before this task listened is news to the engine.
        self.look(&mut running);
        self.carry_out(&mut running).await?;
        loop {
            self.show(&mut running);
            let mut sleep = running.wake.map(|at| at.since(SystemClock.now()));
            if self.engine.waits_for_the_clock() {
                // Timers do not notice that somebody sets the clock or the time zone.
                sleep = Some(sleep.map_or(CLOCK, |sleep| sleep.min(CLOCK)));
            }
            // Each arm is cancel-safe: channels keep what was not received, watches their state, effects go on in their
            // own tasks, and the timer is made anew from the same moment.
            let input = tokio::select! {
                () = stop.cancelled() => break,
                Some(new) = self.desired.recv() => {
                    self.take(new, &mut running).await?;
                    continue;
                }
                Some(ordered) = self.orders.recv() => {
                    let done = self.engine.order(SystemClock.now(), ordered.order);
                    self.carry_out(&mut running).await?;
                    self.show(&mut running);
                    // Whoever asked may have gone.
                    let _ = ordered.done.send(done);
                    continue;
                }
                Ok(()) = reported.changed() => Some(Input::LookAgain),
                Some(result) = running.results.1.recv() => {
                    // What the Nodes say now counts before what a launch says of itself.
                    if matches!(result, Input::Done { .. }) {
                        self.look(&mut running);
                    }
                    Some(result)
                }
                Ok(()) = world.changed() => self.view(&mut running),
                Ok(()) = lists.changed() => self.view(&mut running),
                Ok(()) = states.changed() => self.view(&mut running),
                Some(_) = running.effects.join_next(), if !running.effects.is_empty() => None,
                () = sleep_or_never(sleep) => {
                    // If it was too early the engine says again when.
                    running.wake = None;
                    self.engine.set_zone(SystemClock.now(), self.zone.now());
                    Some(Input::Wake)
                }
            };
            if let Some(input) = input {
                let done = match &input {
                    Input::Done { effect, .. } => Some(*effect),
                    _ => None,
                };
                self.engine.handle(SystemClock.now(), input);
                self.carry_out(&mut running).await?;
                if done.is_some() && self.launching == done {
                    self.launching = None;
                    self.force();
                }
            }
        }
        for cancel in running.cancels.values() {
            cancel.cancel();
        }
        running.effects.shutdown().await;
        Ok(())
    }

    /// A desired state: stored before the cloud is told that we have it.
    async fn take(
        &mut self,
        new: NewDesired,
        running: &mut Running,
    ) -> Result<(), aos_store::Error> {
        let desired = readable(new.status, &new.unreadable, self.most);
        let input = Input::Desired {
            desired,
            actual: self.actual(),
        };
        self.engine.handle(SystemClock.now(), input);
        self.carry_out(running).await?;
        // The cloud link has ended: the message comes again.
        let _ = new.done.send(Handled::Accept);
        Ok(())
    }

    async fn carry_out(&mut self, running: &mut Running) -> Result<(), aos_store::Error> {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Persist(record) => {
                    self.records.put(KEY, &record).await?;
                    self.force();
                    running.changed = true;
                }
                Output::Do(_, Effect::Cancel { effect }) => {
                    if let Some(cancel) = running.cancels.remove(&effect) {
                        cancel.cancel();
                    }
                    if self.launching == Some(effect) {
                        self.launching = None;
                        self.force();
                    }
                }
                Output::Do(id, effect) => {
                    tracing::info!(state = %self.engine.state(), effect = effects::name(&effect), "update");
                    if matches!(effect, Effect::Launch { .. }) {
                        self.launching = Some(id);
                        self.force();
                    }
                    let cancel = CancellationToken::new();
                    // Effects are done one after the other; tokens of those that have ended are of no use.
                    running.cancels.clear();
                    running.cancels.insert(id, cancel.clone());
                    let (doer, results) = (Arc::clone(&self.doer), running.results.0.clone());
                    running
                        .effects
                        .spawn(async move { doer.carry_out(id, effect, cancel, results).await });
                }
                Output::WakeAt(at) => running.wake = Some(at),
                Output::Report(Report::Full) => {
                    self.publish();
                    if let Some(failure) = &self.engine.record().failure {
                        let why = failure.failures.summary().unwrap_or_default();
                        let outlook = failure.outlook();
                        tracing::warn!(state = %failure.state, why, outlook, "the update did not happen");
                    }
                    if let Some(rollback) = &self.engine.record().rollback {
                        tracing::error!("{rollback}");
                        self.complain(rollback.to_string());
                    }
                    self.full.notify_one();
                }
                Output::Report(Report::Changed) => running.changed = true,
                Output::Report(Report::Waits { part, reason }) => {
                    tracing::info!(%part, %reason, "the update waits");
                    self.complain(format!("the {part} part of the update waits: {reason}"));
                }
                Output::Report(Report::Notes(notes)) => {
                    for note in notes {
                        self.complain(format!("desired state, {:?}: {}", note.part, note.text));
                    }
                }
            }
        }
        Ok(())
    }

    fn complain(&self, message: String) {
        self.alerts.alert(AlertEvent::Core {
            node: self.node.clone(),
            component: "CM".into(),
            message,
        });
    }

    /// Shows others what has changed, when no more results wait: a thousand of them are one change.
    fn show(&self, running: &mut Running) {
        if running.changed && running.results.1.is_empty() {
            running.changed = false;
            self.publish();
        }
    }

    /// Shows others where the engine stands.
    fn publish(&self) {
        let status = EngineStatus {
            items: self.engine.items(),
            failed_config: self.engine.failed_unit_config(),
            failure: self.engine.record().failure.clone(),
            rollback: self.engine.record().rollback.clone(),
            cycle: self.engine.record().cycle.clone(),
            parts: UpdateParts {
                software: self.engine.part_status(UpdatePart::Software),
                firmware: self.engine.part_status(UpdatePart::Firmware),
            },
        };
        self.status.send_if_modified(|current| {
            let differs = **current != status;
            if differs {
                *current = Arc::new(status);
            }
            differs
        });
        self.force();
    }

    /// Shows others what the Nodes shall run.
    fn force(&self) {
        let target = self.engine.in_force();
        let hold = self.engine.state() == UpdateState::Installing || self.launching.is_some();
        self.in_force.send_if_modified(|current| {
            let differs = *current.target != *target;
            if differs {
                current.target = Arc::new(target.clone());
            }
            let released = current.hold != hold;
            current.hold = hold;
            differs || released
        });
    }

    fn actual(&self) -> Actual {
        let lists = self.placing.lists().borrow().clone();
        Actual {
            nodes: self
                .world
                .nodes()
                .into_iter()
                .map(|(id, node)| (id, node.info.state))
                .collect(),
            unit_config: self.configs.current().map(|config| config.version.clone()),
            instances: lists
                .placed()
                .map(|(_, order)| (order.ident.clone(), order.version.clone()))
                .chain(
                    lists
                        .unplaced
                        .iter()
                        .map(|one| (one.ident.clone(), one.version.clone())),
                )
                .chain(
                    lists
                        .disabled
                        .iter()
                        .map(|one| (one.ident.clone(), one.version.clone())),
                )
                .collect(),
        }
    }

    /// Gives the engine what the Nodes say, whether it is new or not.
    fn look(&mut self, running: &mut Running) {
        let view = self.instances();
        running.view.clone_from(&view);
        self.engine
            .handle(SystemClock.now(), Input::Instances(view));
    }

    /// What the Nodes say, if it is new.
    fn view(&self, running: &mut Running) -> Option<Input> {
        let view = self.instances();
        if view == running.view {
            return None;
        }
        running.view.clone_from(&view);
        Some(Input::Instances(view))
    }

    /// Each instance as the Node says on which it has its place; all reported components.
    fn instances(&self) -> BTreeMap<InstanceIdent, InstanceView> {
        let world = self.world.nodes();
        let lists = self.placing.lists().borrow().clone();
        let states = self.states.borrow().clone();
        let mut view = BTreeMap::new();
        for (node, order) in lists.placed() {
            let sm = world.get(node).and_then(|node| node.sm.as_ref());
            let reported = sm.and_then(|sm| Some((sm, sm.instances.as_ref()?.get(&order.ident)?)));
            // What its Node does not speak of yet has a place all the same, and is waited for.
            let seen = reported.map_or_else(
                || {
                    let waits = states.get(&(node.clone(), order.ident.clone()));
                    InstanceView {
                        version: order.version.clone(),
                        state: waits.map_or(InstanceState::Activating, Undelivered::state),
                        error: waits.map(Undelivered::why),
                        recovers: waits.is_none_or(|waits| !waits.given_up),
                        restarts: 0,
                    }
                },
                |(sm, report)| view_of(sm, report),
            );
            view.insert(order.ident.clone(), seen);
        }
        // What is not run on purpose is as it shall be.
        for disabled in &lists.disabled {
            view.insert(
                disabled.ident.clone(),
                InstanceView {
                    version: disabled.version.clone(),
                    state: InstanceState::Inactive,
                    error: None,
                    recovers: false,
                    restarts: 0,
                },
            );
        }
        let components = world
            .values()
            .filter_map(|node| node.sm.as_ref())
            .flat_map(|sm| {
                let reports = sm.instances.iter().flat_map(BTreeMap::values);
                reports.map(move |report| (sm, report))
            })
            .filter(|(_, report)| report.ident.item_type == ItemType::Component);
        for (sm, report) in components {
            view.entry(report.ident.clone())
                .or_insert_with(|| view_of(sm, report));
        }
        view
    }
}

fn view_of(sm: &SmNode, report: &InstanceReport) -> InstanceView {
    InstanceView {
        version: report.version.clone(),
        state: report.state,
        error: report.error.clone(),
        recovers: sm.recovers(report),
        restarts: sm.run_of(report).map_or(0, |run| run.restarts),
    }
}

async fn sleep_or_never(span: Option<std::time::Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => future::pending().await,
    }
}
