//! All Nodes of the Unit, as the main Node's IAM knows them, and orders to them.

mod link;
mod registry;

pub(crate) use link::Link;
pub(crate) use registry::{CallError, Nodes, Origin, info_message};
