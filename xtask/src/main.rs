//! Repository tasks: `cargo xtask <task>`.
//!
//! This program depends on no crate of ours. It calls cargo, npm and the programs they build, so
//! that what it proves is what a user would get. cargo always runs as the calling user; only
//! `setup` and the built programs are given root, by `sudo` where the user is not root.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its terminal"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod bench;
mod defects;
mod demo;
mod examples;
mod guest;
mod harness;
mod layers;
mod node;
mod openapi;
mod privilege;
mod process;
mod results;
mod setup;
mod sim;
mod steps;
mod test;
mod torture;
mod ui;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Repository tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// One task.
#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine (Debian packages) and say what was installed.
    Setup,
    /// Run everything that CI runs; the last line counts what passed, failed and was skipped.
    Test {
        /// Only the tests in the virtual machine: what this machine's kernel may not have.
        #[arg(long)]
        guest: bool,
    },
    /// Build everything and run `aos demo`.
    Demo(demo::Options),
    /// Measure the release build beside floors of the same run.
    Bench(bench::Options),
    /// Kill the real processes at random while desired states keep arriving, and check the promises from outside.
    Torture(torture::Options),
    /// Search for a broken promise in simulated months of a Unit's life.
    Sim(sim::Options),
    /// Check that every crate uses only the layers it may use.
    Layers,
    /// Check that each known defect of the original has the test its page names.
    Defects,
    /// Write the OpenAPI document of the REST API to `docs/openapi.json`.
    Openapi {
        /// Do not write: fail if the document in the tree is not the one the program writes.
        #[arg(long)]
        check: bool,
    },
    /// Install the web UI's packages, check and build it.
    Ui,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = process::workspace_root()?;
    match task {
        Task::Setup => setup::run(setup::For::Testing),
        Task::Test { guest: true } => guest::task(&root),
        Task::Test { guest: false } => test::run(&root),
        Task::Demo(options) => demo::run(&root, &options),
        Task::Bench(options) => bench::run(&root, &options),
        Task::Torture(options) => torture::run(&root, &options),
        Task::Sim(options) => sim::task(&root, &options),
        Task::Layers => layers::run(&root),
        Task::Defects => defects::run(&root),
        Task::Openapi { check } => {
            process::cargo_build(&root)?;
            openapi::run(&root, check)
        }
        Task::Ui => {
            ui::install(&root)?;
            ui::build(&root)?;
            ui::check(&root)
        }
    }
}
