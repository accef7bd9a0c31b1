//! The cloud's end of the link to Units: service discovery, the WebSocket, and the blobs Units fetch.
//!
//! A [`Gateway`] serves three routes of the unit listener ([`Gateway::router`]): `/sd/v7/` tells a Unit where to connect,
//! `/ws/v7/` is the link, `/blobs/v7/<token>` gives a blob that a link has named. Who calls is told by the client
//! certificate, which the listener puts into the request as an [`aos_pki::PeerIdentity`].
//!
//! Each Unit that is linked, or whose desired state changed, has one task. It runs the session machine (`aos-session`)
//! over the database: what the session wants kept is stored before the next frame leaves, in the same transaction as what
//! a message changed, so a restart of the cloud loses nothing and does nothing twice. The task also composes the desired
//! state anew whenever the store says that it may have changed, and sends it if it did. The contract is in
//! `docs/protocol/unit-cloud.md`.

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
mod blob_urls;
mod blobs;
mod caller;
mod counts;
mod desired;
mod discovery;
mod encrypted;
mod gateway;
mod incoming;
mod link;
mod registry;
mod status;
mod token;
mod told;
mod upgrade;
mod usage;

pub use blob_urls::BLOB_CHAIN_NAME;
pub use counts::Counts;
pub use gateway::{Gateway, GatewayOptions};
pub use token::{TokenKey, TokenKeyError};
