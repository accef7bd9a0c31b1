//! Taking down what a run made: processes, cgroups, mounts, namespaces, interfaces, folders.
//!
//! It is also what the next run does about one that crashed, so each part works on what it finds and
//! does not mind what is gone already.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::network::ip;
use super::{Place, Stage};
use crate::outside;

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// Removes everything of the run.
pub fn clear(stage: &Stage) -> Result<()> {
    end(|| processes(stage))?;
    remove_cgroups(&stage.cgroup())?;
    for folder in [stage.folder(), stage.run_folder()] {
        unmount_below(&folder)?;
    }
    remove_network(stage)?;
    for folder in [stage.folder(), stage.run_folder()] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    // Of use to no other run: fails, and is left, if there is one.
    if let Some(base) = stage.folder().parent() {
        let _ = fs::remove_dir(base);
    }
    Ok(())
}

/// Everything in the run's namespaces and cgroups is of the run.
fn processes(stage: &Stage) -> BTreeSet<i32> {
    let all = Place::ALL
        .into_iter()
        .flat_map(|place| processes_of(stage, place, &stage.cgroup()));
    all.collect()
}

/// The processes in the namespace of a place and in a cgroup.
pub(super) fn processes_of(stage: &Stage, place: Place, cgroup: &str) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = outside::cgroup_processes(cgroup).into_iter().collect();
    let inside = ip(&["netns", "pids", &stage.namespace(place)]).unwrap_or_default();
    found.extend(
        inside
            .lines()
            .filter_map(|line| line.trim().parse::<i32>().ok()),
    );
    found.remove(&(std::process::id() as i32));
    found
}

/// Kills what `processes` finds until it finds nothing.
pub(super) fn end(processes: impl Fn() -> BTreeSet<i32>) -> Result<()> {
    let until = Instant::now() + DEATH;
    loop {
        // Looked up anew each time: a supervisor may have started one more before it died.
        let left = processes();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("processes {left:?} cannot be ended");
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes a cgroup with all below it.
pub(super) fn remove_cgroups(name: &str) -> Result<()> {
    for root in outside::cgroup_folders(name) {
        let mut folders = Vec::new();
        let mut next = vec![root];
        while let Some(folder) = next.pop() {
            if let Ok(entries) = fs::read_dir(&folder) {
                next.extend(
                    entries
                        .flatten()
                        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                        .map(|entry| entry.path()),
                );
            }
            folders.push(folder);
        }
        // A cgroup can be removed when those below it are: the deepest were found last.
        for folder in folders.iter().rev() {
            let until = Instant::now() + DEATH;
            while let Err(error) = fs::remove_dir(folder) {
                if error.kind() == ErrorKind::NotFound {
                    break;
                }
                if Instant::now() > until {
                    return Err(error)
                        .with_context(|| format!("cannot remove the cgroup {}", folder.display()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}

/// Unmounts all that is mounted below a folder, the newest first.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    points.reverse();
    for point in points {
        umount2(&point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn remove_network(stage: &Stage) -> Result<()> {
    let prefix = format!("{}-", stage.prefix());
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            ip(&["netns", "delete", &name])?;
        }
    }
    // The host's leg goes with the switch, a moment after its last process; not if it was never
    // plugged in.
    if Path::new("/sys/class/net").join(stage.prefix()).exists() {
        let _ = ip(&["link", "delete", &stage.prefix()]);
    }
    Ok(())
}
