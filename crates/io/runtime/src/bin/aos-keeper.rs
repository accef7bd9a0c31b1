//! The keeper as a program of its own, called like `aos`: `aos-keeper keeper --socket PATH --state-dir DIR`.
//!
//! It does what `aos keeper` does. A process keeps a private copy of all tables of pointers in its program, and those of
//! the one big program are some megabytes; a process that lives on every Node for ever should not have them.

use std::process::ExitCode;

fn main() -> ExitCode {
    aos_runtime::keeper::run(std::env::args_os().skip(2))
}
