//! The network of a Node's instances: a bridge for each owner, a network namespace for each instance, one firewall table.
//!
//! The caller says what shall be there ([`Wanted`]); a [`NetworkStack`] makes it so, as often as it is asked, and takes
//! away what is not wanted any more. [`KernelStack`] does it with rtnetlink and `nft`; [`FakeStack`] remembers what it was
//! asked.
//!
//! ```text
//!   instance netns            Node
//!   eth0 172.31.0.5 ── veth ── <prefix>br-… 172.31.0.1 ── forward, masquerade ── the world
//!                                    ▲                         table inet <prefix>
//!   host port 8080 ── dnat ──────────┘
//! ```
//!
//! Interfaces, namespaces and the table carry a prefix of the Node; nothing else is ever removed, so two Nodes share one
//! machine without meeting. The rules hold whether or not bridged packets pass the `inet` hooks (`br_netfilter`).
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod batch;
mod cable;
mod counting;
pub mod dns;
mod fake;
mod links;
mod listening;
mod names;
mod netns;
mod nft;
mod rate;
mod rules;
mod stack;
mod wanted;

pub use fake::FakeStack;
pub use listening::is_listened_on;
pub use names::{EndpointId, InvalidName, Prefix};
pub use stack::{Applied, DEFAULT_MTU, Error, KernelOptions, KernelStack, NetworkStack};
pub use wanted::{
    AllowedFlow, Bounds, Counted, Destination, Egress, Endpoint, InvalidSubnet, Limit, Network,
    NodeLink, Range, Subnet, Traffic, Wanted,
};
