#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]
//! How instances run on a Node: containers started by an OCI runtime (`crun`) and watched by a keeper.
//!
//! A caller describes an instance by an [`InstanceSpec`] (layers, command, limits, network namespace, storage) and hands
//! it to a [`Runtime`]. [`CrunRuntime`] writes the OCI bundle, mounts the overlay root and asks the [`keeper`] to start
//! `crun`. The keeper is one small process a Node that outlives its caller: it is the parent of the containers, owns their
//! output and records their exits, so the caller may die, restart or be upgraded and later adopt what runs.
//! [`FakeRuntime`] does the same in memory, for tests of those above.
//!
//! Everything made here (runtime state, cgroups, folders, mounts) lies under roots that belong to one Node, so that two
//! Nodes on one machine never meet; removal touches nothing else. Wire and file facts: `docs/protocol/items.md`.

mod bundle;
mod crun;
mod fake;
mod id;
pub mod keeper;
mod limits;
mod probe;
mod program;
mod rootfs;
mod runtime;
mod spec;
mod userns;

pub use crun::{CrunOptions, CrunRuntime};
pub use fake::FakeRuntime;
pub use id::{InstanceId, ParseInstanceIdError};
pub use limits::{CpuQuota, Limits};
pub use probe::Unhealthy;
pub use runtime::{Error, Exit, ExitCause, RootUse, Runtime, Started, Status};
pub use spec::{Device, HostEntry, InstanceSpec, Isolation, Mount, StopPolicy, User};
