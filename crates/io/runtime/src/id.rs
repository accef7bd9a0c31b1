use std::{fmt, str::FromStr};

use aos_types::InstanceIdent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one instance on its Node: a name-based UUID of its ident, the same at every start and for every version.
///
/// It names the bundle folder, the container, the cgroup and the network namespace, and is the value of
/// `AOS_INSTANCE_ID` (`docs/protocol/items.md`, environment).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Uuid);

/// The text is not the id of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an instance id: expected a UUID in lower case with dashes")]
pub struct ParseInstanceIdError {
    text: String,
}

impl InstanceId {
    /// The id of the instance called `ident`.
    pub fn of(ident: &InstanceIdent) -> Self {
        let name = format!("{}:{}:{}", ident.item, ident.subject, ident.index);
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = ParseInstanceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseInstanceIdError {
            text: text.chars().take(64).collect(),
        };
        let id = Uuid::parse_str(text).map(Self).map_err(|_| bad())?;
        // Only the spelling we write, so that a folder name and its id are one to one.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_ident_has_the_same_id_whatever_its_version() {
        let ident = |index| {
            InstanceIdent::service("item".parse().unwrap(), "subject".parse().unwrap(), index)
        };
        assert_eq!(InstanceId::of(&ident(0)), InstanceId::of(&ident(0)));
        assert_ne!(InstanceId::of(&ident(0)), InstanceId::of(&ident(1)));
    }

    #[test]
    fn only_our_own_spelling_is_an_id() {
        let id = "0f2c1a9e-6f0e-5c3e-9a67-0242ac120002";
        assert_eq!(id.parse::<InstanceId>().unwrap().to_string(), id);
        for bad in [
            "",
            "x",
            "..",
            "0F2C1A9E-6f0e-5c3e-9a67-0242ac120002",
            "0f2c1a9e6f0e5c3e9a670242ac120002",
        ] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
