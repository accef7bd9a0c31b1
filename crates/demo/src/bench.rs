//! How long a deployment takes, beside the least it could take.
//!
//! On the stage of the demo a service that does nothing is deployed N times with its image cached, and the time between
//! `desiredStatus` sent and the status with all N active is read from the cloud's own record. The floor is measured in
//! the same run: the bundles that SM made are copied, given namespaces and cgroups of their own, and started by `crun run
//! -d` one after the other. Each figure is a median; the ratio is what counts, not the seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use aos_api::DesiredState;
use serde_json::{Value, json};

use crate::cast::{Cast, Part, node_cgroup};
use crate::narrator::Narrator;
use crate::outside::{self, cgroup_folders};
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, COUNTER};

/// How many instances are deployed at once.
const SIZES: [usize; 3] = [1, 10, 50];
/// How often each is measured.
const ROUNDS: usize = 5;
/// How long everything may take to come to rest before memory is measured, in seconds.
const REST: u64 = 10;

/// One figure. Printed as a line of JSON, for programs.
#[derive(Debug, serde::Serialize)]
pub struct Figure {
    /// What was measured, such as `deploy.active.50`.
    pub name: String,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The floor, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Value by floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Measures everything and prints a line of JSON for each figure.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    story::prologue(play, narrator)?;
    let mut figures = Vec::new();
    narrator.step("memory of a Unit without instances", || {
        std::thread::sleep(std::time::Duration::from_secs(REST));
        let parts = [
            (
                "idle.pss.main",
                Place::Main,
                vec![Part::MainIam, Part::MainCm, Part::MainSm],
            ),
            (
                "idle.pss.secondary",
                Place::Secondary,
                vec![Part::SecondaryIam, Part::SecondarySm],
            ),
        ];
        for (name, place, parts) in parts {
            let value = pss(play, place, &parts)?;
            figures.push(Figure {
                name: name.into(),
                value,
                unit: "MB",
                floor: None,
                ratio: None,
            });
        }
        Ok("measured".into())
    })?;
    narrator.step("the service is published and its image cached", || {
        story::publish_with(play, COUNTER, "1.0.0", lighten)?;
        deploy(play, 1)?;
        withdraw(play)?;
        Ok("fetched, run once, taken away".into())
    })?;
    for size in SIZES {
        narrator.step(&format!("{size} instance(s), {ROUNDS} times"), || {
            let mut times = Vec::with_capacity(ROUNDS);
            let mut floors = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                times.push(deploy(play, size)?);
                let floor = Floor::prepare(play, size)?;
                withdraw(play)?;
                floors.push(floor.run()?);
            }
            let (value, floor) = (median(times), median(floors));
            let ratio = value / floor;
            figures.push(Figure {
                name: format!("deploy.active.{size}"),
                value,
                unit: "s",
                floor: Some(floor),
                ratio: Some(ratio),
            });
            Ok(format!(
                "{value:.3} s, floor {floor:.3} s, ratio {ratio:.2}"
            ))
        })?;
    }
    for figure in &figures {
        println!("{}", serde_json::to_string(figure)?);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Takes away what would keep 50 of them from fitting on one Node: this measures the way, not the fitting.
fn lighten(config: &str) -> String {
    let heavy = ["cpuLimit:", "ramLimit:"];
    let kept = config
        .lines()
        .filter(|line| !heavy.iter().any(|key| line.trim_start().starts_with(key)));
    kept.collect::<Vec<_>>().join("\n") + "\n"
}

/// Assigns the service; gives the seconds from `desiredStatus` sent to the status with all instances active.
fn deploy(play: &Play<'_>, instances: usize) -> Result<f64> {
    story::assign(
        play,
        &[
            COUNTER,
            "--instances",
            &instances.to_string(),
            "--label",
            "main",
        ],
    )?;
    let active = story::instances(play, COUNTER)?.len();
    ensure!(
        active == instances,
        "{active} of {instances} instances are active"
    );
    let state: DesiredState = play.user.json(&["unit", "desired", &play.unit])?;
    let sent = state
        .sent_at
        .context("the cloud does not say when it sent the desired state")?;
    // The desired state is met when it is committed, after everything has been active for a while. What is measured here
    // ends with the status that says so of the last instance.
    let active = story::active(play, COUNTER)?;
    let newest = active.into_iter().map(|one| one.changed_at).max();
    let reached = newest.context("no instance is active")?;
    Ok(reached.since(sent).as_secs_f64())
}

fn withdraw(play: &mut Play<'_>) -> Result<()> {
    play.user.aos(&[
        "unassign",
        COUNTER,
        "--unit",
        &play.unit,
        "--wait",
        "--timeout",
        "60",
    ])?;
    play.until("the last process gone", 30, |play| {
        let left = story::processes(play, Place::Main).len();
        ensure!(left == 0, "{left} process(es) are left");
        Ok(())
    })
}

/// Megabytes of memory that the processes of a Node have for themselves, shared pages by their share.
fn pss(play: &Play<'_>, place: Place, parts: &[Part]) -> Result<f64> {
    let mut pids: Vec<i32> = parts
        .iter()
        .filter_map(|part| play.cast.pid(*part))
        .collect();
    ensure!(
        pids.len() == parts.len(),
        "a component of the {} Node does not run",
        place.name()
    );
    pids.extend(Cast::keepers(play.stage, place));
    let mut kilobytes = 0.0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .context("the kernel tells no Pss")?;
        let number = line.split_whitespace().next().unwrap_or_default();
        kilobytes += number
            .parse::<f64>()
            .context("the kernel's Pss is not a number")?;
    }
    Ok(kilobytes / 1000.0 * 1.024)
}

