//! Judges the Unit by its promises. It looks at what is true (disks, processes, what the cloud made) and shares no rule
//! with the cores: what a core decided is compared with what was asked, never with the core's own comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use aos_launch::Instance;
use aos_session::Dropped;
use aos_time::Timestamp;
use aos_types::{InstanceIdent, InstanceState};
use aos_update::{Direction, Effect, Failures, Record, Target, UpdateState};

use crate::{
    cm::{GATE, LAUNCH, LOST, Placed, READY, brief},
    conduct::Conduct,
    coverage::{Fault, Row},
    draw::{Fate, HOUR, Intent, MIN, SEC, Storage, When},
    words::{
        Blob, Inst, Item, Ver, blobs_of, inst, item_number, node_number, of_digest, subject_number,
        version_number,
    },
    world::{World, say},
};

/// A promise that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its number in `docs/simulator.md`.
    pub promise: u8,
    /// What was found.
    pub text: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.promise {
            1 => "converges",
            2 => "never half",
            3 => "never unverified",
            4 => "never stranded",
            5 => "latest wins, never stuck",
            6 => "offline is normal",
            7 => "nothing lost",
            8 => "isolation",
            _ => "explained",
        };
        write!(f, "promise {} ({name}): {}", self.promise, self.text)
    }
}

/// How long a message that was asked for again holds back those behind it, at least.
const PATIENCE: Duration = SEC.saturating_mul(10);

/// What runs: items by version, instances by item and subject.
type Asked = (BTreeMap<Item, Ver>, BTreeMap<(Item, u8), u8>);

pub(crate) struct Oracle {
    pub(crate) broken: Option<Broken>,
    pub(crate) last_fault: Timestamp,
    pub(crate) conduct: Conduct,
    pub(crate) cm_started: Timestamp,
    /// The desired state that is being handed to the engine.
    pub(crate) taking: Option<usize>,
    /// All desired states the Unit has taken over.
    taken: BTreeSet<usize>,
    newest: usize,
    /// It has a schedule.
    is_timed: bool,
    /// Somebody has ever started an update, or consented to one: what was said of one is kept when it is asked for again,
    /// so only the first are judged.
    pub(crate) started_by: bool,
    pub(crate) consented: bool,
    taken_at: Timestamp,
    /// Alerts by txn; promised once they are stored.
    pub(crate) alerts: BTreeMap<String, u32>,
    /// Those that are, and since when.
    stored: BTreeMap<String, Timestamp>,
    dropped: BTreeSet<String>,
    /// When an instance was last seen to become active, by version.
    active: BTreeMap<(Inst, Ver), Timestamp>,
    launched_at: Timestamp,
    last_launched: Asked,
    stage: (UpdateState, bool, Target),
    stage_since: Timestamp,
    /// Since when the engine waits for instances, whatever of its target that is no end in itself changes meanwhile.
    waits_since: Timestamp,
    pub(crate) rotted: BTreeSet<Blob>,
    /// Where each instance wrote its storage: where it was started first, or again after its loss was accepted.
    homes: BTreeMap<Inst, usize>,
    /// The variables that CM has taken over last.
    pub(crate) overridden: Option<(usize, Timestamp)>,
    /// A message that CM did not take, on which connection and when: what came after it has to wait.
    refused: Option<(String, u64, Timestamp)>,
}

impl Oracle {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            broken: None,
            last_fault: now,
            conduct: Conduct::default(),
            cm_started: now,
            taking: None,
            taken: BTreeSet::new(),
            newest: 0,
            is_timed: false,
            started_by: false,
            consented: false,
            taken_at: now,
            alerts: BTreeMap::new(),
            stored: BTreeMap::new(),
            dropped: BTreeSet::new(),
            active: BTreeMap::new(),
            launched_at: now,
            last_launched: Asked::default(),
            stage: (UpdateState::None, false, Target::default()),
            stage_since: now,
            waits_since: now,
            rotted: BTreeSet::new(),
            homes: BTreeMap::new(),
            overridden: None,
            refused: None,
        }
    }

    pub(crate) fn stage_since(&self) -> Timestamp {
        self.stage_since
    }

    /// When the last launch began.
    pub(crate) fn launched_at(&self) -> Timestamp {
        self.launched_at
    }

    pub(crate) fn was_active(&mut self, inst: Inst, ver: Ver, now: Timestamp) {
        self.active.insert((inst, ver), now);
    }

    /// An instance is forgotten with all it kept.
    pub(crate) fn forget(&mut self, inst: Inst) {
        self.homes.remove(&inst);
    }

    pub(crate) fn stored(&mut self, txn: &str, now: Timestamp) {
        if self.alerts.contains_key(txn) {
            self.stored.insert(txn.to_owned(), now);
        }
    }

    pub(crate) fn dropped(&mut self, txn: &str, why: Dropped) {
        if why == Dropped::Full {
            self.dropped.insert(txn.to_owned());
        }
    }
}

fn asked(target: &Target) -> Asked {
    let items: BTreeMap<Item, Ver> = target
        .items
        .iter()
        .map(|item| (item_number(&item.id), version_number(&item.version)))
        .collect();
    let instances = target
        .instances
        .iter()
        .map(|entry| {
            let key = (item_number(&entry.item), subject_number(&entry.subject));
            (key, entry.num_instances as u8)
        })
        .collect();
    (items, instances)
}

fn wished(intent: &Intent) -> Asked {
    let instances = intent
        .instances
        .iter()
        .map(|(key, (count, _))| (*key, *count))
        .collect();
    (intent.items.clone(), instances)
}

