//! Who calls: the Node that the certificate names, and no other.

use aos_pki::{CertKind, Expect};
use aos_types::NodeId;
use tonic::{Request, Status};

use crate::contract::BlobReader;

/// The Node whose SM calls.
pub(super) fn node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let peer = aos_ipc::allow(request, &Expect::kinds([CertKind::Sm]))?;
    peer.node_id
        .ok_or_else(|| Status::permission_denied("the sm certificate names no Node"))
}

/// The Node whose SM asks for blobs, and from where.
pub(super) fn reader<T>(request: &Request<T>) -> Result<BlobReader, Status> {
    let address = request
        .extensions()
        .get::<aos_ipc::Peer>()
        .and_then(|peer| peer.address);
    Ok(BlobReader {
        node: node(request)?,
        address: address.map(|address| address.ip()),
    })
}

/// Refuses a claim to be another Node than the certificate says.
pub(super) fn same(node: &NodeId, claimed: &str) -> Result<(), Status> {
    if node.as_str() == claimed {
        return Ok(());
    }
    let claimed: String = claimed.chars().take(64).collect();
    Err(Status::permission_denied(format!(
        "the certificate is of Node {node}, the message speaks for Node {claimed}"
    )))
}
