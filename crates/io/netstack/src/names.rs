use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{text}` {why}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    why: &'static str,
}

/// First letters of all that a Node makes: 1 to 4 lower-case letters or digits, so that an interface name (15 bytes in the
/// kernel) has room for the rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// The letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bridge of the network `id`.
    pub(crate) fn bridge(&self, id: &str) -> String {
        format!("{}br-{:08x}", self.0, hash(id))
    }

    /// The Node's end of the cable to an endpoint.
    pub fn cable(&self, id: &EndpointId) -> String {
        format!("{}ve-{:08x}", self.0, hash(&id.0))
    }

    /// What the names of all cables begin with.
    pub(crate) fn cables(&self) -> String {
        format!("{}ve-", self.0)
    }

    /// The network's way to other Nodes by VXLAN.
    pub(crate) fn vxlan(&self, id: &str) -> String {
        format!("{}vx-{:08x}", self.0, hash(id))
    }

    /// The network's way to other Nodes by VLAN.
    pub(crate) fn vlan(&self, id: &str) -> String {
        format!("{}vl-{:08x}", self.0, hash(id))
    }

    /// The endpoint in names of counters and chains.
    pub(crate) fn short(id: &EndpointId) -> String {
        format!("{:08x}", hash(&id.0))
    }

    /// Whether we made the interface.
    pub fn owns_link(&self, name: &str) -> bool {
        name.strip_prefix(&*self.0)
            .and_then(|rest| {
                ["br-", "ve-", "vx-", "vl-"]
                    .iter()
                    .find_map(|kind| rest.strip_prefix(kind))
            })
            .is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// The namespace file of an endpoint.
    pub(crate) fn netns(&self, id: &EndpointId) -> String {
        format!("{}-{}", self.0, id.0)
    }

    /// The endpoint whose namespace file is called `name`, if it is one of ours.
    pub(crate) fn endpoint(&self, name: &str) -> Option<EndpointId> {
        name.strip_prefix(&*self.0)?.strip_prefix('-')?.parse().ok()
    }
}

impl FromStr for Prefix {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = (1..=4).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName {
                kind: "interface prefix",
                text: text.chars().take(32).collect(),
                why: "must be 1 to 4 lower-case letters or digits and begin with a letter",
            })
        }
    }
}

/// Names an endpoint: the id of its instance. 1 to 64 letters, digits or dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId(Box<str>);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EndpointId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName {
                kind: "endpoint",
                text: text.chars().take(80).collect(),
                why: "must be 1 to 64 letters, digits or dashes",
            })
        }
    }
}

/// FNV-1a: stable across programs and versions, which the names on a running Node have to be.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_are_told_apart() {
        let prefix: Prefix = "aos1".parse().unwrap();
        let other: Prefix = "aos".parse().unwrap();
        let id: EndpointId = "0f2c1a9e-6f0e-5c3e-9a67-0242ac120002".parse().unwrap();
        for name in [
            prefix.bridge("owner"),
            prefix.cable(&id),
            prefix.vxlan("owner"),
            prefix.vlan("owner"),
        ] {
            assert_eq!(name.len(), 15);
            assert!(prefix.owns_link(&name));
            assert!(!other.owns_link(&name), "{name} is another Node's");
        }
        assert!(!prefix.owns_link("eth0") && !other.owns_link("aosbr-nothex!!"));
        assert_eq!(prefix.endpoint(&prefix.netns(&id)), Some(id.clone()));
        assert_eq!(other.endpoint(&prefix.netns(&id)), None);
        assert_eq!(prefix.bridge("a"), "aos1br-e40c292c");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "Aos", "aosxx", "1a", "a-b", "é"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        for bad in ["", "a/b", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<EndpointId>().is_err(), "{bad}");
        }
    }
}
