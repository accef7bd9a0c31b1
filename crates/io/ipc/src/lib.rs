//! How the components of a Unit talk to each other: gRPC over mutual TLS.
//!
//! IAM, CM and SM never import each other; all they share is in this crate. [`proto`] is the contract, compiled from our
//! own protos, with the names and numbers of AosEdge 9 so that a Node of ours works beside a Node of theirs
//! (`docs/protocol/grpc.md`). [`convert`] reads it into the types of the product and writes it from them.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

pub mod convert;
pub mod proto;
