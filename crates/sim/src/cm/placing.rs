//! Places: asks the scheduler, stores what it said, and gives the Nodes their lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use aos_launch::Instance;
use aos_schedule::{
    Availability, Holder, Image, KnownInstance, Plan, Request, Rule, Unplaced, Why, handover,
};
use aos_time::Timestamp;
use aos_types::{
    AosCode, ArchInfo, Digest, ErrorInfo, InstanceIdent, InstanceState, ItemConfig, NodeId,
    NodeState, OsInfo, OwnerId, ResourceRatios, RuntimeId, RuntimeInfo,
};
use aos_update::{Failures, Target, UpdateState};

use super::{Busy, Job, LAUNCH, LOST, Running, Seen, Sent, View, Wanted, error, prepare::PAUSE};
use crate::{
    coverage::Fault,
    draw::{MIN, SEC},
    event::Event,
    mutation::{Mutation, planted_places},
    node::Snapshot,
    overrides::{Env, Overrides, env},
    words::{Inst, Names, Ver, digest, inst, item_number, node_number, version_number},
    world::World,
};

const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);
/// The sender that follows the Nodes; the others are effects.
const FOLLOW: u64 = 0;

/// An instance with its place, or one that had one, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) ident: InstanceIdent,
    pub(crate) version: String,
    pub(crate) owner: OwnerId,
    pub(crate) priority: u64,
    pub(crate) place: Option<(NodeId, RuntimeId)>,
    /// The Node that has its storage.
    pub(crate) home: Option<NodeId>,
    pub(crate) manifest: Digest,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) unplaced_since: Option<Timestamp>,
}

/// What one Node shall run. Handed around a lot and never changed, so it is shared.
pub(crate) type List = Rc<[Instance]>;

/// What every Node shall run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Lists {
    pub(crate) by_node: BTreeMap<usize, List>,
    /// The Node of each instance.
    nodes: BTreeMap<Inst, usize>,
    pub(crate) unplaced: Vec<Unplaced>,
}

impl Lists {
    fn of<'a>(placed: impl Iterator<Item = &'a Placed>, env: impl Fn(Inst) -> Env) -> Self {
        let mut lists = Self::default();
        let mut by_node: BTreeMap<usize, Vec<Instance>> = BTreeMap::new();
        for one in placed {
            let Some((node, runtime)) = one.place.clone() else {
                continue;
            };
            let node = node_number(&node);
            lists.nodes.insert(inst(&one.ident), node);
            by_node.entry(node).or_default().push(Instance {
                ident: one.ident.clone(),
                version: one.version.clone(),
                manifest: one.manifest,
                owner: one.owner.clone(),
                runtime,
                uid: one.uid,
                gid: one.gid,
                priority: one.priority,
                storage_path: String::new(),
                state_path: String::new(),
                env: env(inst(&one.ident)),
            });
        }
        lists.by_node = by_node
            .into_iter()
            .map(|(node, list)| (node, list.into()))
            .collect();
        lists
    }

    pub(crate) fn on(&self, node: usize) -> List {
        self.by_node
            .get(&node)
            .cloned()
            .unwrap_or_else(|| [].into())
    }

    /// Lists that are as they were stay the same ones.
    pub(crate) fn share(&mut self, before: &Self) {
        for (node, list) in &mut self.by_node {
            if let Some(old) = before.by_node.get(node).filter(|old| *old == list) {
                *list = Rc::clone(old);
            }
        }
    }

    /// Whether `target` asks for everything in them.
    pub(crate) fn are_of(&self, target: &Target) -> bool {
        let wanted: BTreeMap<InstanceIdent, String> = target
            .wanted_instances()
            .map(|wanted| (wanted.ident, wanted.version))
            .collect();
        self.placed()
            .all(|(_, order)| wanted.get(&order.ident) == Some(&order.version))
    }

    pub(crate) fn placed(&self) -> impl Iterator<Item = (&usize, &Instance)> {
        self.by_node
            .iter()
            .flat_map(|(node, list)| list.iter().map(move |one| (node, one)))
    }
}

