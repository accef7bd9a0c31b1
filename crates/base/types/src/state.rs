use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A peer used a word for a state that we do not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a known {kind}")]
pub struct UnknownState {
    kind: &'static str,
    word: String,
}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;

            fn from_str(word: &str) -> Result<Self, UnknownState> {
                $(if word.eq_ignore_ascii_case($word) { return Ok(Self::$variant); })*
                Err(UnknownState { kind: $kind, word: word.chars().take(64).collect() })
            }
        }
    )*};
}

states! {
    /// The state of an instance on its Node (seed 002, service instance states).
    InstanceState = "instance state" {
        /// Being prepared: layers, network, start.
        Activating = "activating",
        /// Running, and healthy as far as its probe tells.
        Active = "active",
        /// Stopped on purpose.
        Inactive = "inactive",
        /// Ended by itself or could not start; the error says why.
        Failed = "failed",
    }
    /// The state of one version of a Deployable Item on the Unit.
    ItemState = "item state" {
        /// Nothing is known of it.
        Unknown = "unknown",
        /// Its blobs are being fetched.
        Downloading = "downloading",
        /// All its blobs are here and verified.
        Pending = "pending",
        /// The update that brings it is under way on the Nodes.
        Installing = "installing",
        /// Part of the committed set.
        Installed = "installed",
        /// On its way out.
        Removing = "removing",
        /// Kept as a cache only.
        Removed = "removed",
        /// Fetching, verifying or installing it failed.
        Failed = "failed",
    }
    /// The state of a Node.
    NodeState = "node state" {
        /// Has no certificates yet.
        Unprovisioned = "unprovisioned",
        /// Takes part.
        Provisioned = "provisioned",
        /// Idle on purpose: no instances.
        Paused = "paused",
        /// Something is wrong with it; the error says what.
        Error = "error",
    }
    /// The state of a unit configuration.
    UnitConfigState = "unit config state" {
        /// There is none.
        Absent = "absent",
        /// In force.
        Installed = "installed",
        /// Was refused or could not be read.
        Failed = "failed",
    }
    /// The kind of a Subject.
    SubjectType = "subject type" {
        /// Many Units at once; state stays on the Unit.
        Group = "group",
        /// A person; state follows through the cloud.
        User = "user",
    }
}
