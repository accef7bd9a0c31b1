//! Keeps the address book: every change is stored before it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::PoisonError,
};

use aos_network::{Change, Networks, OwnerView, Pool, Push, Record};
use aos_store::Records;
use aos_types::NodeId;
use tokio::sync::{Mutex, MutexGuard, mpsc, watch};
use tonic::Status;

use aos_ipc::{
    convert::ident_to_proto,
    proto::{aos::node::v1 as node_pb, servicemanager::v5 as sm},
};

use super::Error;
use crate::{NetworkOptions, options::NodeLinks};

pub(super) type Updates = mpsc::Sender<Result<sm::InstanceNetworkUpdateNotification, Status>>;

fn pool(options: &NetworkOptions) -> Result<Pool, Error> {
    Ok(Pool::new(
        vec![options.pool.parse()?],
        options.prefix,
        Vec::new(),
    )?)
}

/// The networks of the Unit and where they are stored.
pub(super) struct NetworkKeeper {
    networks: Mutex<Networks>,
    records: Records<Record>,
    subscribers: std::sync::Mutex<BTreeMap<NodeId, Updates>>,
    dns_servers: Vec<String>,
    link: NodeLinks,
    /// How and where Nodes can be joined, as they told.
    reachable: std::sync::Mutex<BTreeMap<NodeId, Reachable>>,
    /// Counts what the picture of the Unit's networks depends on.
    version: watch::Sender<u64>,
}

/// What a Node told about its way to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reachable {
    /// Where; nothing if it is beside CM.
    pub address: Option<IpAddr>,
    /// How; nothing if it did not say.
    pub links: BTreeSet<String>,
}

impl NetworkKeeper {
    pub async fn open(records: Records<Record>, options: &NetworkOptions) -> Result<Self, Error> {
        let pool = pool(options)?;
        let stored = records.all().await?;
        let mut networks = Networks::restore(pool, stored.into_iter().map(|(_, record)| record));
        store(&records, networks.take_changes()).await?;
        Ok(Self {
            networks: Mutex::new(networks),
            records,
            subscribers: std::sync::Mutex::default(),
            dns_servers: options.dns.iter().map(ToString::to_string).collect(),
            link: options.link,
            reachable: std::sync::Mutex::default(),
            version: watch::Sender::new(0),
        })
    }

    /// A Node said how and where it can be joined with others.
    pub fn note_reachable(&self, node: &NodeId, how: Reachable) {
        let mut reachable = self
            .reachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if reachable.get(node) != Some(&how) {
            reachable.insert(node.clone(), how);
            drop(reachable);
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Wakes whoever tells Nodes of the networks.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The networks as `node` is told of them.
    pub async fn picture(&self, node: &NodeId) -> node_pb::UnitNetwork {
        let views = self.networks.lock().await.view();
        let reachable = self
            .reachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let members: BTreeSet<&NodeId> = views.iter().flat_map(|view| &view.nodes).collect();
        let nodes = reachable
            .iter()
            .filter(|(other, _)| *other != node && members.contains(other))
            .map(|(other, how)| node_pb::NetworkNode {
                node_id: other.to_string(),
                address: how.address.map(|ip| ip.to_string()).unwrap_or_default(),
            })
            .collect();
        node_pb::UnitNetwork {
            link: joined_by(self.link, &members, &reachable).to_owned(),
            nodes,
            networks: views.into_iter().map(network_to_proto).collect(),
        }
    }

    pub fn dns_servers(&self) -> Vec<String> {
        self.dns_servers.clone()
    }

    /// Applies `decide`, stores what it changed, then tells the Nodes whose rules became others.
    ///
    /// If storing fails the answer is an error; the address stays given in memory, so a repeated question stores it.
    pub async fn decide<T>(
        &self,
        decide: impl FnOnce(&mut Networks) -> T,
    ) -> Result<T, aos_store::Error> {
        let mut networks: MutexGuard<'_, Networks> = self.networks.lock().await;
        let answer = decide(&mut networks);
        let changes = networks.take_changes();
        let pushes = networks.take_pushes();
        let changed = !changes.is_empty();
        store(&self.records, changes).await?;
        drop(networks);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
        for push in pushes {
            self.tell(push);
        }
        Ok(answer)
    }

    /// The newest subscription of a Node replaces an older one.
    pub fn subscribe(&self, node: NodeId, updates: Updates) {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node, updates);
    }

    /// A Node that is not there gets its rules when it next reports what it has. The stream of one that does not keep up ends,
    /// so that it reports again.
    fn tell(&self, push: Push) {
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(updates) = subscribers.get(&push.node) {
            let update = sm::PendingFirewallUpdate {
                instance: Some(ident_to_proto(&push.ident)),
                firewall_rules: push.rules.iter().map(rule_to_proto).collect(),
            };
            let told = updates.try_send(Ok(sm::InstanceNetworkUpdateNotification {
                update: Some(
                    sm::instance_network_update_notification::Update::PendingFirewallUpdate(update),
                ),
            }));
            if told.is_err() {
                subscribers.remove(&push.node);
                tracing::info!(node = %push.node, "a Node gets its firewall rules when it next reports its networks");
            }
        }
    }
}

/// How Nodes are joined: by VLAN if all can, as peers do it; by VXLAN if one cannot; not known while one has not told.
fn joined_by(
    option: NodeLinks,
    members: &BTreeSet<&NodeId>,
    reachable: &BTreeMap<NodeId, Reachable>,
) -> &'static str {
    match option {
        NodeLinks::Vlan => return "vlan",
        NodeLinks::Vxlan => return "vxlan",
        NodeLinks::Auto => {}
    }
    let mut told = members.iter().filter_map(|node| reachable.get(*node));
    let cannot = |how: &Reachable| !how.links.is_empty() && !how.links.contains("vlan");
    if told.any(cannot) {
        "vxlan"
    } else if members.iter().all(|node| reachable.contains_key(*node)) {
        "vlan"
    } else {
        ""
    }
}

