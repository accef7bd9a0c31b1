//! `aos keeper`: the process that starts `crun`, owns the instances' output and records their exits.
//!
//! It must be entered before the program has a second thread, so before any async runtime is made. What it does is in
//! `aos_runtime::keeper`, so that the tests of those who talk to it run the same keeper.

use std::{ffi::OsString, process::ExitCode};

/// Runs the keeper. `args` are those after the word `keeper`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    aos_runtime::keeper::run(args)
}
