use std::path::PathBuf;

use crate::{Error, read};

/// What one cgroup used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceReading {
    /// Processor time since it was made, in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of memory without file cache that was not used lately: what the kernel would have to swap out.
    pub ram: u64,
}

/// Where the cgroups of this Node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// One tree for all.
    V2 {
        /// Its mount point.
        root: PathBuf,
    },
    /// A tree for each controller, or a few.
    V1 {
        /// The mount point with `cpuacct`.
        cpu: PathBuf,
        /// The mount point with `memory`.
        memory: PathBuf,
    },
}

impl Cgroups {
    /// Looks at the mounts of this process. `None` if there is nothing to read usage from.
    pub fn find() -> Option<Self> {
        Self::parse(&read("/proc/self/mountinfo".as_ref()).ok()?)
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let (mut v2, mut cpu, mut memory) = (None, None, None);
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): the optional fields end with a dash.
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let point = left.split(' ').nth(4).map(PathBuf::from);
            let mut right = right.split(' ');
            let kind = right.next();
            let controllers = right.nth(1).unwrap_or_default();
            let has = |name: &str| controllers.split(',').any(|one| one == name);
            match kind {
                Some("cgroup2") => v2 = v2.or(point),
                Some("cgroup") => {
                    // Controllers may share a tree.
                    cpu = cpu.or(point.clone().filter(|_| has("cpuacct")));
                    memory = memory.or(point.filter(|_| has("memory")));
                }
                _ => {}
            }
        }
        // Beside v1 trees a v2 tree has no controllers worth reading.
        match (cpu, memory) {
            (Some(cpu), Some(memory)) => Some(Self::V1 { cpu, memory }),
            _ => v2.map(|root| Self::V2 { root }),
        }
    }

    /// What the cgroup `path`, such as `/aos/x`, and all below it have used.
    pub fn read(&self, path: &str) -> Result<InstanceReading, Error> {
        let path = path.trim_start_matches('/');
        let file = |root: &PathBuf, name: &str| root.join(path).join(name);
        let (cpu_nanos, total, idle) = match self {
            Self::V2 { root } => (
                key(file(root, "cpu.stat"), "usage_usec")?.saturating_mul(1_000),
                number(file(root, "memory.current"))?,
                key(file(root, "memory.stat"), "inactive_file")?,
            ),
            Self::V1 { cpu, memory } => (
                number(file(cpu, "cpuacct.usage"))?,
                number(file(memory, "memory.usage_in_bytes"))?,
                key(file(memory, "memory.stat"), "total_inactive_file")?,
            ),
        };
        Ok(InstanceReading {
            cpu_nanos,
            ram: total.saturating_sub(idle),
        })
    }
}

fn number(path: PathBuf) -> Result<u64, Error> {
    read(&path)?.trim().parse().map_err(|_| Error::Content {
        path,
        what: "number",
    })
}

fn key(path: PathBuf, name: &'static str) -> Result<u64, Error> {
    read(&path)?
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or(Error::Content { path, what: name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_layouts_are_found_and_v1_counts_beside_an_empty_v2() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Cgroups::parse(v2),
            Some(Cgroups::V2 {
                root: "/sys/fs/cgroup".into()
            })
        );
        let hybrid = format!(
            "{v2}31 23 0:27 / /c/memory rw - cgroup cgroup rw,memory\n\
             32 23 0:28 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        );
        assert_eq!(
            Cgroups::parse(&hybrid),
            Some(Cgroups::V1 {
                cpu: "/c/cpu,cpuacct".into(),
                memory: "/c/memory".into()
            })
        );
        assert_eq!(Cgroups::parse("nonsense\n"), None);
    }

    #[test]
    fn usage_is_read_from_both_layouts() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("aos/x");
        fs::create_dir_all(&own).unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 2000\nuser_usec 1\n"),
            ("memory.current", "5000\n"),
            (
                "memory.stat",
                "anon 1\ninactive_file 1000\ntotal_inactive_file 2000\n",
            ),
            ("cpuacct.usage", "7000\n"),
            ("memory.usage_in_bytes", "9000\n"),
        ] {
            fs::write(own.join(name), text).unwrap();
        }
        let root = folder.path().to_path_buf();
        let v2 = Cgroups::V2 { root: root.clone() };
        let v1 = Cgroups::V1 {
            cpu: root.clone(),
            memory: root,
        };
        let read = |cgroups: &Cgroups| {
            let reading = cgroups.read("/aos/x").unwrap();
            (reading.cpu_nanos, reading.ram)
        };
        assert_eq!(read(&v2), (2_000_000, 4_000));
        assert_eq!(read(&v1), (7_000, 7_000));
        assert!(v2.read("/aos/gone").is_err());
    }
}