/// Copies of SM's bundles, ready to be started by nothing but the OCI runtime.
struct Floor {
    folder: tempfile::TempDir,
    root: PathBuf,
    cgroup: String,
    namespaces: Vec<String>,
}

impl Floor {
    /// Copies the bundles of what runs now, with their roots. To be done while the instances run.
    fn prepare(play: &Play<'_>, size: usize) -> Result<Self> {
        let run = play.stage.run_folder().join(Place::Main.name());
        // The OCI runtime keeps a copy of each in its own folder, without a root beside it.
        let mut bundles = outside::find_files(&run, "config.json");
        bundles.retain(|config| config.with_file_name("rootfs").is_dir());
        ensure!(
            bundles.len() == size,
            "{} bundles of {size} instances in {}",
            bundles.len(),
            run.display()
        );
        let folder = tempfile::Builder::new().prefix("aos-floor-").tempdir()?;
        let floor = Self {
            root: folder.path().join("crun"),
            cgroup: format!("{}-floor", node_cgroup(play.stage, Place::Main)),
            namespaces: (0..size)
                .map(|n| format!("{}-f{n}", play.stage.prefix()))
                .collect(),
            folder,
        };
        for (n, config) in bundles.iter().enumerate() {
            floor.copy(n, config)?;
        }
        Ok(floor)
    }

    fn copy(&self, n: usize, config: &Path) -> Result<()> {
        let namespace = &self.namespaces[n];
        run(Command::new("ip").args(["netns", "add", namespace]))?;
        let text = fs::read_to_string(config)
            .with_context(|| format!("cannot read {}", config.display()))?;
        let mut spec: Value = serde_json::from_str(&text)?;
        let bundle = self.folder.path().join(n.to_string());
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root)?;
        let from = config
            .parent()
            .context("a bundle has a folder")?
            .join(spec["root"]["path"].as_str().unwrap_or("rootfs"));
        run(Command::new("cp").arg("-a").arg(from.join(".")).arg(&root))?;
        spec["root"]["path"] = json!(root);
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{n}", self.cgroup));
        if let Some(list) = spec["linux"]["namespaces"].as_array_mut() {
            for entry in list {
                if entry["type"] == "network" {
                    entry["path"] = json!(format!("/run/netns/{namespace}"));
                }
            }
        }
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            for mount in mounts.iter_mut().filter(|mount| mount["type"] == "bind") {
                let Some(source) = mount["source"].as_str().map(PathBuf::from) else {
                    continue;
                };
                let copy = bundle.join(format!(
                    "mount-{}",
                    source.display().to_string().replace('/', "-")
                ));
                run(Command::new("cp").arg("-a").arg(&source).arg(&copy))?;
                mount["source"] = json!(copy);
            }
        }
        fs::write(bundle.join("config.json"), spec.to_string())?;
        Ok(())
    }

    /// Starts all, one after the other; gives the seconds that took.
    fn run(&self) -> Result<f64> {
        let mut script = String::from("umount /sys/fs/cgroup/unified 2>/dev/null\n");
        // What runs on must not hold our pipes open.
        let errors = self.folder.path().join("errors");
        script.push_str(&format!(
            "exec </dev/null >/dev/null 2>{}\n",
            errors.display()
        ));
        for n in 0..self.namespaces.len() {
            script.push_str(&format!(
                "crun --root {root} --cgroup-manager=cgroupfs run -d --bundle {folder}/{n} floor-{n} || exit 1\n",
                root = self.root.display(),
                folder = self.folder.path().display(),
            ));
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null());
        let begin = Instant::now();
        let status = command.status().context("cannot start unshare")?;
        let time = begin.elapsed();
        if !status.success() {
            let why = fs::read_to_string(&errors).unwrap_or_default();
            bail!("the floor cannot be measured: {}", why.trim());
        }
        Ok(time.as_secs_f64())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for pid in outside::cgroup_processes(&self.cgroup) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let forget = (0..self.namespaces.len()).map(|n| format!("floor-{n}"));
        for id in forget {
            let mut delete = Command::new("unshare");
            delete.args(["--mount", "--propagation", "private", "sh", "-c"]).arg(format!(
                "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --root {} --cgroup-manager=cgroupfs delete -f {id}",
                self.root.display()
            ));
            let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        for namespace in &self.namespaces {
            let _ = run(Command::new("ip").args(["netns", "del", namespace]));
        }
        for folder in cgroup_folders(&self.cgroup) {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn only_what_would_not_fit_is_taken_away() {
        let config = "quotas:\n  cpuLimit: 500\n  ramLimit: 1\n  pidsLimit: 16\n";
        assert_eq!(lighten(config), "quotas:\n  pidsLimit: 16\n");
    }
}
