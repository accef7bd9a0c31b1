//! What CM tells of the Unit's networks, and what follows from it on this Node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use aos_ipc::{convert::ident_from_proto, proto::aos::node::v1 as pb};
use aos_netstack::{
    NodeLink, Subnet,
    dns::{Host, Zone},
};
use aos_network::{ipv6_of, names_of};
use aos_types::{InstanceIdent, NodeId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::options::LinkOption;

/// All networks of the Unit, as CM knew them last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct UnitNetwork {
    /// How Nodes are joined; nothing if CM has not said yet.
    link: Option<Kind>,
    /// Where other Nodes are reached.
    nodes: BTreeMap<NodeId, IpAddr>,
    networks: BTreeMap<OwnerId, OwnerNetwork>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Vlan,
    Vxlan,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OwnerNetwork {
    subnet: Subnet,
    nodes: BTreeSet<NodeId>,
    instances: Vec<Resident>,
}

/// An instance somewhere on the Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Resident {
    ident: InstanceIdent,
    ip: Ipv4Addr,
    hostname: Option<String>,
    /// The host name it does not get, and the item that has it.
    refused: Option<(String, String)>,
}

impl UnitNetwork {
    /// Reads what CM told; what cannot be read is left out. A Node that CM has not heard of since it started stays where it
    /// was, as long as it is in one of the networks.
    pub(super) fn read(told: pb::UnitNetwork, cm: Option<IpAddr>, before: &Self) -> Self {
        let networks: BTreeMap<OwnerId, OwnerNetwork> =
            told.networks.into_iter().filter_map(network).collect();
        let members: BTreeSet<&NodeId> = networks.values().flat_map(|net| &net.nodes).collect();
        let mut nodes: BTreeMap<NodeId, IpAddr> = before
            .nodes
            .iter()
            .filter(|(node, _)| members.contains(node))
            .map(|(node, address)| (node.clone(), *address))
            .collect();
        nodes.extend(told.nodes.into_iter().filter_map(|node| {
            let address = if node.address.is_empty() {
                cm
            } else {
                node.address.parse().ok()
            };
            Some((node.node_id.parse().ok()?, address?))
        }));
        let link = match told.link.as_str() {
            "vlan" => Some(Kind::Vlan),
            "vxlan" => Some(Kind::Vxlan),
            _ => before.link,
        };
        Self {
            link,
            nodes,
            networks,
        }
    }

    /// How the network of `owner` goes on at other Nodes.
    pub(super) fn link(
        &self,
        owner: &OwnerId,
        here: &NodeId,
        option: LinkOption,
        can_vlan: bool,
    ) -> NodeLink {
        let others: BTreeSet<&NodeId> = self
            .networks
            .get(owner)
            .into_iter()
            .flat_map(|network| &network.nodes)
            .filter(|node| *node != here)
            .collect();
        let kind = match option {
            LinkOption::None => return NodeLink::None,
            LinkOption::Vlan => Kind::Vlan,
            LinkOption::Vxlan => Kind::Vxlan,
            LinkOption::Auto => {
                let own = if can_vlan { Kind::Vlan } else { Kind::Vxlan };
                self.link.unwrap_or(own)
            }
        };
        match kind {
            _ if others.is_empty() => NodeLink::None,
            Kind::Vlan => NodeLink::Vlan,
            Kind::Vxlan => NodeLink::Vxlan(
                others
                    .into_iter()
                    .filter_map(|node| self.nodes.get(node).copied())
                    .collect(),
            ),
        }
    }

    /// Whose network an address is in.
    pub(super) fn owner_of(&self, ip: Ipv4Addr) -> Option<&OwnerId> {
        self.networks
            .iter()
            .find(|(_, network)| network.subnet.contains(ip))
            .map(|(owner, _)| owner)
    }

    /// Gives all instances of the Unit their names.
    pub(super) fn add_to(&self, zone: &mut Zone, ipv6: bool) {
        for (owner, network) in &self.networks {
            for one in &network.instances {
                let host = host(owner, one.ip, ipv6);
                zone.add_host(&host, names_of(&one.ident, owner, one.hostname.as_deref()));
            }
        }
    }

