//! SM, the service manager: makes one Node run the instances that CM orders, and tells how they are doing.
//!
//! It installs and verifies everything new before it stops anything, starts and stops instances through a container
//! runtime and their networks through the Node's network stack, and keeps what it was told in a database, so that after a
//! reboot without network the Node starts its last set by itself and after a restart of SM alone the running instances are
//! adopted. It meets CM over gRPC only (`docs/protocol/grpc.md`).
//!
//! | module | decides or does |
//! |---|---|
//! | `launcher` | carries out plans of `aos-launch`: install, networks, stop, start, in the order items ask for; adopts; reacts to exits |
//! | `restart` | whether and when an instance that ended is started again, and when it counts as failed |
//! | `health` | what follows from probes |
//! | `cm` | the two streams to CM, reconnecting; what is told, what is ordered |
//! | `images` | fetches blobs from CM, verifies, unpacks, collects |
//! | `networks` | addresses from CM, kept for starts without it; the Node's network stack |
//! | `runtimes` | the ways to run instances that this Node offers |
//! | `container` | from an instance and its image to what the runtime starts |
//! | `node_config` | the part of the unit configuration that is this Node's |
//! | `places`, `fullness` | storages and states within their limits; who is about to reach one |
//! | `logs` | what instances wrote, how they crashed and what the system says: kept, asked for, followed |
//! | `alerts` | what people should know, until CM has been told |
//! | `records` | what survives a restart |
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod alerts;
mod app;
mod cm;
mod cm_handle;
mod container;
mod disk_below;
mod error;
mod fullness;
mod health;
mod image_room;
mod images;
mod integrity;
mod launcher;
mod layers_in_use;
mod logs;
mod monitoring;
mod networks;
mod node;
mod node_config;
mod options;
mod permissions;
mod places;
mod records;
mod resources;
mod restart;
mod runtimes;
mod states;

pub use app::run;
pub use error::Error;
pub use logs::LogOptions;
pub use options::{
    LogAlerts, MonitoringOptions, NativeOptions, Options, QuotaOptions, RuntimeOptions,
};
