use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ErrorInfo, NodeId, NodeState, RuntimeId};

/// A processor architecture in OCI's names (`amd64`, `arm64`, …).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchInfo {
    /// OCI architecture name.
    pub architecture: String,
    /// OCI variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// An operating system in OCI's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OsInfo {
    /// OCI name, such as `linux`.
    pub os: String,
    /// Version, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Features that images may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// One processor package.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuInfo {
    /// As `/proc/cpuinfo` names it.
    pub model_name: String,
    /// Cores.
    pub num_cores: u64,
    /// Hardware threads.
    pub num_threads: u64,
    /// Its architecture.
    pub arch: ArchInfo,
    /// Its computing power in DMIPS, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dmips: Option<u64>,
}

/// A partition that the Node offers for storages, states or images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInfo {
    /// Name, as alert rules use it.
    pub name: String,
    /// What it holds: `storages`, `states`, `services`, …
    pub types: Vec<String>,
    /// Bytes.
    pub total_size: u64,
    /// Mount path on the Node.
    #[serde(default)]
    pub path: String,
}

/// A device or other resource that instances may ask for by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResource {
    /// Name.
    pub name: String,
    /// How many instances may use it at once; 0 is without limit.
    pub shared_count: u64,
}

/// A runtime of a Node: where an instance can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// Stable per Node.
    pub id: RuntimeId,
    /// What an item's `runtimes` is matched with: `crun`, `runc`, …
    pub runtime_type: String,
    /// Its architecture.
    pub arch: ArchInfo,
    /// Its operating system.
    pub os: OsInfo,
    /// Computing power in DMIPS, if it has an own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dmips: Option<u64>,
    /// DMIPS it may give away, if it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_dmips: Option<u64>,
    /// Memory in bytes, if it has an own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ram: Option<u64>,
    /// Bytes it may give away, if it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_ram: Option<u64>,
    /// Most instances it takes; 0 is without limit.
    pub max_instances: u64,
}

/// What IAM knows of a Node (iamanager.v6 `NodeInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// Its type: the node group it belongs to.
    pub node_type: String,
    /// A name for people.
    pub title: String,
    /// Computing power in DMIPS.
    pub max_dmips: u64,
    /// Memory with swap, bytes.
    pub total_ram: u64,
    /// Memory without swap, bytes, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_ram: Option<u64>,
    /// Its operating system.
    pub os: OsInfo,
    /// Its processors.
    pub cpus: Vec<CpuInfo>,
    /// Its partitions.
    pub partitions: Vec<PartitionInfo>,
    /// Free attributes; `MainNode` and `AosComponents` have a meaning (`docs/protocol/grpc.md`).
    pub attrs: BTreeMap<String, String>,
    /// Its state.
    pub state: NodeState,
    /// Why the state is `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}

impl NodeInfo {
    /// Whether this is the Unit's main Node: the one with the attribute `MainNode`.
    pub fn is_main(&self) -> bool {
        self.attrs.contains_key("MainNode")
    }
}
