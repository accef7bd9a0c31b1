use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aos_cloud_protocol::{MonitoringData, Usage as Measured};
use aos_schedule::{Average, Overload, Space, Usage, overload};
use aos_time::Timestamp;
use aos_types::{AlertRules, InstanceIdent, NodeId, NodeInfo};
use tokio::sync::watch;

/// Partition types, and names under which the usage of an instance is reported.
const STORAGES: &str = "storages";
const STATES: &str = "states";

#[derive(Debug)]
struct OfNode {
    average: Average,
    /// Bytes used by partition, as last reported.
    partitions: BTreeMap<String, u64>,
    overloaded: bool,
}

#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<NodeId, OfNode>,
    instances: BTreeMap<InstanceIdent, Average>,
}

/// What Nodes and instances use, averaged over a window. Without monitoring nothing is known, and nothing is missed.
#[derive(Debug)]
pub(crate) struct Usages {
    window: Duration,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

fn usage(measured: &Measured) -> Usage {
    let partition = |name: &str| {
        let all = measured.partitions.iter();
        let of_name = all.filter(|one| one.name == name);
        of_name.map(|one| one.used_size).sum()
    };
    Usage {
        cpu: measured.cpu,
        ram: measured.ram,
        storage: partition(STORAGES),
        state: partition(STATES),
    }
}

impl Usages {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            known: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }

    /// Tells when something was measured.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes in what a Node measured.
    pub(crate) fn take(&self, data: &MonitoringData) {
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for node in &data.nodes {
                let of_node = known
                    .nodes
                    .entry(node.node.clone())
                    .or_insert_with(|| OfNode {
                        average: Average::over(self.window),
                        partitions: BTreeMap::new(),
                        overloaded: false,
                    });
                for measured in &node.items {
                    of_node.average.add(measured.timestamp, usage(measured));
                    for partition in &measured.partitions {
                        let used = partition.used_size;
                        of_node.partitions.insert(partition.name.clone(), used);
                    }
                }
            }
            for instance in &data.instances {
                let average = known
                    .instances
                    .entry(instance.instance.clone())
                    .or_insert_with(|| Average::over(self.window));
                for measured in &instance.items {
                    average.add(measured.timestamp, usage(measured));
                }
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes in what a Node said with a quota alert: of a Node that measures nothing else that is all there is to know.
    pub(crate) fn take_alert(&self, node: &NodeId, parameter: &str, value: u64, at: Timestamp) {
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let of_node = known.nodes.entry(node.clone()).or_insert_with(|| OfNode {
                average: Average::over(self.window),
                partitions: BTreeMap::new(),
                overloaded: false,
            });
            let last = of_node.average.last().unwrap_or_default();
            let usage = match parameter.to_ascii_lowercase().as_str() {
                "cpu" => Usage { cpu: value, ..last },
                "ram" => Usage { ram: value, ..last },
                _ => return,
            };
            of_node.average.add(at, usage);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Instances have left the Node to relieve it: what was measured before says nothing of it any more.
    pub(super) fn begin_anew(&self, node: &NodeId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_node) = known.nodes.get_mut(node) {
            of_node.average = Average::over(self.window);
            of_node.overloaded = false;
        }
    }

    /// What these instances use on average; of others nothing is kept.
    pub(super) fn instances(
        &self,
        wanted: &[InstanceIdent],
        now: Timestamp,
    ) -> BTreeMap<InstanceIdent, Usage> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all: std::collections::BTreeSet<&InstanceIdent> = wanted.iter().collect();
        known.instances.retain(|ident, _| all.contains(ident));
        let averages = known.instances.iter();
        averages
            .filter_map(|(ident, average)| Some((ident.clone(), average.at(now)?)))
            .collect()
    }

    /// Whether a Node is overloaded by its alert rules, given what its `instances` use, if that is known. It is on average,
    /// not in a peak.
    pub(super) fn overload(
        &self,
        node: &NodeInfo,
        rules: Option<&AlertRules>,
        instances: Option<Usage>,
        now: Timestamp,
    ) -> Option<Overload> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = known.nodes.get_mut(&node.id)?;
        let found = of_node
            .average
            .at(now)
            .zip(rules)
            .and_then(|(average, rules)| {
                let system = instances.map(|instances| Usage {
                    cpu: average.cpu.saturating_sub(instances.cpu),
                    ram: average.ram.saturating_sub(instances.ram),
                    ..Usage::default()
                });
                let system = system.unwrap_or_default();
                let was = of_node.overloaded;
                overload(
                    was,
                    &average,
                    &system,
                    node.max_dmips,
                    node.total_ram,
                    rules,
                )
            });
        of_node.overloaded = found.is_some();
        found
    }

    /// The free space of a Node: the size of its partitions less what is used of them.
    pub(super) fn space(&self, node: &NodeInfo) -> Space {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |name: &str| {
            let of_node = known.nodes.get(&node.id);
            of_node.and_then(|of_node| of_node.partitions.get(name).copied())
        };
        let partition = |kind: &str| {
            let holds = |types: &[String]| types.iter().any(|one| one.eq_ignore_ascii_case(kind));
            node.partitions.iter().find(|one| holds(&one.types))
        };
        let free = |kind: &str| {
            let partition = partition(kind)?;
            let used = used(&partition.name).unwrap_or(0);
            Some(partition.total_size.saturating_sub(used))
        };
        let name = |kind: &str| partition(kind).map(|one| one.name.as_str());
        let shared = name(STORAGES).is_some() && name(STORAGES) == name(STATES);
        Space {
            storage: free(STORAGES),
            state: free(STATES).filter(|_| !shared),
            shared,
        }
    }
}
