//! Running other programs: where they run, what they inherit, how a failure is said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace_root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .context("run this as `cargo xtask …`: CARGO_MANIFEST_DIR is not set")?;
    here.parent()
        .map(Path::to_path_buf)
        .with_context(|| format!("{} has no parent folder", here.display()))
}

/// The folder cargo builds into.
pub fn target_dir(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// The program this repository is about, as the dev profile builds it.
pub fn aos_binary(root: &Path) -> PathBuf {
    target_dir(root).join("debug").join("aos")
}

/// cargo, the one that runs us.
pub fn cargo(root: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    // What `cargo run` set for us is about the package xtask and must not reach the nested cargo.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text == "CARGO_MANIFEST_DIR"
            || text == "CARGO_MANIFEST_PATH"
            || text == "CARGO_PRIMARY_PACKAGE"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds every program of the workspace in the profile that tests and demo share.
pub fn cargo_build(root: &Path) -> Result<()> {
    run(cargo(root).args(["build", "--workspace", "--bins", "--locked"]))
}

/// Runs a command with our terminal; an error unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command with our terminal and gives its exit status.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start `{}`: is it installed?", line(command)))
}

/// Runs a command and gives what it printed to its standard output; an error unless it succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`: is it installed?", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed text that is not UTF-8", line(command)))
}

/// Whether a program can be found in `PATH` (and in the system folders a user's `PATH` may lack).
pub fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from))
        .any(|folder| folder.join(program).is_file())
}

/// The command as one line, for messages.
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
