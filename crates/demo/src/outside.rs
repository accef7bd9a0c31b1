//! Looking from outside: what anybody on the machine can see of the demo, without asking the product.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const ANSWER_LIMIT: u64 = 1 << 20;

/// The body of `GET http://address:port/path`, if the answer is 200.
pub fn http(address: Ipv4Addr, port: u16, path: &str) -> Result<String> {
    let target = SocketAddr::from((address, port));
    let mut stream = TcpStream::connect_timeout(&target, ANSWER)
        .with_context(|| format!("nobody listens on {target}"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    )
    .with_context(|| format!("{target} does not listen to requests"))?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_LIMIT)
        .read_to_end(&mut answer)
        .with_context(|| format!("{target} does not answer"))?;
    body(&answer).with_context(|| format!("http://{target}{path}"))
}

fn body(answer: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .context("the answer has no status")?;
    if status != "200" {
        bail!("the status is {status}, not 200");
    }
    Ok(body.to_owned())
}

/// Where a cgroup of this name is: one folder with cgroup v2, one a controller with v1.
pub fn cgroup_folders(name: &str) -> Vec<PathBuf> {
    let name = name.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = vec![root.join(name)];
    if let Ok(entries) = fs::read_dir(root) {
        // Controllers that share a hierarchy are links to one folder.
        folders.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path().join(name)),
        );
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The processes in a cgroup and all below it.
pub fn cgroup_processes(name: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    let mut next = cgroup_folders(name);
    while let Some(folder) = next.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        if let Ok(entries) = fs::read_dir(&folder) {
            next.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// A process and when it started, so that a number used again is not mistaken for the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks since boot.
    pub started: u64,
    /// Its command line.
    pub command: String,
}

/// The processes of the instances below a cgroup, without helpers that only watch them.
pub fn instance_processes(cgroup: &str) -> Vec<Process> {
    cgroup_processes(cgroup)
        .into_iter()
        .filter_map(process)
        .collect()
}

/// What is running under a number.
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: what follows the last one is plain.
    let started = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim()
        .to_owned();
    Some(Process {
        pid,
        started,
        command,
    })
}

/// Processes whose command line holds `word`, how many by command line.
pub fn count_by_command(processes: &[Process]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for process in processes {
        *counts.entry(process.command.as_str()).or_default() += 1;
    }
    counts
}

/// Files of this name below a folder.
pub fn find_files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![folder.to_path_buf()];
    while let Some(folder) = next.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                next.push(entry.path());
            } else if entry.file_name() == name {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_has_a_body() {
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello").unwrap(),
            "hello"
        );
        assert!(body(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
        assert!(body(b"nonsense").is_err());
    }

    #[test]
    fn this_process_is_seen() {
        let me = process(std::process::id() as i32).unwrap();
        assert!(me.started > 0 && !me.command.is_empty(), "{me:?}");
        assert!(process(i32::MAX).is_none());
    }

    #[test]
    fn files_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/counter"), "1").unwrap();
        assert_eq!(
            find_files(folder.path(), "counter"),
            [folder.path().join("a/b/counter")]
        );
    }
}
