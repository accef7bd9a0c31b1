//! The update engine seen from outside: its table, its behaviour, and generated power cuts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

mod behaviour;
mod cuts;
mod gate_cuts;
mod gates;
mod given;
mod hostile;
mod independent;
mod resolving;
mod retrying;
mod settling;
mod table;
