//! What the Node and its instances use, and what people should know of it.
//!
//! One pass a period reads all counters; the core (`aos-alert`) makes usage, averages and alerts of them. Nothing else is
//! looked at again and again: ends of instances come from the keeper, changes of rules and instances from those who make
//! them, the machine's log from the kernel.
//!
//! ```text
//!   /proc, cgroups, interfaces, quotas ──one pass──► Monitor ──► InstantMonitoring ─► CM
//!   rules of Node and instances ─────────────────────► │   └───► quota alerts ──────► CM
//!   journal or kernel log, ends of instances ──────────────────► alerts ────────────► CM
//! ```

mod book;
mod ends;
mod machine_log;
mod out_of_memory;
mod reading;
mod words;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_alert::{Alert, Change, Changed, Measured, Monitor, Parameter, Sizes, Whose};
use aos_ipc::proto::servicemanager::v5 as pb;
use aos_quota::Backend;
use aos_store::Records;
use aos_time::{Clock, SteadyClock, SystemClock};
use aos_types::{AlertRules, InstanceIdent, NodeInfo};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    alerts::Alerts,
    launcher::{Launcher, Measurable},
    networks::Networks,
    node_config::NodeConfigs,
    options::MonitoringOptions,
    places::Places,
    records::{Kept, Raised, TrafficBook},
};
use out_of_memory::OutOfMemory;
use reading::{Reader, Wanted};

pub(crate) use ends::tell_ends;
pub(crate) use machine_log::watch_log;

/// Where nothing counts what a storage holds, whole folders have to be walked: so much less often.
const WALKS: u64 = 6;
/// How often the sums of traffic are noted: what a power cut can lose of them.
const NOTE: Duration = Duration::from_secs(60);
/// The one record's key.
const OWN: &str = "own";

type Rules = BTreeMap<InstanceIdent, Option<AlertRules>>;

/// Measures this Node.
pub(crate) struct Monitoring {
    launcher: Arc<Launcher>,
    networks: Arc<Networks>,
    node_configs: Arc<NodeConfigs>,
    alerts: Arc<Alerts>,
    raised: Records<Raised>,
    traffic: Records<TrafficBook>,
    options: MonitoringOptions,
    /// A storage is looked at in each so many passes.
    storage_every: u64,
    clock: SteadyClock,
    reader: Reader,
    monitor: Mutex<Monitor<InstanceIdent>>,
    out_of_memory: Mutex<OutOfMemory>,
    latest: watch::Sender<Option<Arc<pb::InstantMonitoring>>>,
}

/// What measuring works with.
pub(crate) struct Setup {
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) node_configs: Arc<NodeConfigs>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) places: Places,
    pub(crate) kept: Kept,
    pub(crate) node: NodeInfo,
    pub(crate) options: MonitoringOptions,
}

impl Monitoring {
    /// Nothing was measured yet; alerts that an earlier SM told go on.
    pub(crate) async fn open(setup: Setup) -> Result<Self, aos_store::Error> {
        let clock = SteadyClock::start();
        let stored = setup.kept.raised.all().await?;
        let raised = stored.into_iter().map(|(_, raised)| {
            let whose = raised.instance.map_or(Whose::Node, Whose::Instance);
            (whose, Parameter::from(raised.parameter.as_str()))
        });
        let window = Duration::from_secs(setup.options.window_secs);
        let monitor = Monitor::new(sizes(&setup.node), window, clock.now(), raised);
        let storage_every = match setup.places.backend() {
            Backend::Accounting => WALKS,
            _ => 1,
        };
        let period = Duration::from_secs(setup.options.traffic_period_secs.max(1));
        let noted = setup.kept.traffic.get(OWN).await?;
        Ok(Self {
            reader: Reader::new(&setup.node, setup.places, period, noted),
            launcher: setup.launcher,
            networks: setup.networks,
            node_configs: setup.node_configs,
            alerts: setup.alerts,
            raised: setup.kept.raised,
            traffic: setup.kept.traffic,
            options: setup.options,
            storage_every,
            clock,
            monitor: Mutex::new(monitor),
            out_of_memory: Mutex::default(),
            latest: watch::Sender::new(None),
        })
    }

    /// What was measured last, and when there is something newer.
    pub(crate) fn latest(&self) -> watch::Receiver<Option<Arc<pb::InstantMonitoring>>> {
        self.latest.subscribe()
    }

    /// The averages over the window, for who asks.
    pub(crate) fn average(&self) -> pb::AverageMonitoring {
        let (node, instances) = self.monitor().averages();
        words::average(SystemClock.now(), &node, &instances, &self.runtimes())
    }

    /// Measures until it is dropped, which is safe at any time.
    pub(crate) async fn run(&self) {
        // What runs is known once the stored set was restored; before that all would seem to be gone.
        let mut snapshots = self.launcher.snapshots();
        if snapshots
            .wait_for(|snapshot| snapshot.launches > 0)
            .await
            .is_err()
            || self.options.period_secs == 0
        {
            return std::future::pending().await;
        }
        let mut node_rules = self.node_configs.alert_rules();
        node_rules.mark_changed();
        let mut rules: Option<Rules> = None;
        let mut ticks = interval(Duration::from_secs(self.options.period_secs));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = Instant::now();
        for pass in 0_u64.. {
            ticks.tick().await;
            if node_rules.has_changed().unwrap_or(false) {
                let now: AlertRules = node_rules.borrow_and_update().clone();
                let changed = self.monitor().node_rules(&now);
                self.changed(changed, &[]).await;
            }
            let there = self.launcher.measurable();
            let now: Rules = there
                .iter()
                .map(|one| (one.instance.ident.clone(), one.alert_rules.clone()))
                .collect();
            if rules.as_ref() != Some(&now) {
                let changed = self.monitor().instances(&now);
                self.changed(changed, &there).await;
                rules = Some(now);
            }
            self.pass(&there, pass % self.storage_every == 0).await;
            if noted.elapsed() >= NOTE || pass == 0 {
                noted = Instant::now();
                self.note_traffic().await;
            }
        }
    }

