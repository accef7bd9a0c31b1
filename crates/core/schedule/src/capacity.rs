use std::collections::{BTreeMap, BTreeSet};

use aos_types::{
    InstanceIdent, ItemConfig, ItemId, NodeId, Protocol, RuntimeId, RuntimeInfo, SubjectId,
};

use crate::{Input, Node, Pools, amounts::Amounts};

/// What is left on one Node.
#[derive(Debug, Default)]
struct Left {
    /// `None`: not known, not limited.
    cpu: Option<u64>,
    ram: Option<u64>,
    /// Own pools of runtimes.
    runtime_cpu: BTreeMap<RuntimeId, u64>,
    runtime_ram: BTreeMap<RuntimeId, u64>,
    instances: BTreeMap<RuntimeId, u64>,
    resources: BTreeMap<String, u64>,
    ports: BTreeMap<(u16, Protocol), InstanceIdent>,
    replicas: BTreeMap<(ItemId, SubjectId), u64>,
}

/// What is left everywhere; grows smaller with each placement.
#[derive(Debug)]
pub(crate) struct Capacity {
    nodes: BTreeMap<NodeId, Left>,
    pools: Pools,
}

fn known(amount: u64) -> Option<u64> {
    (amount > 0).then_some(amount)
}

impl Capacity {
    pub(crate) fn new(input: &Input) -> Self {
        let nodes = input.nodes.iter().map(|node| {
            let pools = |of: fn(&RuntimeInfo) -> Option<u64>| {
                node.runtimes
                    .iter()
                    .filter_map(|runtime| Some((runtime.id.clone(), of(runtime)?)))
                    .collect()
            };
            let left = Left {
                cpu: known(node.dmips),
                ram: known(node.ram),
                runtime_cpu: pools(|runtime| runtime.allowed_dmips),
                runtime_ram: pools(|runtime| runtime.allowed_ram),
                ..Left::default()
            };
            (node.id.clone(), left)
        });
        Self {
            nodes: nodes.collect(),
            pools: input.pools,
        }
    }

    /// CPU left for a runtime; `u64::MAX` if nothing limits it.
    pub(crate) fn cpu(&self, node: &NodeId, runtime: &RuntimeId) -> u64 {
        let left = self.nodes.get(node);
        left.and_then(|left| left.runtime_cpu.get(runtime).copied().or(left.cpu))
            .unwrap_or(u64::MAX)
    }

    /// Memory left for a runtime; `u64::MAX` if nothing limits it.
    pub(crate) fn ram(&self, node: &NodeId, runtime: &RuntimeId) -> u64 {
        let left = self.nodes.get(node);
        left.and_then(|left| left.runtime_ram.get(runtime).copied().or(left.ram))
            .unwrap_or(u64::MAX)
    }

    /// Instances placed in a runtime.
    pub(crate) fn instances(&self, node: &NodeId, runtime: &RuntimeId) -> u64 {
        let left = self.nodes.get(node);
        left.and_then(|left| left.instances.get(runtime).copied())
            .unwrap_or(0)
    }

    /// Instances of the same item and subject placed on a Node.
    pub(crate) fn replicas(&self, node: &NodeId, ident: &InstanceIdent) -> u64 {
        let key = (ident.item.clone(), ident.subject.clone());
        let left = self.nodes.get(node);
        left.and_then(|left| left.replicas.get(&key).copied())
            .unwrap_or(0)
    }

    /// The first resource of the item that the Node does not have, or has given away.
    pub(crate) fn missing_resource(&self, node: &Node, config: &ItemConfig) -> Option<String> {
        config.resources.iter().find_map(|wanted| {
            let Some(have) = node.resources.iter().find(|have| have.name == wanted.name) else {
                return Some(format!("has no resource `{}`", wanted.name));
            };
            let left = self.nodes.get(&node.id);
            let used = left
                .and_then(|left| left.resources.get(&wanted.name).copied())
                .unwrap_or(0);
            (have.shared_count > 0 && used >= have.shared_count).then(|| {
                format!(
                    "all {} of resource `{}` are in use",
                    have.shared_count, wanted.name
                )
            })
        })
    }

    /// The first host port of the item that is taken on the Node.
    pub(crate) fn taken_port(&self, node: &Node, config: &ItemConfig) -> Option<String> {
        let mut own = BTreeSet::new();
        config.published_ports.iter().find_map(|port| {
            let key = (port.host_port, port.protocol);
            if !own.insert(key) {
                return Some(format!(
                    "the item publishes host port {}/{} twice",
                    key.0, key.1
                ));
            }
            let holder = self.nodes.get(&node.id)?.ports.get(&key)?;
            Some(format!("host port {}/{} is held by {holder}", key.0, key.1))
        })
    }

    /// What the pools of storages or states lack.
    pub(crate) fn missing_space(&self, amounts: &Amounts) -> Option<String> {
        let short = |pool: Option<u64>, wanted: u64, kind: &str| {
            pool.filter(|left| *left < wanted)
                .map(|left| format!("{wanted} bytes of {kind} are asked for, {left} are left"))
        };
        short(self.pools.storage, amounts.storage, "storage")
            .or_else(|| short(self.pools.state, amounts.state, "state"))
    }

    /// Sets aside what one instance takes. Components take no CPU, memory or resources.
    pub(crate) fn reserve(
        &mut self,
        node: &Node,
        runtime: &RuntimeId,
        ident: &InstanceIdent,
        config: &ItemConfig,
        amounts: &Amounts,
    ) {
        let less = |pool: &mut Option<u64>, amount: u64| {
            *pool = pool.map(|left| left.saturating_sub(amount));
        };
        less(&mut self.pools.storage, amounts.storage);
        less(&mut self.pools.state, amounts.state);
        let Some(left) = self.nodes.get_mut(&node.id) else {
            return;
        };
        match left.runtime_cpu.get_mut(runtime) {
            Some(own) => *own = own.saturating_sub(amounts.cpu),
            None => less(&mut left.cpu, amounts.cpu),
        }
        match left.runtime_ram.get_mut(runtime) {
            Some(own) => *own = own.saturating_sub(amounts.ram),
            None => less(&mut left.ram, amounts.ram),
        }
        *left.instances.entry(runtime.clone()).or_default() += 1;
        let replica = (ident.item.clone(), ident.subject.clone());
        *left.replicas.entry(replica).or_default() += 1;
        if !config.skip_resource_limits {
            for resource in &config.resources {
                *left.resources.entry(resource.name.clone()).or_default() += 1;
            }
        }
        for port in &config.published_ports {
            left.ports
                .insert((port.host_port, port.protocol), ident.clone());
        }
    }
}
