use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::Layout;

/// Longest file that is read; the longest has a line for each statistic of memory.
const MOST: u64 = 64 << 10;

/// What one cgroup and all below it used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was made, in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of memory without file cache that was not used lately: what the kernel would have to swap out.
    pub ram: u64,
}

/// Why the usage of a cgroup is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tree with processor time and memory is mounted.
    #[error("no cgroup tree that counts processor time and memory is mounted")]
    NoTree,
    /// A file of the kernel.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that says something else than expected.
    #[error("{path} has no {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

impl Error {
    /// Whether there is no such cgroup: what ran in it has ended.
    pub fn is_gone(&self) -> bool {
        // A cgroup may be removed while one of its files is read.
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound
            || source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()))
    }
}

impl Layout {
    /// What the cgroup `path`, such as `/aos/x`, has used.
    pub fn usage(&self, path: &str) -> Result<Usage, Error> {
        let path = path.trim_start_matches('/');
        let (cpu_nanos, total, idle) = match (self.of_v1("cpuacct"), self.of_v1("memory")) {
            (Some(cpu), Some(memory)) => {
                let (cpu, memory) = (cpu.join(path), memory.join(path));
                (
                    number(cpu.join("cpuacct.usage"))?,
                    number(memory.join("memory.usage_in_bytes"))?,
                    key(memory.join("memory.stat"), "total_inactive_file")?,
                )
            }
            _ => {
                let own = self.v2.first().ok_or(Error::NoTree)?.join(path);
                (
                    key(own.join("cpu.stat"), "usage_usec")?.saturating_mul(1_000),
                    number(own.join("memory.current"))?,
                    key(own.join("memory.stat"), "inactive_file")?,
                )
            }
        };
        Ok(Usage {
            cpu_nanos,
            ram: total.saturating_sub(idle),
        })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
    Ok(text)
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
    fn usage_is_read_from_both_layouts_and_v1_counts_beside_an_empty_v2() {
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
        let v2 = Layout {
            v2: vec![root.clone()],
            v1: Vec::new(),
        };
        let tree = |name: &str| (root.clone(), vec!["rw".to_owned(), name.to_owned()]);
        let v1 = Layout {
            v1: vec![tree("cpuacct"), tree("memory")],
            ..v2.clone()
        };
        let read = |layout: &Layout| {
            let usage = layout.usage("/aos/x").unwrap();
            (usage.cpu_nanos, usage.ram)
        };
        assert_eq!(read(&v2), (2_000_000, 4_000));
        assert_eq!(read(&v1), (7_000, 7_000));
        assert!(v2.usage("/aos/gone").unwrap_err().is_gone());
        fs::write(own.join("memory.current"), "much\n").unwrap();
        let error = v2.usage("/aos/x").unwrap_err();
        assert!(!error.is_gone());
        assert!(
            error.to_string().ends_with("memory.current has no number"),
            "{error}"
        );
        assert!(matches!(Layout::default().usage("/x"), Err(Error::NoTree)));
    }
}
