use std::net::IpAddr;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::{
    Protocol,
    tolerant::{FieldError, Fields, FromJson, word},
};

/// Most destinations that one item may name.
pub const MAX_EGRESS: usize = 64;

/// Where an instance may connect to outside the Unit's networks. Ours; peers ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EgressRule {
    /// One of the addresses.
    pub address: IpAddr,
    /// How many of its bits count.
    pub length: u8,
    /// Protocol, first and last port; every kind of packet if absent.
    pub ports: Option<(Protocol, u16, u16)>,
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("to", &format!("{}/{}", self.address, self.length))?;
        if let Some((protocol, first, last)) = self.ports {
            map.serialize_entry("ports", &format!("{first}:{last}"))?;
            map.serialize_entry("protocol", &protocol.to_string())?;
        }
        map.end()
    }
}

impl FromJson for EgressRule {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let to: String = fields.req("to")?;
        let (address, length) = address_range(&to).map_err(|why| FieldError::new(why).at("to"))?;
        let protocol: Option<Protocol> = fields
            .get("protocol")
            .map(|value| word(value).map_err(|error: FieldError| error.at("protocol")))
            .transpose()?;
        let ports: Option<String> = fields.opt("ports")?;
        let ports = match ports {
            Some(text) => {
                let (first, last) =
                    port_range(&text).map_err(|why| FieldError::new(why).at("ports"))?;
                Some((protocol.unwrap_or_default(), first, last))
            }
            None => protocol.map(|protocol| (protocol, 1, u16::MAX)),
        };
        Ok(Self {
            address,
            length,
            ports,
        })
    }
}

/// `192.0.2.0/24`, `2001:db8::/32`, or one address alone.
pub fn address_range(text: &str) -> Result<(IpAddr, u8), &'static str> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address
        .parse()
        .map_err(|_| "is no address or range of addresses such as 192.0.2.0/24")?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        "" => most,
        text => text
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or("is longer than an address")?,
    };
    Ok((address, length))
}

fn port_range(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once([':', '-']).unwrap_or((text, text));
    let number = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port != 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err("is no port or range of ports such as 443 or 8000:8010"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
    use serde_json::json;

    use super::*;

    #[test]
    fn destinations_are_read_and_written() {
        let read = |value: Value| EgressRule::from_json(&value).unwrap();
        let rule = read(json!({"to": "192.0.2.0/24", "ports": "8000-8010", "protocol": "udp"}));
        assert_eq!(rule.ports, Some((Protocol::Udp, 8_000, 8_010)));
        assert_eq!(read(serde_json::to_value(rule).unwrap()), rule);
        let all = read(json!({"to": "::/0"}));
        assert_eq!((all.length, all.ports), (0, None));
        assert_eq!(read(json!({"to": "192.0.2.1"})).length, 32);
        assert_eq!(
            read(json!({"to": "192.0.2.1", "ports": "443"})).ports,
            Some((Protocol::Tcp, 443, 443))
        );
        for (bad, field) in [
            (json!({}), "`to`"),
            (json!({"to": "example.org"}), "`to`"),
            (json!({"to": "192.0.2.0/33"}), "`to`"),
            (json!({"to": "192.0.2.0/24", "ports": "9:1"}), "`ports`"),
            (json!({"to": "192.0.2.0/24", "ports": "0"}), "`ports`"),
            (
                json!({"to": "192.0.2.0/24", "protocol": "sctp"}),
                "`protocol`",
            ),
        ] {
            let error = EgressRule::from_json(&bad).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