/// What the Unit goes to by what is stored: something newer that waits, what is under way, what is tried again.
pub(crate) fn newest(record: &Record) -> &Target {
    let failed = record.failure.as_ref().map(|failure| &failure.target);
    let cycle = record.cycle.as_ref();
    let next = cycle.and_then(|cycle| cycle.next.as_ref());
    let forward = cycle.filter(|cycle| cycle.direction == Direction::Forward);
    next.or(forward.map(|cycle| cycle.asked.as_ref().unwrap_or(&cycle.target)))
        .or(failed)
        .unwrap_or(&record.committed)
}

/// Every instance of a set with its version.
fn instances(asked: &Asked) -> BTreeMap<Inst, Ver> {
    let mut all = BTreeMap::new();
    for ((item, subject), count) in &asked.1 {
        if let Some(ver) = asked.0.get(item) {
            for index in 0..*count {
                let inst = Inst {
                    item: *item,
                    subject: *subject,
                    index,
                };
                all.insert(inst, *ver);
            }
        }
    }
    all
}

impl World {
    pub(crate) fn broken(&mut self, promise: u8, text: impl FnOnce(&Self) -> String) {
        if self.oracle.broken.is_none() {
            let text = text(self);
            self.note(|_| format!("BROKEN promise {promise}: {text}"));
            self.oracle.broken = Some(Broken { promise, text });
        }
    }

    fn committed(&self) -> Asked {
        let record = self.cm.disk.engine.as_ref();
        record.map_or_else(Asked::default, |record| asked(&record.committed))
    }

    /// Sets that may be on the Nodes by what is recorded.
    fn recorded(&self) -> Vec<Asked> {
        let mut sets = vec![self.oracle.last_launched.clone()];
        if let Some(record) = &self.cm.disk.engine {
            sets.push(asked(&record.committed));
            sets.extend(record.launched.as_ref().map(asked));
            sets.extend(record.cycle.as_ref().map(|cycle| asked(&cycle.target)));
        }
        sets
    }

    // --- what CM does

    pub(crate) fn check_persisted(&mut self, before: Option<&Record>) {
        // Taken from the disk while it is looked at: a copy would cost more than all that follows.
        let Some(record) = self.cm.disk.engine.take() else {
            return;
        };
        self.check_record(before, &record);
        self.cm.disk.engine = Some(record);
    }

    fn check_record(&mut self, before: Option<&Record>, record: &Record) {
        let cycle = record.cycle.as_ref();
        let stage = (
            cycle.map_or(UpdateState::None, |cycle| cycle.state),
            cycle.is_some_and(|cycle| cycle.direction == Direction::Back),
        );
        let target = cycle.map(|cycle| &cycle.target);
        let known = &self.oracle.stage;
        let (waited, since) = (
            known.0 == UpdateState::WaitingActive,
            self.oracle.waits_since,
        );
        if stage.0 == UpdateState::WaitingActive && (known.0, known.1) != stage {
            self.oracle.waits_since = self.now;
        }
        let known = &self.oracle.stage;
        let entered =
            stage != (known.0, known.1) || target.unwrap_or(&Target::default()) != &known.2;
        if entered {
            let target = target.cloned().unwrap_or_default();
            self.oracle.stage = (stage.0, stage.1, target);
            self.oracle.stage_since = self.now;
            if stage.0 == UpdateState::Launching {
                self.oracle.launched_at = self.now;
            }
        }
        if entered && stage.0 == UpdateState::Installing && !stage.1 {
            self.check_gate(&asked(&self.oracle.stage.2), &asked(&record.committed));
        }
        let launched_before = before.and_then(|record| record.launched.as_ref());
        if let Some(launched) = &record.launched
            && launched_before != Some(launched)
        {
            self.oracle.last_launched = asked(launched);
        }
        let same = before.is_some_and(|before| before.committed == record.committed);
        let (old, new) = if same && !entered {
            Default::default()
        } else {
            let old = before.map_or_else(Asked::default, |record| asked(&record.committed));
            (old, asked(&record.committed))
        };
        if stage.0 == UpdateState::Finalizing && entered && !stage.1 {
            self.check_commit(&old, &new);
            if let (Some(cycle), Some(before)) = (cycle, before) {
                let launched = self.oracle.launched_at;
                self.check_tested(cycle, &before.committed, launched, waited.then_some(since));
            }
            self.check_config_in_force(&record.committed);
        } else if old != new {
            self.broken(2, |_| {
                format!(
                    "the committed set became {} outside a commit",
                    brief(&record.committed)
                )
            });
        }
        if let Some(rollback) = &record.rollback
            && before.and_then(|record| record.rollback.as_ref()) != Some(rollback)
        {
            self.coverage.row(Row::Rollback);
        }
        let failed_before = before.and_then(|record| record.failure.as_ref());
        if let Some(failure) = &record.failure
            && failed_before != Some(failure)
        {
            self.coverage.rollbacks += 1;
            if let Some(before) = failed_before
                && stage.0 != UpdateState::Finalizing
            {
                self.check_attempts(before, failure);
            }
            let before = failed_before.filter(|before| before.attempts + 1 == failure.attempts);
            if before.is_some() {
                self.coverage.row(Row::Again);
            }
            let alone = stage.0 == UpdateState::Finalizing;
            let row = match failure.expired {
                true => Row::Expired,
                false if alone => Row::Alone,
                false => row(failure.state, &failure.failures),
            };
            self.coverage.row(row);
            if failure.failures.summary().is_none_or(|why| why.is_empty()) {
                self.broken(9, |_| "an update failed and nobody says why".into());
            }
        }
    }

