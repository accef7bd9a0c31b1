use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_time::Timestamp;
use aos_types::AlertRules;

use crate::{
    Alert, Counters, NodeCounters, Parameter, Sizes, Usage, Watches, WrongRule,
    meter::{Scale, Series},
};

/// Whose usage it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose<K> {
    /// The Node's.
    Node,
    /// An instance's.
    Instance(K),
}

/// What there is to say after rules or instances have changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed<K> {
    /// Alerts that are over.
    pub alerts: Vec<Alert<Whose<K>>>,
    /// Rules that cannot be followed.
    pub wrong: Vec<(Whose<K>, Parameter, WrongRule)>,
}

/// What one pass over all counters gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured<K> {
    /// The Node's usage.
    pub node: Usage,
    /// The instances'.
    pub instances: BTreeMap<K, Usage>,
    /// What is to be told.
    pub alerts: Vec<Alert<Whose<K>>>,
}

/// The usage of a Node and its instances: measured, averaged, and held against their rules.
#[derive(Debug, Clone)]
pub struct Monitor<K> {
    sizes: Sizes,
    window: Duration,
    watches: Watches<Whose<K>>,
    node: Series,
    all_nanos: Option<u64>,
    instances: BTreeMap<K, Series>,
    /// All that are there, also those that are down.
    known: BTreeSet<K>,
}

impl<K: Ord + Clone> Monitor<K> {
    /// Nothing was measured yet. `raised` are alerts that were told and not ended before this program was started: they
    /// go on, or are over once their rule or instance turns out to be gone.
    pub fn new(
        sizes: Sizes,
        window: Duration,
        now: Timestamp,
        raised: impl IntoIterator<Item = (Whose<K>, Parameter)>,
    ) -> Self {
        let mut watches = Watches::default();
        watches.resume(now, raised);
        Self {
            sizes,
            window,
            watches,
            node: Series::default(),
            all_nanos: None,
            instances: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// The Node's rules from now on.
    pub fn node_rules(&mut self, rules: &AlertRules) -> Changed<K> {
        self.set(Whose::Node, rules)
    }

    /// The instances that are there from now on, with their rules.
    pub fn instances(&mut self, there: &BTreeMap<K, Option<AlertRules>>) -> Changed<K> {
        self.instances.retain(|one, _| there.contains_key(one));
        self.known = there.keys().cloned().collect();
        let mut changed = Changed {
            alerts: self.watches.retain(|whose| match whose {
                Whose::Node => true,
                Whose::Instance(one) => there.contains_key(one),
            }),
            wrong: Vec::new(),
        };
        let none = AlertRules::default();
        for (one, rules) in there {
            let whose = Whose::Instance(one.clone());
            if rules.is_none() && !self.watches.watches(&whose) {
                continue;
            }
            let more = self.set(whose, rules.as_ref().unwrap_or(&none));
            changed.alerts.extend(more.alerts);
            changed.wrong.extend(more.wrong);
        }
        changed
    }

    fn set(&mut self, whose: Whose<K>, rules: &AlertRules) -> Changed<K> {
        let (alerts, wrong) = self.watches.set(&whose, rules, &self.sizes);
        let wrong = wrong
            .into_iter()
            .map(|(parameter, why)| (whose.clone(), parameter, why));
        Changed {
            alerts,
            wrong: wrong.collect(),
        }
    }

    /// One pass over all counters. `now` comes from a clock that nobody sets. Instances that are not in `read` are down:
    /// they use nothing.
    pub fn pass(
        &mut self,
        now: Timestamp,
        node: &NodeCounters,
        read: &BTreeMap<K, Counters>,
    ) -> Measured<K> {
        let before = self.all_nanos.replace(node.all_nanos);
        let all = before.map_or(0, |before| node.all_nanos.saturating_sub(before));
        let scale = Scale::new(self.sizes.cpu, all);
        let mut instances = BTreeMap::new();
        let mut together = Usage::default();
        let mut alerts = Vec::new();
        for (one, counters) in read {
            let series = self.instances.entry(one.clone()).or_default();
            let spent = series.spent(counters.cpu_nanos);
            let usage = Usage {
                cpu: scale.dmips(spent.unwrap_or(0)),
                ram: counters.ram,
                partitions: counters.partitions.clone(),
                traffic: counters.traffic,
            };
            let usage = series.note(now, self.window, usage);
            together.add(&usage);
            self.judge(now, Whose::Instance(one.clone()), &usage, &mut alerts);
            instances.insert(one.clone(), usage);
        }
        self.instances.retain(|one, _| read.contains_key(one));
        for one in self.known.iter().filter(|one| !read.contains_key(*one)) {
            // What it keeps on the disk is not gone, and what it has sent was sent: only rates end.
            for parameter in [Parameter::Cpu, Parameter::Ram] {
                let whose = Whose::Instance(one.clone());
                alerts.extend(self.watches.measured(now, &whose, &parameter, 0));
            }
        }
        let spent = self.node.spent(node.busy_nanos);
        let mut usage = Usage {
            cpu: scale.dmips(spent.unwrap_or(0)),
            ram: node.ram,
            partitions: node.partitions.clone(),
            traffic: node.traffic,
        };
        usage.at_least(&together);
        let usage = self.node.note(now, self.window, usage);
        self.judge(now, Whose::Node, &usage, &mut alerts);
        Measured {
            node: usage,
            instances,
            alerts,
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        whose: Whose<K>,
        usage: &Usage,
        alerts: &mut Vec<Alert<Whose<K>>>,
    ) {
        let mut judge = |parameter, value| {
            alerts.extend(self.watches.measured(now, &whose, &parameter, value));
        };
        judge(Parameter::Cpu, usage.cpu);
        judge(Parameter::Ram, usage.ram);
        if let Some(traffic) = usage.traffic {
            judge(Parameter::Download, traffic.download);
            judge(Parameter::Upload, traffic.upload);
        }
        for (name, used) in &usage.partitions {
            judge(Parameter::Partition(name.clone()), *used);
        }
    }

    /// Averages over the window, for who asks.
    pub fn averages(&self) -> (Usage, BTreeMap<K, Usage>) {
        let instances = self.instances.iter();
        (
            self.node.average(),
            instances
                .map(|(one, series)| (one.clone(), series.average()))
                .collect(),
        )
    }

    /// Alerts that were told and have not ended.
    pub fn raised(&self) -> Vec<(Whose<K>, Parameter)> {
        self.watches.raised()
    }
}