/// Lists on their way to the Nodes: first to those that give something away.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    next: Vec<usize>,
    pub(crate) open: BTreeSet<usize>,
    pub(super) retry: bool,
    failed: BTreeMap<usize, ErrorInfo>,
    unplaced: Failures,
    /// The set it was begun for, if it follows the Nodes: when another one is in force it is over.
    of: Option<Rc<Target>>,
    /// Nodes that are installing what the lists bring, each with the order and what it is for.
    pub(crate) preparing: BTreeMap<usize, (u64, Wanted)>,
    /// What could not be installed, by Node.
    pub(crate) missing: BTreeMap<usize, BTreeMap<Inst, ErrorInfo>>,
    /// What Nodes are not given yet, as one that keeps its list still runs it.
    held_back: BTreeMap<usize, BTreeSet<Inst>>,
    /// The Nodes that were there when it was prepared.
    pub(super) connections: BTreeMap<usize, u64>,
    /// By Node, what it was to get: those fail if it does not take it.
    planned: BTreeMap<usize, Vec<InstanceIdent>>,
}

/// A Node with all that CM knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) node: usize,
    pub(crate) state: NodeState,
    pub(crate) ready: bool,
    pub(crate) away: bool,
    pub(crate) seen: bool,
}

impl Running {
    /// Whether another Node says that it runs an instance, and this one does not.
    fn runs_elsewhere(&self, node: usize, order: &Instance) -> bool {
        let which = inst(&order.ident);
        let runs = |seen: &Seen| {
            let view = seen.view.as_ref().and_then(|view| view.snapshot.as_ref());
            view.and_then(|snapshot| snapshot.reports.get(&which))
                .is_some_and(|one| one.state != InstanceState::Inactive)
        };
        !runs(&self.seen[node]) && self.seen.iter().any(runs)
    }
}