    /// An update goes through its gates, not around them.
    fn check_gate(&mut self, target: &Asked, committed: &Asked) {
        let Some(wish) = self.wishes.get(self.oracle.newest).cloned() else {
            return;
        };
        // What changes no item and no instance waits for nobody; an older update is judged no more.
        if *target != wished(&wish) || target == committed || self.oracle.taking.is_some() {
            return;
        }
        // The newest may have been stored by a CM that died over it: what counts is the schedule of what goes on.
        let rule = self
            .oracle
            .stage
            .2
            .sota_schedule
            .as_ref()
            .map(|it| &it.rule);
        let timed = rule == Some(&aos_types::ScheduleRule::Trigger);
        if timed && !self.oracle.started_by {
            self.broken(5, |_| {
                format!("#{} goes on, and nobody has started it", wish.number)
            });
        } else if self.scene.consent && !self.oracle.consented {
            self.broken(5, |_| {
                format!("#{} goes on, and nobody has consented", wish.number)
            });
        }
    }

    /// What the Unit goes to by its disk.
    pub(crate) fn newest_target(&self) -> Target {
        let record = self.cm.disk.engine.as_ref();
        record.map_or_else(Target::default, |record| newest(record).clone())
    }

    /// What is committed with a unit configuration has it in force.
    fn check_config_in_force(&mut self, committed: &Target) {
        let Some(config) = &committed.unit_config else {
            return;
        };
        let version = config.version.clone();
        let in_force = self.cm.disk.config.as_ref().map(|one| one.version.clone());
        if in_force.as_ref() != Some(&version) {
            self.broken(2, |_| {
                format!("unit configuration {version} is committed, and {in_force:?} is in force")
            });
        }
    }

    /// The new set becomes the one to go back to: every changed instance must have been active since the launch.
    fn check_commit(&mut self, old: &Asked, new: &Asked) {
        self.coverage.commits += 1;
        self.coverage.row(Row::Committed);
        let (before, after) = (instances(old), instances(new));
        for (inst, ver) in after {
            if before.get(&inst) == Some(&ver) {
                continue;
            }
            let since = self.oracle.launched_at;
            let active = self.oracle.active.get(&(inst, ver)).copied();
            // One that was started by an earlier launch of the same set may run on.
            let runs = self
                .nodes
                .iter()
                .any(|node| node.procs.get(&inst).is_some_and(|proc| proc.ver == ver));
            let good = active.is_some_and(|at| at >= since) || (active.is_some() && runs);
            if !good {
                self.broken(1, |_| {
                    format!("committed although {inst} v{ver} was never active")
                });
                return;
            }
        }
        for (item, ver) in &new.0 {
            if self.scene.fate(*item, *ver) == Fate::Unsigned {
                self.broken(3, |_| {
                    format!("i{item}v{ver} is committed, its signature is bad")
                });
            }
        }
    }

    pub(crate) fn check_effect(&mut self, effect: &Effect) {
        let none = Record::default();
        let record = self.cm.disk.engine.as_ref().unwrap_or(&none);
        let cycle = record.cycle.as_ref();
        let stored = match effect {
            Effect::Download { items, .. } => {
                cycle.is_some_and(|cycle| cycle.target.items == *items)
            }
            Effect::ApplyNodeStates { nodes } => {
                cycle.is_some_and(|cycle| cycle.target.nodes == *nodes)
            }
            Effect::ApplyUnitConfig { config, .. } => {
                cycle.is_some_and(|cycle| cycle.target.unit_config == *config)
            }
            Effect::InstallOnNodes { target } => cycle.is_some_and(|cycle| cycle.target == *target),
            Effect::Launch { target } => match cycle.map(|cycle| cycle.direction) {
                Some(Direction::Forward) => record.launched.as_ref() == Some(target),
                Some(Direction::Back) => {
                    record.launched.is_none() && asked(&record.committed) == asked(target)
                }
                None => false,
            },
            Effect::Commit { target } => record.committed == *target,
            Effect::AskReadiness | Effect::Cancel { .. } => true,
        };
        if !stored {
            let name = crate::cm::named(effect);
            self.broken(2, |_| {
                format!("the engine asks to {name}, the disk says otherwise")
            });
        }
        if let Effect::Launch { target } = effect {
            let old = self.committed();
            for (item, ver) in asked(target).0 {
                if old.0.get(&item) != Some(&ver) && !self.is_here(item, ver) {
                    self.broken(4, |_| {
                        format!("a set is launched, and i{item}v{ver} is not here and verified")
                    });
                }
            }
        }
    }

    /// All blobs of a version are at CM and were verified; what was damaged since is another matter.
    fn is_here(&self, item: Item, ver: Ver) -> bool {
        blobs_of(item, ver).iter().all(|blob| {
            let stored = self.cm.disk.blobs.get(blob);
            self.oracle.rotted.contains(blob) || stored.is_some_and(|stored| stored.verified)
        })
    }

    pub(crate) fn check_blob_removed(&mut self, blob: Blob) {
        let needs = |asked: &Asked| {
            asked
                .0
                .iter()
                .any(|(item, ver)| blobs_of(*item, *ver).contains(&blob))
        };
        if needs(&self.committed()) {
            self.broken(4, |_| {
                format!("blob {blob} of the committed set is removed")
            });
        }
        let under_way = self.cm.disk.engine.as_ref().and_then(|record| {
            let cycle = record.cycle.as_ref()?;
            (cycle.state > UpdateState::Downloading).then(|| asked(&cycle.target))
        });
        if under_way.is_some_and(|set| needs(&set)) {
            self.broken(4, |_| format!("blob {blob} of the set in work is removed"));
        }
    }

