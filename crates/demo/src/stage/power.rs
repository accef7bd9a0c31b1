//! A power cut: everything of a Node that does not outlive one is gone at once.

use std::fs;

use anyhow::{Context as _, Result};

use super::clear::{end, remove_cgroups, unmount_below};
use super::network::{ip, run};
use super::{Place, Stage};

/// Ends every process of the Node without a word and takes away what lives in memory only: mounts, cgroups,
/// interfaces, firewall rules, the runtime folder.
pub fn cut(stage: &Stage, place: Place) -> Result<()> {
    let cgroup = format!("{}/{}", stage.cgroup(), place.name());
    end(|| super::clear::processes_of(stage, place, &cgroup))?;
    remove_cgroups(&cgroup)?;
    let runtime = stage.run_folder().join(place.name());
    unmount_below(&runtime)?;
    unmount_below(&stage.folder().join(place.name()))?;
    let namespace = stage.namespace(place);
    for name in links(stage, place) {
        // The other end of a pair goes with the first.
        let _ = ip(&["-n", &namespace, "link", "delete", &name]);
    }
    let inside = format!("--net=/run/netns/{namespace}");
    run("nsenter", &[&inside, "--", "nft", "flush", "ruleset"])?;
    fs::remove_dir_all(&runtime).with_context(|| format!("cannot remove {}", runtime.display()))?;
    fs::create_dir(&runtime).with_context(|| format!("cannot make {}", runtime.display()))
}

/// The interfaces that an SM made in the namespace of its Node.
pub fn links(stage: &Stage, place: Place) -> Vec<String> {
    let letter = if place == Place::Main { "m" } else { "s" };
    let prefix = format!("d{}{letter}", stage.number());
    let text = ip(&["-n", &stage.namespace(place), "-brief", "link"]).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| name.split('@').next())
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .collect()
}
