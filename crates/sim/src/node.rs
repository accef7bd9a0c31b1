//! A Node: its power, its SM with the launch planner, and the instances that its keeper runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use aos_launch::{Found, Instance, Run, Start, Stop, StopReason, plan_by};
use aos_time::Timestamp;
use aos_types::{InstanceIdent, InstanceState};

use crate::{
    cm::error,
    coverage::Fault,
    draw::{Fate, HOUR, MIN, SEC},
    event::{Event, Over},
    mutation::{Mutation, planted_lists},
    words::{Inst, Item, Ver, blobs_of, inst, of_digest, version_number},
    world::World,
};

/// Ends after which an instance is given up, though it is still started now and then.
const BURST: u32 = 5;
/// Longest pause before a start.
const LONGEST: Duration = Duration::from_secs(300);

/// A process of an instance, a child of the keeper: it outlives SM.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    pub(crate) pid: u64,
    pub(crate) ver: Ver,
    pub(crate) uid: u32,
    /// What it was started from.
    pub(crate) started_as: Option<Instance>,
}

/// One instance as SM knows it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) instance: Instance,
    pub(crate) state: InstanceState,
    error: Option<&'static str>,
    pid: Option<u64>,
    retry: Option<u64>,
    instead: Option<(Instance, &'static str)>,
    ends: u32,
    started: Option<Timestamp>,
    /// When it ended last, by itself.
    ended: Option<Timestamp>,
}

impl Entry {
    /// It ended a moment ago, so the pause before its next start may not be over.
    pub(crate) fn pauses(&self, now: Timestamp) -> bool {
        let ended = self.ended.is_some_and(|at| now.since(at) <= LONGEST);
        ended && self.retry.is_some()
    }

    fn new(instance: Instance) -> Self {
        Self {
            instance,
            state: InstanceState::Activating,
            error: None,
            pid: None,
            retry: None,
            instead: None,
            ends: 0,
            started: None,
            ended: None,
        }
    }
}

/// How an instance is doing, as CM is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reported {
    pub(crate) ver: Ver,
    pub(crate) state: InstanceState,
    pub(crate) error: Option<&'static str>,
}

/// All instances of a Node, and which orders are done.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) reports: BTreeMap<Inst, Reported>,
    pub(crate) answered: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Ordered {
    order: u64,
    list: crate::cm::List,
    stop: BTreeSet<InstanceIdent>,
}

#[derive(Debug)]
struct Launching {
    list: Ordered,
    plan: aos_launch::Plan,
    start: Vec<Start>,
    held: BTreeMap<InstanceIdent, &'static str>,
    switching: bool,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    /// IAM knows it.
    pub(crate) known: bool,
    /// It never comes back.
    pub(crate) gone: bool,
    /// It is off until somebody ends that.
    away: bool,
    pub(crate) power: bool,
    /// Its network to CM.
    pub(crate) link: bool,
    pub(crate) sm: bool,
    pub(crate) life: u32,
    pub(crate) conn: Option<u64>,
    pub(crate) conn_since: Timestamp,
    // on its disk
    pub(crate) stored: BTreeMap<Inst, Instance>,
    pub(crate) images: BTreeMap<(Item, Ver), bool>,
    /// When an image was last asked for: it stays for an hour, whether anybody uses it or not.
    asked: BTreeMap<(Item, Ver), Timestamp>,
    // run by the keeper
    pub(crate) procs: BTreeMap<Inst, Proc>,
    // in SM
    pub(crate) entries: BTreeMap<Inst, Entry>,
    wanted: Option<Ordered>,
    in_hand: Option<Launching>,
    answered: Vec<u64>,
    /// The newest order it was given.
    newest: u64,
    /// The last list, if something of it could not be had.
    held: Option<Ordered>,
    holds: u32,
    launches: u64,
    restored: bool,
    telling: bool,
    tokens: u64,
    pub(crate) booted: Timestamp,
}