    /// A Node that is to part with an old version is told so when the new one can start where that shall run.
    fn check_parting(&mut self, node: usize, list: &[aos_launch::Instance]) {
        if self.cm.disk.paused.contains(&node) {
            return;
        }
        let keeps: BTreeSet<Inst> = list
            .iter()
            .map(|one| crate::words::inst(&one.ident))
            .collect();
        let stranded = self.nodes[node].procs.iter().find_map(|(inst, proc)| {
            if keeps.contains(inst) {
                return None;
            }
            let placed = self.cm.disk.placed.get(&self.names.ident(*inst))?;
            let (at, _) = placed.place.as_ref()?;
            let (at, ver) = (node_number(at), version_number(&placed.version));
            let other = &self.nodes[at];
            let run = self.cm.run.as_ref()?;
            let told = run.seen[at].view.as_ref()?;
            let reachable = at != node && other.conn == Some(told.conn) && told.snapshot.is_some();
            let there = other.images.contains_key(&(inst.item, ver));
            (reachable && !there && proc.ver != ver).then_some((*inst, ver, at))
        });
        if let Some((inst, ver, at)) = stranded {
            self.broken(4, |_| {
                format!("n{node} shall part with {inst}, v{ver} of which is not on n{at}")
            });
        }
    }

    /// An instance leaves its Node only if that cannot have it any longer.
    pub(crate) fn check_moves(&mut self, next: &BTreeMap<InstanceIdent, Placed>) {
        let at = |placed: &Placed| placed.place.as_ref().map(|(node, _)| node_number(node));
        let ready: BTreeSet<usize> = self
            .known()
            .into_iter()
            .filter(|known| known.ready)
            .map(|known| known.node)
            .collect();
        let paused: Vec<usize> = self.cm.disk.paused.iter().copied().collect();
        let moved = next.iter().find_map(|(ident, new)| {
            let (from, to) = (at(self.cm.disk.placed.get(ident)?)?, at(new)?);
            let which = inst(ident);
            let stays = ready.contains(&from) && self.places_of(which, &paused).contains(&from);
            let beside = next.iter().filter(|(_, one)| at(one) == Some(from));
            let load = self.load(from, beside.map(|(one, _)| inst(one)).chain([which]));
            let fits = load.iter().all(|(sum, has)| *has == 0 || sum <= has);
            (from != to && stays && fits).then_some((which, from, to))
        });
        if let Some((which, from, to)) = moved {
            self.broken(4, |_| {
                format!("{which} leaves n{from} for n{to} and might have stayed")
            });
        }
    }

    pub(crate) fn check_sent(&mut self, node: usize, list: &[aos_launch::Instance]) {
        self.check_parting(node, list);
        let sets: Vec<BTreeMap<Inst, Ver>> = self.recorded().iter().map(instances).collect();
        for one in list {
            let stored = self.cm.disk.placed.get(&one.ident);
            let here = stored.is_some_and(|placed| {
                placed.version == one.version
                    && placed
                        .place
                        .as_ref()
                        .is_some_and(|(at, _)| node_number(at) == node)
            });
            if !here {
                self.broken(2, |_| {
                    format!(
                        "n{node} is given {} {}, which is not recorded",
                        one.ident, one.version
                    )
                });
                return;
            }
            let (inst, ver) = (crate::words::inst(&one.ident), version_number(&one.version));
            if !sets.iter().any(|set| set.get(&inst) == Some(&ver)) {
                self.broken(2, |_| {
                    format!("n{node} is given {inst} v{ver}, which is of no recorded set")
                });
                return;
            }
        }
    }

    /// The engine has dealt with a desired state: it must be the newest thing on the disk.
    pub(crate) fn check_taken(&mut self, number: usize) {
        self.oracle.taking = None;
        self.oracle.taken.insert(number);
        self.oracle.newest = number;
        self.oracle.is_timed = self.wishes[number].when != When::Now;
        self.oracle.taken_at = self.now;
        let wish = wished(&self.wishes[number]);
        let none = Record::default();
        let newest = newest(self.cm.disk.engine.as_ref().unwrap_or(&none));
        if asked(newest) != wish {
            let text = brief(newest);
            self.broken(5, |world| {
                format!(
                    "desired state #{number} was taken over, the engine goes to {text}; wanted {}",
                    say(&world.wishes[number])
                )
            });
        }
        let before = &self.wishes[number.saturating_sub(1)];
        let repeated = Intent {
            number,
            ..before.clone()
        };
        if repeated == self.wishes[number] {
            self.coverage.fault(Fault::Repeated);
        }
    }

    /// The cloud has heard that a desired state was taken over.
    pub(crate) fn check_acked(&mut self, number: usize) {
        if !self.oracle.taken.contains(&number) {
            self.broken(7, |_| {
                format!("desired state #{number} is acknowledged, the Unit never stored it")
            });
        }
    }

