use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ItemId, SubjectId};

/// What kind of Deployable Item it is. Layers exist in the cloud only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ItemType {
    /// Software that runs in instances (SOTA).
    #[default]
    Service,
    /// Firmware (FOTA).
    Component,
    /// A shared part of services.
    Layer,
}

impl fmt::Display for ItemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Component => "component",
            Self::Layer => "layer",
        })
    }
}

/// Names one instance: the `index`-th run of an item on behalf of a subject. Its version is not part of its name, so an
/// updated instance is the same instance and keeps its storage and state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceIdent {
    /// The item it runs.
    pub item: ItemId,
    /// The subject it runs for.
    pub subject: SubjectId,
    /// From 0.
    pub index: u64,
    /// Service or component.
    pub item_type: ItemType,
    /// Reported by a runtime, not delivered by the cloud.
    pub preinstalled: bool,
}

impl InstanceIdent {
    /// The ident of a service instance that the cloud delivered.
    pub fn service(item: ItemId, subject: SubjectId, index: u64) -> Self {
        Self {
            item,
            subject,
            index,
            item_type: ItemType::Service,
            preinstalled: false,
        }
    }
}

impl fmt::Display for InstanceIdent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.item, self.subject, self.index)
    }
}
