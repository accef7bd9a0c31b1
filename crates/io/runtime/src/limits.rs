use serde::{Deserialize, Serialize};

/// The period of the CPU controller in microseconds.
const PERIOD: u64 = 100_000;
/// The least quota the kernel accepts, in microseconds.
const LEAST_QUOTA: u64 = 1_000;

/// What an instance may use; nothing is limited unless it is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<CpuQuota>,
    /// Memory in bytes.
    pub ram: Option<u64>,
    /// Processes and threads; also `RLIMIT_NPROC`.
    pub pids: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Size of a tmpfs on `/tmp` in bytes; without it `/tmp` is part of the root.
    pub tmp: Option<u64>,
}

/// Microseconds of processor time in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuQuota {
    /// Microseconds of processor time, all cores together.
    pub quota: u64,
    /// Microseconds.
    pub period: u64,
}

impl CpuQuota {
    /// The quota that gives `dmips` of a Node whose `cores` cores have `max_dmips` together; nothing if the Node's
    /// computing power is not known. Rule: `dmips × 100000 × cores / max_dmips`, at least 1000
    /// (`docs/protocol/items.md`, quotas). More than the Node has is all that it has: a kernel refuses larger numbers.
    pub fn from_dmips(dmips: u64, max_dmips: u64, cores: u64) -> Option<Self> {
        if max_dmips == 0 || cores == 0 {
            return None;
        }
        let quota =
            u128::from(dmips) * u128::from(PERIOD) * u128::from(cores) / u128::from(max_dmips);
        Some(Self {
            quota: u64::try_from(quota)
                .unwrap_or(u64::MAX)
                .min(PERIOD.saturating_mul(cores))
                .max(LEAST_QUOTA),
            period: PERIOD,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dmips_become_microseconds() {
        for (dmips, max, cores, quota) in [
            (1_000, 10_000, 1, Some(10_000)),
            (1_000, 10_000, 4, Some(40_000)),
            (10_000, 10_000, 4, Some(400_000)),
            (1, 1_000_000, 1, Some(1_000)),
            (0, 10_000, 2, Some(1_000)),
            (100, 0, 2, None),
            (100, 100, 0, None),
            (u64::MAX, 1, 64, Some(6_400_000)),
            (10_001, 10_000, 1, Some(100_000)),
        ] {
            let got = CpuQuota::from_dmips(dmips, max, cores).map(|cpu| cpu.quota);
            assert_eq!(got, quota, "{dmips} of {max} on {cores}");
        }
    }
}
