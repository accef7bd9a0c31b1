use std::path::{Path, PathBuf};

use crate::{Error, read};

/// Processor time since the Node was started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticks {
    /// Spent doing something.
    pub busy: u64,
    /// All that there was.
    pub all: u64,
}

impl Ticks {
    /// The share of all processors that was used since `earlier`, from 0 to 1.
    pub fn share_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        if all == 0 {
            return 0.0;
        }
        let busy = self.busy.saturating_sub(earlier.busy).min(all);
        busy as f64 / all as f64
    }
}

/// How full a partition is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Used.
    pub used: u64,
    /// Its size.
    pub size: u64,
}

/// What the Node uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeReading {
    /// Processor time.
    pub ticks: Ticks,
    /// Bytes of memory that are neither free nor given back on demand.
    pub ram: u64,
}

/// Reads what the Node uses.
#[derive(Debug, Clone)]
pub struct Node {
    proc: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
        }
    }
}

impl Node {
    /// How long a tick is: the kernel's `USER_HZ` is 100 on all machines we run on.
    pub const TICK_NANOS: u64 = 10_000_000;

    /// Processor and memory.
    pub fn read(&self) -> Result<NodeReading, Error> {
        let stat = self.proc.join("stat");
        let ticks = ticks(&read(&stat)?).ok_or(Error::Content {
            path: stat,
            what: "line of all processors",
        })?;
        let meminfo = self.proc.join("meminfo");
        let ram = ram(&read(&meminfo)?).ok_or(Error::Content {
            path: meminfo,
            what: "MemTotal or MemFree",
        })?;
        Ok(NodeReading { ticks, ram })
    }

    /// The partition that `path` is on.
    pub fn partition(path: &Path) -> Result<Filled, Error> {
        let facts = rustix::fs::statvfs(path).map_err(|error| Error::Read {
            path: path.to_path_buf(),
            source: error.into(),
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
        Ok(Filled {
            used: bytes(facts.f_blocks.saturating_sub(facts.f_bfree)),
            size: bytes(facts.f_blocks),
        })
    }
}

/// proc_stat(5): `cpu user nice system idle iowait irq softirq steal guest guest_nice`, guests being part of user and nice.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4).copied().unwrap_or(0);
    let all: u64 = fields.iter().sum();
    Some(Ticks {
        busy: all.saturating_sub(idle),
        all,
    })
}

/// What AosEdge counts as used: all without free, buffers, page cache and reclaimable kernel memory.
fn ram(meminfo: &str) -> Option<u64> {
    let kilobytes = |name: &str| {
        meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    let given_back = ["Buffers", "Cached", "SReclaimable"]
        .into_iter()
        .filter_map(kilobytes)
        .sum::<u64>();
    let used = kilobytes("MemTotal")?
        .saturating_sub(kilobytes("MemFree")?)
        .saturating_sub(given_back);
    Some(used.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_processors_count_and_waiting_is_idle() {
        let stat = "cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1 1 1 1\nintr 1\n";
        let first = ticks(stat).unwrap();
        assert_eq!((first.busy, first.all), (30, 100));
        let later = Ticks { busy: 80, all: 200 };
        assert!((later.share_since(first) - 0.5).abs() < 1e-9);
        assert!(first.share_since(first).abs() < 1e-9);
        // Counters that were set back are no usage.
        assert!(first.share_since(later).abs() < 1e-9);
        assert!(ticks("intr 1\n").is_none());
    }

    #[test]
    fn cache_is_not_used_memory() {
        let text = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 900 kB\nBuffers: 50 kB\n\
                    Cached: 150 kB\nSwapCached: 7 kB\nSReclaimable: 100 kB\n";
        assert_eq!(ram(text), Some(400 * 1024));
        assert_eq!(ram("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let reading = Node::default().read().unwrap();
        assert!(reading.ram > 0 && reading.ticks.all > 0);
        let root = Node::partition(Path::new("/")).unwrap();
        assert!(root.used > 0 && root.used <= root.size);
        let missing = Node::partition(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/at/all"));
    }
}
