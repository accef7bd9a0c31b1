//! SM, the service manager: makes one Node run the instances that CM orders, and tells how they are doing.
//!
//! It installs and verifies everything new before it stops anything, starts and stops instances through a container
//! runtime and their networks through the Node's network stack, and keeps what it was told in a database, so that after a
//! reboot without network the Node starts its last set by itself and after a restart of SM alone the running instances are
//! adopted. It meets CM over gRPC only (`docs/protocol/grpc.md`).
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod options;

pub use options::{Options, RuntimeOptions};

use tokio_util::sync::CancellationToken;

/// Why SM ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("setting `{field}` {why}")]
    Option {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Runs SM until `stop` is cancelled. The instances run on.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let _ = options;
    stop.cancelled().await;
    Ok(())
}
