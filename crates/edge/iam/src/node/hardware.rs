//! What the kernel tells about processors and memory.

use std::collections::BTreeMap;

use aos_types::{ArchInfo, CpuInfo};

/// The architecture in OCI's names.
pub(super) fn arch() -> ArchInfo {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        other => (other, None),
    };
    ArchInfo {
        architecture: architecture.into(),
        variant: variant.map(Into::into),
    }
}

/// Processor packages from the text of `/proc/cpuinfo`. A machine that numbers no packages has one.
pub(super) fn cpus(cpuinfo: &str) -> Vec<CpuInfo> {
    let mut packages: BTreeMap<String, CpuInfo> = BTreeMap::new();
    for block in cpuinfo.split("\n\n") {
        let fields: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        if !fields.contains_key("processor") {
            continue;
        }
        let package = fields.get("physical id").copied().unwrap_or_default();
        let cpu = packages
            .entry(package.to_owned())
            .or_insert_with(|| CpuInfo {
                model_name: ["model name", "CPU part", "Hardware"]
                    .iter()
                    .find_map(|name| fields.get(name))
                    .map_or_else(|| "unknown".to_owned(), |name| (*name).to_owned()),
                num_cores: fields
                    .get("cpu cores")
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(0),
                num_threads: 0,
                arch: arch(),
                max_dmips: None,
            });
        cpu.num_threads += 1;
    }
    packages
        .into_values()
        .map(|mut cpu| {
            if cpu.num_cores == 0 || cpu.num_cores > cpu.num_threads {
                cpu.num_cores = cpu.num_threads;
            }
            cpu
        })
        .collect()
}

/// Memory in bytes from the text of `/proc/meminfo`: without and with swap.
pub(super) fn memory(meminfo: &str) -> (u64, u64) {
    let field = |name: &str| -> u64 {
        meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    let physical = field("MemTotal");
    (physical, physical.saturating_add(field("SwapTotal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_by_their_number() {
        let text = "processor\t: 0\nmodel name\t: Fast\nphysical id\t: 0\ncpu cores\t: 2\n\n\
                    processor\t: 1\nmodel name\t: Fast\nphysical id\t: 0\ncpu cores\t: 2\n\n\
                    processor\t: 2\nmodel name\t: Slow\nphysical id\t: 1\ncpu cores\t: 1\n\n";
        let found = cpus(text);
        let short: Vec<_> = found
            .iter()
            .map(|cpu| (cpu.model_name.as_str(), cpu.num_cores, cpu.num_threads))
            .collect();
        assert_eq!(short, [("Fast", 2, 2), ("Slow", 1, 1)]);
        let arm = cpus("processor : 0\nCPU part : 0xd03\n\nprocessor : 1\nCPU part : 0xd03\n");
        assert_eq!((arm.len(), arm[0].num_cores, arm[0].num_threads), (1, 2, 2));
        assert!(cpus("nonsense").is_empty());
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        let text = "MemTotal:        1000 kB\nMemFree: 5 kB\nSwapTotal: 24 kB\n";
        assert_eq!(memory(text), (1_024_000, 1_048_576));
        assert_eq!(memory(""), (0, 0));
    }
}
