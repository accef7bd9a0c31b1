//! CM: its disk, its process, and how it drives the engine and the session as the real one does (`crates/edge/cm`).

mod images;
mod jobs;
mod link;
mod placing;
mod prepare;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use aos_session::{Record as LinkRecord, RecordKey, Session};
use aos_time::Timestamp;
use aos_types::{ErrorInfo, InstanceIdent, InstanceState, NodeState, UnitConfig};
use aos_update::{
    Actual, Config, Deadlines, Desired, Direction, Effect, Engine, GatePolicy, Input, InstanceView,
    Order, Output, ReadinessPolicy, Record, Report, Target, UpdatePart, UpdateState,
};

pub(crate) use images::Stored;
pub(crate) use jobs::Job;
pub(crate) use placing::{List, Lists, Placed, Sending};
pub(crate) use prepare::Prepared;
pub(crate) use status::status;

use crate::{
    coverage::{Fault, Row},
    draw::{HOUR, Intent, MIN, SEC, Scene, When},
    event::Event,
    mutation::{Mutation, planted},
    node::Snapshot,
    overrides::{Env, Overrides},
    words::{Blob, Inst, Item, Ver, digest, inst, version_text},
    world::World,
};

/// How long a Node may be away before it counts as lost.
pub(crate) const LOST: Duration = Duration::from_secs(60);
/// How long a Node may take to install, and to carry out a list.
pub(crate) const LAUNCH: Duration = Duration::from_secs(600);

/// What survives.
#[derive(Debug)]
pub(crate) struct CmDisk {
    pub(crate) engine: Option<Record>,
    /// With a planted bug: what the disk still has if the power goes now.
    pub(crate) unflushed: Option<Option<Record>>,
    pub(crate) link: BTreeMap<RecordKey, LinkRecord>,
    pub(crate) placed: BTreeMap<InstanceIdent, Placed>,
    /// Variables in force.
    pub(crate) overrides: Overrides,
    /// The variables that instances were given last.
    pub(crate) given: BTreeMap<(usize, Inst), Env>,
    pub(crate) config: Option<UnitConfig>,
    pub(crate) blobs: BTreeMap<Blob, Stored>,
    /// Items whose blobs are kept, installed or not, with the time since when they are not.
    pub(crate) items: BTreeMap<(Item, Ver), Option<Timestamp>>,
    /// Blobs that fit.
    pub(crate) space: u64,
    /// Something else has taken the rest.
    pub(crate) full: bool,
    /// Nodes that IAM has paused.
    pub(crate) paused: BTreeSet<usize>,
}

/// What CM knows of a connected Node.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) conn: u64,
    pub(crate) snapshot: Option<Rc<Snapshot>>,
}

/// A list a Node was given and has not answered yet.
#[derive(Debug)]
pub(crate) struct Busy {
    pub(crate) order: u64,
    pub(crate) sender: u64,
    pub(crate) list: List,
    pub(crate) stop: Vec<InstanceIdent>,
}

/// What CM knows of the list a Node has, with the connection that holds for.
#[derive(Debug, Default)]
pub(crate) enum Sent {
    #[default]
    Nothing,
    /// Given and not answered.
    InDoubt,
    /// It was given none, as it ran what it shall.
    Adopted(u64, List),
    Taken(u64, List),
}

/// What CM keeps of each Node while it runs.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) view: Option<View>,
    /// It has shown itself since CM started.
    pub(crate) known: bool,
    pub(crate) away_since: Option<Timestamp>,
    pub(crate) sent: Sent,
    /// For this connection, list and report there was nothing to send: nor is there now.
    pub(crate) nothing_for: Option<(u64, List, Rc<Snapshot>)>,
    pub(crate) busy: Option<Busy>,
    pub(crate) waiting: Vec<u64>,
    pub(crate) config: Option<String>,
    /// What is known of the images there.
    pub(crate) prepared: Prepared,
}

/// What the planner was asked last: the set, the Nodes, and how many plans there were before.
pub(crate) type Question = (Target, Vec<(NodeState, bool, bool)>, u64);