impl Node {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            known: false,
            gone: false,
            away: false,
            power: false,
            link: true,
            sm: false,
            life: 0,
            conn: None,
            conn_since: Timestamp::EPOCH,
            stored: BTreeMap::new(),
            images: BTreeMap::new(),
            asked: BTreeMap::new(),
            procs: BTreeMap::new(),
            entries: BTreeMap::new(),
            wanted: None,
            in_hand: None,
            answered: Vec::new(),
            newest: 0,
            held: None,
            holds: 0,
            launches: 0,
            restored: false,
            telling: false,
            tokens: 0,
            booted: Timestamp::EPOCH,
        }
    }

    /// Whether the Node can be reached over the network of the Unit.
    pub(crate) fn reachable(&self) -> bool {
        self.power && (self.link || self.number == 0)
    }

    /// No list is being carried out.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wanted.is_none() && self.in_hand.is_none()
    }

    fn forget(&mut self) {
        self.sm = false;
        self.life += 1;
        self.conn = None;
        self.entries.clear();
        self.wanted = None;
        self.in_hand = None;
        self.answered.clear();
        self.held = None;
        self.holds = 0;
        self.restored = false;
        self.telling = false;
    }
}

impl World {
    // --- power and network

    pub(crate) fn node_boots(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.power || it.gone || it.away || life != it.life {
            return;
        }
        if !it.known {
            it.known = true;
            self.coverage.fault(Fault::NodeNew);
            // It may bring the room for want of which all attempts failed before (seed 9331).
            self.oracle.last_fault = self.now;
            self.note(|_| format!("n{node} appears"));
        }
        let it = &mut self.nodes[node];
        it.power = true;
        it.booted = self.now;
        let life = it.life;
        self.note(|_| format!("n{node} boots"));
        let after = self.dice.time(SEC, 10 * SEC);
        self.after(after, Event::SmBoot { node, life });
        if node == 0 {
            let after = self.dice.time(SEC, 20 * SEC);
            let life = self.cm.life;
            self.after(after, Event::CmBoot { life });
        }
    }

    pub(crate) fn node_loses_power(&mut self, node: usize) {
        if !self.nodes[node].power {
            return;
        }
        self.power_goes(node);
        let after = self.dice.scale(SEC, 10 * MIN);
        let life = self.nodes[node].life;
        self.after(after, Event::NodeBoot { node, life });
    }

    fn power_goes(&mut self, node: usize) {
        self.note(|_| format!("n{node} loses power"));
        self.oracle.last_fault = self.now;
        self.nodes[node].power = false;
        let procs: Vec<Inst> = self.nodes[node].procs.keys().copied().collect();
        for which in procs {
            self.proc_stops(node, which);
        }
        self.nodes[node].forget();
        self.node_hangs_up(node);
        if node == 0 {
            self.cm_dies(true);
        }
    }

    pub(crate) fn node_goes_away(&mut self, node: usize, span: Duration) {
        if !self.nodes[node].power || self.nodes[node].gone {
            return;
        }
        self.power_goes(node);
        self.nodes[node].away = true;
        self.after(span, Event::Over(Over::NodeAway(node)));
    }

    pub(crate) fn node_comes_back(&mut self, node: usize) {
        if self.nodes[node].gone {
            return;
        }
        self.nodes[node].away = false;
        let life = self.nodes[node].life;
        self.node_boots(node, life);
    }

    pub(crate) fn node_is_gone(&mut self, node: usize) {
        self.note(|_| format!("n{node} vanishes for good"));
        if self.nodes[node].power {
            self.power_goes(node);
        }
        self.nodes[node].gone = true;
    }

    pub(crate) fn node_link_goes_down(&mut self, node: usize, span: Duration) {
        if node == 0 || !self.nodes[node].link {
            return;
        }
        self.note(|_| format!("the link of n{node} is down for {span:?}"));
        self.nodes[node].link = false;
        self.node_hangs_up(node);
        self.after(span, Event::Over(Over::NodeLink(node)));
    }

    pub(crate) fn node_link_comes_up(&mut self, node: usize) {
        if !self.nodes[node].link {
            self.nodes[node].link = true;
            self.node_dials(node);
        }
    }

