use std::net::Ipv4Addr;

use aos_types::{InstanceIdent, NodeId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::{Allowed, ExposedPort, Subnet};

/// The network of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Whose.
    pub owner: OwnerId,
    /// Its addresses.
    pub subnet: Subnet,
    /// Separates it from others between Nodes; 1 to 4094.
    pub vlan: u16,
}

/// The place of a Node in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Whose network.
    pub owner: OwnerId,
    /// Which Node.
    pub node: NodeId,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// The place of an instance in its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Which.
    pub ident: InstanceIdent,
    /// Whose network.
    pub owner: OwnerId,
    /// Where it runs.
    pub node: NodeId,
    /// Its address.
    pub ip: Ipv4Addr,
    /// What it offers.
    pub exposed: Vec<ExposedPort>,
    /// What it may reach.
    pub allowed: Vec<Allowed>,
    /// The host name it asked for.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Whether it has that name: all instances of the item that had it first do, until the last of them goes.
    #[serde(default)]
    pub named: bool,
}

/// An address that an instance had on a Node which has not said yet that it stopped it: nobody else gets it until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRecord {
    /// Whose network.
    pub owner: OwnerId,
    /// On which Node.
    pub node: NodeId,
    /// Which instance.
    pub ident: InstanceIdent,
    /// The address.
    pub ip: Ipv4Addr,
    /// What it offered.
    pub exposed: Vec<ExposedPort>,
    /// What it may reach.
    pub allowed: Vec<Allowed>,
}

/// One thing to store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A network.
    Network(NetworkRecord),
    /// A Node in a network.
    Node(NodeRecord),
    /// An instance in a network.
    Instance(InstanceRecord),
    /// An address of an instance that has moved away from a Node.
    Left(LeftRecord),
}

/// Names a stored record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The network of an owner.
    Network(OwnerId),
    /// A Node in a network.
    Node(OwnerId, NodeId),
    /// An instance.
    Instance(InstanceIdent),
    /// An instance that has moved away from a Node.
    Left(NodeId, InstanceIdent),
}

impl Key {
    /// A text that is different for different keys.
    pub fn to_text(&self) -> String {
        match self {
            Self::Network(owner) => format!("network/{owner}"),
            Self::Node(owner, node) => format!("node/{owner}/{node}"),
            Self::Instance(ident) => format!("instance/{}", text(ident)),
            Self::Left(node, ident) => format!("left/{node}/{}", text(ident)),
        }
    }
}

fn text(ident: &InstanceIdent) -> String {
    format!(
        "{}/{}/{}/{}/{}",
        ident.item, ident.subject, ident.index, ident.item_type, ident.preinstalled
    )
}

impl Record {
    /// The key it is stored under.
    pub fn key(&self) -> Key {
        match self {
            Self::Network(network) => Key::Network(network.owner.clone()),
            Self::Node(node) => Key::Node(node.owner.clone(), node.node.clone()),
            Self::Instance(instance) => Key::Instance(instance.ident.clone()),
            Self::Left(left) => Key::Left(left.node.clone(), left.ident.clone()),
        }
    }
}
