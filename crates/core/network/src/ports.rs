use std::str::FromStr;

use aos_types::{AllowedConnection, ItemId, Protocol};
use serde::{Deserialize, Serialize};

/// A text is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct BadPort {
    text: String,
    why: &'static str,
}

/// A port that an instance offers: `port[/proto]` or `from:to[/proto]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// First port.
    pub from: u16,
    /// Last port.
    pub to: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl FromStr for ExposedPort {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = |why| BadPort {
            text: text.chars().take(64).collect(),
            why,
        };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
        let (from, to) = ports.split_once([':', '-']).unwrap_or((ports, ports));
        let number = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let protocol = protocol
            .parse()
            .map_err(|_| bad("names a protocol that is neither tcp nor udp"))?;
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to, protocol }),
            _ => Err(bad("has no port or port range of 1 to 65535")),
        }
    }
}

/// What a requester may reach of one item, as it is stored. The text form of [`AllowedConnection`] stays the item's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Allowed {
    /// To any instance of this item.
    pub item: ItemId,
    /// On these ports, as far as they are exposed.
    pub ports: ExposedPort,
}

impl From<AllowedConnection> for Allowed {
    fn from(connection: AllowedConnection) -> Self {
        let AllowedConnection {
            item,
            first_port,
            last_port,
            protocol,
        } = connection;
        Self {
            item,
            ports: ExposedPort {
                from: first_port,
                to: last_port,
                protocol,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
    use super::*;

    #[test]
    fn ports_are_read_or_refused() {
        let port: ExposedPort = "80".parse().unwrap();
        assert_eq!(
            port,
            ExposedPort {
                from: 80,
                to: 80,
                protocol: Protocol::Tcp
            }
        );
        let port: ExposedPort = "5000-5010/UDP".parse().unwrap();
        assert_eq!(
            port,
            ExposedPort {
                from: 5000,
                to: 5010,
                protocol: Protocol::Udp
            }
        );
        for bad in ["", "0", "70000", "9-1", "80/sctp", "x", "80/tcp/x"] {
            assert!(bad.parse::<ExposedPort>().is_err(), "{bad}");
        }
    }
}
