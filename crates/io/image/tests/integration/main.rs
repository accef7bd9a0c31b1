//! The image crate against the real file system and real HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod blob;
mod build;
mod encrypted;
mod fetch;
mod graph;
mod server;
mod unpack;

/// Whether this test runs as root; says so if not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root to set owners and overlay whiteouts");
    }
    root
}
