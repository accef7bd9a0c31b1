//! Who has which address on a Unit, and who may talk to whom.
//!
//! Every owner has one network that spans all Nodes. [`Networks`] gives Nodes and instances their addresses in it and works
//! out the firewall rules that the allowed connections of an item amount to. It is a state machine without I/O: each
//! change comes out as [`Change`]s to store before the answer is given away, and as [`Push`]es to Nodes whose instances
//! got other rules because a target came, moved or went. The same instance keeps its address for as long as it is known,
//! on whatever Node it runs, also after a restart.

mod address;
mod error;
mod names;
mod networks;
mod ports;
mod records;
mod rules;
mod view;

pub use address::{ParsePoolError, Pool, Subnet};
pub use error::Error;
pub use names::{ipv6_of, names_of};
pub use networks::{Allocation, Change, Networks, NodeParams, Push, Request};
pub use ports::{Allowed, BadPort, ExposedPort};
pub use records::{InstanceRecord, Key, LeftRecord, NetworkRecord, NodeRecord, Record};
pub use rules::Rule;
pub use view::{OwnerView, Resident};