    /// No stage lasts longer than it may.
    pub(crate) fn check_stage(&mut self) {
        if self.cm.run.is_none() {
            return;
        }
        let limit = match self.oracle.stage.0 {
            UpdateState::None => return,
            UpdateState::Downloading => 24 * HOUR,
            UpdateState::Pending => GATE.max(40 * HOUR) + READY,
            UpdateState::Installing | UpdateState::Launching => LAUNCH * 3 + LOST + MIN,
            UpdateState::WaitingActive => 10 * MIN,
            UpdateState::Finalizing => 2 * HOUR,
        };
        // A clock that was put back is seen when the engine wakes: then it grants the whole time once more, at most.
        let since = self.oracle.stage_since.max(self.oracle.cm_started);
        let (since, limit) = match self.oracle.conduct.jumped_since(since) {
            Some(jumped) => (jumped, limit * 2),
            None => (since, limit),
        };
        if self.now.since(since) > limit + 5 * MIN {
            self.broken(5, |world| {
                format!("{} lasts longer than it may", world.oracle.stage.0)
            });
        }
        self.check_half_done(15 * MIN);
    }

    // --- what the Nodes do

    pub(crate) fn check_start(&mut self, node: usize, inst: Inst, ver: Ver, image: bool, uid: u32) {
        if self.scene.fate(inst.item, ver) == Fate::Unsigned {
            self.broken(3, |_| {
                format!("n{node} runs {inst} v{ver}, its signature is bad")
            });
        }
        if !image {
            self.broken(3, |_| {
                format!("n{node} runs {inst} v{ver} from a damaged image")
            });
        }
        let stored = self.nodes[node].stored.get(&inst);
        if stored.is_none_or(|stored| version_number(&stored.version) != ver) {
            self.broken(2, |_| {
                format!("n{node} runs {inst} v{ver}, its disk says otherwise")
            });
        }
        // A Node that CM has spoken to for a while has been told to stop it before.
        let other = self.nodes.iter().find(|other| {
            other.number != node
                && other.conn.is_some()
                && self.now.since(other.conn_since) > 30 * MIN
                && self.nodes[node].conn.is_some()
                && self.now.since(self.nodes[node].conn_since) > 30 * MIN
                && other.procs.contains_key(&inst)
        });
        if let Some(other) = other.map(|other| other.number) {
            self.broken(8, |_| {
                format!("{inst} is started on n{node} and still runs on n{other}")
            });
        }
        if let Some(proc) = self.nodes[node].procs.get(&inst) {
            let pid = proc.pid;
            self.broken(8, |_| {
                format!("{inst} is started on n{node} beside itself ({pid})")
            });
        }
        let here = self.nodes[node].procs.keys().copied();
        let load = self.load(node, here.chain([inst]));
        if load.iter().any(|(sum, has)| *has > 0 && sum > has) {
            self.broken(8, |_| {
                format!("n{node} starts {inst} and has no room for it: {load:?} (used, there)")
            });
        }
        let storage = self.scene.items[usize::from(inst.item)].storage;
        if storage != Storage::Nothing {
            let home = self.oracle.homes.insert(inst, node);
            if let Some(home) = home.filter(|home| *home != node)
                && storage == Storage::Pinned
            {
                self.broken(7, |_| {
                    format!("{inst} is started on n{node}, its storage is on n{home}")
                });
            }
        }
        let twin = self.nodes[node]
            .procs
            .iter()
            .find(|(other, proc)| **other != inst && proc.uid == uid)
            .map(|(other, _)| *other);
        if let Some(other) = twin {
            self.broken(8, |_| {
                format!("n{node} runs {inst} and {other} as the same user {uid}")
            });
        }
    }

    /// One that is stopped to be replaced is replaced by something else.
    fn check_cause(&mut self, node: usize, inst: Inst, ordered: bool, next: Option<&Instance>) {
        let it = &self.nodes[node];
        let (Some(next), Some(proc)) = (next, it.procs.get(&inst)) else {
            return;
        };
        let same = proc.started_as.as_ref().is_some_and(|now| {
            (&now.version, &now.manifest, now.uid) == (&next.version, &next.manifest, next.uid)
                && now.env == next.env
        });
        let there = it.images.contains_key(&of_digest(&next.manifest));
        if !there {
            self.broken(4, |_| {
                format!("{inst} is stopped on n{node}, its replacement is not there")
            });
        }
        if same && !ordered {
            self.broken(4, |_| {
                format!("{inst} is stopped on n{node} and nothing of it has changed")
            });
        }
    }

    /// What runs is stopped, because CM asked for it or not, and maybe something comes next in its place.
    pub(crate) fn check_stop(
        &mut self,
        node: usize,
        inst: Inst,
        ordered: bool,
        next: Option<&Instance>,
    ) {
        let Some(old) = self.nodes[node].procs.get(&inst).map(|proc| proc.ver) else {
            return;
        };
        self.check_cause(node, inst, ordered, next);
        if instances(&self.committed()).get(&inst) != Some(&old) {
            return;
        }
        let Some(target) = self
            .cm
            .disk
            .engine
            .as_ref()
            .and_then(|record| record.launched.as_ref())
            .map(asked)
        else {
            return;
        };
        match instances(&target).get(&inst).copied() {
            // What takes its place was looked at when the list was sent.
            Some(_) => {}
            None => {
                // A newer desired state that fetches meanwhile needs the space: nobody goes back to this set.
                let record = self.cm.disk.engine.as_ref();
                let cycle = record.and_then(|record| record.cycle.as_ref());
                if cycle.is_some_and(|cycle| asked(&cycle.target) != target) {
                    return;
                }
                for (item, ver) in &target.0 {
                    if !self.is_here(*item, *ver) {
                        self.broken(4, |_| {
                            format!("{inst} is stopped for a set whose i{item}v{ver} is not here")
                        });
                        return;
                    }
                }
            }
        }
    }