    /// The stream between SM and CM has ended.
    fn node_hangs_up(&mut self, node: usize) {
        self.nodes[node].conn = None;
        self.cm_loses_node(node);
    }

    pub(crate) fn sm_dies(&mut self, node: usize) {
        if !self.nodes[node].sm {
            return;
        }
        self.note(|_| format!("SM of n{node} is killed"));
        self.oracle.last_fault = self.now;
        self.nodes[node].forget();
        self.node_hangs_up(node);
        let after = self.dice.scale(Duration::from_millis(100), MIN);
        let life = self.nodes[node].life;
        self.after(after, Event::SmBoot { node, life });
    }

    /// True if SM, or the Node, did not survive.
    fn sm_cut(&mut self, node: usize) -> bool {
        let rate = self.scene.rates.cut_sm;
        if !self.unlucky(rate, Fault::CutInSwitch) {
            return false;
        }
        if self.dice.percent(50) {
            self.node_loses_power(node);
        } else {
            self.sm_dies(node);
        }
        true
    }

    pub(crate) fn sm_boots(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.life != life || it.sm || !it.power {
            return;
        }
        it.sm = true;
        self.note(|_| format!("SM of n{node} starts"));
        self.restore(node);
        self.node_dials(node);
        let life = self.nodes[node].life;
        self.after(15 * MIN, Event::NodeCheck { node, life });
    }

    /// Tries to reach CM soon.
    pub(crate) fn node_dials(&mut self, node: usize) {
        let it = &self.nodes[node];
        if it.sm && it.conn.is_none() {
            let life = it.life;
            let after = self.dice.scale(Duration::from_millis(100), 20 * SEC);
            self.after(after, Event::NodeConnect { node, life });
        }
    }

    pub(crate) fn node_connects(&mut self, node: usize, life: u32) {
        let it = &self.nodes[node];
        if it.life != life || !it.sm || it.conn.is_some() {
            return;
        }
        if !it.reachable() || self.cm.run.is_none() {
            // CM's start and the link's return dial again.
            return;
        }
        self.pids += 1;
        let conn = self.pids;
        self.nodes[node].conn = Some(conn);
        self.nodes[node].conn_since = self.now;
        self.note(|_| format!("n{node} is connected ({conn})"));
        self.cm_meets_node(node, conn);
        self.tell_soon(node);
    }

    // --- the stored set

    /// Adopts what runs of the stored set and starts the rest.
    fn restore(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let mut stored: Vec<(Inst, Instance)> = it
            .stored
            .iter()
            .map(|(inst, one)| (*inst, one.clone()))
            .collect();
        stored.sort_by_key(|(inst, one)| (std::cmp::Reverse(one.priority), *inst));
        // A process that is not of the stored set would be nobody's: the runtime removes it.
        let strays: Vec<Inst> = it
            .procs
            .keys()
            .filter(|inst| !it.stored.contains_key(inst))
            .copied()
            .collect();
        for inst in strays {
            self.proc_stops(node, inst);
        }
        let trusting = self.has(Mutation::AdoptedIsActive);
        let it = &mut self.nodes[node];
        let mut missing = Vec::new();
        let mut adopted = Vec::new();
        for (inst, instance) in stored {
            let ver = version_number(&instance.version);
            let mut entry = Entry::new(instance);
            // One that was about to be replaced when SM ended is not what is stored by now.
            let as_stored = |proc: &&Proc| {
                let started = proc.started_as.as_ref();
                started.is_some_and(|it| it.runs_as(&entry.instance))
            };
            match it.procs.get(&inst).filter(as_stored) {
                Some(proc) => {
                    // It runs; whether it is healthy is for its probe to say again.
                    entry.pid = Some(proc.pid);
                    entry.started = Some(now);
                    if trusting {
                        entry.state = InstanceState::Active;
                    }
                    adopted.push((inst, ver, proc.pid));
                }
                None => missing.push(inst),
            }
            it.entries.insert(inst, entry);
        }
        let life = it.life;
        for (inst, ver, pid) in adopted {
            if self.scene.fate(inst.item, ver) != Fate::Hangs {
                let time = self.dice.scale(Duration::from_millis(10), 20 * SEC);
                self.after(
                    time,
                    Event::Settled {
                        node,
                        life,
                        inst,
                        pid,
                    },
                );
            }
        }
        if self.has(Mutation::NoRestoreWithoutCm) {
            missing.clear();
        }
        for inst in missing {
            if self.nodes[node].procs.contains_key(&inst) {
                self.proc_stops(node, inst);
            }
            self.starts(node, inst);
            if self.sm_cut(node) {
                return;
            }
        }
        self.nodes[node].restored = true;
        self.tell_soon(node);
    }

