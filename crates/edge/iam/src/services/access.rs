//! Who may call what on the protected port (`docs/protocol/grpc.md`, who serves what).

use aos_pki::{CertKind, PeerIdentity};
use aos_types::{NodeId, NodeState};
use tonic::{Request, Status};

use crate::{
    node::ThisNode,
    nodes::{Nodes, Origin},
};

/// Who opens a `RegisterNode` stream, and for which Node it may speak. A bootstrap peer says itself who it is.
pub(crate) fn register_node<T>(request: &Request<T>) -> Result<(Origin, NodeId), Status> {
    let peer = aos_ipc::peer(request)?;
    let origin = match peer.kind {
        CertKind::Iam => Origin::Member,
        CertKind::Bootstrap => Origin::Bootstrap,
        _ => {
            return Err(denied(
                peer,
                "register a Node: the `iam` certificate of the Node can",
            ));
        }
    };
    match &peer.node_id {
        Some(node) => Ok((origin, node.clone())),
        None => Err(denied(peer, "register a Node: it names none")),
    }
}

/// Calls that provision `node` and renew its certificates: CM, or a holder of the bootstrap key as long as the Node is
/// unprovisioned.
pub(crate) async fn provision<T>(
    request: &Request<T>,
    this: &ThisNode,
    nodes: &Nodes,
    node: &NodeId,
) -> Result<(), Status> {
    let peer = aos_ipc::peer(request)?;
    if peer.kind != CertKind::Bootstrap {
        return manage(request, this);
    }
    match nodes.get(node).await.map(|info| info.state) {
        None | Some(NodeState::Unprovisioned) => Ok(()),
        Some(_) => Err(denied(
            peer,
            "touch a Node that is provisioned: this Unit belongs to a cloud already. To begin anew, stop aos and remove the state folders of its components",
        )),
    }
}

/// Calls that manage Nodes: CM of the main Node.
pub(crate) fn manage<T>(request: &Request<T>, this: &ThisNode) -> Result<(), Status> {
    let peer = aos_ipc::peer(request)?;
    if peer.kind == CertKind::Cm && on_this_node(peer, this) {
        Ok(())
    } else {
        Err(denied(
            peer,
            "manage Nodes: the `cm` certificate of the main Node can",
        ))
    }
}

/// Calls that register instances: SM of this Node.
pub(crate) fn instances<T>(request: &Request<T>, this: &ThisNode) -> Result<(), Status> {
    let peer = aos_ipc::peer(request)?;
    if peer.kind == CertKind::Sm && on_this_node(peer, this) {
        Ok(())
    } else {
        Err(denied(
            peer,
            "register instances: the `sm` certificate of this Node can",
        ))
    }
}

fn on_this_node(peer: &PeerIdentity, this: &ThisNode) -> bool {
    peer.node_id.as_ref() == Some(&this.info().id)
}

fn denied(peer: &PeerIdentity, what: &str) -> Status {
    Status::permission_denied(format!("the peer is {peer}; it may not {what}"))
}