/// The process.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) session: Session<u32>,
    pub(crate) online: bool,
    pub(crate) conn: u64,
    pub(crate) changes: Vec<link::Change>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) sendings: BTreeMap<u64, Sending>,
    pub(crate) last_view: BTreeMap<InstanceIdent, InstanceView>,
    pub(crate) lists: Lists,
    pub(crate) overrides: Overrides,
    pub(crate) follow_planned: bool,
    pub(crate) follow_busy: bool,
    pub(crate) planned_for: Option<Question>,
    pub(crate) places: u64,
    pub(crate) status_planned: bool,
    pub(crate) wake_serial: u64,
    pub(crate) link_serial: u64,
    /// What the cloud is being told of dropped messages, by txn.
    pub(crate) telling: BTreeMap<String, aos_session::Lost>,
}

pub(crate) struct Cm {
    pub(crate) life: u32,
    pub(crate) disk: CmDisk,
    pub(crate) run: Option<Running>,
    /// Microseconds that its clock is ahead.
    pub(crate) clock: i64,
    /// Numbers for messages and questions; they stand for UUIDs, so a restart does not begin anew.
    pub(crate) unique: u64,
}

impl Cm {
    pub(crate) fn new(space: u64) -> Self {
        Self {
            life: 0,
            disk: CmDisk {
                engine: None,
                unflushed: None,
                link: BTreeMap::new(),
                placed: BTreeMap::new(),
                overrides: Overrides::new(),
                given: BTreeMap::new(),
                config: None,
                blobs: BTreeMap::new(),
                items: BTreeMap::new(),
                space,
                full: false,
                paused: BTreeSet::new(),
            },
            run: None,
            clock: 0,
            unique: 0,
        }
    }
}

/// The longest an update waits at its gate unless it says otherwise.
pub(crate) const GATE: Duration = Duration::from_secs(3 * 24 * 3600);
/// The longest it waits for the Unit to be ready.
pub(crate) const READY: Duration = Duration::from_secs(24 * 3600);

fn engine_config(scene: &Scene, mutation: Option<Mutation>) -> Config {
    let default = Config::default();
    let consent = if scene.consent {
        BTreeSet::from(UpdatePart::ALL)
    } else {
        BTreeSet::new()
    };
    Config {
        policy: planted(mutation),
        gates: GatePolicy {
            ttl: GATE,
            consent,
            readiness: scene.readiness.map(|_| ReadinessPolicy {
                interval: 10 * MIN,
                deadline: READY,
            }),
            ..GatePolicy::default()
        },
        deadlines: Deadlines {
            launching: LAUNCH * 3 + LOST + MIN,
            installing: LAUNCH * 2 + LOST + MIN,
            ..default.deadlines.clone()
        },
        ..default
    }
}

pub(crate) fn state_index(state: UpdateState) -> usize {
    match state {
        UpdateState::None => 0,
        UpdateState::Downloading => 1,
        UpdateState::Pending => 2,
        UpdateState::Installing => 3,
        UpdateState::Launching => 4,
        UpdateState::WaitingActive => 5,
        UpdateState::Finalizing => 6,
    }
}

