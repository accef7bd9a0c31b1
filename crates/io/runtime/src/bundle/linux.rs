//! What of the kernel an instance has for itself, and what it may use of it.

use std::{collections::HashMap, path::PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{
        Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceCgroup,
        LinuxDeviceCgroupBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemoryBuilder,
        LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
        LinuxResourcesBuilder,
    },
};

use super::{Place, devices::accesses, seccomp};
use crate::{
    InstanceSpec, Isolation,
    userns::{IdMaps, Range},
};

pub(super) fn linux(
    spec: &InstanceSpec,
    place: &Place,
    ids: Option<&IdMaps>,
    devices: Vec<LinuxDevice>,
) -> Result<Linux, OciSpecError> {
    let deny_all = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let mut rules: Vec<LinuxDeviceCgroup> = vec![deny_all];
    for (device, access) in devices.iter().zip(accesses(spec, &devices)) {
        rules.push(
            LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(device.typ())
                .major(device.major())
                .minor(device.minor())
                .access(access)
                .build()?,
        );
    }
    let mut resources = LinuxResourcesBuilder::default().devices(rules);
    if let Some(ram) = spec.limits.ram {
        let limit = i64::try_from(ram).unwrap_or(i64::MAX);
        let mut memory = LinuxMemoryBuilder::default().limit(limit);
        if place.bounds_swap {
            // Memory and swap together: what does not fit is not written to the swap of the Node instead.
            memory = memory.swap(limit);
        }
        resources = resources.memory(memory.build()?);
    }
    if let Some(cpu) = spec.limits.cpu {
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                .quota(i64::try_from(cpu.quota).unwrap_or(i64::MAX))
                .period(cpu.period)
                .build()?,
        );
    }
    if let Some(pids) = spec.limits.pids {
        let limit = i64::try_from(pids).unwrap_or(i64::MAX);
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    let cgroup = PathBuf::from(&place.cgroup_parent).join(spec.id.to_string());
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(spec, place, ids.is_some())?)
        .resources(resources.build()?)
        .cgroups_path(cgroup)
        .sysctl(
            spec.sysctl
                .iter()
                // Those of a network namespace that is not the instance's own are set already.
                .filter(|(key, _)| {
                    ids.is_none() || spec.netns.is_none() || !key.starts_with("net.")
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<HashMap<_, _>>(),
        )
        .devices(if ids.is_some() { Vec::new() } else { devices })
        .masked_paths(
            [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]
            .map(String::from),
        )
        .readonly_paths(
            [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]
            .map(String::from),
        );
    if let Some(ids) = ids {
        linux = linux
            .uid_mappings(mappings(&ids.uids)?)
            .gid_mappings(mappings(&ids.gids)?);
    }
    if place.seccomp {
        linux = linux.seccomp(seccomp::filter(spec)?);
    }
    linux.build()
}

fn mappings(ranges: &[Range]) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    ranges
        .iter()
        .map(|range| {
            LinuxIdMappingBuilder::default()
                .container_id(range.inside)
                .host_id(range.outside)
                .size(range.count)
                .build()
        })
        .collect()
}

fn namespaces(
    spec: &InstanceSpec,
    place: &Place,
    user: bool,
) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    if place.isolation == Isolation::Native {
        let mounts = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount);
        return Ok(vec![mounts.build()?]);
    }
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if user {
        kinds.push(LinuxNamespaceType::User);
    }
    if place.unified {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    let mut namespaces = kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let mut network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    if let Some(path) = &spec.netns {
        network = network.path(path.clone());
    }
    namespaces.push(network.build()?);
    Ok(namespaces)
}
