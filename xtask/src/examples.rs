//! The example services: a workspace of their own, built into `target/examples`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, run, target_dir};

/// Where the bundles lie that are built here.
pub fn folder(root: &Path) -> PathBuf {
    target_dir(root).join("examples").join("bundles")
}

/// Builds the example services and lays their bundles out.
pub fn build(root: &Path) -> Result<()> {
    let mut command = Command::new(root.join("examples").join("build.sh"));
    command
        .arg(folder(root))
        .env(
            "AOS_EXAMPLES_TARGET",
            target_dir(root).join("examples").join("target"),
        )
        .env_remove("CARGO_TARGET_DIR");
    run(&mut command)
}

/// Formatting and lints of the examples, which `--workspace` does not reach.
pub fn check(root: &Path) -> Result<()> {
    let folder = root.join("examples");
    let target = target_dir(root).join("examples").join("check");
    run(cargo(root)
        .current_dir(&folder)
        .args(["fmt", "--all", "--check"]))?;
    run(cargo(root)
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", target)
        .args([
            "clippy",
            "--quiet",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
}