    /// A quarter of an hour after its start a Node runs what it has stored, with or without anybody else.
    pub(crate) fn check_offline(&mut self, node: usize, life: u32) {
        let it = &self.nodes[node];
        if it.life != life || self.scene.rates.start_fails != 0 {
            return;
        }
        let missing = it.stored.iter().find_map(|(inst, stored)| {
            let ver = version_number(&stored.version);
            let sound = it.images.get(&(inst.item, ver)) == Some(&true)
                && self.scene.fate(inst.item, ver) == Fate::Good;
            let runs = it.procs.get(inst).is_some_and(|proc| proc.ver == ver);
            let entry = it.entries.get(inst);
            let young = entry.is_some_and(|entry| {
                version_number(&entry.instance.version) != ver
                    || entry.state != InstanceState::Active
            }) && !it.is_quiet();
            let pauses = entry.is_some_and(|entry| entry.pauses(self.now));
            (sound && !runs && !young && !pauses).then_some((*inst, ver))
        });
        if let Some((inst, ver)) = missing {
            self.broken(6, |_| {
                format!("n{node} is up for 15 min and does not run {inst} v{ver} of its stored set")
            });
        }
    }

    // --- when all is quiet

    /// After a calm time: the Unit is where it shall be, or says why not, and runs the set it says it runs.
    pub(crate) fn check_rest(&mut self) {
        let Some(run) = &self.cm.run else {
            self.broken(1, |_| "CM does not run after a calm day".into());
            return;
        };
        let (state, online) = (run.engine.state(), run.online);
        if !online {
            self.broken(1, |_| "the Unit is not connected after a calm day".into());
            return;
        }
        let record = run.engine.record();
        let failed = record.failure.is_some();
        let undo = record
            .cycle
            .as_ref()
            .is_some_and(|cycle| cycle.undo.is_some());
        let rolls_back = record.rollback.is_some();
        let gated = self.scene.consent || self.scene.readiness.is_some();
        let rests = match state {
            UpdateState::None => true,
            // What cannot be fetched is tried again for ever.
            UpdateState::Downloading => failed,
            UpdateState::Pending => gated || self.oracle.is_timed,
            // So is a way back, and an update that failed may be at it once more (seed 5846): whether there is an excuse
            // for that is judged below.
            _ => rolls_back || failed,
        };
        if !rests {
            self.broken(5, |_| {
                format!("after a calm day the update is still in {state}")
            });
            return;
        }
        let last = self.wishes.len() - 1;
        if self.oracle.newest != last {
            self.broken(5, |world| {
                format!(
                    "the newest desired state is #{last}, the Unit took #{} last",
                    world.oracle.newest
                )
            });
            return;
        }
        if state != UpdateState::Pending {
            self.check_reached(last);
        }
        if !undo && !rolls_back {
            self.check_running();
        }
        self.check_told();
    }

    fn check_reached(&mut self, last: usize) {
        let wish = self.wishes[last].clone();
        let (committed, asked_for) = (self.committed(), wished(&wish));
        let record = self.cm.disk.engine.clone().unwrap_or_default();
        if let Some(rollback) = &record.rollback {
            let paused: Vec<usize> = self.cm.disk.paused.iter().copied().collect();
            let excused = committed.0.iter().any(|(item, ver)| {
                !self.is_sound(*item, *ver) || !self.has_place(*item, &committed, &paused)
            }) || !self.fits_surely(&instances(&committed), &paused);
            if !excused {
                let why = rollback.failures.summary().unwrap_or_default();
                self.broken(4, |_| {
                    format!("the committed set does not come back: {why}")
                });
            }
        }
        if committed == asked_for {
            return;
        }
        let Some(failure) = record.failure else {
            self.broken(9, |_| {
                format!("#{last} was not reached and nobody says why")
            });
            return;
        };
        let disturbed = self.oracle.last_fault >= self.oracle.taken_at;
        let gated = self.scene.consent || self.scene.readiness.is_some() || self.oracle.is_timed;
        let excused = self.is_hopeless(&wish)
            || (failure.expired && gated)
            || (failure.retry_at.is_none() && failure.attempts >= 10 && disturbed)
            || self.but_for_independent(&committed, &asked_for, disturbed);
        if !excused {
            let why = failure.failures.summary().unwrap_or_default();
            self.broken(1, |_| {
                format!("#{last} could have been reached and was not: {why}")
            });
        }
    }

    /// Whether a version could run: nothing is wrong with it, and nothing of it was damaged at CM.
    fn is_sound(&self, item: Item, ver: Ver) -> bool {
        self.scene.fate(item, ver) == Fate::Good
            && !blobs_of(item, ver)
                .iter()
                .any(|blob| self.oracle.rotted.contains(blob))
    }

    /// Whether only items that may fail alone, and had a reason to, are not as asked.
    fn but_for_independent(&self, committed: &Asked, wish: &Asked, disturbed: bool) -> bool {
        let alone = |item: &Item| {
            self.scene.is_independent(*item)
                && wish.0.get(item).is_some_and(|ver| {
                    disturbed || !self.is_sound(*item, *ver) || !self.has_place(*item, wish, &[])
                })
        };
        let rest = |set: &Asked| -> Asked {
            let items = set.0.iter().filter(|(item, _)| !alone(item));
            let instances = set.1.iter().filter(|((item, _), _)| !alone(item));
            (
                items.map(|(item, ver)| (*item, *ver)).collect(),
                instances.map(|(key, count)| (*key, *count)).collect(),
            )
        };
        rest(committed) == rest(wish)
    }