    /// The instances whose host name another item has, with the name and that item.
    pub(super) fn refused(&self) -> BTreeMap<InstanceIdent, (String, String)> {
        self.networks
            .values()
            .flat_map(|network| &network.instances)
            .filter_map(|one| Some((one.ident.clone(), one.refused.clone()?)))
            .collect()
    }
}

pub(super) fn host(owner: &OwnerId, ip: Ipv4Addr, ipv6: bool) -> Host {
    Host {
        network: owner.clone(),
        ip,
        ip6: ipv6.then(|| ipv6_of(owner, ip)),
    }
}

fn network(told: pb::OwnerNetwork) -> Option<(OwnerId, OwnerNetwork)> {
    let network = OwnerNetwork {
        subnet: told.subnet.parse().ok()?,
        nodes: told
            .node_ids
            .iter()
            .filter_map(|node| node.parse().ok())
            .collect(),
        instances: told
            .instances
            .into_iter()
            .filter_map(|one| {
                let text = |text: String| Some(text).filter(|text| !text.is_empty());
                Some(Resident {
                    ident: ident_from_proto(one.instance).ok()?,
                    ip: one.ip.parse().ok()?,
                    hostname: text(one.hostname),
                    refused: text(one.hostname_refused).map(|name| (name, one.hostname_held_by)),
                })
            })
            .collect(),
    };
    Some((told.network_id.parse().ok()?, network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(link: &str, nodes: &[(&str, &str)]) -> pb::UnitNetwork {
        pb::UnitNetwork {
            link: link.into(),
            nodes: nodes
                .iter()
                .map(|(node, address)| pb::NetworkNode {
                    node_id: (*node).into(),
                    address: (*address).into(),
                })
                .collect(),
            networks: vec![
                pb::OwnerNetwork {
                    network_id: "red".into(),
                    subnet: "172.28.0.0/20".into(),
                    node_ids: vec!["a".into(), "b".into(), "c".into()],
                    instances: Vec::new(),
                },
                pb::OwnerNetwork {
                    network_id: "lonely".into(),
                    subnet: "172.28.16.0/20".into(),
                    node_ids: vec!["a".into()],
                    instances: Vec::new(),
                },
            ],
        }
    }

    fn link(unit: &UnitNetwork, owner: &str, option: LinkOption) -> NodeLink {
        let here = "a".parse().unwrap();
        unit.link(&owner.parse().unwrap(), &here, option, false)
    }

    #[test]
    fn a_network_goes_on_where_others_are() {
        let cm = Some("10.0.0.1".parse().unwrap());
        let nodes = [("b", ""), ("c", "10.0.0.3"), ("d", "nonsense")];
        let unit = UnitNetwork::read(told("vxlan", &nodes), cm, &UnitNetwork::default());
        let peers = ["10.0.0.1", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        let wanted = NodeLink::Vxlan(peers.into());
        assert_eq!(link(&unit, "red", LinkOption::Auto), wanted);
        assert_eq!(link(&unit, "lonely", LinkOption::Auto), NodeLink::None);
        assert_eq!(link(&unit, "nobody", LinkOption::Auto), NodeLink::None);
        assert_eq!(link(&unit, "red", LinkOption::Vlan), NodeLink::Vlan);
        assert_eq!(link(&unit, "red", LinkOption::None), NodeLink::None);
        // CM has just started and has heard of one Node only; it does not know yet how they are joined.
        let again = UnitNetwork::read(told("", &[("c", "10.0.0.4")]), cm, &unit);
        let peers = ["10.0.0.1", "10.0.0.4"].map(|ip| ip.parse().unwrap());
        assert_eq!(
            link(&again, "red", LinkOption::Auto),
            NodeLink::Vxlan(peers.into())
        );
        assert_eq!(
            again
                .owner_of("172.28.17.1".parse().unwrap())
                .map(OwnerId::as_str),
            Some("lonely")
        );
    }
}
