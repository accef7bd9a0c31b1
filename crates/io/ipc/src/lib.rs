//! How the components of a Unit talk to each other: gRPC over mutual TLS.
//!
//! IAM, CM and SM never import each other; all they share is in this crate. [`proto`] is the contract, compiled from our
//! own protos, with the names and numbers of AosEdge 9 so that a Node of ours works beside a Node of theirs
//! (`docs/protocol/grpc.md`). [`convert`] reads it into the types of the product and writes it from them. [`serve`] and
//! [`connect`] are the only transport between them: TLS by `aos-pki`, the peer's identity in each request, pings, deadlines. Programs of
//! the same machine may come over a Unix socket ([`serve_local`]).
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod address;
mod client;
pub mod convert;
mod credentials;
mod peer;
pub mod proto;
mod server;
mod unix;

pub use address::{AddressError, bind, with_host};
pub use client::{ConnectError, connect, reason, within};
pub use credentials::{keep_certificate, wait_for_root};
pub use peer::{Peer, allow, peer};
pub use server::{ServeError, serve};
pub use unix::{LocalError, connect_local, is_local, listen_local, serve_local};

/// Longest gRPC message accepted, in bytes, for `max_decoding_message_size` of clients and servers: the default of gRPC
/// (4 MiB) is too short for the list of a Node with many instances.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;
