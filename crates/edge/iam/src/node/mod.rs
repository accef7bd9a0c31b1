//! This Node: what it is, its state, its keys. The main Node's IAM calls it directly, another Node's IAM on behalf of the
//! main one; both through [`ThisNode::handle`], so the same rules hold.

mod hardware;
mod info;
mod keys;
mod this_node;

pub(crate) use info::{machine_id, node_info};
pub(crate) use keys::{Keys, cert_info_to_proto};
pub(crate) use this_node::ThisNode;
