use aos_api::UnitUpdate;
use aos_types::{
    ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemState, ItemType, NodeId, NodeInfo,
    NodeResource, RuntimeId, RuntimeInfo, UnitConfigState,
};
use serde::{Deserialize, Serialize};

/// What a Unit says of itself. An absent list means: as before. With `delta` the lists hold only what changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnitStatusReport {
    /// Only changed parts.
    pub delta: bool,
    /// Unit configurations: the one in force, and a newer one that failed.
    pub unit_config: Option<Vec<UnitConfigReport>>,
    /// Nodes.
    pub nodes: Option<Vec<NodeReport>>,
    /// Items.
    pub items: Option<Vec<ItemReport>>,
    /// Instances.
    pub instances: Option<Vec<InstanceReport>>,
    /// Codenames of subjects that the Unit itself holds.
    pub subjects: Option<Vec<String>>,
    /// Where its update stands.
    pub update: Option<UnitUpdate>,
    /// Instances without a place, or not where they might be.
    pub placements: Option<Vec<PlacementReport>>,
    /// Parts of the message that could not be read. What they name stays as it was; people see them in the timeline.
    pub unreadable: Vec<String>,
}

/// Why an instance has no place, or not the one it might have, as the scheduler of its Unit decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// Id of the item.
    pub item_id: String,
    /// Id of the subject.
    pub subject_id: String,
    /// From 0.
    pub instance: u64,
    /// Where it is.
    pub node: Option<String>,
    /// For people.
    pub reason: String,
    /// Nodes that were not taken: the Node, the rule's word, what it found.
    pub excluded: Vec<(String, String, String)>,
}

/// A unit configuration as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConfigReport {
    /// Its version; may be empty.
    pub version: String,
    /// Its state.
    pub state: UnitConfigState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// A Node as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// What it is.
    pub info: NodeInfo,
    /// Its runtimes.
    pub runtimes: Vec<RuntimeInfo>,
    /// Its resources.
    pub resources: Vec<NodeResource>,
    /// Whether the main Node is linked to it.
    pub connected: bool,
}

/// A version of an item as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemReport {
    /// Which.
    pub item: ItemId,
    /// Service or component.
    pub item_type: ItemType,
    /// Version.
    pub version: String,
    /// Its state.
    pub state: ItemState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// An instance as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which.
    pub ident: InstanceIdent,
    /// The version it runs.
    pub version: String,
    /// Where; `None` if it has no place.
    pub node: Option<NodeId>,
    /// In which runtime; empty text is not valid, so unknown is `None`.
    pub runtime: Option<RuntimeId>,
    /// Its state.
    pub state: InstanceState,
    /// Checksum of its state.
    pub state_checksum: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// What a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusOutcome {
    /// Timeline events written.
    pub events: usize,
    /// Nodes, runtimes or the like changed, so the desired state may be another one now.
    pub recompose: bool,
}
