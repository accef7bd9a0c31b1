//! Effects of the engine, as CM's shell carries them out: with time, and with everything that can go wrong on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_session::{Keep, Priority};
use aos_types::{AosCode, ErrorInfo, ItemId, NodeState};
use aos_update::{DesiredNode, DesiredNodeState, Effect, EffectId, Failures, Input, Target};

use super::{LAUNCH, Wanted, error};
use crate::{
    coverage::Fault,
    draw::{Fate, HOUR, MIN, SEC},
    event::{Event, Step},
    mutation::Mutation,
    words::{Blob, Inst, Item, Ver, blobs_of, inst, item_number, node_number, version_number},
    world::{Message, World},
};

/// How often blobs that did not come are asked for again while the cloud is there.
const ROUNDS: u32 = 3;

#[derive(Debug)]
pub(crate) struct Download {
    begun: bool,
    items: Vec<(Item, Ver, ItemId)>,
    /// Not here yet.
    open: BTreeSet<Blob>,
    fetching: BTreeSet<Blob>,
    /// Of this round: worth another question.
    again: BTreeSet<Blob>,
    failed: BTreeMap<Blob, ErrorInfo>,
    told: BTreeSet<Item>,
    question: Option<u32>,
    round: u32,
    pause: Duration,
}

#[derive(Debug)]
pub(crate) struct Install {
    pub(crate) target: Target,
    pub(crate) begun: bool,
    /// By Node: the order in hand and what it is for.
    pub(crate) waiting: BTreeMap<usize, (u64, Wanted)>,
    pub(crate) failures: Failures,
}

#[derive(Debug)]
pub(crate) enum Job {
    Download(Download),
    NodeStates(Vec<DesiredNode>),
    Config(Option<aos_types::UnitConfig>, bool),
    Install(Install),
    Launch { target: Target, begun: bool },
    Commit(Vec<(Item, Ver)>),
    Ready,
}

