use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use aos_types::{InstanceIdent, ItemId, NodeId, OwnerId};

use crate::{InstanceRecord, NetworkRecord, NodeRecord, Subnet, names::own_names};

/// One network and who is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerView {
    /// Whose.
    pub owner: OwnerId,
    /// Its addresses.
    pub subnet: Subnet,
    /// The Nodes that it spans.
    pub nodes: BTreeSet<NodeId>,
    /// Who lives there.
    pub instances: Vec<Resident>,
}

/// An instance in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Which.
    pub ident: InstanceIdent,
    /// Where it runs.
    pub node: NodeId,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its host name, if it asked for one and has it.
    pub hostname: Option<String>,
    /// The host name it asked for and did not get, and the item that has it.
    pub taken: Option<(String, ItemId)>,
}

pub(crate) fn of<'a>(
    networks: impl Iterator<Item = &'a NetworkRecord>,
    nodes: impl Iterator<Item = &'a NodeRecord>,
    instances: impl Iterator<Item = &'a InstanceRecord> + Clone,
) -> Vec<OwnerView> {
    let mut views: BTreeMap<&OwnerId, OwnerView> = networks
        .map(|network| {
            let view = OwnerView {
                owner: network.owner.clone(),
                subnet: network.subnet,
                nodes: BTreeSet::new(),
                instances: Vec::new(),
            };
            (&network.owner, view)
        })
        .collect();
    for node in nodes {
        if let Some(view) = views.get_mut(&node.owner) {
            view.nodes.insert(node.node.clone());
        }
    }
    for instance in instances.clone() {
        let Some(view) = views.get_mut(&instance.owner) else {
            continue;
        };
        view.nodes.insert(instance.node.clone());
        let (held, refused) = match &instance.hostname {
            Some(name) if instance.named => (Some(name.clone()), None),
            Some(name) => (None, holder(instance, name, instances.clone())),
            None => (None, None),
        };
        view.instances.push(Resident {
            ident: instance.ident.clone(),
            node: instance.node.clone(),
            ip: instance.ip,
            hostname: held,
            taken: refused,
        });
    }
    views.into_values().collect()
}

/// Who has a name that `instance` asked for.
fn holder<'a>(
    instance: &InstanceRecord,
    name: &str,
    mut all: impl Iterator<Item = &'a InstanceRecord>,
) -> Option<(String, ItemId)> {
    let holder = all.find(|known| {
        known.owner == instance.owner
            && known.ident.item != instance.ident.item
            && (known.named && known.hostname.as_deref() == Some(name)
                || own_names(&known.ident)
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(name)))
    });
    holder.map(|known| (name.to_owned(), known.ident.item.clone()))
}