impl World {
    /// What time CM believes it is.
    pub(crate) fn cm_now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.as_micros() + self.cm.clock)
    }

    /// When it will be `at` by CM's clock.
    fn true_time(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_micros(at.as_micros() - self.cm.clock).max(self.now)
    }

    pub(crate) fn clock_jumps(&mut self, micros: i64) {
        self.note(|_| format!("the clock of CM jumps by {} s", micros / 1_000_000));
        self.cm.clock += micros;
        self.oracle.conduct.jumps(self.now);
    }

    pub(crate) fn cm_boots(&mut self, life: u32) {
        // Without power it starts when the Node boots.
        if life != self.cm.life || self.cm.run.is_some() || !self.nodes[0].power {
            return;
        }
        self.note(|_| "CM starts".into());
        let now = self.cm_now();
        let chance = Box::new(self.dice.split());
        let records: Vec<LinkRecord> = self.cm.disk.link.values().cloned().collect();
        let engine = Engine::restore(
            engine_config(&self.scene, self.mutation),
            self.cm.disk.engine.clone(),
            now,
        );
        let session = Session::restore(
            crate::cloud::config(true, self.scene.outbox, self.mutation),
            chance,
            records,
            now,
        );
        let seen = (0..self.nodes.len())
            .map(|_| Seen {
                away_since: Some(self.now),
                ..Seen::default()
            })
            .collect();
        self.cm.run = Some(Running {
            engine,
            session,
            online: false,
            conn: 0,
            changes: Vec::new(),
            seen,
            jobs: BTreeMap::new(),
            sendings: BTreeMap::new(),
            last_view: BTreeMap::new(),
            lists: Lists::default(),
            overrides: match self.has(Mutation::OverridesInMemory) {
                true => Overrides::new(),
                false => self.cm.disk.overrides.clone(),
            },
            follow_planned: false,
            follow_busy: false,
            planned_for: None,
            places: 0,
            status_planned: false,
            wake_serial: 0,
            link_serial: 0,
            telling: BTreeMap::new(),
        });
        self.oracle.cm_started = self.now;
        let lists = self.lists_of(self.cm.disk.placed.values());
        if let Some(run) = &mut self.cm.run {
            run.lists = lists;
        }
        self.cm_cleans_images();
        self.after(LOST + SEC, Event::CmLook { life });
        self.after(MIN, Event::CmTidy { life });
        for node in 0..self.nodes.len() {
            self.node_dials(node);
        }
        self.look();
        if !self.engine_carries_out() {
            return;
        }
        self.unit_carries_out();
    }

    /// The process ends; with the power of the main Node if `cut`.
    pub(crate) fn cm_dies(&mut self, cut: bool) {
        if self.cm.run.take().is_none() {
            return;
        }
        if cut && self.has(Mutation::RecordNotFlushed) {
            self.cm.disk.engine = self.cm.disk.unflushed.take().flatten();
        }
        self.note(|_| format!("CM {}", if cut { "loses power" } else { "is killed" }));
        self.oracle.conduct.dies();
        self.oracle.last_fault = self.now;
        self.cm.life += 1;
        if self.wire.open {
            self.wire.open = false;
            if self.dice.percent(50) {
                self.cloud_hears_the_end();
            }
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].conn = None;
        }
        let after = self.dice.scale(Duration::from_millis(200), 2 * MIN);
        let life = self.cm.life;
        self.after(after, Event::CmBoot { life });
    }

    /// Cuts the power, or kills CM, with the seed's chance. True if CM is gone.
    pub(crate) fn cm_cut(&mut self, fault: Fault) -> bool {
        let rate = self.scene.rates.cut_cm;
        if !self.unlucky(rate, fault) {
            return false;
        }
        if self.dice.percent(50) {
            self.node_loses_power(0);
        } else {
            self.cm_dies(false);
        }
        true
    }

    pub(crate) fn cm_wakes(&mut self, life: u32, serial: u64) {
        if life != self.cm.life {
            return;
        }
        let mine = self.cm.run.as_ref().map(|run| run.wake_serial);
        // One of an earlier wish is harmless, and now and then it comes all the same.
        if mine == Some(serial) || self.dice.percent(5) {
            self.engine_input(Input::Wake);
        }
    }

    pub(crate) fn engine_input(&mut self, input: Input) -> bool {
        let now = self.cm_now();
        let Some(run) = &mut self.cm.run else {
            return false;
        };
        let state = run.engine.state();
        let back = run
            .engine
            .record()
            .cycle
            .as_ref()
            .is_some_and(|cycle| cycle.direction == Direction::Back);
        let kind = match &input {
            Input::Desired { .. } => 0,
            Input::ItemDownloaded { .. } => 1,
            Input::Downloaded { .. } => 2,
            Input::Done { .. } => 3,
            Input::Instances(_) => 4,
            Input::Wake => 5,
            Input::Readiness { .. } => 6,
            Input::LookAgain => 7,
        };
        let told = match &input {
            Input::Downloaded { effect, .. } | Input::Done { effect, .. } => {
                self.oracle.conduct.ends(*effect);
                false
            }
            Input::Instances(views) => {
                self.oracle.conduct.is_told(self.now, views);
                true
            }
            _ => false,
        };
        // Something newer that waits leads away as soon as the Nodes have their lists.
        let on_the_way_back = run.engine.record().cycle.as_ref().filter(|cycle| {
            let waits = matches!(
                cycle.state,
                UpdateState::Launching | UpdateState::WaitingActive
            );
            back && kind != 0 && waits && cycle.next.is_none()
        });
        let brought_back = on_the_way_back
            .and_then(|cycle| cycle.undo.as_ref())
            .map(|undo| undo.items.clone());
        run.engine.handle(now, input);
        self.coverage.pair(state_index(state), kind, back);
        let cycle = run.engine.record().cycle.as_ref();
        let is_over = cycle.is_none_or(|cycle| cycle.direction == Direction::Forward);
        if let Some(items) = brought_back.filter(|_| is_over) {
            self.check_way_back(&items);
        }
        let alive = self.engine_carries_out();
        if alive && told {
            self.check_awaited();
        }
        alive
    }

    /// Carries out what the engine says, in order. False if CM did not survive it.
    pub(crate) fn engine_carries_out(&mut self) -> bool {
        loop {
            let Some(run) = &mut self.cm.run else {
                return false;
            };
            let Some(output) = run.engine.poll() else {
                return true;
            };
            let fault = match output {
                Output::Persist(record) => {
                    if self.cm.disk.full && self.unlucky(12, Fault::WriteFails) {
                        // Nothing can be promised without the database: CM ends and is started again.
                        self.cm_dies(false);
                        return false;
                    }
                    self.engine_persists(*record);
                    Fault::CutAfterPersist
                }
                Output::Do(_, Effect::Cancel { effect }) => {
                    self.oracle.conduct.cancels(effect);
                    // What was cancelled may already be about to answer.
                    if run.sendings.contains_key(&effect.0) || !self.dice.percent(10) {
                        run.jobs.remove(&effect.0);
                    }
                    self.gives_up_sending(effect.0);
                    Fault::CutAfterDo
                }
                Output::Do(id, effect) => {
                    self.note(|_| format!("engine does {}: {}", id.0, named(&effect)));
                    if let Effect::Download { .. } = effect {
                        self.oracle.conduct.downloads(id);
                    }
                    self.check_effect(&effect);
                    self.job_begins(id, effect);
                    Fault::CutAfterDo
                }
                Output::WakeAt(at) => {
                    run.wake_serial += 1;
                    let (life, serial) = (self.cm.life, run.wake_serial);
                    let at = self.true_time(at);
                    self.queue.plan(at, Event::CmWake { life, serial });
                    Fault::CutAfterWake
                }
                Output::Report(report) => {
                    self.engine_reports(&report);
                    Fault::CutAfterReport
                }
            };
            if self.cm_cut(fault) {
                return false;
            }
        }
    }

    fn engine_persists(&mut self, record: Record) {
        self.note(|_| {
            let cycle = record.cycle.as_ref();
            let state = cycle.map_or(UpdateState::None, |cycle| cycle.state);
            let way = cycle.map_or("", |cycle| match cycle.direction {
                Direction::Forward => " forward",
                Direction::Back => " back",
            });
            let why = record.failure.as_ref().and_then(|f| f.failures.summary());
            format!(
                "engine persists: {state}{way} to {}, committed {}, failure {why:?}",
                cycle.map_or(String::new(), |cycle| brief(&cycle.target)),
                brief(&record.committed)
            )
        });
        let before = self.cm.disk.engine.replace(record);
        if self.has(Mutation::RecordNotFlushed) {
            self.cm.disk.unflushed = Some(before.clone());
        }
        self.check_persisted(before.as_ref());
    }

    fn engine_reports(&mut self, report: &Report) {
        match report {
            Report::Full => self.status_soon(Duration::from_millis(10)),
            Report::Changed => self.status_soon(SEC),
            Report::Waits { .. } => {
                self.coverage.fault(Fault::Waits);
                let life = self.cm.life;
                let most = if self.calm { HOUR } else { 40 * HOUR };
                let after = self.dice.scale(SEC, most);
                self.after(after, Event::Person { life });
            }
            Report::Notes(_) => {}
        }
        let Some(run) = &self.cm.run else { return };
        if *report == Report::Full && run.engine.record().failure.is_none() {
            self.coverage.row(Row::Nothing);
        }
        self.in_force_changed();
    }

    /// A desired state has come to the engine's task.
    pub(crate) fn cm_takes(&mut self, life: u32, txn: String, message: u32) {
        if life != self.cm.life || self.cm.run.is_none() {
            return;
        }
        let Some(crate::world::Message::Desired(number)) =
            self.messages.get(message as usize).cloned()
        else {
            return;
        };
        if self.unlucky(25, Fault::TakenLater) {
            self.refuses(&txn);
            let outcome = aos_session::Handled::Refuse(5 * SEC);
            self.unit_input(aos_session::Input::Handled { txn, outcome });
            return;
        }
        let intent = self.wishes[number].clone();
        let input = Input::Desired {
            desired: self.desired(&intent),
            actual: self.actual(),
        };
        let state = self.cm.run.as_ref().map(|run| run.engine.state());
        if state.is_some_and(|state| state != UpdateState::None) {
            self.coverage.fault(Fault::Superseded);
        }
        self.note(|_| format!("CM takes desired state #{number}"));
        if self.has(Mutation::AckBeforeStored) {
            let outcome = aos_session::Handled::Accept;
            let txn = txn.clone();
            self.unit_input(aos_session::Input::Handled { txn, outcome });
        }
        self.coverage.desired += 1;
        self.oracle.taking = Some(number);
        let before = self.cm.run.as_ref().map(|run| run.engine.record().clone());
        let in_hand = self.oracle.conduct.in_hand();
        let alive = self.engine_input(input);
        // Stored at the latest with the last output: what was cut off before is sent again.
        if !alive {
            self.oracle.taking = None;
            return;
        }
        self.check_taken(number);
        if let Some(before) = before {
            self.check_desired(number, &before, in_hand);
        }
        self.unit_input(aos_session::Input::Handled {
            txn,
            outcome: aos_session::Handled::Accept,
        });
        self.in_force_changed();
    }

    /// An intent in the engine's words.
    fn desired(&mut self, intent: &Intent) -> Desired {
        let mut target = self.target_of(intent);
        // A list that stays as it is may be left out.
        let newest = self.newest_target();
        let absent = self.dice.percent(30);
        let same_nodes = absent && newest.nodes == target.nodes;
        let same_items =
            absent && newest.items == target.items && newest.instances == target.instances;
        // Duplicates and orphans: the first entry counts, instances without an item are left out.
        if self.dice.percent(5)
            && let Some(first) = target.items.first().cloned()
        {
            target.items.push(aos_update::DesiredItem {
                version: version_text(0),
                index_digest: digest(0, 0),
                ..first
            });
        }
        Desired {
            nodes: (!same_nodes).then_some(target.nodes),
            unit_config: target.unit_config,
            items: (!same_items).then_some(target.items),
            sota_schedule: target.sota_schedule,
            fota_schedule: target.fota_schedule,
            instances: (!same_items).then_some(target.instances),
            subjects: Some(target.subjects),
            certificates: Some(Vec::new()),
            certificate_chains: Some(Vec::new()),
            ..Desired::default()
        }
    }

    /// What the cloud wants, as a whole set.
    pub(crate) fn target_of(&self, intent: &Intent) -> Target {
        let names = &self.names;
        Target {
            nodes: (0..self.nodes.len())
                .map(|node| aos_update::DesiredNode {
                    node: names.nodes[node].clone(),
                    state: if intent.paused.contains(&node) {
                        aos_update::DesiredNodeState::Paused
                    } else {
                        aos_update::DesiredNodeState::Provisioned
                    },
                })
                .collect(),
            unit_config: intent.config.map(|(version, _)| UnitConfig {
                version: format!("{version}.0.0"),
                ..UnitConfig::default()
            }),
            items: intent
                .items
                .iter()
                .map(|(item, ver)| aos_update::DesiredItem {
                    id: names.items[usize::from(*item)].clone(),
                    item_type: aos_types::ItemType::Service,
                    version: version_text(*ver),
                    index_digest: digest(*item, *ver),
                    owner: names.owner.clone(),
                    independent: self.scene.is_independent(*item),
                })
                .collect(),
            instances: intent
                .instances
                .iter()
                .map(
                    |((item, subject), (count, priority))| aos_update::DesiredInstances {
                        item: names.items[usize::from(*item)].clone(),
                        subject: names.subjects[usize::from(*subject)].clone(),
                        priority: u64::from(*priority),
                        num_instances: u64::from(*count),
                        labels: match self.scene.label(*item) {
                            Some(label) => vec![format!("l{label}")],
                            None => Vec::new(),
                        },
                    },
                )
                .collect(),
            sota_schedule: schedule(intent.when),
            ..Target::default()
        }
    }

    /// Somebody on the Unit does what an update waits for, or not.
    pub(crate) fn person_acts(&mut self) {
        let now = self.cm_now();
        let consents = self.calm || !self.dice.percent(20);
        let Some(run) = &mut self.cm.run else { return };
        let state = run.engine.state();
        let back = matches!(
            &run.engine.record().cycle,
            Some(cycle) if cycle.direction == Direction::Back
        );
        let order = if self.scene.consent && self.dice.percent(60) {
            if !consents {
                self.coverage.fault(Fault::Refused);
            }
            Order::Consent {
                update: None,
                parts: BTreeSet::new(),
                given: consents,
                reason: String::new(),
            }
        } else {
            Order::Start {
                part: UpdatePart::Software,
                again: self.dice.percent(50),
            }
        };
        let done = run.engine.order(now, order.clone());
        if done.is_ok() {
            match &order {
                Order::Start { .. } => self.oracle.started_by = true,
                Order::Consent { .. } => self.oracle.consented = true,
            }
        }
        self.note(|_| format!("somebody orders {order:?}: {done:?}"));
        self.coverage.pair(state_index(state), 8, back);
        if self.engine_carries_out() {
            self.in_force_changed();
        }
        // Who was asked once is asked again.
        let waits = self
            .cm
            .run
            .as_ref()
            .is_some_and(|run| run.engine.state() == UpdateState::Pending);
        if waits {
            let life = self.cm.life;
            let most = if self.calm { HOUR } else { 20 * HOUR };
            let after = self.dice.scale(MIN, most);
            self.after(after, Event::Person { life });
        }
    }

    /// How the Unit is, for the comparison.
    fn actual(&self) -> Actual {
        let Some(run) = &self.cm.run else {
            return Actual::default();
        };
        let known = self.known();
        Actual {
            nodes: known
                .iter()
                .map(|known| (self.names.nodes[known.node].clone(), known.state))
                .collect(),
            unit_config: self
                .cm
                .disk
                .config
                .as_ref()
                .map(|config| config.version.clone()),
            instances: run
                .lists
                .placed()
                .map(|(_, order)| (order.ident.clone(), order.version.clone()))
                .chain(
                    run.lists
                        .unplaced
                        .iter()
                        .map(|one| (one.ident.clone(), one.version.clone())),
                )
                .collect(),
        }
    }

    /// Gives the engine what the Nodes say, whether it is new or not. The caller carries out what follows.
    pub(crate) fn look(&mut self) {
        let view = self.instances();
        let now = self.cm_now();
        if let Some(run) = &mut self.cm.run {
            run.last_view.clone_from(&view);
            self.oracle.conduct.is_told(self.now, &view);
            run.engine.handle(now, Input::Instances(view));
        }
    }

    /// The same, if it is new.
    pub(crate) fn view_changed(&mut self) {
        // Outside these states the engine only remembers it, and is told again before it judges: mostly not worth the time.
        let state = self.cm.run.as_ref().map(|run| run.engine.state());
        let judged = matches!(
            state,
            Some(UpdateState::Launching | UpdateState::WaitingActive)
        );
        if !judged && !self.dice.percent(8) {
            return;
        }
        let view = self.instances();
        let Some(run) = &mut self.cm.run else { return };
        if view != run.last_view {
            run.last_view.clone_from(&view);
            self.engine_input(Input::Instances(view));
        }
    }

    fn instances(&self) -> BTreeMap<InstanceIdent, InstanceView> {
        let mut view = BTreeMap::new();
        let Some(run) = &self.cm.run else {
            return view;
        };
        for (node, order) in run.lists.placed() {
            let report = run.seen[*node]
                .view
                .as_ref()
                .and_then(|view| view.snapshot.as_ref())
                .and_then(|snapshot| snapshot.reports.get(&inst(&order.ident)));
            // What its Node does not speak of yet has a place all the same, and is waited for.
            let seen = match report {
                Some(report) => InstanceView {
                    version: version_text(report.ver),
                    state: report.state,
                    error: report.error.map(error),
                    recovers: false,
                    restarts: 0,
                },
                None => InstanceView {
                    version: order.version.clone(),
                    state: InstanceState::Activating,
                    error: None,
                    recovers: true,
                    restarts: 0,
                },
            };
            view.insert(order.ident.clone(), seen);
        }
        view
    }

    /// Something about the Nodes has changed.
    pub(crate) fn world_changed(&mut self) {
        self.jobs_look();
        self.view_changed();
        self.follow_soon();
    }

    /// The engine may have moved: what the Nodes shall run may be another set.
    pub(crate) fn in_force_changed(&mut self) {
        self.follow_soon();
    }
}