    // --- lists

    pub(crate) fn node_takes_list(
        &mut self,
        node: usize,
        conn: u64,
        order: u64,
        list: crate::cm::List,
        stop: Vec<InstanceIdent>,
    ) {
        let it = &mut self.nodes[node];
        // The stream of a Node keeps the order of its lists: one that is overtaken here was superseded before it came.
        if it.conn != Some(conn) || order < it.newest {
            return;
        }
        it.newest = order;
        let list = Ordered {
            order,
            list,
            stop: stop.into_iter().collect(),
        };
        if let Some(in_hand) = &mut it.in_hand {
            if in_hand.list.list == list.list && in_hand.list.stop == list.stop {
                // The list in hand again, as after a reconnection of CM.
                in_hand.list.order = order;
                it.wanted = None;
                return;
            }
            self.coverage.fault(Fault::ListSuperseded);
            self.nodes[node].wanted = Some(list);
            return;
        }
        it.wanted = Some(list);
        self.begins_launch(node);
    }

    fn begins_launch(&mut self, node: usize) {
        let mutation = self.mutation;
        let it = &mut self.nodes[node];
        let Some(list) = it.wanted.take() else { return };
        let found: Vec<Found> = it
            .entries
            .values()
            .map(|entry| Found {
                instance: entry.instance.clone(),
                run: if entry.pid.is_some() || entry.retry.is_some() {
                    Run::Running
                } else {
                    Run::Down
                },
            })
            .collect();
        let plan = plan_by(planted_lists(mutation), &list.list, &list.stop, &found);
        for Start { instance, .. } in &plan.start {
            let entry = it
                .entries
                .entry(inst(&instance.ident))
                .or_insert_with(|| Entry::new(instance.clone()));
            if entry.pid.is_none() && entry.retry.is_none() {
                entry.state = InstanceState::Activating;
                entry.error = None;
                entry.instead = None;
            }
        }
        it.launches += 1;
        let (launch, life) = (it.launches, it.life);
        let work = plan.install.len() as u64;
        it.in_hand = Some(Launching {
            list,
            plan,
            start: Vec::new(),
            held: BTreeMap::new(),
            switching: false,
        });
        self.tell_soon(node);
        let time = match work {
            // Busy with something else, or slow to stop what is to be stopped.
            0 => self.dice.scale(Duration::from_millis(1), 10 * SEC),
            _ => self.dice.scale(Duration::from_millis(20), 2 * MIN),
        };
        self.after(time, Event::Installed { node, life, launch });
    }

