//! Bundles from the publisher's folder to the cloud's blobs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

mod config;
mod folder;
mod foreign_keys;
mod hostile;
mod layout;
mod round_trip;