impl World {
    /// The Nodes IAM knows.
    pub(crate) fn known(&self) -> Vec<Known> {
        let Some(run) = &self.cm.run else {
            return Vec::new();
        };
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].known)
            .map(|node| {
                let seen = &run.seen[node];
                let lost = seen
                    .away_since
                    .is_some_and(|since| self.now.since(since) >= LOST);
                let state = if self.cm.disk.paused.contains(&node) {
                    NodeState::Paused
                } else if lost {
                    NodeState::Error
                } else {
                    NodeState::Provisioned
                };
                let told = told(seen);
                Known {
                    node,
                    state,
                    ready: told && state == NodeState::Provisioned,
                    away: !told && !lost,
                    seen: seen.known,
                }
            })
            .collect()
    }

    /// No Node is away any more: each is connected or counts as lost.
    pub(crate) fn settled(&self) -> bool {
        let forever = self.has(Mutation::WaitsForLostNodes);
        self.known().iter().all(|known| {
            let waits = match known.state {
                NodeState::Provisioned => known.away,
                NodeState::Error => forever,
                _ => false,
            };
            !waits
        })
    }

    /// Lists of what has a place, with the variables in force.
    pub(crate) fn lists_of<'a>(&self, placed: impl Iterator<Item = &'a Placed>) -> Lists {
        let (now, none) = (self.cm_now(), Overrides::new());
        let overrides = self.cm.run.as_ref().map_or(&none, |run| &run.overrides);
        let trusting = self.has(Mutation::EndsIgnored);
        let now = if trusting { Timestamp::EPOCH } else { now };
        Lists::of(placed, |inst| env(overrides, inst, now))
    }

    fn schedule_nodes(&self) -> Vec<aos_schedule::Node> {
        self.known()
            .into_iter()
            .map(|known| aos_schedule::Node {
                id: self.names.nodes[known.node].clone(),
                availability: match known.state {
                    NodeState::Provisioned if known.ready => Availability::Ready,
                    NodeState::Provisioned if known.away => Availability::Away,
                    NodeState::Provisioned => Availability::Unusable("runs no SM".into()),
                    NodeState::Paused => Availability::Unusable("is paused".into()),
                    _ => Availability::Unusable("is in error".into()),
                },
                priority: 0,
                labels: (0..2)
                    .filter(|label| self.scene.labels[known.node] & (1 << label) != 0)
                    .map(|label| format!("l{label}"))
                    .collect(),
                ratios: ResourceRatios::default(),
                dmips: self.scene.has[known.node].cpu,
                ram: self.scene.has[known.node].ram,
                runtimes: if known.seen {
                    let most = self.scene.has[known.node].instances;
                    vec![runtime(&self.names.runtimes[known.node], most)]
                } else {
                    Vec::new()
                },
                resources: Vec::new(),
                space: aos_schedule::Space::default(),
                overload: None,
            })
            .collect()
    }

    fn requests(&self, target: &Target) -> Vec<Request> {
        let mut requests = Vec::new();
        for entry in &target.instances {
            let Some(item) = target.item(&entry.item) else {
                continue;
            };
            let (number, ver) = (item_number(&item.id), version_number(&item.version));
            let remembered = || {
                self.cm.disk.placed.values().any(|placed| {
                    placed.ident.item == item.id
                        && placed.version == item.version
                        && placed.place.is_some()
                })
            };
            let here = self.cm_has(number, ver) || remembered();
            requests.push(Request {
                item: item.id.clone(),
                item_type: item.item_type,
                version: item.version.clone(),
                owner: item.owner.clone(),
                subject: entry.subject.clone(),
                priority: entry.priority,
                num_instances: entry.num_instances,
                labels: entry.labels.clone(),
                images: if here {
                    let config = &self.names.configs[usize::from(number)];
                    Ok(vec![image(digest(number, ver), config)])
                } else {
                    Err("its images cannot be used".into())
                },
                disabled: None,
            });
        }
        requests
    }

    pub(crate) fn plan(&self, target: &Target) -> (Plan, Failures) {
        let known = self
            .cm
            .disk
            .placed
            .values()
            .map(|placed| KnownInstance {
                ident: placed.ident.clone(),
                place: placed.place.clone(),
                version: placed.version.clone(),
                manifest: placed.manifest,
                home: placed.home.clone(),
                uid: placed.uid,
                gid: placed.gid,
                usage: aos_schedule::Usage::default(),
            })
            .collect();
        let input = aos_schedule::Input {
            nodes: self.schedule_nodes(),
            requests: self.requests(target),
            known,
            ..aos_schedule::Input::default()
        };
        let plan = aos_schedule::plan_by(planted_places(self.mutation), &input);
        let instances = plan
            .unplaced
            .iter()
            .map(|one| {
                let error = ErrorInfo::new(AosCode::NotFound, &*one.reason);
                (one.ident.clone(), error)
            })
            .collect();
        let failures = Failures {
            instances,
            ..Failures::default()
        };
        (plan, failures)
    }

    /// Makes a plan and stores it before anybody hears of it. Nothing if the power went.
    fn place(&mut self, target: &Target) -> Option<(Plan, Failures)> {
        let (plan, failures) = self.plan(target);
        self.count_places(&plan);
        let now = self.cm_now();
        let mut next: BTreeMap<InstanceIdent, Placed> = plan
            .placed
            .iter()
            .map(|place| {
                (
                    place.ident.clone(),
                    Placed {
                        ident: place.ident.clone(),
                        version: place.version.clone(),
                        owner: place.owner.clone(),
                        priority: place.priority,
                        place: Some((place.node.clone(), place.runtime.clone())),
                        home: (place.config.quotas.storage_limit.is_some())
                            .then(|| place.node.clone()),
                        manifest: place.manifest,
                        uid: place.uid,
                        gid: place.gid,
                        unplaced_since: None,
                    },
                )
            })
            .collect();
        let wanted: BTreeSet<&InstanceIdent> = plan.unplaced.iter().map(|one| &one.ident).collect();
        for (ident, old) in &self.cm.disk.placed {
            if next.contains_key(ident) {
                continue;
            }
            if wanted.contains(ident) {
                // It has no place; it is wanted all the same.
                let waiting = Placed {
                    place: None,
                    unplaced_since: None,
                    ..old.clone()
                };
                next.insert(ident.clone(), waiting);
                continue;
            }
            let since = old.unplaced_since.unwrap_or(now);
            if now.since(since) >= REMEMBER {
                // What it kept may go.
                self.oracle.forget(inst(ident));
            } else {
                let cached = Placed {
                    place: None,
                    unplaced_since: Some(since),
                    ..old.clone()
                };
                next.insert(ident.clone(), cached);
            }
        }
        self.check_moves(&next);
        if !self.has(Mutation::PlacesNotStored) {
            if next != self.cm.disk.placed {
                self.note(|_| format!("places are stored: {}", places(&next)));
            }
            self.cm.disk.placed = next.clone();
            if self.cm_cut(Fault::CutInPlacing) {
                return None;
            }
        }
        let mut lists = self.lists_of(next.values());
        let run = self.cm.run.as_mut()?;
        lists.share(&run.lists);
        lists.unplaced.clone_from(&plan.unplaced);
        run.places += 1;
        if run.lists != lists {
            run.lists = lists;
            self.view_changed();
        }
        Some((plan, failures))
    }

    /// What of the scheduler's rules has struck.
    fn count_places(&mut self, plan: &Plan) {
        for place in &plan.placed {
            match place.why {
                Why::PushesOut => self.coverage.fault(Fault::PushedOut),
                Why::Moves(_) => self.coverage.fault(Fault::Moved),
                _ => {}
            }
            if place.leaves_behind.is_some() {
                self.coverage.fault(Fault::LeftBehind);
            }
        }
        for one in &plan.unplaced {
            let last = one.excluded.iter().map(|one| &one.rule);
            for rule in last {
                match rule {
                    Rule::Elsewhere(_) => self.coverage.fault(Fault::HeldByStorage),
                    Rule::Cpu(..) | Rule::Ram(..) | Rule::Instances(_) => {
                        self.coverage.fault(Fault::NoRoom);
                    }
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn launches(&mut self, id: u64, target: &Target) {
        let Some((plan, unplaced)) = self.place(target) else {
            return;
        };
        // Lists that merely follow the Nodes make room.
        self.gives_up_sending(FOLLOW);
        let mut planned: BTreeMap<usize, Vec<InstanceIdent>> = BTreeMap::new();
        for place in &plan.placed {
            let list = planned.entry(node_number(&place.node)).or_default();
            list.push(place.ident.clone());
        }
        self.prepares(
            id,
            Sending {
                retry: true,
                unplaced,
                planned,
                ..Sending::default()
            },
        );
    }

    /// Nobody waits for these lists any more; those that are with a Node stay there.
    pub(crate) fn gives_up_sending(&mut self, id: u64) {
        let Some(run) = &mut self.cm.run else { return };
        if run.sendings.remove(&id).is_none() {
            return;
        }
        if id == FOLLOW {
            run.follow_busy = false;
        }
        let mut free = Vec::new();
        for (node, seen) in run.seen.iter_mut().enumerate() {
            if seen.busy.as_ref().is_some_and(|busy| busy.sender == id) {
                seen.busy = None;
                seen.sent = Sent::InDoubt;
                free.push((node, std::mem::take(&mut seen.waiting)));
            }
        }
        for (node, waiting) in free {
            self.who_waits_sends(node, waiting);
        }
        self.follow_soon();
    }

    // --- following the Nodes

    pub(crate) fn follow_soon(&mut self) {
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        if !run.follow_planned {
            run.follow_planned = true;
            self.after(Duration::from_millis(200), Event::CmFollow { life });
        }
    }

    pub(crate) fn cm_follows(&mut self, life: u32) {
        if life != self.cm.life {
            return;
        }
        let Some(run) = &mut self.cm.run else { return };
        run.follow_planned = false;
        self.end_overrides();
        let known = self.known();
        let Some(run) = &mut self.cm.run else { return };
        if run.follow_busy {
            // It looks again when it has ended.
            return;
        }
        // A launch gives the Nodes their lists itself, and until the engine has heard how it went nobody knows what counts.
        let launching = run
            .jobs
            .values()
            .any(|job| matches!(job, Job::Launch { .. }));
        if run.engine.state() == UpdateState::Installing || launching {
            return;
        }
        self.bring_config_to_nodes(false);
        // Nothing can be said about a Node that has not shown itself since CM started.
        let unknown = known.iter().any(|known| known.away && !known.seen)
            || (self.has(Mutation::LostNodeStopsPlacing)
                && known.iter().any(|known| known.state == NodeState::Error));
        if !unknown {
            let as_planned = known
                .iter()
                .map(|known| (known.state, known.ready, known.away))
                .collect::<Vec<_>>();
            let Some(run) = &mut self.cm.run else { return };
            // The planner gives the same plan for the same input: it is asked only when something differs.
            let same = run
                .planned_for
                .as_ref()
                .is_some_and(|(set, nodes, places)| {
                    *places == run.places && *nodes == as_planned && set == run.engine.in_force()
                });
            if !same {
                let target = run.engine.in_force().clone();
                if self.place(&target).is_none() {
                    return;
                }
                let Some(run) = &mut self.cm.run else { return };
                run.planned_for = Some((target, as_planned, run.places));
            }
        } else {
            let Some(run) = &self.cm.run else { return };
            if !run.lists.are_of(run.engine.in_force()) {
                return;
            }
        }
        let Some(run) = &mut self.cm.run else { return };
        run.follow_busy = true;
        let of = Some(Rc::new(run.engine.in_force().clone()));
        let sending = Sending {
            of,
            ..Sending::default()
        };
        self.prepares(FOLLOW, sending);
    }

    // --- sending

    /// Nodes that lists are sent to.
    pub(crate) fn listeners(&self) -> Vec<usize> {
        let Some(run) = &self.cm.run else {
            return Vec::new();
        };
        let known = self.known().into_iter();
        let listeners = known.filter(|known| {
            let spared = known.state == NodeState::Paused && self.has(Mutation::PausedNodeRunsOn);
            !spared && known.state != NodeState::Error && told(&run.seen[known.node])
        });
        listeners.map(|known| known.node).collect()
    }

    /// Their streams.
    pub(crate) fn connections(&self) -> BTreeMap<usize, u64> {
        let listeners = self.listeners().into_iter();
        let conns = listeners.filter_map(|node| {
            let view = self.cm.run.as_ref()?.seen[node].view.as_ref()?;
            Some((node, view.conn))
        });
        conns.collect()
    }

    /// Everything that could be installed is: the lists go out.
    pub(crate) fn sends(&mut self, id: u64) {
        let at_once = self.has(Mutation::AllNodesAtOnce);
        let paused = self.cm.disk.paused.clone();
        let Some(run) = &self.cm.run else { return };
        let Some(sending) = run.sendings.get(&id) else {
            return;
        };
        let wanted: BTreeMap<Inst, Ver> = run
            .lists
            .placed()
            .map(|(_, order)| (inst(&order.ident), version_number(&order.version)))
            .collect();
        let running = |node: usize| {
            let view = run.seen[node].view.as_ref();
            let snapshot = view.and_then(|view| view.snapshot.as_ref());
            let reports = snapshot.into_iter().flat_map(|one| &one.reports);
            reports.filter(|(_, one)| one.state != InstanceState::Inactive)
        };
        let holders: BTreeMap<usize, Holder<Inst>> = self
            .listeners()
            .into_iter()
            .filter(|node| sending.connections.contains_key(node))
            .map(|node| {
                let missing = sending.missing.get(&node).into_iter();
                let holder = Holder {
                    runs: running(node).map(|(inst, _)| *inst).collect(),
                    old: running(node)
                        .filter(|(inst, one)| wanted.get(*inst) != Some(&one.ver))
                        .map(|(inst, _)| *inst)
                        .collect(),
                    unready: missing.flat_map(|all| all.keys().copied()).collect(),
                    must_part: paused.contains(&node),
                };
                (node, holder)
            })
            .collect();
        let places = run.lists.nodes.iter();
        let places = places.map(|(inst, node)| (*inst, BTreeSet::from([*node])));
        let order = handover(&holders, &places.collect());
        let gets = |node: &&usize| {
            let list = run.lists.on(**node);
            list.iter().any(|one| run.runs_elsewhere(**node, one))
        };
        let mut second = order.second.clone();
        let mut first = order.first.clone();
        if at_once {
            first.append(&mut second);
        } else {
            // One that gives some away and gets others gets these afterwards.
            second.extend(order.first.iter().filter(gets));
        }
        let Some(run) = &mut self.cm.run else { return };
        let Some(sending) = run.sendings.get_mut(&id) else {
            return;
        };
        sending.open = first.iter().copied().collect();
        sending.next = second;
        sending.held_back = order.held_back;
        for (node, (inst, to)) in &order.kept {
            let why = error(format!("it keeps its list: {inst} cannot start on n{to}"));
            sending.failed.insert(*node, why);
        }
        for (node, (inst, to)) in order.kept {
            self.note(|_| format!("n{node} keeps its list: {inst} cannot start on n{to}"));
        }
        for node in first {
            self.send_to(id, node);
        }
        self.sending_goes_on(id);
    }

    fn sending_goes_on(&mut self, id: u64) {
        let Some(run) = &mut self.cm.run else { return };
        let Some(sending) = run.sendings.get_mut(&id) else {
            return;
        };
        if !sending.open.is_empty() {
            return;
        }
        if !sending.next.is_empty() {
            let next = std::mem::take(&mut sending.next);
            sending.open = next.iter().copied().collect();
            for node in next {
                self.send_to(id, node);
            }
            self.sending_goes_on(id);
            return;
        }
        let Some(sending) = run.sendings.remove(&id) else {
            return;
        };
        if id == FOLLOW {
            run.follow_busy = false;
            if !sending.missing.is_empty() {
                // What could not be installed is asked for again.
                let life = self.cm.life;
                self.after(PAUSE + SEC, Event::CmLook { life });
            }
            return;
        }
        let mut failures = sending.unplaced;
        for (inst, why) in sending.missing.into_values().flatten() {
            failures.instances.insert(self.names.ident(inst), why);
        }
        for (node, why) in sending.failed {
            for ident in sending.planned.get(&node).into_iter().flatten() {
                failures.instances.insert(ident.clone(), why.clone());
            }
            failures.nodes.insert(self.names.nodes[node].clone(), why);
        }
        if let Some(run) = &mut self.cm.run
            && run.jobs.remove(&id).is_some()
        {
            self.job_ends(id, failures, false);
        }
    }

    /// One Node after what it was given before; by then the newest lists count.
    fn send_to(&mut self, id: u64, node: usize) {
        let life = self.cm.life;
        let at_once = self.has(Mutation::AllNodesAtOnce);
        let Some(run) = &mut self.cm.run else { return };
        let retry = run.sendings.get(&id).is_some_and(|sending| sending.retry);
        if run.seen[node].busy.is_some() {
            run.seen[node].waiting.push(id);
            return;
        }
        // What follows the Nodes asks whether it is still in force.
        let force = run.engine.in_force();
        if let Some(sending) = run.sendings.get_mut(&id)
            && sending.of.as_ref().is_some_and(|of| **of != *force)
        {
            sending.open.remove(&node);
            return;
        }
        let mut list = run.lists.on(node);
        let sending = run.sendings.get(&id);
        let held = sending.and_then(|sending| sending.held_back.get(&node));
        if let Some(held) = held {
            let given = |one: &&Instance| !held.contains(&inst(&one.ident));
            if !list.iter().all(|one| given(&one)) {
                list = list.iter().filter(given).cloned().collect();
            }
        }
        if sending.is_some_and(|sending| !sending.next.is_empty()) {
            let part = |one: &&Instance| !run.runs_elsewhere(node, one);
            if !at_once && !list.iter().all(|one| part(&one)) {
                list = list.iter().filter(part).cloned().collect();
            }
        }
        let Some(run) = &mut self.cm.run else { return };
        let seen = &mut run.seen[node];
        // Variables are not reported: what was given last counts.
        let given = &self.cm.disk.given;
        let env_fits = list.iter().all(|order| {
            let given = given.get(&(node, inst(&order.ident)));
            given.map_or(&[][..], Vec::as_slice) == order.env
        });
        let stop = parcel(&self.names, seen, &list, retry, env_fits);
        let view = seen.view.clone();
        let (Some(stop), Some(view)) = (stop, view) else {
            if let Some(sending) = run.sendings.get_mut(&id) {
                sending.open.remove(&node);
            }
            return;
        };
        // Until the Node has answered nobody knows which variables it has.
        for order in list.iter() {
            let given = &mut self.cm.disk.given;
            let known = given.get(&(node, inst(&order.ident)));
            if known.map_or(&[][..], Vec::as_slice) != order.env {
                given.insert((node, inst(&order.ident)), vec![Default::default()]);
            }
        }
        self.cm.unique += 1;
        let order = self.cm.unique;
        seen.busy = Some(Busy {
            order,
            sender: id,
            list: list.clone(),
            stop: stop.clone(),
        });
        self.check_sent(node, &list);
        self.note(|_| format!("CM -> n{node} list {order}: {}", list_text(&list)));
        let after = self
            .dice
            .time(Duration::from_millis(1), Duration::from_millis(20));
        let conn = view.conn;
        self.after(
            after,
            Event::NodeList {
                node,
                conn,
                order,
                list,
                stop,
            },
        );
        self.after(LAUNCH, Event::OrderLate { life, node, order });
    }

    fn order_ends(&mut self, node: usize, failed: Option<ErrorInfo>) {
        let Some(run) = &mut self.cm.run else { return };
        let seen = &mut run.seen[node];
        let Some(busy) = seen.busy.take() else { return };
        let conn = seen.view.as_ref().map(|view| view.conn);
        if failed.is_none() {
            let given = &mut self.cm.disk.given;
            for order in busy.list.iter() {
                match order.env.is_empty() {
                    true => given.remove(&(node, inst(&order.ident))),
                    false => given.insert((node, inst(&order.ident)), order.env.clone()),
                };
            }
        }
        seen.sent = match (&failed, conn) {
            (None, Some(conn)) => Sent::Taken(conn, busy.list),
            _ => Sent::InDoubt,
        };
        let waiting = std::mem::take(&mut seen.waiting);
        if let Some(sending) = run.sendings.get_mut(&busy.sender) {
            sending.open.remove(&node);
            if let Some(why) = failed {
                sending.failed.insert(node, why);
            }
        }
        // Who waits for this Node has its turn before the engine hears how this list went.
        self.who_waits_sends(node, waiting);
        self.sending_goes_on(busy.sender);
    }

    fn who_waits_sends(&mut self, node: usize, waiting: Vec<u64>) {
        for id in waiting {
            let still = self
                .cm
                .run
                .as_ref()
                .is_some_and(|run| run.sendings.contains_key(&id));
            if still {
                self.send_to(id, node);
                self.sending_goes_on(id);
            }
        }
    }

    pub(crate) fn order_is_late(&mut self, node: usize, order: u64) {
        let Some(run) = &self.cm.run else { return };
        let busy = run.seen[node].busy.as_ref();
        if busy.is_some_and(|busy| busy.order == order) {
            self.note(|_| format!("n{node} is late with list {order}"));
            self.order_ends(node, Some(error("the Node takes too long")));
            self.follow_soon();
        }
    }

    // --- what the Nodes say

    pub(crate) fn cm_hears_report(&mut self, node: usize, conn: u64, snapshot: Rc<Snapshot>) {
        let Some(run) = &mut self.cm.run else { return };
        let Some(view) = &mut run.seen[node].view else {
            return;
        };
        if view.conn != conn {
            return;
        }
        let first = view.snapshot.is_none();
        let answered = run.seen[node]
            .busy
            .as_ref()
            .is_some_and(|busy| snapshot.answered.contains(&busy.order));
        if let Some(view) = &mut run.seen[node].view {
            view.snapshot = Some(snapshot);
        }
        if first {
            self.world_changed();
        } else {
            self.view_changed();
            self.follow_soon();
        }
        if answered {
            self.order_ends(node, None);
        }
    }

    pub(crate) fn cm_meets_node(&mut self, node: usize, conn: u64) {
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        let seen = &mut run.seen[node];
        seen.view = Some(View {
            conn,
            snapshot: None,
        });
        seen.known = true;
        seen.away_since = None;
        // In the middle of an order: it is told again.
        if let Some(busy) = &mut seen.busy {
            self.cm.unique += 1;
            busy.order = self.cm.unique;
            let (order, list, stop) = (busy.order, busy.list.clone(), busy.stop.clone());
            self.after(
                Duration::from_millis(10),
                Event::NodeList {
                    node,
                    conn,
                    order,
                    list,
                    stop,
                },
            );
            self.after(LAUNCH, Event::OrderLate { life, node, order });
        }
        self.installs_again(node);
        self.prepares_again(node, conn);
        self.world_changed();
    }

    pub(crate) fn cm_loses_node(&mut self, node: usize) {
        let now = self.now;
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        let seen = &mut run.seen[node];
        if seen.view.take().is_none() {
            return;
        }
        seen.config = None;
        seen.away_since = Some(now);
        let preparing = run.sendings.iter().filter_map(|(id, sending)| {
            let (order, _) = sending.preparing.get(&node)?;
            Some((*id, *order))
        });
        let preparing: Vec<(u64, u64)> = preparing.collect();
        if let Some(busy) = &seen.busy {
            // It has a minute to come back.
            let order = busy.order;
            self.after(MIN, Event::OrderLate { life, node, order });
        }
        for (id, order) in preparing {
            self.after(
                MIN,
                Event::PrepareLate {
                    life,
                    id,
                    node,
                    order,
                },
            );
        }
        self.after(LOST + SEC, Event::CmLook { life });
        self.world_changed();
    }
}

/// Connected, and has said what it runs.
fn told(seen: &Seen) -> bool {
    seen.view
        .as_ref()
        .is_some_and(|view| view.snapshot.is_some())
}

/// What to stop by name if the list has to be sent at all.
fn parcel(
    names: &Names,
    seen: &mut Seen,
    list: &List,
    retry: bool,
    env_fits: bool,
) -> Option<Vec<InstanceIdent>> {
    let view = seen.view.as_ref()?;
    let snapshot = view.snapshot.as_ref()?;
    let looked = (view.conn, Rc::clone(list), Rc::clone(snapshot));
    if !retry
        && env_fits
        && let Some((conn, list, snapshot)) = &seen.nothing_for
        && (*conn, Rc::as_ptr(list), Rc::as_ptr(snapshot))
            == (looked.0, Rc::as_ptr(&looked.1), Rc::as_ptr(&looked.2))
    {
        return None;
    }
    let same = |sent: &List| Rc::ptr_eq(sent, list) || sent == list;
    let (sent_before, sent_other) = match &seen.sent {
        // Only another list makes certain what it has.
        Sent::InDoubt => (false, true),
        Sent::Taken(conn, sent) if *conn == view.conn => (same(sent), !same(sent)),
        Sent::Adopted(conn, sent) if *conn == view.conn => (false, !same(sent)),
        Sent::Nothing | Sent::Taken(..) | Sent::Adopted(..) => (false, false),
    };
    let own = snapshot
        .reports
        .values()
        .filter(|one| one.state != InstanceState::Inactive)
        .count();
    let as_wanted = env_fits
        && own == list.len()
        && list.iter().all(|order| {
            snapshot
                .reports
                .get(&inst(&order.ident))
                .is_some_and(|one| one.ver == version_number(&order.version))
        });
    let failed = retry
        && snapshot
            .reports
            .values()
            .any(|one| one.state == InstanceState::Failed);
    if !failed && as_wanted && !sent_other {
        if !sent_before {
            seen.sent = Sent::Adopted(view.conn, Rc::clone(list));
        }
        seen.nothing_for = Some(looked);
        return None;
    }
    if sent_before && !retry {
        seen.nothing_for = Some(looked);
        return None;
    }
    seen.nothing_for = None;
    let wanted: BTreeMap<Inst, Ver> = list
        .iter()
        .map(|order| (inst(&order.ident), version_number(&order.version)))
        .collect();
    Some(
        snapshot
            .reports
            .iter()
            .filter(|(_, one)| one.state != InstanceState::Inactive)
            .filter(|(inst, one)| wanted.get(inst) != Some(&one.ver))
            .map(|(inst, _)| names.ident(*inst))
            .collect(),
    )
}

fn runtime(id: &RuntimeId, max_instances: u64) -> RuntimeInfo {
    RuntimeInfo {
        id: id.clone(),
        runtime_type: "crun".into(),
        arch: ArchInfo::default(),
        os: OsInfo::default(),
        max_dmips: None,
        allowed_dmips: None,
        total_ram: None,
        allowed_ram: None,
        max_instances,
    }
}

fn image(manifest: Digest, config: &Arc<ItemConfig>) -> Image {
    Image {
        manifest,
        architecture: String::new(),
        variant: String::new(),
        os: String::new(),
        os_version: String::new(),
        os_features: Vec::new(),
        config: Arc::clone(config),
    }
}

fn places(placed: &BTreeMap<InstanceIdent, Placed>) -> String {
    let texts: Vec<String> = placed
        .values()
        .filter_map(|one| {
            let (node, _) = one.place.as_ref()?;
            Some(format!(
                "{}v{}@{node}",
                one.ident,
                version_number(&one.version)
            ))
        })
        .collect();
    texts.join(" ")
}

pub(crate) fn list_text(list: &[Instance]) -> String {
    let texts: Vec<String> = list
        .iter()
        .map(|one| format!("{}v{}", one.ident, version_number(&one.version)))
        .collect();
    texts.join(" ")
}
