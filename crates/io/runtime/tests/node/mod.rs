//! A Node's folders and keeper for one test, taken away when it ends.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use aos_runtime::keeper::{Client, Events, Starter};
use tempfile::TempDir;

/// The keeper program of this crate.
pub fn keeper_program() -> PathBuf {
    env!("CARGO_BIN_EXE_aos-keeper").into()
}

pub struct TestNode {
    pub folder: TempDir,
    pub starter: Starter,
}

impl TestNode {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("aos-node-")
            .tempdir()
            .unwrap();
        // As the folders of a Node are: instances with a user namespace come through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let starter = Starter {
            program: keeper_program(),
            socket: folder.path().join("run/keeper.sock"),
            state_dir: folder.path().join("keeper"),
        };
        Self { folder, starter }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn connect(&self) -> (Client, Events) {
        let (client, events, _) = self.starter.connect().await.unwrap();
        (client, events)
    }

    /// The keeper's process, found by its lock.
    pub fn keeper_pid(&self) -> Option<u32> {
        keeper_of(&self.starter.state_dir)
    }
}

fn keeper_of(state_dir: &Path) -> Option<u32> {
    let wanted = state_dir.to_string_lossy().into_owned();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        (words.contains(&wanted.as_bytes()) && words.contains(&b"--foreground".as_slice()))
            .then_some(pid)
    })
}

impl TestNode {
    pub fn end_keeper(&self) {
        if let Some(pid) = self.keeper_pid() {
            kill(pid, "-KILL");
            while alive(pid) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.end_keeper();
    }
}

pub fn kill(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .arg(signal)
        .arg(pid.to_string())
        .status();
}

pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Waits for a state, at most ten seconds.
pub async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Says why a test cannot run here; the test returns then.
pub fn skip(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if Command::new("crun").arg("--version").output().is_err() {
        "needs crun"
    } else {
        return false;
    };
    eprintln!("SKIPPED {test}: {reason}");
    true
}
