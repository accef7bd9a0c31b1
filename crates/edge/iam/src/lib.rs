//! IAM, Identity and Access Management: who a Node is, and what proves it.
//!
//! Every Node runs one. It makes the Node's keys, keeps its certificates (`aos_pki::KeyStore`), knows the Node's state
//! (unprovisioned, provisioned, paused), gives instances the secrets by which functional servers know their rights, and
//! tells the other components of its Node where their certificates are. The IAM of the main Node also knows all other Nodes:
//! their IAMs keep a `RegisterNode` stream open to it, through which it provisions, pauses and resumes them.
//!
//! ```text
//!   aos unit join ──bootstrap──►┐                        ┌── RegisterNode ── IAM of another Node
//!   CM ──cm──────────────────►  │ services ► nodes ► ────┤                        │
//!   SM ──sm──────────────────►  │     │                  └── this Node ◄───────────┘ both: node::ThisNode
//!   anyone ──public port──────► │     └► identity, permissions
//! ```
//!
//! Two ports, as in AosCore: a public one that only reads, and a protected one that asks for a certificate. What a peer may
//! do there depends on its certificate's type and Node (`services::access`, `docs/protocol/grpc.md`). Neither is ever
//! plaintext: before the Unit has certificates both sides use ones made from the bootstrap key (`docs/protocol/trust.md`).

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
mod iam;
mod node;
mod nodes;
mod options;
mod permissions;
mod secondary;
mod services;

pub use error::Error;
pub use iam::{Iam, run};
pub use options::{MainIam, NodeOptions, Options, PartitionOptions};
