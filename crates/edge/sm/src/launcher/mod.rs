//! Carries out plans of `aos-launch` on this Node, adopts what runs, starts again what ended.
//!
//! ```text
//!   desired list ──► launch: install ─ addresses ─ (switch: network ─ store ─ stop ─ start) ──► all instances told
//!                       ▲ a newer list supersedes it before the switch, and while it waits for who takes long to end
//!   exits, probes ───► activating, or failed when its starts are used up; told ── pause ──► start again
//! ```
//!
//! Everything an instance goes through is in its [`Entry`]; whoever changes one publishes a new [`Snapshot`].

mod data;
mod elsewhere;
mod entry;
mod exits;
mod launch;
mod leaving;
mod offline;
mod order;
mod parting;
mod prepare;
mod probing;
mod restore;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_launch::Instance;
use aos_runtime::{InstanceId, StopPolicy};
use aos_types::{
    AlertRules, Digest, ErrorInfo, InstanceIdent, InstanceState, NodeInfo, Quotas, RuntimeId,
};
use tokio::sync::{Notify, RwLock, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    images::Images,
    networks::Networks,
    permissions::Permissions,
    places::Places,
    records::{End, Kept},
    resources::Resources,
    runtimes::{Ended, Runtimes},
};
pub(crate) use elsewhere::Stage;
use elsewhere::Told;
use entry::Entry;

/// What a launcher works with.
pub(crate) struct Setup {
    pub(crate) runtimes: Runtimes,
    pub(crate) images: Arc<Images>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) permissions: Permissions,
    pub(crate) kept: Kept,
    pub(crate) node: NodeInfo,
    pub(crate) resources: Resources,
    pub(crate) logs: Arc<crate::logs::Logs>,
    pub(crate) places: Places,
    pub(crate) host_base: Vec<PathBuf>,
    pub(crate) stop_policy: StopPolicy,
    /// Instances started or stopped at the same time.
    pub(crate) parallel: usize,
    pub(crate) keep_images: Duration,
}

/// The complete list of instances that CM wants.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Desired {
    pub(crate) instances: Vec<Instance>,
    pub(crate) stops: BTreeSet<InstanceIdent>,
    /// Named by elements that could not be read: they stay as they run.
    pub(crate) unreadable: BTreeMap<InstanceIdent, ErrorInfo>,
    /// An element was so broken that nobody can tell whom it names: nothing is stopped for being absent.
    pub(crate) keep_others: bool,
}

/// How the runs of an instance went, as CM is told (`aos.node.v1` `InstanceRun`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Run {
    /// It is not expected to come up.
    pub(crate) unrecoverable: bool,
    pub(crate) restarts: u32,
    pub(crate) last_end: Option<End>,
    /// How far it is, for those on other Nodes that depend on it.
    pub(crate) progress: Stage,
    /// It is meant to end by itself.
    pub(crate) ends: bool,
}

/// How an instance is doing, as CM is told (servicemanager.v5 `InstanceStatus`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) runtime: RuntimeId,
    pub(crate) manifest: Digest,
    pub(crate) state: InstanceState,
    pub(crate) error: Option<ErrorInfo>,
    pub(crate) env: Vec<String>,
    pub(crate) run: Run,
}

/// An instance, as those who measure see it.
#[derive(Debug, Clone)]
pub(crate) struct Measurable {
    pub(crate) instance: Instance,
    pub(crate) alert_rules: Option<AlertRules>,
    /// Its cgroup, if it runs.
    pub(crate) cgroup: Option<String>,
    /// It has a network interface of its own.
    pub(crate) networked: bool,
}

/// All instances of the Node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) instances: Arc<BTreeMap<InstanceIdent, Report>>,
    /// Grows when a list was carried out; 0 until the stored set was started.
    pub(crate) launches: u64,
}

