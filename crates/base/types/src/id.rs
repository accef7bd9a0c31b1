use std::{borrow::Borrow, cmp::Ordering, fmt, hash, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest identifier accepted, in bytes: one path component of every Linux file system.
const MAX_ID_BYTES: usize = 255;

/// The text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{text}` {why}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
    why: &'static str,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let why = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_ID_BYTES {
        "is longer than 255 bytes"
    } else if text == "." || text == ".." {
        "is a relative path"
    } else if text.chars().any(|c| c == '/' || c.is_control()) {
        "holds a slash or a control character"
    } else {
        return Ok(());
    };
    Err(InvalidId {
        kind,
        text: text.chars().take(64).collect(),
        why,
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Copies share the text: plans and lists name the same few ids thousands of times.
        #[derive(Clone, Eq)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks that `text` can be an identifier: 1 to 255 bytes, usable as one path component.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                check($kind, text.as_ref())?;
                Ok(Self(text.as_ref().into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Copies of one id are told by their place in memory, without looking at the text.
        impl PartialEq for $name {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl hash::Hash for $name {
            #[inline]
            fn hash<H: hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A Deployable Item (service or component): the cloud's UUID, or the codename of a preinstalled item.
    ItemId = "item id";
    /// A Subject, on whose behalf instances of an item run.
    SubjectId = "subject id";
    /// A Node of a Unit; by default the first line of `/etc/machine-id`.
    NodeId = "node id";
    /// A runtime of a Node: stable per Node, a name-based UUID of `<type>-<node id>`.
    RuntimeId = "runtime id";
    /// The organisation that owns an item; also names the network its instances share.
    OwnerId = "owner id";
    /// A Unit as it calls itself towards the cloud (`systemId`, `system_uid`).
    SystemId = "system id";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_always_one_path_component() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../etc",
            "a\0b",
            "a\nb",
            &"x".repeat(256),
        ] {
            assert!(ItemId::new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "...", "3f1c-uuid", "имя", &"x".repeat(255)] {
            assert!(ItemId::new(good).is_ok(), "{good:?} must be accepted");
        }
    }

    #[test]
    fn the_error_names_the_kind_and_the_cause() {
        assert_eq!(
            NodeId::new("a/b").unwrap_err().to_string(),
            "node id `a/b` holds a slash or a control character"
        );
    }

    #[test]
    fn json_is_checked_too() {
        assert!(serde_json::from_str::<ItemId>("\"../x\"").is_err());
        assert_eq!(
            serde_json::from_str::<ItemId>("\"x\"").unwrap().as_str(),
            "x"
        );
    }
}
