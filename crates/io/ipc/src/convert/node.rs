use aos_types::{ArchInfo, CpuInfo, NodeInfo, NodeResource, OsInfo, PartitionInfo, RuntimeInfo};

use super::{Unreadable, error_from_proto, error_to_proto, filled, id, set};
use crate::proto::{common::v2 as common, iamanager::v6 as iam, servicemanager::v5 as sm};

/// Reads an architecture.
pub fn arch_from_proto(arch: Option<common::ArchInfo>) -> ArchInfo {
    let arch = arch.unwrap_or_default();
    ArchInfo {
        variant: filled(&arch.variant),
        architecture: arch.architecture,
    }
}

/// Writes an architecture.
pub fn arch_to_proto(arch: &ArchInfo) -> common::ArchInfo {
    common::ArchInfo {
        architecture: arch.architecture.clone(),
        variant: arch.variant.clone().unwrap_or_default(),
    }
}

/// Reads an operating system.
pub fn os_from_proto(os: Option<common::OsInfo>) -> OsInfo {
    let os = os.unwrap_or_default();
    OsInfo {
        version: filled(&os.version),
        os: os.os,
        features: os.features,
    }
}

/// Writes an operating system.
pub fn os_to_proto(os: &OsInfo) -> common::OsInfo {
    common::OsInfo {
        os: os.os.clone(),
        version: os.version.clone().unwrap_or_default(),
        features: os.features.clone(),
    }
}

/// Reads what IAM knows of a Node.
pub fn node_info_from_proto(node: iam::NodeInfo) -> Result<NodeInfo, Unreadable> {
    Ok(NodeInfo {
        id: id("node_id", &node.node_id)?,
        node_type: node.node_type,
        title: node.title,
        max_dmips: node.max_dmips,
        total_ram: node.total_ram,
        physical_ram: set(node.physical_ram),
        os: os_from_proto(node.os_info),
        cpus: node.cpus.into_iter().map(cpu_from_proto).collect(),
        partitions: node
            .partitions
            .into_iter()
            .map(partition_from_proto)
            .collect(),
        attrs: node
            .attrs
            .into_iter()
            .map(|attr| (attr.name, attr.value))
            .collect(),
        state: node.state.parse().map_err(|source| Unreadable::State {
            field: "state",
            source,
        })?,
        error: error_from_proto(node.error),
    })
}

/// Writes what IAM knows of a Node.
pub fn node_info_to_proto(node: &NodeInfo) -> iam::NodeInfo {
    iam::NodeInfo {
        node_id: node.id.to_string(),
        node_type: node.node_type.clone(),
        title: node.title.clone(),
        max_dmips: node.max_dmips,
        total_ram: node.total_ram,
        physical_ram: node.physical_ram.unwrap_or(0),
        os_info: Some(os_to_proto(&node.os)),
        cpus: node.cpus.iter().map(cpu_to_proto).collect(),
        partitions: node.partitions.iter().map(partition_to_proto).collect(),
        attrs: node
            .attrs
            .iter()
            .map(|(name, value)| iam::NodeAttribute {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        state: node.state.to_string(),
        error: error_to_proto(node.error.as_ref()),
    }
}

fn cpu_from_proto(cpu: iam::CpuInfo) -> CpuInfo {
    CpuInfo {
        model_name: cpu.model_name,
        num_cores: cpu.num_cores,
        num_threads: cpu.num_threads,
        arch: arch_from_proto(cpu.arch_info),
        max_dmips: set(cpu.max_dmips),
    }
}

fn cpu_to_proto(cpu: &CpuInfo) -> iam::CpuInfo {
    iam::CpuInfo {
        model_name: cpu.model_name.clone(),
        num_cores: cpu.num_cores,
        num_threads: cpu.num_threads,
        arch_info: Some(arch_to_proto(&cpu.arch)),
        max_dmips: cpu.max_dmips.unwrap_or(0),
    }
}

fn partition_from_proto(partition: iam::PartitionInfo) -> PartitionInfo {
    PartitionInfo {
        name: partition.name,
        types: partition.types,
        total_size: partition.total_size,
        path: partition.path,
    }
}

fn partition_to_proto(partition: &PartitionInfo) -> iam::PartitionInfo {
    iam::PartitionInfo {
        name: partition.name.clone(),
        types: partition.types.clone(),
        total_size: partition.total_size,
        path: partition.path.clone(),
    }
}

/// Reads a runtime of a Node.
pub fn runtime_from_proto(runtime: sm::RuntimeInfo) -> Result<RuntimeInfo, Unreadable> {
    Ok(RuntimeInfo {
        id: id("runtime_id", &runtime.runtime_id)?,
        runtime_type: runtime.r#type,
        arch: arch_from_proto(runtime.arch_info),
        os: os_from_proto(runtime.os_info),
        max_dmips: set(runtime.max_dmips),
        allowed_dmips: set(runtime.allowed_dmips),
        total_ram: set(runtime.total_ram),
        allowed_ram: set(runtime.allowed_ram),
        max_instances: runtime.max_instances,
    })
}

/// Writes a runtime of a Node.
pub fn runtime_to_proto(runtime: &RuntimeInfo) -> sm::RuntimeInfo {
    sm::RuntimeInfo {
        runtime_id: runtime.id.to_string(),
        r#type: runtime.runtime_type.clone(),
        max_dmips: runtime.max_dmips.unwrap_or(0),
        allowed_dmips: runtime.allowed_dmips.unwrap_or(0),
        total_ram: runtime.total_ram.unwrap_or(0),
        allowed_ram: runtime.allowed_ram.unwrap_or(0),
        max_instances: runtime.max_instances,
        os_info: Some(os_to_proto(&runtime.os)),
        arch_info: Some(arch_to_proto(&runtime.arch)),
    }
}

/// Reads a resource of a Node.
pub fn resource_from_proto(resource: sm::ResourceInfo) -> NodeResource {
    NodeResource {
        name: resource.name,
        shared_count: resource.shared_count,
    }
}

/// Writes a resource of a Node.
pub fn resource_to_proto(resource: &NodeResource) -> sm::ResourceInfo {
    sm::ResourceInfo {
        name: resource.name.clone(),
        shared_count: resource.shared_count,
    }
}

#[cfg(test)]
mod tests {
    use aos_types::{AosCode, ErrorInfo, NodeState};

    use super::*;

    #[test]
    fn a_node_survives_the_wire() {
        let node = NodeInfo {
            id: "node".parse().unwrap(),
            node_type: "main".into(),
            title: "Main".into(),
            max_dmips: 10_000,
            total_ram: 2,
            physical_ram: Some(1),
            os: OsInfo {
                os: "linux".into(),
                version: None,
                features: vec!["f".into()],
            },
            cpus: vec![CpuInfo {
                model_name: "x".into(),
                num_cores: 2,
                num_threads: 4,
                arch: ArchInfo {
                    architecture: "arm64".into(),
                    variant: Some("v8".into()),
                },
                max_dmips: None,
            }],
            partitions: vec![PartitionInfo {
                name: "states".into(),
                types: vec!["states".into()],
                total_size: 5,
                path: "/s".into(),
            }],
            attrs: [("MainNode".to_owned(), String::new())].into(),
            state: NodeState::Error,
            error: Some(ErrorInfo::new(AosCode::Failed, "why")),
        };
        assert_eq!(
            node_info_from_proto(node_info_to_proto(&node)).unwrap(),
            node
        );
        let mut wire = node_info_to_proto(&node);
        wire.state = "asleep".into();
        assert!(matches!(
            node_info_from_proto(wire),
            Err(Unreadable::State { .. })
        ));
    }
}