    /// Whether a wish cannot come true on this Unit.
    fn is_hopeless(&self, wish: &Intent) -> bool {
        wish.items.iter().any(|(item, ver)| {
            !self.scene.is_independent(*item) && self.scene.fate(*item, *ver) != Fate::Good
        }) || wish.config.is_some_and(|(_, taken)| !taken)
            || wish.paused.iter().any(|node| self.nodes[*node].gone)
            || self.is_too_much(wish)
            || !self.fits_surely(&instances(&wished(wish)), &wish.paused)
            || (wish.items.iter()).any(|(item, ver)| {
                self.scene.fate(*item, *ver) == Fate::TooBig && !self.scene.is_independent(*item)
            })
    }

    /// Whether the old set and the new one do not fit beside each other.
    fn is_too_much(&self, wish: &Intent) -> bool {
        let both: BTreeSet<Blob> = self
            .committed()
            .0
            .iter()
            .chain(&wish.items)
            .flat_map(|(item, ver)| blobs_of(*item, *ver))
            .collect();
        both.len() as u64 > self.scene.space
    }

    /// The Nodes where an instance may run. One that was placed with its storage may only run there: the Node may have
    /// started it.
    fn places_of(&self, inst: Inst, paused: &[usize]) -> Vec<usize> {
        let label = self.scene.label(inst.item);
        let pinned = self.scene.items[usize::from(inst.item)].storage == Storage::Pinned;
        let home = pinned
            .then(|| self.cm.disk.placed.get(&self.names.ident(inst)))
            .flatten();
        let home = home
            .and_then(|placed| placed.home.as_ref())
            .map(node_number);
        self.nodes
            .iter()
            .filter(|node| {
                node.known
                    && !node.gone
                    && !paused.contains(&node.number)
                    && label.is_none_or(|label| self.scene.labels[node.number] & (1 << label) != 0)
                    && home.is_none_or(|home| home == node.number)
            })
            .map(|node| node.number)
            .collect()
    }

    /// Whether each instance of an item in a set has a Node where it may run.
    fn has_place(&self, item: Item, set: &Asked, paused: &[usize]) -> bool {
        instances(set)
            .keys()
            .filter(|inst| inst.item == item)
            .all(|inst| !self.places_of(*inst, paused).is_empty())
    }

    /// CM does not take a message now; it asks for it again.
    pub(crate) fn refuses(&mut self, txn: &str) {
        let conn = self.wire.conn;
        let open = self.oracle.refused.as_ref();
        // The first one counts until it is back.
        let waits = open.is_some_and(|(_, of, at)| *of == conn && self.now.since(*at) < PATIENCE);
        if !waits {
            self.oracle.refused = Some((txn.to_owned(), conn, self.now));
        }
    }

    /// CM is given a message of the cloud: none that came later than a refused one overtakes it.
    pub(crate) fn check_delivered(&mut self, txn: &str) {
        let Some((refused, conn, at)) = self.oracle.refused.clone() else {
            return;
        };
        if refused == txn || conn != self.wire.conn || self.now.since(at) >= PATIENCE {
            self.oracle.refused = None;
        } else {
            self.broken(7, |_| {
                format!("message {txn} overtakes {refused}, which CM has asked for again")
            });
        }
    }

    /// What every instance on a Node asks for, and what the Node has, one by one.
    fn load(&self, node: usize, insts: impl Iterator<Item = Inst>) -> Vec<(u64, u64)> {
        let mut sums = [0; 3];
        for inst in insts {
            let takes = self.scene.items[usize::from(inst.item)].takes.each();
            for (sum, takes) in sums.iter_mut().zip(takes) {
                *sum += takes;
            }
        }
        sums.into_iter().zip(self.scene.has[node].each()).collect()
    }

    /// Whether a Node has room for an instance beside all that is as important.
    fn has_room(&self, node: usize, inst: Inst, priorities: &BTreeMap<(Item, u8), u64>) -> bool {
        let of = |inst: &Inst| priorities.get(&(inst.item, inst.subject)).copied();
        let beside = self.nodes[node]
            .entries
            .keys()
            .filter(|other| **other != inst && of(other) >= of(&inst))
            .copied();
        let load = self.load(node, beside.chain([inst]));
        load.iter().all(|(sum, has)| *has == 0 || sum <= has)
    }

    /// Whether all instances of a set find room whatever the order in which they are placed: for each, the others together
    /// cannot fill all the Nodes where it may run.
    fn fits_surely(&self, set: &BTreeMap<Inst, Ver>, paused: &[usize]) -> bool {
        let amounts = |inst: &Inst| self.scene.items[usize::from(inst.item)].takes.each();
        let mut total = [0; 3];
        for inst in set.keys() {
            for (sum, takes) in total.iter_mut().zip(amounts(inst)) {
                *sum += takes;
            }
        }
        set.keys().all(|inst| {
            let places = self.places_of(*inst, paused);
            let own = amounts(inst);
            let mut filled = 0;
            for of in 0..3 {
                let mut others = total[of] - own[of];
                let has = places.iter().map(|node| self.scene.has[*node].each()[of]);
                let mut costs: Vec<u64> = has
                    .filter(|has| *has > 0)
                    .map(|has| (has + 1).saturating_sub(own[of]))
                    .collect();
                costs.sort_unstable();
                for cost in costs {
                    if cost > others {
                        break;
                    }
                    others -= cost;
                    filled += 1;
                }
            }
            filled < places.len()
        })
    }

