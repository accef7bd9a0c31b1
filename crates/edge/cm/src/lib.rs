//! CM, the Communication Manager: the component of the main Node that leads the whole Unit to its desired state.
//!
//! It holds the link to the cloud, decides with the update engine (`aos-update`) and the scheduler (`aos-schedule`), keeps
//! the images, and gives every Node's SM its list. It goes on by itself when the cloud is away, and after a power cut from
//! where it was: everything that matters is in one SQLite file before it is acted upon.
//!
//! ```text
//!   cloud ◄──WebSocket──► cloud ──desired──► updates ──install, lists──► nodes ◄──gRPC──► SM of each Node
//!                           ▲                   │  ▲                       │
//!                           └── status, alerts ─┘  └─ placing, unit_config ┘     images ◄──HTTPS── SMs fetch blobs
//!                                 identity ◄──gRPC──► IAM (who we are, Nodes, certificates)
//! ```
//!
//! | module | decides or does |
//! |---|---|
//! | [`contract`] | the traits between the parts |
//! | `cloud` | discovery, WebSocket, the session with its outbox, requests with answers |
//! | `updates` | drives the update engine: stores, then acts |
//! | `placing` | asks the scheduler and gives the Nodes their lists |
//! | `unit_config` | checks, applies and restores the unit configuration |
//! | `status` | what the cloud is told, in full or as a delta |
//! | `identity` | IAM's client: system id, certificates, Nodes, pausing |
//! | `nodes` | serves the SMs (implements [`contract::Nodes`]) |
//! | `gates` | what holds an update back on this Unit: readiness, orders of people, `communicationmanager.v3` |
//! | `monitoring` | what of the usage of Nodes and instances the cloud is told |
//! | `local` | answers tools on the Unit itself (`aos.unit.v1`) |
//! | `logs` | requests for logs: everybody is asked, everybody answers or is answered for |
//! | `images` | fetches, verifies, keeps and serves blobs (implements [`contract::Images`]) |
//!
//! `run` opens one [`aos_store::Store`] for all (`<state_dir>/cm.db`, records by kind) and builds, in this order, the cloud
//! link, `images::Library::open(images::Setup { .. })` and `nodes::Server::new(nodes::Setup { .. })`; both have
//! `async fn run(&self, stop: CancellationToken)` that ends when `stop` is cancelled.
//! `images::Setup { dir, listen, public_url, keep, source, trust, online, store, cloud, alerts }`: `source`/`trust` serve the
//! Nodes (certificate `cm`, clients `sm`), `online`/`trust` fetch from the cloud; `cloud` is a [`contract::BlobSource`],
//! `alerts` a [`contract::AlertSink`].
//! `nodes::Setup { listen, network, source, trust, store, images, events, launch, local }`: `network` is [`NetworkOptions`],
//! `images` a [`contract::Images`] for blob addresses, `events` an `mpsc::Sender<NodeEvent>`, `launch` the longest a Node may
//! take for its list, `local` the services for tools on the Unit.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod app;
mod cloud;
pub mod contract;
mod elsewhere;
mod error;
mod gates;
mod identity;
pub mod images;
mod local;
mod logs;
mod monitoring;
mod node_states;
pub mod nodes;
mod options;
mod placing;
mod renewal;
mod run;
#[cfg(test)]
mod scenario;
mod states;
mod status;
mod unit_config;
mod updates;
mod world;

pub use error::Error;
pub use gates::{GateOptions, ReadinessOptions};
pub use monitoring::MonitoringOptions;
pub use options::{NetworkOptions, NodeLinks, Options, PlacingOptions};
pub use run::run;
