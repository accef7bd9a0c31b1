//! `cargo xtask demo`: set up, build as the user, run the built program as root.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::privilege::as_root;
use crate::process::{self, aos_binary, cargo_build};
use crate::steps::timed;
use crate::{examples, setup, ui};

/// What `cargo xtask demo` passes on.
#[derive(Args)]
pub struct Options {
    /// Tell the whole story unattended, check each step from outside, exit 0 or say what failed.
    #[arg(long)]
    check: bool,
    /// A command that looks on, see `crates/demo/src/audience.rs`.
    #[arg(skip)]
    audience: Option<Audience>,
    /// Keep every process's log in this folder.
    #[arg(long, value_name = "DIR")]
    keep_logs: Option<PathBuf>,
}

/// Who looks on, and at what.
#[derive(Clone)]
struct Audience {
    /// The option of `aos demo` that takes the command.
    story: &'static str,
    command: String,
}

/// Sets up, builds and runs the demo.
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
    tell(root, options)
}

/// Runs the built demo alone.
pub fn tell(root: &Path, options: &Options) -> Result<()> {
    let mut command = as_root(aos_binary(root))?;
    command
        .arg("demo")
        .arg("--examples")
        .arg(examples::folder(root));
    if options.check {
        command.arg("--check");
    }
    if let Some(audience) = &options.audience {
        command.arg(audience.story).arg(&audience.command);
    }
    if let Some(folder) = &options.keep_logs {
        command.arg("--keep-logs").arg(folder);
    }
    process::run(&mut command)
}

/// `cargo xtask demo --check` for the test run, logs kept for a failure.
pub fn check(root: &Path, logs: PathBuf) -> Result<()> {
    tell(
        root,
        &Options {
            check: true,
            audience: None,
            keep_logs: Some(logs),
        },
    )
}

/// A deployment that is watched in the web UI.
pub fn watched(root: &Path, logs: PathBuf) -> Result<()> {
    looked_at(root, logs, "--audience", "walk.mjs")
}

/// Charts and an alert that begins and ends, watched in the web UI.
pub fn senses(root: &Path, logs: PathBuf) -> Result<()> {
    looked_at(root, logs, "--senses", "senses.mjs")
}

fn looked_at(root: &Path, logs: PathBuf, story: &'static str, program: &str) -> Result<()> {
    let command = ui::audience(root, program)?;
    tell(
        root,
        &Options {
            check: true,
            audience: Some(Audience { story, command }),
            keep_logs: Some(logs),
        },
    )
}