    /// What runs is the committed set: each instance once, where it may run, and nothing else.
    fn check_running(&mut self) {
        let committed = instances(&self.committed());
        let paused: Vec<usize> = self.cm.disk.paused.iter().copied().collect();
        let record = self.cm.disk.engine.iter();
        let priorities: BTreeMap<(Item, u8), u64> = record
            .flat_map(|record| &record.committed.instances)
            .map(|entry| {
                let key = (item_number(&entry.item), subject_number(&entry.subject));
                (key, entry.priority)
            })
            .collect();
        let mut runs: BTreeMap<Inst, Vec<(usize, Ver)>> = BTreeMap::new();
        for node in &self.nodes {
            for (inst, proc) in &node.procs {
                runs.entry(*inst).or_default().push((node.number, proc.ver));
            }
        }
        let extra = runs
            .iter()
            .find(|(inst, at)| at.iter().any(|(_, ver)| committed.get(inst) != Some(ver)))
            .map(|(inst, at)| format!("{inst} runs at {at:?} (node, version)"));
        if let Some(extra) = extra {
            self.broken(2, |_| format!("{extra}, which is not of the committed set"));
            return;
        }
        for (inst, ver) in &committed {
            let at = runs.get(inst).map_or(&[][..], Vec::as_slice);
            if at.len() > 1 {
                let text = format!("{inst} runs {} times: {at:?}", at.len());
                self.broken(8, |_| text);
                return;
            }
            // What was damaged at CM is fetched again with the next update that has it, not before.
            let rotted = blobs_of(inst.item, *ver)
                .iter()
                .any(|blob| self.oracle.rotted.contains(blob));
            // One that was active for a moment may have been committed, and ends again and again.
            let sound = !rotted && self.scene.fate(inst.item, *ver) == Fate::Good;
            let has_room = |node: &usize| self.has_room(*node, *inst, &priorities);
            // Seed 11645: a variable that ends in this moment restarts it.
            let restarts = self.env_asked(*inst).is_none();
            if at.is_empty()
                && sound
                && !restarts
                && self.places_of(*inst, &paused).iter().any(has_room)
            {
                let (inst, ver) = (*inst, *ver);
                self.broken(4, |_| {
                    format!("{inst} v{ver} of the committed set does not run after a calm day")
                });
                return;
            }
            let proc = at
                .first()
                .and_then(|(node, _)| self.nodes[*node].procs.get(inst));
            let has = proc
                .and_then(|proc| proc.started_as.as_ref())
                .map(|it| &it.env);
            // It is not started anew from an image that cannot be had.
            if let (Some(has), Some(asked)) = (has, self.env_asked(*inst))
                && sound
                && *has != asked
            {
                let text = format!("{inst} runs at {at:?} with {has:?}, it shall have {asked:?}");
                self.broken(1, |_| text);
                return;
            }
            if let Some((node, _)) = at.first()
                && paused.contains(node)
            {
                let text = format!("{inst} runs on n{node}, which is paused");
                self.broken(8, |_| text);
                return;
            }
        }
    }

    /// The cloud knows how the Unit is, and has what the Unit promised to tell.
    fn check_told(&mut self) {
        let Some(run) = &self.cm.run else { return };
        let mut truth = crate::cm::status(&run.engine);
        truth.busy = false;
        let mut told = self.cloud.status.clone().unwrap_or_default();
        told.busy = false;
        if told != truth {
            self.broken(7, |_| {
                format!("the cloud was told {told:?}, true is {truth:?}")
            });
        }
        // What was stored a moment ago may still be on its way.
        let lost = self.oracle.stored.iter().find(|(txn, since)| {
            let number = self.oracle.alerts.get(*txn).copied().unwrap_or(0);
            let times = self.cloud.alerts.get(&number).copied().unwrap_or(0);
            let due = self.now.since(**since) > 5 * MIN;
            (times > 1 || times == 0 && due) && !self.oracle.dropped.contains(*txn)
        });
        let lost = lost.map(|(txn, _)| txn.clone());
        let gone = self.oracle.stored.keys().filter(|txn| {
            let number = self.oracle.alerts.get(*txn).copied().unwrap_or(0);
            self.oracle.dropped.contains(*txn) && !self.cloud.alerts.contains_key(&number)
        });
        let (gone, told) = (gone.count() as u64, self.cloud.lost);
        if gone > told {
            self.broken(7, |_| {
                format!("{gone} alerts were dropped, the cloud was told of {told}")
            });
        }
        if let Some(txn) = lost {
            let number = self.oracle.alerts.get(&txn).copied().unwrap_or(0);
            let times = self.cloud.alerts.get(&number).copied().unwrap_or(0);
            self.broken(7, |_| {
                format!("alert {number} ({txn}) arrived {times} times")
            });
        }
    }
}

fn row(state: UpdateState, failures: &Failures) -> Row {
    if failures.step.is_some() {
        return Row::Late;
    }
    match state {
        UpdateState::None | UpdateState::Downloading | UpdateState::Pending => Row::Download,
        UpdateState::Installing if failures.instances.is_empty() => Row::Configuration,
        UpdateState::Installing => Row::Firmware,
        UpdateState::Launching => Row::Launch,
        _ => {
            let timeout = failures
                .instances
                .values()
                .any(|error| error.aos_code == aos_types::AosCode::Timeout as i32);
            if timeout { Row::Timeout } else { Row::Failed }
        }
    }
}
