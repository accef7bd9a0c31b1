//! A Unit and its cloud under virtual time: the real cores, a simulated rest, and an oracle that knows the promises.
//!
//! A run is one seed: 30 days in the life of a Unit of 1 to 6 Nodes. The cores of CM (`aos-update`, `aos-session`,
//! `aos-schedule`) and of SM (`aos-launch`) run unchanged; disks, networks, Nodes, the cloud and the clock are simulated
//! and misbehave. After every step an [oracle](Broken) holds what is true against what was promised. The same seed gives the same
//! run, so a failure is looked at by running its seed again with a trace. `docs/simulator.md` says more.

#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of Nodes, items and messages are small by construction"
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

mod cloud;
mod cm;
mod conduct;
mod coverage;
mod dice;
mod draw;
mod event;
mod mutation;
mod node;
mod oracle;
mod overrides;
mod queue;
mod wire;
mod words;
mod world;

pub use coverage::Coverage;
pub use mutation::Mutation;
pub use oracle::Broken;
pub use world::Outcome;

/// Runs one seed, with a deliberate bug if one is given, with a trace if that is wanted.
pub fn run(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
    world::World::run(seed, mutation, traced)
}
