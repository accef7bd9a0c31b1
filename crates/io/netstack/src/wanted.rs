use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use aos_types::{OwnerId, Protocol, PublishedPort};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::EndpointId;

/// The text is not an IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an IPv4 network such as 172.31.0.0/16")]
pub struct InvalidSubnet {
    text: String,
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: Ipv4Addr,
    length: u8,
}

impl Subnet {
    /// Its first address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many bits are the network's.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether `ip` lies in it.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        (u32::from(ip) ^ u32::from(self.address)) & self.mask() == 0
    }

    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.length))
            .unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let bad = || InvalidSubnet {
            text: text.chars().take(48).collect(),
        };
        let (address, length) = text.trim().split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let length: u8 = length.parse().map_err(|_| bad())?;
        if !(8..=30).contains(&length) {
            return Err(bad());
        }
        let mut subnet = Self { address, length };
        subnet.address = Ipv4Addr::from(u32::from(address) & subnet.mask());
        Ok(subnet)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Everything of the network that shall be on the Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The networks, one an owner.
    pub networks: Vec<Network>,
    /// The instances' endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Where no endpoint may connect to, whatever its own egress says.
    pub closed: Vec<Range>,
    /// Which day it is: volumes are counted anew when it changes. Any number that is different for different days.
    pub day: u32,
}

/// The network of one owner on this Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its owner names it.
    pub id: OwnerId,
    /// Its addresses, the same on every Node.
    pub subnet: Subnet,
    /// The Node's own address in it: the instances' gateway.
    pub ip: Ipv4Addr,
    /// VLAN between the Nodes; 0 is none.
    #[serde(default)]
    pub vlan_id: u64,
    /// Its IPv6 side, if it has one: the Node's own address in a network of 64 bits.
    #[serde(skip)]
    pub ip6: Option<Ipv6Addr>,
    /// How it goes on at the other Nodes.
    #[serde(skip)]
    pub link: NodeLink,
}

/// How the bridge of a network is joined with those of other Nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodeLink {
    /// It is not.
    #[default]
    None,
    /// By 802.1Q frames with the network's VLAN id on the Node's uplink.
    Vlan,
    /// By VXLAN to these Nodes, with the network's VLAN id as VNI.
    Vxlan(BTreeSet<IpAddr>),
}

/// The network of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The id of its instance.
    pub id: EndpointId,
    /// The network it belongs to.
    pub network: OwnerId,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address, if its network has that side.
    #[serde(skip)]
    pub ip6: Option<Ipv6Addr>,
    /// Its ports that are reachable on the Node's own addresses.
    #[serde(skip)]
    pub published: Vec<PublishedPort>,
    /// What it may reach in other owners' networks.
    #[serde(default)]
    pub allowed: Vec<AllowedFlow>,
    /// What it may reach outside the Unit's networks.
    #[serde(skip)]
    pub egress: Egress,
    /// How much it may send and receive.
    #[serde(skip)]
    pub bounds: Bounds,
}

impl Endpoint {
    /// An endpoint that publishes nothing, may reach everything outside, and is not bounded.
    pub fn new(id: EndpointId, network: OwnerId, ip: Ipv4Addr) -> Self {
        Self {
            id,
            network,
            ip,
            ip6: None,
            published: Vec::new(),
            allowed: Vec::new(),
            egress: Egress::Open,
            bounds: Bounds::default(),
        }
    }
}

/// What an endpoint may reach outside the Unit's networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Egress {
    /// Everything.
    #[default]
    Open,
    /// These destinations; none if it is empty.
    Only(Vec<Destination>),
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// One of them.
    pub address: IpAddr,
    /// How many bits count.
    pub length: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Addresses outside, and ports there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The addresses.
    pub range: Range,
    /// Protocol, first and last port; every kind of packet if absent.
    pub ports: Option<(Protocol, u16, u16)>,
}

/// How much an endpoint may send and receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Most bytes a second, with everybody.
    pub rate: Option<Limit>,
    /// Most bytes a day, with everybody outside the Unit's networks.
    pub volume: Option<Limit>,
    /// What of the day's volume was used before the kernel began to count, for a Node that has just started.
    pub used: Traffic,
}

/// A limit in each direction, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Limit {
    /// To the endpoint.
    pub down: Option<u64>,
    /// From the endpoint.
    pub up: Option<u64>,
}

/// A connection that is allowed from one network to another (servicemanager.v5 `FirewallRule`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedFlow {
    /// Who connects.
    pub from: IpAddr,
    /// To whom; of the same family.
    pub to: IpAddr,
    /// First port.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// TCP or UDP.
    #[serde(with = "protocol")]
    pub protocol: Protocol,
}

/// Bytes that went between an endpoint and everybody outside the Unit's networks, since the Node began to count. Smaller
/// than before: it began anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// To the endpoint.
    pub down: u64,
    /// From the endpoint.
    pub up: u64,
}

/// What was counted for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Since the Node began to count.
    pub all: Traffic,
    /// Of the day's volume, where that is bounded.
    pub today: Option<Traffic>,
}

mod protocol {
    use super::{Deserialize, Deserializer, Protocol, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        Protocol::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_its_first_address() {
        let subnet: Subnet = "172.31.5.9/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "172.31.0.0/16");
        assert!(subnet.contains("172.31.255.255".parse().unwrap()));
        assert!(!subnet.contains("172.30.0.1".parse().unwrap()));
        for bad in [
            "",
            "172.31.0.0",
            "172.31.0.0/33",
            "172.31.0.0/7",
            "a/16",
            "::/16",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