    /// Notes the sums of traffic for the SM that comes next. The kernel's counters outlive SM, so only a power cut loses what
    /// was counted since.
    pub(crate) async fn note_traffic(&self) {
        if let Err(error) = self.traffic.put(OWN, &self.reader.book()).await {
            tracing::warn!(%error, "the sums of traffic are not stored");
        }
    }

    async fn pass(&self, there: &[Measurable], storages: bool) {
        let wanted = there.iter().map(|one| Wanted {
            ident: one.instance.ident.clone(),
            cgroup: one.cgroup.clone(),
            cable: one
                .networked
                .then(|| self.networks.cable(&one.instance.ident))
                .flatten(),
            kept: Some(one.instance.clone()).filter(|_| storages),
        });
        let (wanted, networks) = (wanted.collect(), self.networks.clone());
        let own = move |interface: &str| networks.is_own(interface);
        let Some(passed) = self.reader.read(wanted, own).await else {
            return;
        };
        let measured = self
            .monitor()
            .pass(self.clock.now(), &passed.node, &passed.instances);
        self.tell(&measured).await;
        self.tell_victims(&passed.oom_kills, there);
    }

    /// Tells of instances that lost processes for want of memory, and go on.
    fn tell_victims(&self, counts: &BTreeMap<InstanceIdent, u64>, there: &[Measurable]) {
        let reports = self.launcher.snapshots().borrow().instances.clone();
        let last_end = |ident: &InstanceIdent| {
            let report = reports.get(ident)?;
            report.run.last_end.as_ref().map(|end| end.at)
        };
        let lost = self
            .out_of_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pass(counts, last_end);
        for (ident, lost) in lost {
            let found = there.iter().find(|one| one.instance.ident == ident);
            let version = found.map_or("", |one| one.instance.version.as_str());
            self.alerts
                .instance(&ident, version, out_of_memory::words(lost));
        }
    }

    async fn tell(&self, measured: &Measured<InstanceIdent>) {
        let now = SystemClock.now();
        let message = words::instant(now, &measured.node, &measured.instances, &self.runtimes());
        self.latest.send_replace(Some(Arc::new(message)));
        self.tell_alerts(&measured.alerts).await;
    }

    async fn changed(&self, changed: Changed<InstanceIdent>, there: &[Measurable]) {
        for (of, parameter, why) in &changed.wrong {
            let version = |ident: &InstanceIdent| {
                let found = there.iter().find(|one| one.instance.ident == *ident);
                found.map(|one| one.instance.version.as_str())
            };
            let version = match of {
                Whose::Node => None,
                Whose::Instance(ident) => version(ident),
            };
            self.alerts
                .unfollowed(of, version.unwrap_or_default(), parameter, why);
        }
        self.tell_alerts(&changed.alerts).await;
    }

    async fn tell_alerts(&self, alerts: &[Alert<Whose<InstanceIdent>>]) {
        let mut changes = Vec::new();
        for alert in alerts {
            let raised = Raised {
                instance: match &alert.of {
                    Whose::Node => None,
                    Whose::Instance(ident) => Some(ident.clone()),
                },
                parameter: alert.parameter.to_string(),
            };
            let of = raised.instance.as_ref().map(Kept::key).unwrap_or_default();
            let key = format!("{of}/{}", raised.parameter);
            match alert.change {
                Change::Raise => changes.push((key, Some(raised))),
                Change::Fall => changes.push((key, None)),
                Change::Continue => {}
            }
        }
        // Stored first: whoever was told of a beginning is told of the end.
        if !changes.is_empty()
            && let Err(error) = self.raised.apply(changes).await
        {
            tracing::error!(%error, "alerts that go on cannot be stored");
        }
        for alert in alerts {
            self.alerts.quota(alert);
        }
    }

    fn runtimes(&self) -> BTreeMap<InstanceIdent, String> {
        let snapshot = self.launcher.snapshots().borrow().instances.clone();
        let all = snapshot.iter();
        all.map(|(ident, report)| (ident.clone(), report.runtime.to_string()))
            .collect()
    }

    fn monitor(&self) -> MutexGuard<'_, Monitor<InstanceIdent>> {
        // Changes under this lock are small and whole.
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What percentages of rules are of. An instance's storage and state lie in the partition of that type.
fn sizes(node: &NodeInfo) -> Sizes {
    let mut partitions = BTreeMap::new();
    for partition in &node.partitions {
        for kind in [reading::STORAGES, reading::STATES] {
            if partition
                .types
                .iter()
                .any(|one| one.eq_ignore_ascii_case(kind))
            {
                partitions
                    .entry(kind.to_owned())
                    .or_insert(partition.total_size);
            }
        }
    }
    for partition in &node.partitions {
        partitions.insert(partition.name.clone(), partition.total_size);
    }
    Sizes {
        cpu: node.max_dmips,
        ram: node.total_ram,
        partitions,
    }
}