pub(crate) fn named(effect: &Effect) -> String {
    match effect {
        Effect::Download { items, .. } => format!("download {} items", items.len()),
        Effect::ApplyNodeStates { .. } => "apply node states".into(),
        Effect::ApplyUnitConfig { config, restore } => format!(
            "apply unit configuration {:?}{}",
            config.as_ref().map(|config| &config.version),
            if *restore { " (restore)" } else { "" }
        ),
        Effect::InstallOnNodes { target } => format!("install {}", brief(target)),
        Effect::Launch { target } => format!("launch {}", brief(target)),
        Effect::Commit { target } => format!("commit {}", brief(target)),
        Effect::AskReadiness => "ask readiness".into(),
        Effect::Cancel { effect } => format!("cancel {}", effect.0),
    }
}

fn schedule(when: When) -> Option<aos_types::Schedule> {
    let (rule, hours) = match when {
        When::Now => return None,
        When::Started(hours) => (aos_types::ScheduleRule::Trigger, hours),
        When::AtNight(hours) => (at_night(), hours),
    };
    Some(aos_types::Schedule {
        ttl: Some(Duration::from_secs(hours * 3600)),
        rule,
    })
}

/// The hours from one to four, every day.
fn at_night() -> aos_types::ScheduleRule {
    let hour = |hour: u32| aos_types::TimeOfDay::from_secs(hour * 3600);
    let slots: Vec<aos_types::TimeSlot> = hour(1)
        .zip(hour(4))
        .map(|(start, end)| aos_types::TimeSlot { start, end })
        .into_iter()
        .collect();
    let days = (1..=7).map(|day_of_week| aos_types::TimetableEntry {
        day_of_week,
        time_slots: slots.clone(),
    });
    let (timetable, _) = aos_types::Timetable::new(days.collect());
    timetable.map_or(
        aos_types::ScheduleRule::Trigger,
        aos_types::ScheduleRule::Timetable,
    )
}

pub(crate) fn brief(target: &Target) -> String {
    let items: Vec<String> = target
        .items
        .iter()
        .map(|item| {
            let ver = item.version.split('.').next().unwrap_or_default();
            format!("{}v{ver}", item.id)
        })
        .collect();
    let runs: u64 = target
        .instances
        .iter()
        .map(|entry| entry.num_instances)
        .sum();
    format!("[{}|{runs}]", items.join(" "))
}

pub(crate) fn error(text: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new(aos_types::AosCode::Failed, text)
}

pub(crate) type Wanted = Vec<Inst>;