/// The one who runs instances on this Node.
pub(crate) struct Launcher {
    setup: Setup,
    entries: Mutex<BTreeMap<InstanceIdent, Entry>>,
    /// Instances of the last list that cannot run here whatever happens, as they are told.
    refused: Mutex<BTreeMap<InstanceIdent, Report>>,
    /// Those that have left and whose last state is being told.
    parting: Mutex<parting::Parting>,
    last_states: Notify,
    parted: Notify,
    /// States are being told.
    telling: watch::Sender<bool>,
    /// What CM has told of other Nodes.
    told: Mutex<Told>,
    snapshot: watch::Sender<Snapshot>,
    desired: watch::Sender<Option<Arc<Desired>>>,
    /// The list in hand. A launch ends, and is told, under this lock.
    in_hand: Mutex<Option<Arc<Desired>>>,
    /// Held for writing while instances are exchanged, for reading while one is started again. Nobody waits under it for
    /// an instance that takes its time to end.
    switching: RwLock<()>,
    /// Who works on one instance.
    turns: Mutex<BTreeMap<InstanceIdent, Arc<tokio::sync::Mutex<()>>>>,
    /// Whose process is being ended for a list, and for how many lists.
    leaving: watch::Sender<BTreeMap<InstanceIdent, u32>>,
    /// There are ends that CM was not told of.
    ends: Notify,
    /// Something got on without looking different from outside: others may wait for it.
    moved: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Launcher {
    pub(crate) fn new(setup: Setup, stop: CancellationToken) -> Arc<Self> {
        let launcher = Arc::new(Self {
            setup,
            entries: Mutex::default(),
            refused: Mutex::default(),
            parting: Mutex::default(),
            last_states: Notify::new(),
            parted: Notify::new(),
            telling: watch::Sender::new(false),
            told: Mutex::default(),
            snapshot: watch::Sender::default(),
            desired: watch::Sender::new(None),
            in_hand: Mutex::default(),
            switching: RwLock::new(()),
            turns: Mutex::default(),
            leaving: watch::Sender::default(),
            ends: Notify::new(),
            moved: Notify::new(),
            tasks: TaskTracker::new(),
            stop,
        });
        let weak = Arc::downgrade(&launcher);
        launcher.setup.images.in_use.ask(Box::new(move || {
            let launcher = weak.upgrade();
            launcher.map_or_else(Vec::new, |launcher| launcher.running())
        }));
        launcher
    }

    /// The first process of every instance that runs, with its image.
    fn running(&self) -> Vec<(u32, Digest)> {
        let entries = self.entries();
        entries
            .values()
            .filter_map(|entry| Some((entry.pid?, entry.instance.manifest)))
            .collect()
    }

    /// Restores the stored set, then carries out lists and reacts to exits until the stop. Instances run on.
    pub(crate) async fn run(
        self: Arc<Self>,
        exits: mpsc::Receiver<Ended>,
        online: watch::Receiver<bool>,
    ) -> Result<(), aos_store::Error> {
        let restored = self.restore().await;
        if restored.is_ok() {
            tokio::join!(
                self.carry_out_lists(),
                self.follow_order(),
                self.take_exits(exits),
                self.watch_offline(online),
                self.collect_images(),
                self.take_rights_back(),
            );
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        restored
    }

    /// A new complete list. The one that is being carried out is superseded.
    pub(crate) fn want(&self, desired: Desired) {
        let in_hand = self.in_hand();
        // The list in hand again, as after a reconnection of CM: it is being carried out, and its end will be told.
        if in_hand.as_deref() != Some(&desired) {
            self.desired.send_replace(Some(Arc::new(desired)));
        }
    }

    /// How all instances are doing, and when that changes.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    /// The instances of this Node with what they may use and keep, and those that are just leaving it.
    pub(crate) fn kept(&self) -> Vec<(Instance, Quotas)> {
        let mut all = self.parting().clone();
        let entries = self.entries();
        let here = entries.values();
        all.extend(here.map(|entry| {
            let ident = entry.instance.ident.clone();
            (ident, (entry.instance.clone(), entry.quotas))
        }));
        all.into_values().collect()
    }

    /// The instances of this Node, and where each can be measured.
    pub(crate) fn measurable(&self) -> Vec<Measurable> {
        let entries = self.entries();
        let measurable = |entry: &Entry| Measurable {
            instance: entry.instance.clone(),
            alert_rules: entry.alert_rules.clone(),
            cgroup: entry.pid.and_then(|_| {
                let runtime = self.setup.runtimes.get(&entry.instance.runtime).ok()?;
                runtime.cgroup(InstanceId::of(&entry.instance.ident))
            }),
            networked: self.setup.runtimes.has_networks(&entry.instance.runtime),
        };
        entries.values().map(measurable).collect()
    }

    /// Waits until there may be ends to tell CM.
    pub(crate) async fn ends(&self) {
        self.ends.notified().await;
    }

    pub(crate) fn images(&self) -> &Images {
        &self.setup.images
    }

    pub(crate) fn parallel(&self) -> usize {
        self.setup.parallel.max(1)
    }

    fn in_hand(&self) -> MutexGuard<'_, Option<Arc<Desired>>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<InstanceIdent, Entry>> {
        // Changes under this lock are small and whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes entries and tells everybody.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<InstanceIdent, Entry>) -> T) -> T {
        let mut entries = self.entries();
        let answer = change(&mut entries);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reports: BTreeMap<_, _> = refused.clone();
        drop(refused);
        reports.extend(
            entries
                .iter()
                .map(|(ident, entry)| (ident.clone(), entry.report())),
        );
        self.snapshot.send_if_modified(|snapshot| {
            if *snapshot.instances == reports {
                return false;
            }
            snapshot.instances = Arc::new(reports);
            true
        });
        answer
    }

    fn launched(&self) {
        self.snapshot.send_modify(|snapshot| snapshot.launches += 1);
    }

    async fn carry_out_lists(self: &Arc<Self>) {
        let mut desired = self.desired.subscribe();
        desired.mark_changed();
        loop {
            // Waiting for a state is cancel-safe.
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            let Some(list) = desired.borrow_and_update().clone() else {
                continue;
            };
            *self.in_hand() = Some(list.clone());
            let superseded = self.stop.child_token();
            let finished = {
                let mut launch = Box::pin(self.launch(&list, &superseded));
                loop {
                    tokio::select! {
                        finished = &mut launch => break finished,
                        // The launch ends by itself where it can; it is not dropped in the middle of a switch.
                        _ = desired.changed(), if !superseded.is_cancelled() => {
                            desired.mark_changed();
                            superseded.cancel();
                        }
                    }
                }
            };
            let mut in_hand = self.in_hand();
            *in_hand = None;
            if finished {
                self.launched();
            }
        }
    }

    async fn take_rights_back(&self) {
        // What IAM has not confirmed is asked of it again by the next SM.
        tokio::select! {
            () = self.setup.permissions.follow() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Once a day and after each launch.
    async fn collect_images(&self) {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        let mut snapshots = self.snapshots();
        let mut launches = 0;
        loop {
            let used: BTreeSet<Digest> =
                self.entries().values().flat_map(Entry::manifests).collect();
            self.setup.images.note_use(used.iter().copied()).await;
            self.setup
                .images
                .collect(used, self.setup.keep_images)
                .await;
            let another = async {
                while snapshots.changed().await.is_ok() {
                    let now = snapshots.borrow_and_update().launches;
                    if now != launches {
                        launches = now;
                        return;
                    }
                }
            };
            // Waiting for a state is cancel-safe.
            tokio::select! {
                () = another => {}
                () = tokio::time::sleep(DAY) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}
