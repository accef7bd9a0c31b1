//! The least that starting, stopping and exchanging could cost: the OCI runtime by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cast::node_cgroup;
use crate::outside::{self, cgroup_folders};
use crate::play::Play;
use crate::stage::Place;

/// Copies of SM's bundles, ready to be started by nothing but the OCI runtime.
pub(super) struct Floor {
    folder: tempfile::TempDir,
    root: PathBuf,
    cgroup: String,
    namespaces: Vec<String>,
}

impl Floor {
    /// Copies the bundles of what runs now, with their roots. To be done while the instances run.
    pub(super) fn prepare(play: &Play<'_>, size: usize) -> Result<Self> {
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
    pub(super) fn start(&self) -> Result<f64> {
        self.time(&|n| {
            format!(
                "{} run -d --bundle {}/{n} floor-{n} || exit 1\n",
                self.runtime(),
                self.folder.path().display()
            )
        })
    }

    /// Kills and removes all, one after the other; gives the seconds that took.
    pub(super) fn stop(&self) -> Result<f64> {
        self.time(&|n| format!("{} delete -f floor-{n} || exit 1\n", self.runtime()))
    }

    fn runtime(&self) -> String {
        format!(
            "crun --root {} --cgroup-manager=cgroupfs",
            self.root.display()
        )
    }

    fn time(&self, line: &dyn Fn(usize) -> String) -> Result<f64> {
        let mut script = String::from("umount /sys/fs/cgroup/unified 2>/dev/null\n");
        // What runs on must not hold our pipes open.
        let errors = self.folder.path().join("errors");
        script.push_str(&format!(
            "exec </dev/null >/dev/null 2>{}\n",
            errors.display()
        ));
        script.extend((0..self.namespaces.len()).map(line));
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
