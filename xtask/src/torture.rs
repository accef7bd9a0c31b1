//! `cargo xtask torture`: the real thing under random kills.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;

use crate::privilege::as_root;
use crate::process::{self, aos_binary, cargo_build};
use crate::steps::timed;
use crate::{examples, setup, ui};

/// How much.
#[derive(Args)]
pub struct Options {
    /// How many processes are killed.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Repeats the choices of an earlier run; drawn if it is not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep every process's log in this folder.
    #[arg(long, value_name = "DIR")]
    keep_logs: Option<PathBuf>,
}

/// Sets up, builds, tortures.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    timed("set-up", || setup::run(setup::For::Running))?;
    timed("web UI", || {
        ui::install(root)?;
        ui::build(root)
    })?;
    timed("build", || {
        examples::build(root)?;
        cargo_build(root)
    })?;
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_secs())
    });
    let mut command = as_root(aos_binary(root))?;
    command
        .arg("demo")
        .args(["--torture", &options.kills.to_string()])
        .args(["--seed", &seed.to_string()])
        .arg("--examples")
        .arg(examples::folder(root));
    if let Some(folder) = &options.keep_logs {
        command.arg("--keep-logs").arg(folder);
    }
    process::run(&mut command)
}
