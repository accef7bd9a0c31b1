use std::{fmt, str::FromStr};

use aos_types::ItemId;
use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, also where nothing is said.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A text is not a port or a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct BadPort {
    text: String,
    why: &'static str,
}

fn bad(text: &str, why: &'static str) -> BadPort {
    BadPort {
        text: text.chars().take(64).collect(),
        why,
    }
}

fn protocol(text: &str, word: Option<&str>) -> Result<Protocol, BadPort> {
    match word.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "tcp") => Ok(Protocol::Tcp),
        Some("udp") => Ok(Protocol::Udp),
        Some(_) => Err(bad(text, "names a protocol that is neither tcp nor udp")),
    }
}

fn range(text: &str, ports: &str) -> Result<(u16, u16), BadPort> {
    let (from, to) = ports.split_once([':', '-']).unwrap_or((ports, ports));
    let number = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port != 0);
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(bad(text, "has no port or port range of 1 to 65535")),
    }
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
        let mut parts = text.split('/');
        let (from, to) = range(text, parts.next().unwrap_or_default())?;
        let protocol = protocol(text, parts.next())?;
        Ok(Self { from, to, protocol })
    }
}

/// A connection that an item may open: `item/port[/proto]` or `item/from:to[/proto]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllowedConnection {
    /// To any instance of this item.
    pub item: ItemId,
    /// On these ports, as far as they are exposed.
    pub ports: ExposedPort,
}

impl FromStr for AllowedConnection {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let mut parts = text.split('/');
        let item = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| bad(text, "does not start with an item"))?;
        let (from, to) = range(text, parts.next().unwrap_or_default())?;
        let protocol = protocol(text, parts.next())?;
        Ok(Self {
            item,
            ports: ExposedPort { from, to, protocol },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
    use super::*;

    #[test]
    fn ports_and_connections_are_read_or_refused() {
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
        let connection: AllowedConnection = "web/80:90/tcp".parse().unwrap();
        assert_eq!((connection.item.as_str(), connection.ports.to), ("web", 90));
        for bad in ["", "0", "70000", "9-1", "80/sctp", "x"] {
            assert!(bad.parse::<ExposedPort>().is_err(), "{bad}");
        }
        for bad in ["", "/80", "web", "web/", "web/x"] {
            assert!(bad.parse::<AllowedConnection>().is_err(), "{bad}");
        }
    }
}