fn network_to_proto(view: OwnerView) -> node_pb::OwnerNetwork {
    node_pb::OwnerNetwork {
        network_id: view.owner.to_string(),
        subnet: view.subnet.to_string(),
        node_ids: view.nodes.iter().map(ToString::to_string).collect(),
        instances: view
            .instances
            .into_iter()
            .map(|one| {
                let (refused, holder) = one
                    .taken
                    .map(|(name, item)| (name, item.to_string()))
                    .unwrap_or_default();
                node_pb::NetworkInstance {
                    instance: Some(ident_to_proto(&one.ident)),
                    ip: one.ip.to_string(),
                    hostname: one.hostname.unwrap_or_default(),
                    hostname_refused: refused,
                    hostname_held_by: holder,
                }
            })
            .collect(),
    }
}

async fn store(records: &Records<Record>, changes: Vec<Change>) -> Result<(), aos_store::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let changes = changes.into_iter().map(|change| match change {
        Change::Put(record) => (record.key().to_text(), Some(record)),
        Change::Forget(key) => (key.to_text(), None),
    });
    records.apply(changes).await
}

pub(super) fn rule_to_proto(rule: &aos_network::Rule) -> sm::FirewallRule {
    sm::FirewallRule {
        dst_ip: rule.dst.to_string(),
        dst_port: rule.ports(),
        proto: rule.protocol.to_string(),
        src_ip: rule.src.to_string(),
    }
}

/// A rule that a Node says it has; nothing if it is none that we would give.
pub(super) fn rule_from_proto(rule: &sm::FirewallRule) -> Option<aos_network::Rule> {
    let port: aos_network::ExposedPort =
        format!("{}/{}", rule.dst_port, rule.proto).parse().ok()?;
    Some(aos_network::Rule {
        src: rule.src_ip.parse().ok()?,
        dst: rule.dst_ip.parse().ok()?,
        from: port.from,
        to: port.to,
        protocol: port.protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_without_vlan_is_enough_for_vxlan_and_silence_decides_nothing() {
        let [a, b] = ["a", "b"].map(|node| node.parse::<NodeId>().unwrap());
        let how = |links: &[&str]| Reachable {
            address: None,
            links: links.iter().map(|&link| link.to_owned()).collect(),
        };
        let members: BTreeSet<&NodeId> = [&a, &b].into();
        let by = |known: &[(&NodeId, &[&str])]| {
            let reachable = known
                .iter()
                .map(|(node, links)| ((*node).clone(), how(links)))
                .collect();
            joined_by(NodeLinks::Auto, &members, &reachable)
        };
        assert_eq!(by(&[(&a, &["vlan", "vxlan"])]), "");
        assert_eq!(by(&[(&a, &["vlan"]), (&b, &["vlan", "vxlan"])]), "vlan");
        assert_eq!(by(&[(&a, &["vlan"]), (&b, &["vxlan"])]), "vxlan");
        assert_eq!(by(&[(&b, &["vxlan"])]), "vxlan");
        assert_eq!(
            joined_by(NodeLinks::Vlan, &members, &BTreeMap::new()),
            "vlan"
        );
    }
}