    pub(crate) fn node_installed(&mut self, node: usize, life: u32, launch: u64) {
        let it = &mut self.nodes[node];
        if it.life != life || it.launches != launch {
            return;
        }
        if it.wanted.is_some() && !it.in_hand.as_ref().is_some_and(|one| one.switching) {
            // A newer list: nothing was exchanged.
            it.in_hand = None;
            self.begins_launch(node);
            return;
        }
        let Some(mut launching) = it.in_hand.take() else {
            return;
        };
        launching.switching = true;
        let mut failed = BTreeMap::new();
        for install in &launching.plan.install {
            let (item, ver) = of_digest(&install.manifest);
            if let Err(why) = self.node_installs(node, item, ver) {
                failed.insert(install.manifest, error(why));
            }
        }
        let switch = if self.has(Mutation::StopWithoutInstall) {
            launching.plan.switch(&BTreeMap::new())
        } else {
            launching.plan.switch(&failed)
        };
        let mut start = switch.start;
        if self.has(Mutation::StopWithoutInstall) {
            start.retain(|one| !failed.contains_key(&one.instance.manifest));
        }
        launching.held = switch
            .kept
            .into_iter()
            .map(|kept| (kept.ident, "its image cannot be installed"))
            .collect();
        // Stored before anything is exchanged.
        let removed: Vec<Inst> = switch
            .stop
            .iter()
            .filter(|stop| stop.reason == StopReason::NotWanted)
            .map(|stop| inst(&stop.ident))
            .collect();
        let late = self.has(Mutation::StoreAfterSwitch);
        if !late {
            self.node_stores(node, &removed, &start);
        }
        self.nodes[node].in_hand = Some(launching);
        if self.sm_cut(node) {
            return;
        }
        for stop in &switch.stop {
            if !self.stops(node, stop, &removed) {
                return;
            }
        }
        for Start { instance, .. } in &start {
            let entry = Entry::new(instance.clone());
            self.nodes[node]
                .entries
                .insert(inst(&instance.ident), entry);
        }
        if let Some(launching) = &mut self.nodes[node].in_hand {
            launching.start = start;
        }
        let time = self.dice.scale(Duration::from_millis(5), 10 * SEC);
        self.after(time, Event::Switched { node, life, launch });
    }

    fn node_stores(&mut self, node: usize, removed: &[Inst], start: &[Start]) {
        let it = &mut self.nodes[node];
        for inst in removed {
            it.stored.remove(inst);
        }
        for Start { instance, .. } in start {
            it.stored.insert(inst(&instance.ident), instance.clone());
        }
    }

    /// Ends an instance for a switch. False if SM did not survive.
    fn stops(&mut self, node: usize, stop: &Stop, removed: &[Inst]) -> bool {
        let which = inst(&stop.ident);
        let in_hand = self.nodes[node].in_hand.iter();
        let next = in_hand
            .flat_map(|launching| launching.list.list.iter())
            .find(|one| one.ident == stop.ident)
            .cloned();
        let ordered = matches!(stop.reason, StopReason::Ordered | StopReason::NotWanted);
        self.check_stop(node, which, ordered, next.as_ref());
        self.note(|_| format!("n{node} stops {}: {}", stop.ident, stop.reason));
        self.proc_stops(node, which);
        let it = &mut self.nodes[node];
        if let Some(entry) = it.entries.get_mut(&which) {
            entry.pid = None;
            entry.retry = None;
        }
        if removed.contains(&which) {
            it.entries.remove(&which);
        }
        !self.sm_cut(node)
    }

    pub(crate) fn node_switched(&mut self, node: usize, life: u32, launch: u64) {
        let it = &mut self.nodes[node];
        if it.life != life || it.launches != launch {
            return;
        }
        let Some(launching) = it.in_hand.take() else {
            return;
        };
        for entry in it.entries.values_mut() {
            entry.instead = None;
        }
        let wanted: BTreeMap<&InstanceIdent, &Instance> = launching
            .list
            .list
            .iter()
            .map(|instance| (&instance.ident, instance))
            .collect();
        for (ident, why) in &launching.held {
            let Some(wanted) = wanted.get(ident) else {
                continue;
            };
            let entry = it
                .entries
                .entry(inst(ident))
                .or_insert_with(|| Entry::new((*wanted).clone()));
            if entry.pid.is_some() || entry.retry.is_some() {
                entry.instead = Some(((*wanted).clone(), why));
            } else {
                entry.instance = (*wanted).clone();
                entry.state = InstanceState::Failed;
                entry.error = Some(why);
            }
        }
        for Start { instance, .. } in &launching.start {
            self.starts(node, inst(&instance.ident));
            if self.sm_cut(node) {
                return;
            }
        }
        if self.has(Mutation::StoreAfterSwitch) {
            let keep: BTreeSet<Inst> = launching
                .list
                .list
                .iter()
                .map(|one| inst(&one.ident))
                .collect();
            self.nodes[node].stored.retain(|one, _| keep.contains(one));
            self.node_stores(node, &[], &launching.start);
        }
        self.node_tidies(node);
        let it = &mut self.nodes[node];
        it.answered.push(launching.list.order);
        // What could not be had is tried again, with growing pauses.
        if launching.held.is_empty() {
            it.holds = 0;
        } else {
            let it = &mut self.nodes[node];
            it.holds += 1;
            let pause = (10 * SEC * (1 << it.holds.min(6))).min(LONGEST);
            it.held = Some(launching.list);
            self.after(pause, Event::Relaunch { node, life, launch });
        }
        self.tell_soon(node);
        self.begins_launch(node);
    }

