use std::collections::BTreeSet;

use aos_types::{
    Digest, InstanceIdent, ItemConfig, ItemId, ItemType, NodeId, NodeResource, OwnerId,
    ResourceRatios, RuntimeId, RuntimeInfo, SubjectId,
};

use crate::IdRange;

/// Whether a Node can be given instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Provisioned and connected.
    Ready,
    /// Not connected for a short time: it keeps what it has and is given nothing new.
    Away,
    /// Paused, failed, or lost: it has nothing. The text says which.
    Unusable(String),
}

/// A Node as the scheduler sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Whether it can be given instances.
    pub availability: Availability,
    /// From the unit configuration; higher is preferred.
    pub priority: i64,
    /// From the unit configuration.
    pub labels: Vec<String>,
    /// From the unit configuration: shares of a quota to set aside when nothing is requested.
    pub ratios: ResourceRatios,
    /// DMIPS for instances; 0 if its power is not known, which limits nothing.
    pub dmips: u64,
    /// Bytes of memory for instances; 0 if not known.
    pub ram: u64,
    /// Its runtimes.
    pub runtimes: Vec<RuntimeInfo>,
    /// Its devices and other shared things.
    pub resources: Vec<NodeResource>,
}

/// One image of an item: a manifest of its index with what its configurations say.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// OCI architecture.
    pub architecture: String,
    /// OCI variant; empty matches any.
    pub variant: String,
    /// OCI operating system; empty matches any.
    pub os: String,
    /// Its version; empty matches any.
    pub os_version: String,
    /// Each must be there.
    pub os_features: Vec<String>,
    /// The item configuration.
    pub config: ItemConfig,
}

/// Instances that shall run.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What runs.
    pub item: ItemId,
    /// Service or component.
    pub item_type: ItemType,
    /// Of which version.
    pub version: String,
    /// Who owns it.
    pub owner: OwnerId,
    /// For whom.
    pub subject: SubjectId,
    /// Higher is placed first.
    pub priority: u64,
    /// How many. For a component 0 means one in every runtime that fits.
    pub num_instances: u64,
    /// Labels that its Node must have.
    pub labels: Vec<String>,
    /// Its images in the order of the index, or why they cannot be used.
    pub images: Result<Vec<Image>, String>,
}

/// What is remembered of an instance, running or cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInstance {
    /// Which.
    pub ident: InstanceIdent,
    /// Where it runs now, if it does.
    pub place: Option<(NodeId, RuntimeId)>,
    /// Its user id, kept as long as it is known.
    pub uid: u32,
    /// Its item's group id.
    pub gid: u32,
}

/// Space for storages and states, for the whole Unit, in bytes; `None` limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pools {
    /// For storages.
    pub storage: Option<u64>,
    /// For states.
    pub state: Option<u64>,
}

/// The whole situation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Input {
    /// All Nodes.
    pub nodes: Vec<Node>,
    /// What shall run.
    pub requests: Vec<Request>,
    /// What runs, or has run and is remembered.
    pub known: Vec<KnownInstance>,
    /// Space for storages and states.
    pub pools: Pools,
    /// The numbers instances may get as user and group ids.
    pub ids: IdRange,
    /// Numbers that somebody else on the Nodes uses.
    pub taken_ids: BTreeSet<u32>,
}
