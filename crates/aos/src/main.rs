//! The `aos` program: the command line, and the wiring of components to it.
//!
//! It decides nothing. `cli/` has one file a group of commands; [`client`] speaks REST to a cloud as
//! the person that [`home`] knows; `components` turns configuration files into running components;
//! `keeper` is the small process that holds a Node's containers.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod cli;
mod client;
mod components;
mod failure;
mod home;
mod keeper;
mod local;
mod logging;
mod progress;
mod table;
mod trust;

use std::process::ExitCode;

use clap::Parser as _;

#[allow(clippy::print_stderr, reason = "this is how a command fails")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // The keeper must start before any thread exists, so nothing at all comes before it.
    if arguments.next().is_some_and(|word| word == "keeper") {
        return keeper::run(arguments);
    }
    aos_pki::install_provider();
    match cli::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code() as u8)
        }
    }
}
