//! Root: who has it, and how a built program gets it.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::found;

/// Whether this process is root.
pub fn is_root() -> bool {
    // The effective user id is the second number of the `Uid:` line.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// Whether `sudo` gives root without asking.
pub fn sudo_is_silent() -> bool {
    found("sudo")
        && Command::new("sudo")
            .args(["-n", "true"])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// A command that runs `program` as root: directly if we are root, else by `sudo`.
///
/// cargo must never be started this way: it would leave files of root in the user's tree.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !found("sudo") {
        bail!(
            "`{}` needs root: this user is not root and there is no sudo. \
             Install sudo, or run `cargo xtask …` as root",
            program.as_ref().to_string_lossy()
        );
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}
