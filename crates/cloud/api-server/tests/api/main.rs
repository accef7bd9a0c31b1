//! The router driven like a listener does, over real SQLite files, real certificates and real bundles.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod account;
mod assignments;
mod bench;
mod bundles;
mod closed;
mod document;
mod enrolment;
mod events;
mod orders;
