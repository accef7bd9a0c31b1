//! The web UI: installed, checked and built by npm, tried in Chromium.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{node, process::run};

fn npm(root: &Path) -> Result<Command> {
    let mut command = Command::new("npm");
    if let Some(newer) = node::folder(root)? {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(newer).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
    }
    command
        .current_dir(root.join("ui"))
        .env("npm_config_update_notifier", "false")
        .env("npm_config_fund", "false")
        .env("npm_config_audit", "false");
    Ok(command)
}

/// Installs exactly the packages of `package-lock.json`, unless they are installed already.
pub fn install(root: &Path) -> Result<()> {
    let ui = root.join("ui");
    let lock = std::fs::read(ui.join("package-lock.json"))?;
    // npm leaves no copy of the lock file that is equal byte for byte, so we keep our own.
    let stamp = ui.join("node_modules").join(".installed-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        println!("the UI's packages are installed already");
        return Ok(());
    }
    run(npm(root)?.args(["ci", "--no-progress"]))?;
    std::fs::write(stamp, lock)?;
    Ok(())
}

/// Builds `ui/dist`, which the server carries inside.
pub fn build(root: &Path) -> Result<()> {
    run(npm(root)?.args(["run", "build"]))
}

/// Types, style and unit tests of the UI.
pub fn check(root: &Path) -> Result<()> {
    run(npm(root)?.args(["run", "check"]))?;
    run(npm(root)?.args(["run", "test"]))
}

/// The UI against the built program in a real Chromium.
pub fn end_to_end(root: &Path, aos: &Path) -> Result<()> {
    run(npm(root)?.args(["run", "e2e"]).env("AOS_BINARY", aos))
}