    pub(crate) fn node_launches_again(&mut self, node: usize, life: u32, launch: u64) {
        let it = &mut self.nodes[node];
        if it.life != life || it.launches != launch || !it.is_quiet() {
            return;
        }
        if let Some(mut list) = it.held.take() {
            list.stop.clear();
            it.wanted = Some(list);
            self.begins_launch(node);
        }
    }

    /// Images that no instance needs are removed once in a while.
    fn node_tidies(&mut self, node: usize) {
        if !self.dice.percent(10) {
            return;
        }
        let it = &mut self.nodes[node];
        let used: BTreeSet<(Item, Ver)> = it
            .entries
            .values()
            .flat_map(|entry| {
                let instead = entry
                    .instead
                    .iter()
                    .map(|(one, _)| of_digest(&one.manifest));
                std::iter::once(of_digest(&entry.instance.manifest)).chain(instead)
            })
            .chain(it.stored.values().map(|one| of_digest(&one.manifest)))
            .collect();
        let now = self.now;
        it.asked.retain(|_, at| now.since(*at) < HOUR);
        let asked = &it.asked;
        it.images
            .retain(|image, _| used.contains(image) || asked.contains_key(image));
    }

    // --- images

    /// Has an image of CM here and verified.
    fn node_installs(&mut self, node: usize, item: Item, ver: Ver) -> Result<(), &'static str> {
        self.nodes[node].asked.insert((item, ver), self.now);
        match self.nodes[node].images.get(&(item, ver)) {
            Some(true) => return Ok(()),
            Some(false) if self.has(Mutation::NodeTrustsDisk) => return Ok(()),
            Some(false) => {
                // Damaged since: it is as if it were not there.
                self.nodes[node].images.remove(&(item, ver));
            }
            None => {}
        }
        let reachable = self.nodes[node].conn.is_some();
        if !reachable || self.cm.run.is_none() {
            return Err("CM cannot be reached");
        }
        if !blobs_of(item, ver)
            .iter()
            .all(|blob| self.cm.disk.blobs.contains_key(blob))
        {
            return Err("CM does not have its blobs");
        }
        let rates = &self.scene.rates;
        let (fails, corrupt) = (rates.install_fails, rates.install_corrupt);
        if self.unlucky(fails, Fault::InstallFails) {
            return Err("the disk of the Node is full");
        }
        let damaged = !self.cm_has(item, ver) || self.unlucky(corrupt, Fault::InstallCorrupt);
        if damaged && !self.has(Mutation::NodeSkipsDigest) {
            // CM notices too when it is asked for a blob that is not what its name says.
            for blob in blobs_of(item, ver) {
                if self
                    .cm
                    .disk
                    .blobs
                    .get(&blob)
                    .is_some_and(|stored| !stored.intact)
                {
                    self.cm.disk.blobs.remove(&blob);
                }
            }
            return Err("what CM served has another digest");
        }
        self.nodes[node].images.insert((item, ver), !damaged);
        Ok(())
    }

    pub(crate) fn node_takes_install(
        &mut self,
        node: usize,
        conn: u64,
        order: u64,
        wanted: Vec<Inst>,
        images: Vec<(Item, Ver)>,
    ) {
        let it = &self.nodes[node];
        if it.conn != Some(conn) {
            return;
        }
        let life = it.life;
        // Some take longer than anybody waits.
        let time = if !self.calm && self.dice.once_in(60) {
            15 * MIN
        } else {
            self.dice.scale(Duration::from_millis(20), 3 * MIN)
        };
        self.after(
            time,
            Event::Ordered {
                node,
                life,
                conn,
                order,
                wanted,
                images,
            },
        );
    }

    pub(crate) fn node_has_installed(
        &mut self,
        node: usize,
        life: u32,
        conn: u64,
        order: u64,
        wanted: Vec<Inst>,
        images: Vec<(Item, Ver)>,
    ) {
        if self.nodes[node].life != life {
            return;
        }
        let mut bad = BTreeSet::new();
        for &(item, ver) in &images {
            if self.has(Mutation::InstallSaysYes) {
                continue;
            }
            if self.node_installs(node, item, ver).is_err() {
                bad.insert(item);
            }
        }
        if self.sm_cut(node) {
            return;
        }
        let failed: Vec<Inst> = wanted
            .into_iter()
            .filter(|one| bad.contains(&one.item))
            .collect();
        self.note(|_| format!("n{node} has installed for order {order}, failed {failed:?}"));
        if self.nodes[node].conn == Some(conn) {
            let life = self.cm.life;
            let after = Duration::from_millis(5);
            self.after(
                after,
                Event::CmInstalled {
                    life,
                    conn,
                    node,
                    order,
                    failed,
                    images,
                },
            );
        }
    }

    // --- instances

    fn starts(&mut self, node: usize, which: Inst) {
        let Some(entry) = self.nodes[node].entries.get(&which) else {
            return;
        };
        let instance = entry.instance.clone();
        let ver = version_number(&instance.version);
        let image = self.nodes[node].images.get(&(which.item, ver)).copied();
        let trusting = self.has(Mutation::NodeTrustsDisk);
        let usable = match image {
            Some(intact) => intact || trusting || self.has(Mutation::NodeSkipsDigest),
            None => false,
        };
        if !usable {
            // Fetched again by the next attempt, once CM is there.
            self.nodes[node].images.remove(&(which.item, ver));
            self.down(node, which, "its image is damaged or gone", false);
            return;
        }
        let fate = self.scene.fate(which.item, ver);
        let rate = self.scene.rates.start_fails;
        if fate == Fate::WontStart {
            self.coverage.fault(Fault::WontStart);
            self.down(node, which, "it cannot be started", true);
            return;
        }
        if self.unlucky(rate, Fault::StartFails) {
            self.down(node, which, "it could not be started this time", false);
            return;
        }
        self.pids += 1;
        let pid = self.pids;
        self.check_start(node, which, ver, image == Some(true), instance.uid);
        self.note(|_| format!("n{node} starts {which} v{ver} ({pid})"));
        let now = self.now;
        let it = &mut self.nodes[node];
        it.procs.insert(
            which,
            Proc {
                pid,
                ver,
                uid: instance.uid,
                started_as: Some(instance),
            },
        );
        let life = it.life;
        if let Some(entry) = it.entries.get_mut(&which) {
            entry.pid = Some(pid);
            entry.retry = None;
            entry.error = None;
            entry.started = Some(now);
            entry.state = InstanceState::Activating;
        }
        match fate {
            Fate::Hangs => self.coverage.fault(Fault::Hang),
            _ => {
                let time = self.dice.scale(Duration::from_millis(10), 20 * SEC);
                self.after(
                    time,
                    Event::Settled {
                        node,
                        life,
                        inst: which,
                        pid,
                    },
                );
            }
        }
        if fate == Fate::Crashes {
            self.coverage.fault(Fault::Crash);
            let time = self.dice.scale(Duration::from_millis(1), 30 * SEC);
            self.after(time, Event::ProcEnds { node, pid });
        }
    }

    /// Its probe says that it is healthy.
    pub(crate) fn inst_settled(&mut self, node: usize, life: u32, which: Inst, pid: u64) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        if let Some(entry) = it.entries.get_mut(&which)
            && entry.pid == Some(pid)
        {
            entry.state = InstanceState::Active;
            let ver = version_number(&entry.instance.version);
            self.oracle.was_active(which, ver, self.now);
            self.tell_soon(node);
        }
    }

    fn proc_stops(&mut self, node: usize, which: Inst) {
        let it = &mut self.nodes[node];
        if let Some(proc) = it.procs.remove(&which)
            && it
                .entries
                .get(&which)
                .is_some_and(|entry| entry.state == InstanceState::Active)
        {
            self.oracle.was_active(which, proc.ver, self.now);
        }
    }

    /// A process ends by itself.
    pub(crate) fn proc_ends(&mut self, node: usize, pid: u64) {
        let it = &mut self.nodes[node];
        let Some(which) = it
            .procs
            .iter()
            .find(|(_, proc)| proc.pid == pid)
            .map(|(which, _)| *which)
        else {
            return;
        };
        self.proc_stops(node, which);
        self.note(|_| format!("n{node}: {which} ({pid}) ends by itself"));
        let current = self.nodes[node]
            .entries
            .get(&which)
            .is_some_and(|entry| entry.pid == Some(pid));
        if current {
            self.down(node, which, "it ended by itself", false);
        }
    }

    /// It is not running although it should: it is started again after a pause.
    fn down(&mut self, node: usize, which: Inst, why: &'static str, for_good: bool) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let Some(entry) = it.entries.get_mut(&which) else {
            return;
        };
        it.tokens += 1;
        let (life, token) = (it.life, it.tokens);
        if entry
            .started
            .take()
            .is_some_and(|started| now.since(started) >= Duration::from_secs(30))
        {
            entry.ends = 0;
        }
        entry.ends += 1;
        entry.ended = Some(now);
        entry.pid = None;
        // Until it is given up it counts as one that may still come up.
        entry.state = if for_good || entry.ends > BURST {
            InstanceState::Failed
        } else {
            InstanceState::Activating
        };
        entry.error = Some(why);
        entry.retry = Some(token);
        let doublings = entry.ends.saturating_sub(3).min(16);
        let pause = (SEC * (1 << doublings)).min(LONGEST);
        if !self.has(Mutation::NoRestart) {
            self.after(
                pause,
                Event::StartAgain {
                    node,
                    life,
                    inst: which,
                    token,
                },
            );
        }
        self.tell_soon(node);
    }

    pub(crate) fn starts_again(&mut self, node: usize, life: u32, which: Inst, token: u64) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        // Instances are being exchanged: after that.
        if it.in_hand.as_ref().is_some_and(|one| one.switching) {
            self.after(
                SEC,
                Event::StartAgain {
                    node,
                    life,
                    inst: which,
                    token,
                },
            );
            return;
        }
        let Some(entry) = it.entries.get_mut(&which) else {
            return;
        };
        if entry.retry != Some(token) {
            return;
        }
        entry.state = InstanceState::Activating;
        let ver = version_number(&entry.instance.version);
        if self.nodes[node].images.get(&(which.item, ver)) != Some(&true)
            && let Err(why) = self.node_installs(node, which.item, ver)
        {
            self.down(node, which, why, false);
            return;
        }
        self.starts(node, which);
        self.tell_soon(node);
    }

    // --- telling CM

    fn tell_soon(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if it.conn.is_some() && it.restored && !it.telling {
            it.telling = true;
            let life = it.life;
            let after = self
                .dice
                .time(Duration::from_millis(2), Duration::from_millis(200));
            self.after(after, Event::NodeTells { node, life });
        }
    }

    pub(crate) fn node_tells(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.life != life {
            return;
        }
        it.telling = false;
        let Some(conn) = it.conn else { return };
        let reports = it
            .entries
            .iter()
            .map(|(inst, entry)| {
                let (instance, state, error) = match &entry.instead {
                    Some((wanted, why)) => (wanted, InstanceState::Failed, Some(*why)),
                    None => (&entry.instance, entry.state, entry.error),
                };
                let ver = version_number(&instance.version);
                (*inst, Reported { ver, state, error })
            })
            .collect();
        let snapshot = Rc::new(Snapshot {
            reports,
            answered: it.answered.clone(),
        });
        let life = self.cm.life;
        self.after(
            Duration::from_millis(1),
            Event::CmReport {
                life,
                conn,
                node,
                snapshot,
            },
        );
    }
}
