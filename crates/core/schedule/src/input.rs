use std::{collections::BTreeSet, sync::Arc};

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
    /// Paused a short time ago: it runs nothing, and what has its place there waits for it.
    Paused,
    /// Paused for long, failed, or lost: it has nothing. The text says which.
    Unusable(String),
}

/// Free space of a Node for what instances keep, in bytes. `None`: not known, limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// For storages.
    pub storage: Option<u64>,
    /// For states.
    pub state: Option<u64>,
    /// Both lie on one partition, and `storage` is all there is.
    pub shared: bool,
}

/// What instances of an overloaded Node may use until it is relieved. `None`: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overload {
    /// DMIPS.
    pub cpu: Option<u64>,
    /// Bytes.
    pub ram: Option<u64>,
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
    /// What is free for storages and states.
    pub space: Space,
    /// It uses more than its alert rules allow, on average: instances that may move leave it.
    pub overload: Option<Overload>,
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
    pub config: Arc<ItemConfig>,
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
    /// Why none of them runs now although they are wanted: their subject is not there.
    pub disabled: Option<String>,
}

/// What an instance uses on average; zeros if nobody has measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// DMIPS.
    pub cpu: u64,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of its storage.
    pub storage: u64,
    /// Bytes of its state.
    pub state: u64,
}

/// What is remembered of an instance, running or cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInstance {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version it is there.
    pub version: String,
    /// From which image. It stays with that one as long as its item has it and it fits.
    pub manifest: Digest,
    /// Where it runs now, or waits to run again, if it does.
    pub place: Option<(NodeId, RuntimeId)>,
    /// The Node that has its storage or state, if it has any.
    pub home: Option<NodeId>,
    /// Its user id, kept as long as it is known.
    pub uid: u32,
    /// Its item's group id.
    pub gid: u32,
    /// What it uses.
    pub usage: Usage,
}

/// What is set aside for an instance that has neither a request nor a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// DMIPS.
    pub cpu: u64,
    /// Bytes.
    pub ram: u64,
}

impl Default for Defaults {
    /// 10 DMIPS and 16 MiB: little enough for many small services, and not nothing.
    fn default() -> Self {
        Self {
            cpu: 10,
            ram: 16 << 20,
        }
    }
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
    /// For instances that say nothing of what they need.
    pub defaults: Defaults,
    /// The numbers instances may get as user and group ids.
    pub ids: IdRange,
    /// Numbers that somebody else on the Nodes uses.
    pub taken_ids: BTreeSet<u32>,
}
