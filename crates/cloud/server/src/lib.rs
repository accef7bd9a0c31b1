//! AosCloud as one process: `aos cloud serve`.
//!
//! [`run`] opens the data folder (database, blobs, certificate authority), starts two listeners and stops them gracefully.
//! The people's listener serves the web UI, the REST API and its documents; a client certificate of type `user` is welcome
//! but not needed, because browsers sign in. The Units' listener serves service discovery, the link and blobs; whoever
//! shows a certificate there must show one of type `online`. Which certificate a connection showed reaches the handlers as
//! an [`aos_pki::PeerIdentity`] in the request's extensions.
//!
//! Nothing is decided here beyond that; the parts are `aos-api-server`, `aos-gateway` and `aos-db`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod error;
mod keys;
mod listener;
mod server;

pub use aos_db::Retention;
pub use error::Error;
pub use server::{Options, Server, openapi, run};
