use std::{fmt, net::Ipv4Addr, str::FromStr};

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
    /// Its ports that are reachable on the Node's own addresses.
    #[serde(skip)]
    pub published: Vec<PublishedPort>,
    /// What it may reach in other owners' networks.
    #[serde(default)]
    pub allowed: Vec<AllowedFlow>,
}

/// A connection that is allowed from one network to another (servicemanager.v5 `FirewallRule`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedFlow {
    /// Who connects.
    pub from: Ipv4Addr,
    /// To whom.
    pub to: Ipv4Addr,
    /// First port.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// TCP or UDP.
    #[serde(with = "protocol")]
    pub protocol: Protocol,
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
