use std::{fs, path::Path};

use aos_types::{NodeId, NodeInfo, NodeState, OsInfo, PartitionInfo};

use super::hardware;
use crate::{Error, Options, PartitionOptions};

/// DMIPS of a hardware thread on a machine nobody has measured.
const DMIPS_A_THREAD: u64 = 10_000;

/// The first line of `/etc/machine-id`.
pub(crate) fn machine_id() -> Result<String, Error> {
    let path = Path::new("/etc/machine-id");
    let text = fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// What this Node is, from its options and from what the kernel tells. Its state is the caller's to fill in.
pub(crate) fn node_info(options: &Options) -> Result<NodeInfo, Error> {
    let node = &options.node;
    let id = match &node.id {
        Some(id) => id.clone(),
        None => machine_id()?,
    };
    let id = NodeId::new(id).map_err(|error| Error::Option {
        field: "node.id",
        why: error.to_string(),
    })?;
    if node.node_type.trim().is_empty() {
        return Err(Error::Option {
            field: "node.type",
            why: "it is empty; name the node group this Node belongs to".into(),
        });
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = hardware::cpus(&read("/proc/cpuinfo"));
    let threads: u64 = cpus.iter().map(|cpu| cpu.num_threads).sum();
    let (physical, total) = hardware::memory(&read("/proc/meminfo"));
    let hostname = read("/proc/sys/kernel/hostname").trim().to_owned();
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let mut attrs = node.attrs.clone();
    if options.is_main() {
        attrs.entry("MainNode".into()).or_insert("true".into());
    } else {
        attrs.remove("MainNode");
    }
    let components = if options.is_main() {
        "cm,iam,sm"
    } else {
        "iam,sm"
    };
    attrs
        .entry("AosComponents".into())
        .or_insert(components.into());
    Ok(NodeInfo {
        title: node.title.clone().unwrap_or(if hostname.is_empty() {
            id.to_string()
        } else {
            hostname
        }),
        id,
        node_type: node.node_type.clone(),
        max_dmips: node
            .max_dmips
            .unwrap_or(threads.max(1).saturating_mul(DMIPS_A_THREAD)),
        total_ram: total,
        physical_ram: (physical != 0).then_some(physical),
        os: OsInfo {
            os: "linux".into(),
            version: (!release.is_empty()).then_some(release),
            features: Vec::new(),
        },
        cpus,
        partitions: partitions(options)?,
        attrs,
        state: NodeState::Unprovisioned,
        error: None,
    })
}

fn partitions(options: &Options) -> Result<Vec<PartitionInfo>, Error> {
    let default = [PartitionOptions {
        name: "aos".into(),
        types: ["services", "storages", "states"].map(Into::into).to_vec(),
        path: options.state_dir.clone(),
    }];
    let wanted = match options.node.partitions.as_slice() {
        [] => &default,
        some => some,
    };
    wanted
        .iter()
        .map(|partition| {
            let found = rustix::fs::statvfs(&partition.path).map_err(|errno| Error::File {
                path: partition.path.clone(),
                source: errno.into(),
            })?;
            Ok(PartitionInfo {
                name: partition.name.clone(),
                types: partition.types.clone(),
                total_size: found.f_blocks.saturating_mul(found.f_frsize),
                path: partition.path.to_string_lossy().into_owned(),
            })
        })
        .collect()
}