impl Job {
    /// Blobs it has fetched and not handed over yet.
    pub(crate) fn blobs(&self) -> Vec<Blob> {
        match self {
            Self::Download(download) => download
                .items
                .iter()
                .flat_map(|(item, ver, _)| blobs_of(*item, *ver))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl World {
    pub(crate) fn job_begins(&mut self, id: EffectId, effect: Effect) {
        let job = match effect {
            Effect::Download { items, .. } => Job::Download(Download {
                begun: false,
                items: items
                    .iter()
                    .map(|item| {
                        (
                            item_number(&item.id),
                            version_number(&item.version),
                            item.id.clone(),
                        )
                    })
                    .collect(),
                open: BTreeSet::new(),
                fetching: BTreeSet::new(),
                again: BTreeSet::new(),
                failed: BTreeMap::new(),
                told: BTreeSet::new(),
                question: None,
                round: 0,
                pause: SEC,
            }),
            Effect::ApplyNodeStates { nodes } => Job::NodeStates(nodes),
            Effect::ApplyUnitConfig { config, restore } => Job::Config(config, restore),
            Effect::InstallOnNodes { target } => Job::Install(Install {
                target,
                begun: false,
                waiting: BTreeMap::new(),
                failures: Failures::default(),
            }),
            Effect::Launch { target } => Job::Launch {
                target,
                begun: false,
            },
            Effect::Commit { target } => Job::Commit(
                target
                    .items
                    .iter()
                    .map(|item| (item_number(&item.id), version_number(&item.version)))
                    .collect(),
            ),
            Effect::AskReadiness => Job::Ready,
            Effect::Cancel { .. } => return,
        };
        if !self.calm && self.dice.percent(15) {
            let life = self.cm.life;
            let after = self.dice.scale(Duration::from_millis(1), MIN);
            self.after(after, Event::Stale { life });
        }
        let after = self
            .dice
            .time(Duration::from_millis(1), Duration::from_millis(200));
        if let Some(run) = &mut self.cm.run {
            run.jobs.insert(id.0, job);
            self.step(id.0, after, Step::Begin);
        }
    }

    /// Whatever it is that comes too late: nobody waits for it, in no state.
    pub(crate) fn stale_answer(&mut self) {
        let effect = EffectId(1);
        let failures = Failures::of_step(error("long ago"));
        let input = match self.dice.to(5) {
            0 => Input::ItemDownloaded {
                effect,
                item: self.names.items[0].clone(),
                error: Some(error("long ago")),
            },
            1 => Input::Downloaded { effect, failures },
            2 => Input::Done { effect, failures },
            3 => Input::LookAgain,
            _ => Input::Readiness {
                effect,
                readiness: aos_update::Readiness::NotReady("long ago".into()),
            },
        };
        self.coverage.fault(Fault::LateAnswer);
        self.engine_input(input);
    }

    fn step(&mut self, id: u64, after: Duration, step: Step) {
        let life = self.cm.life;
        self.after(after, Event::Job { life, id, step });
    }

    pub(crate) fn job_goes_on(&mut self, id: u64, step: Step) {
        let Some(run) = &mut self.cm.run else { return };
        // Taken out while it is worked on; it goes back unless it has ended.
        let Some(mut job) = run.jobs.remove(&id) else {
            return;
        };
        let ended = match (&mut job, step) {
            (Job::Download(download), step) => self.downloads(id, download, step),
            (Job::Ready, step) => {
                self.readies(id, &step);
                if step == Step::Begin {
                    None
                } else {
                    return;
                }
            }
            (Job::NodeStates(nodes), _) => Some(self.applies_node_states(&nodes.clone())),
            (Job::Config(config, restore), _) => {
                Some(self.applies_config(config.clone(), *restore))
            }
            (Job::Install(install), step) => self.installs(id, install, step),
            (Job::Launch { target, begun }, _) => {
                let settled = *begun || self.settled();
                if settled && !*begun {
                    *begun = true;
                    let target = target.clone();
                    if let Some(run) = &mut self.cm.run {
                        run.jobs.insert(id, job);
                    }
                    self.launches(id, &target);
                    return;
                }
                None
            }
            (Job::Commit(items), _) => {
                let items = items.clone();
                let rate = self.scene.rates.commit_fails;
                if self.unlucky(rate, Fault::CommitFails) {
                    Some(Failures::of_step(error("the disk is full")))
                } else {
                    self.cm_commits(&items);
                    Some(Failures::default())
                }
            }
        };
        match ended {
            None => {
                if let Some(run) = &mut self.cm.run {
                    run.jobs.insert(id, job);
                }
            }
            Some(failures) => {
                let download = matches!(job, Job::Download(_));
                self.job_ends(id, failures, download);
            }
        }
    }

    pub(crate) fn job_ends(&mut self, id: u64, failures: Failures, download: bool) {
        self.note(|_| {
            format!(
                "effect {id} ends: {}",
                failures.summary().unwrap_or("well".into())
            )
        });
        let effect = EffectId(id);
        self.look();
        if !self.engine_carries_out() {
            return;
        }
        if download {
            self.engine_input(Input::Downloaded { effect, failures });
        } else {
            self.engine_input(Input::Done { effect, failures });
        }
        self.in_force_changed();
    }

    /// Somebody answers whether the Unit may be changed, or nobody does.
    fn readies(&mut self, id: u64, step: &Step) {
        let percent = self.scene.readiness.unwrap_or(100);
        match step {
            Step::Begin => {
                if self.unlucky(20, Fault::NoAnswer) {
                    return;
                }
                let ready = self.calm || self.dice.percent(percent);
                let after = self.dice.scale(Duration::from_millis(10), MIN);
                self.step(id, after, Step::Ready(ready));
            }
            Step::Ready(ready) => {
                let readiness = if *ready {
                    aos_update::Readiness::Ready
                } else {
                    self.coverage.fault(Fault::NotReady);
                    aos_update::Readiness::NotReady("it is moving".into())
                };
                let effect = EffectId(id);
                self.engine_input(Input::Readiness { effect, readiness });
                self.in_force_changed();
            }
            _ => {}
        }
    }

    // --- downloading

    fn downloads(&mut self, id: u64, job: &mut Download, step: Step) -> Option<Failures> {
        match step {
            Step::Begin => {
                job.begun = true;
                for (item, ver, _) in job.items.clone() {
                    for blob in blobs_of(item, ver) {
                        let stored = self.cm.disk.blobs.get(&blob).copied();
                        match stored {
                            // Read again by every process: a damaged one is fetched anew.
                            Some(stored) if stored.intact => {}
                            Some(_) => {
                                self.cm.disk.blobs.remove(&blob);
                                job.open.insert(blob);
                            }
                            None => {
                                job.open.insert(blob);
                            }
                        }
                    }
                }
                self.asks(id, job)
            }
            Step::Ask if job.begun => self.asks(id, job),
            Step::AskLate(question) => {
                if job.question == Some(question) {
                    job.question = None;
                    return self.pauses(id, job);
                }
                None
            }
            Step::Fetched(blob) => self.fetched(id, job, blob),
            _ => None,
        }
    }

    fn asks(&mut self, id: u64, job: &mut Download) -> Option<Failures> {
        self.tells_items(id, job);
        self.cm.run.as_ref()?;
        if job.open.is_empty() {
            let mut failures = Failures::default();
            for (item, ver, name) in &job.items {
                let error = blobs_of(*item, *ver)
                    .iter()
                    .find_map(|blob| job.failed.get(blob).cloned());
                if let Some(error) = error {
                    failures.items.insert(name.clone(), error);
                }
            }
            return Some(failures);
        }
        // Until the cloud is there again nothing counts; `jobs_online` goes on.
        let run = self.cm.run.as_mut()?;
        if !run.online || job.question.is_some() || !job.fetching.is_empty() {
            return None;
        }
        self.cm.unique += 1;
        let question = self.cm.unique as u32;
        job.question = Some(question);
        let blobs = job.open.iter().copied().collect();
        self.step(id, 10 * SEC, Step::AskLate(question));
        self.unit_sends(
            Message::Ask(question, blobs),
            Priority::High,
            Keep::Connection,
            None,
        );
        None
    }

    fn pauses(&mut self, id: u64, job: &mut Download) -> Option<Failures> {
        let pause = job.pause;
        job.pause = (pause * 2).min(30 * SEC);
        self.step(id, pause, Step::Ask);
        None
    }

    /// The cloud is connected: whoever waited for it asks.
    pub(crate) fn jobs_online(&mut self) {
        let Some(run) = &mut self.cm.run else { return };
        let mut waiting = Vec::new();
        for (id, job) in &mut run.jobs {
            if let Job::Download(download) = job {
                // A question of the last connection is not answered any more.
                download.question = None;
                waiting.push(*id);
            }
        }
        for id in waiting {
            self.step(id, Duration::from_millis(5), Step::Ask);
        }
    }

    pub(crate) fn job_hears_urls(&mut self, question: u32, blobs: &[Blob]) {
        let Some(run) = &mut self.cm.run else { return };
        let asked = run.jobs.iter_mut().find_map(|(id, job)| match job {
            Job::Download(download) if download.question == Some(question) => Some((*id, download)),
            _ => None,
        });
        let Some((id, job)) = asked else { return };
        job.question = None;
        job.round += 1;
        job.pause = SEC;
        let keep: BTreeSet<(Item, Ver)> = job
            .items
            .iter()
            .map(|(item, ver, _)| (*item, *ver))
            .collect();
        let mut fetch = Vec::new();
        for blob in job.open.clone() {
            let too_big = blob.part == 1 && self.scene.fate(blob.item, blob.ver) == Fate::TooBig;
            if blobs.contains(&blob) && too_big {
                self.coverage.fault(Fault::TooBig);
                job.open.remove(&blob);
                job.failed
                    .insert(blob, error("it is larger than all space for images"));
            } else if blobs.contains(&blob) {
                fetch.push(blob);
            } else if job.round >= ROUNDS {
                job.open.remove(&blob);
                let why = "the cloud does not know it";
                job.failed
                    .insert(blob, ErrorInfo::new(AosCode::NotFound, why));
            } else {
                job.again.insert(blob);
            }
        }
        job.fetching = fetch.iter().copied().collect();
        let count = fetch.len() as u64;
        if !fetch.is_empty() && !self.cm_makes_room(count, &keep) {
            let Some(run) = &mut self.cm.run else { return };
            if let Some(Job::Download(job)) = run.jobs.get_mut(&id) {
                for blob in std::mem::take(&mut job.open) {
                    job.failed.insert(blob, error("no space for images"));
                }
                job.fetching.clear();
            }
            self.step(id, Duration::from_millis(1), Step::Ask);
            return;
        }
        let slow = self.scene.rates.slow_fetch;
        for blob in &fetch {
            let time = if self.unlucky(slow, Fault::FetchSlow) {
                self.dice.scale(MIN, 20 * HOUR)
            } else {
                self.dice.scale(Duration::from_millis(20), MIN)
            };
            self.step(id, time, Step::Fetched(*blob));
        }
        if fetch.is_empty() {
            self.step(id, SEC, Step::Ask);
        }
    }

    /// One transfer has ended, one way or the other.
    fn fetched(&mut self, id: u64, job: &mut Download, blob: Blob) -> Option<Failures> {
        if !job.fetching.remove(&blob) {
            return None;
        }
        let rates = &self.scene.rates;
        let (fails, corrupt) = (rates.fetch_fails, rates.fetch_corrupt);
        let broken = !self.wire.up || !self.cloud.up;
        let fails = broken || self.unlucky(fails, Fault::FetchFails);
        let damaged = !fails && self.unlucky(corrupt, Fault::FetchCorrupt);
        let unsigned = blob.part != 2 && self.scene.fate(blob.item, blob.ver) == Fate::Unsigned;
        let skip = self.has(Mutation::SkipDigestCheck);
        if fails || (damaged && !skip) {
            if !broken && job.round >= ROUNDS {
                job.open.remove(&blob);
                job.failed.insert(blob, error("it cannot be fetched"));
            } else {
                job.again.insert(blob);
            }
        } else if unsigned && !self.has(Mutation::SkipSignatureCheck) {
            self.coverage.fault(Fault::Unsigned);
            job.open.remove(&blob);
            job.failed
                .insert(blob, error("its signature is by nobody we trust"));
        } else {
            job.open.remove(&blob);
            self.cm.disk.blobs.insert(
                blob,
                super::Stored {
                    intact: !damaged,
                    verified: !unsigned && !damaged,
                },
            );
        }
        self.tells_items(id, job);
        self.cm.run.as_ref()?;
        if job.fetching.is_empty() {
            job.again.clear();
            if job.open.is_empty() {
                return self.asks(id, job);
            }
            return self.pauses(id, job);
        }
        None
    }

    /// Tells the engine of items that have ended, and keeps them.
    fn tells_items(&mut self, id: u64, job: &mut Download) {
        for (item, ver, name) in &job.items {
            if job.told.contains(item) {
                continue;
            }
            let blobs = blobs_of(*item, *ver);
            if blobs.iter().any(|blob| job.open.contains(blob)) {
                continue;
            }
            job.told.insert(*item);
            let error = blobs.iter().find_map(|blob| job.failed.get(blob).cloned());
            if error.is_none() {
                let now = self.cm_now();
                let row = self.cm.disk.items.entry((*item, *ver)).or_insert(Some(now));
                // Wanted again: its time to be kept begins anew.
                if row.is_some() {
                    *row = Some(now);
                }
            }
            let input = Input::ItemDownloaded {
                effect: EffectId(id),
                item: name.clone(),
                error,
            };
            if !self.engine_input(input) {
                return;
            }
        }
    }

    // --- node states and configuration

    fn applies_node_states(&mut self, nodes: &[DesiredNode]) -> Failures {
        let mut failures = Failures::default();
        for wanted in nodes {
            let node = node_number(&wanted.node);
            let Some(known) = self.known().into_iter().find(|known| known.node == node) else {
                continue;
            };
            let pause = match (wanted.state, known.state) {
                (DesiredNodeState::Paused, NodeState::Provisioned) => true,
                (DesiredNodeState::Provisioned, NodeState::Paused) => false,
                _ => continue,
            };
            let rate = self.scene.rates.iam_fails;
            if !self.nodes[node].reachable() && !self.has(Mutation::AbsentNodeBlocks) {
                // One that is away keeps nobody from going on.
                continue;
            }
            if !self.nodes[node].reachable() || self.unlucky(rate, Fault::IamFails) {
                failures.nodes.insert(
                    wanted.node.clone(),
                    error("IAM of the Node does not answer"),
                );
                continue;
            }
            if pause {
                self.coverage.fault(Fault::Paused);
                self.cm.disk.paused.insert(node);
            } else {
                self.cm.disk.paused.remove(&node);
            }
            self.note(|_| format!("n{node} is {}", if pause { "paused" } else { "resumed" }));
        }
        self.world_changed();
        failures
    }

    fn applies_config(&mut self, config: Option<aos_types::UnitConfig>, restore: bool) -> Failures {
        let have = self.cm.disk.config.clone();
        if restore {
            self.cm.disk.config = config;
            self.bring_config_to_nodes(true);
            return Failures::default();
        }
        let Some(config) = config else {
            return Failures::default();
        };
        if have.as_ref().map(|have| &have.version) == Some(&config.version) {
            return Failures {
                nodes: self.bring_config_to_nodes(false),
                ..Failures::default()
            };
        }
        let refused = |why: String| Failures {
            unit_config: Some(error(why)),
            ..Failures::default()
        };
        let number = |text: &str| -> u32 {
            text.split('.')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0)
        };
        let taken = self
            .wishes
            .iter()
            .find_map(|wish| wish.config.filter(|(n, _)| *n == number(&config.version)))
            .is_none_or(|(_, taken)| taken);
        if !taken {
            self.coverage.fault(Fault::ConfigRefused);
            return refused("a Node refuses it".into());
        }
        self.cm.disk.config = Some(config);
        let nodes = self.bring_config_to_nodes(false);
        let unit_config = nodes.values().next().cloned();
        Failures {
            nodes,
            unit_config,
            ..Failures::default()
        }
    }

    /// Gives every connected Node the configuration in force; gives those that did not take it.
    pub(crate) fn bring_config_to_nodes(
        &mut self,
        _restore: bool,
    ) -> BTreeMap<aos_types::NodeId, ErrorInfo> {
        let mut failed = BTreeMap::new();
        let Some(config) = self.cm.disk.config.clone() else {
            return failed;
        };
        for node in 0..self.nodes.len() {
            let Some(run) = &mut self.cm.run else { break };
            if run.seen[node].view.is_none()
                || run.seen[node].config.as_ref() == Some(&config.version)
            {
                continue;
            }
            let rate = self.scene.rates.config_fails;
            if self.unlucky(rate, Fault::ConfigFails) {
                let name = self.names.nodes[node].clone();
                failed.insert(name, error("the Node did not take its configuration"));
            } else if let Some(run) = &mut self.cm.run {
                run.seen[node].config = Some(config.version.clone());
            }
        }
        failed
    }

    // --- installing on the Nodes

    fn installs(&mut self, id: u64, job: &mut Install, step: Step) -> Option<Failures> {
        if step == Step::Late {
            for (node, (_, wanted)) in std::mem::take(&mut job.waiting) {
                self.coverage.fault(Fault::LateAnswer);
                install_failed(self, job, node, &wanted, "took too long to install images");
            }
            return Some(std::mem::take(&mut job.failures));
        }
        if job.begun {
            return job
                .waiting
                .is_empty()
                .then(|| std::mem::take(&mut job.failures));
        }
        if !self.settled() {
            return None;
        }
        job.begun = true;
        let (plan, unplaced) = self.plan(&job.target.clone());
        job.failures = unplaced;
        for node in 0..self.nodes.len() {
            let Some(run) = &mut self.cm.run else {
                return None;
            };
            let Some(view) = &run.seen[node].view else {
                continue;
            };
            let has = view.snapshot.clone();
            let wanted: Wanted = plan
                .placed
                .iter()
                .filter(|place| node_number(&place.node) == node)
                .filter(|place| {
                    let runs = has
                        .as_ref()
                        .and_then(|has| has.reports.get(&inst(&place.ident)));
                    runs.is_none_or(|runs| runs.ver != version_number(&place.version))
                })
                .map(|place| inst(&place.ident))
                .collect();
            if !wanted.is_empty() {
                let order = self.orders_install(node, &wanted, &job.target);
                job.waiting.insert(node, (order, wanted));
            }
        }
        if job.waiting.is_empty() {
            return Some(std::mem::take(&mut job.failures));
        }
        self.step(id, LAUNCH, Step::Late);
        None
    }

    fn orders_install(&mut self, node: usize, wanted: &Wanted, target: &Target) -> u64 {
        let images: BTreeSet<(Item, Ver)> = wanted
            .iter()
            .filter_map(|one| {
                let name = &self.names.items[usize::from(one.item)];
                let item = target.item(name)?;
                Some((one.item, version_number(&item.version)))
            })
            .collect();
        self.orders_images(node, wanted, images)
    }

    /// Has a Node install images for these instances; gives the number of the order.
    pub(crate) fn orders_images(
        &mut self,
        node: usize,
        wanted: &Wanted,
        images: BTreeSet<(Item, Ver)>,
    ) -> u64 {
        let Some(run) = &mut self.cm.run else {
            return 0;
        };
        self.cm.unique += 1;
        let order = self.cm.unique;
        let conn = run.seen[node].view.as_ref().map_or(0, |view| view.conn);
        let (images, wanted) = (images.into_iter().collect(), wanted.clone());
        let after = self
            .dice
            .time(Duration::from_millis(1), Duration::from_millis(20));
        self.after(
            after,
            Event::NodeInstall {
                node,
                conn,
                order,
                wanted,
                images,
            },
        );
        order
    }

    pub(crate) fn cm_hears_installed(
        &mut self,
        node: usize,
        conn: u64,
        order: u64,
        failed: Vec<Inst>,
        images: &[(Item, Ver)],
    ) {
        let now = self.now;
        let Some(run) = &mut self.cm.run else { return };
        if run.seen[node].view.as_ref().map(|view| view.conn) != Some(conn) {
            return;
        }
        for image in images {
            let bad = failed.iter().any(|one| one.item == image.0);
            run.seen[node].prepared.note(conn, now, *image, bad);
        }
        if self.hears_prepared(node, order, &failed) {
            return;
        }
        let Some(run) = &mut self.cm.run else { return };
        let mut ended = None;
        for (id, job) in &mut run.jobs {
            if let Job::Install(install) = job
                && install
                    .waiting
                    .get(&node)
                    .is_some_and(|(one, _)| *one == order)
            {
                install.waiting.remove(&node);
                for one in &failed {
                    install.failures.instances.insert(
                        self.names.ident(*one),
                        error("its image cannot be installed"),
                    );
                }
                ended = Some(*id);
            }
        }
        if let Some(id) = ended {
            self.step(id, Duration::ZERO, Step::Go);
        }
    }

    /// A Node is back in the middle of an installation: it is told again.
    pub(crate) fn installs_again(&mut self, node: usize) {
        let Some(run) = &mut self.cm.run else { return };
        let open: Vec<(u64, Wanted, Target)> = run
            .jobs
            .iter()
            .filter_map(|(id, job)| match job {
                Job::Install(install) => {
                    let (_, wanted) = install.waiting.get(&node)?;
                    Some((*id, wanted.clone(), install.target.clone()))
                }
                _ => None,
            })
            .collect();
        for (id, wanted, target) in open {
            let order = self.orders_install(node, &wanted, &target);
            if let Some(run) = &mut self.cm.run
                && let Some(Job::Install(install)) = run.jobs.get_mut(&id)
            {
                install.waiting.insert(node, (order, wanted));
            }
        }
    }

    /// The Nodes have changed: whoever waited for them to settle looks again.
    pub(crate) fn jobs_look(&mut self) {
        let Some(run) = &self.cm.run else { return };
        let waiting: Vec<u64> = run
            .jobs
            .iter()
            .filter(|(_, job)| {
                matches!(
                    job,
                    Job::Install(Install { begun: false, .. }) | Job::Launch { begun: false, .. }
                )
            })
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.step(id, Duration::from_millis(1), Step::Go);
        }
    }
}

fn install_failed(world: &World, job: &mut Install, node: usize, wanted: &Wanted, why: &str) {
    for one in wanted {
        job.failures
            .instances
            .insert(world.names.ident(*one), error(why));
    }
    job.failures
        .nodes
        .insert(world.names.nodes[node].clone(), error(why));
}
