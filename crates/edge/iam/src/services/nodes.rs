use std::{sync::Arc, time::Duration};

use aos_ipc::{
    convert::{node_info_from_proto, node_info_to_proto},
    proto::iamanager::v6::{
        self as pb, iam_outgoing_messages::IamOutgoingMessage as Answer,
        iam_public_nodes_service_server::IamPublicNodesService,
    },
};
use aos_types::{NodeId, NodeInfo};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    access,
    feed::{Feed, Feeds},
    status,
};
use crate::{
    node::ThisNode,
    nodes::{Link, Nodes, Origin},
};

/// How long a new stream may take to say which Node it is.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// The Nodes of the Unit, for reading, and the streams of the other Nodes.
pub(super) struct NodesService {
    pub this: ThisNode,
    pub nodes: Nodes,
    pub feeds: Feeds,
}

#[tonic::async_trait]
impl IamPublicNodesService for NodesService {
    async fn get_all_node_i_ds(&self, _: Request<()>) -> Result<Response<pb::NodesId>, Status> {
        let all = self.nodes.all().await;
        Ok(Response::new(pb::NodesId {
            ids: all.iter().map(|node| node.id.to_string()).collect(),
        }))
    }

    async fn get_node_info(
        &self,
        request: Request<pb::GetNodeInfoRequest>,
    ) -> Result<Response<pb::NodeInfo>, Status> {
        let id = request.into_inner().node_id;
        let id = NodeId::new(id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = self.nodes.get(&id).await;
        let found = found.ok_or_else(|| Status::not_found(format!("node {id} is not known")))?;
        Ok(Response::new(node_info_to_proto(&found)))
    }

    type SubscribeNodeChangedStream = Feed<pb::NodeInfo>;

    async fn subscribe_node_changed(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::SubscribeNodeChangedStream>, Status> {
        let (mut this, mut others) = (self.this.subscribe(), self.nodes.changes());
        this.mark_unchanged();
        let nodes = self.nodes.clone();
        Ok(self.feeds.open(|sender| async move {
            loop {
                // Both arms are cancel-safe: a change not taken stays in its channel.
                let changed = tokio::select! {
                    changed = this.changed() => match changed {
                        Ok(()) => vec![this.borrow_and_update().clone()],
                        Err(_) => return,
                    },
                    changed = others.recv() => match changed {
                        Ok(info) => vec![info],
                        Err(RecvError::Lagged(_)) => nodes.all().await,
                        Err(RecvError::Closed) => return,
                    },
                };
                for info in changed {
                    if sender.send(Ok(node_info_to_proto(&info))).await.is_err() {
                        return;
                    }
                }
            }
        }))
    }

    type RegisterNodeStream = Feed<pb::IamIncomingMessages>;

    async fn register_node(
        &self,
        request: Request<Streaming<pb::IamOutgoingMessages>>,
    ) -> Result<Response<Self::RegisterNodeStream>, Status> {
        let (origin, node) = access::register_node(&request)?;
        let mut incoming = request.into_inner();
        let (nodes, cut) = (self.nodes.clone(), self.feeds.stop.child_token());
        let (outgoing, orders) = mpsc::channel(16);
        // Not an ordinary feed: whatever ends the stream, the Node must be marked as not connected.
        self.feeds.tasks.spawn(async move {
            let link = Arc::new(Link::new(outgoing.clone(), cut));
            // The state machine of the stream is large, so it lives on the heap.
            let served = Box::pin(serve_node(&nodes, origin, &node, &mut incoming, &link)).await;
            nodes.disconnect(&node, &link).await;
            link.cut.cancel();
            if let Err(refused) = served {
                tracing::warn!(%node, reason = refused.message(), "a Node's stream was refused");
                let _ = outgoing.try_send(Err(refused));
            }
        });
        Ok(Response::new(ReceiverStream::new(orders)))
    }
}

/// Reads a Node's stream until it ends or is cut.
async fn serve_node(
    nodes: &Nodes,
    origin: Origin,
    node: &NodeId,
    incoming: &mut Streaming<pb::IamOutgoingMessages>,
    link: &Arc<Link>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the stream's first message did not come"))?;
    let Ok(Some(first)) = first else {
        return Ok(());
    };
    let Some(Answer::NodeInfo(info)) = first.iam_outgoing_message else {
        return Err(Status::invalid_argument(
            "the first message of the stream must be node_info",
        ));
    };
    let info = own(node, info)?;
    nodes
        .connect(origin, info, link)
        .await
        .map_err(|error| status(&error))?;
    loop {
        // Cancel-safe: a stream that is cut loses what was on its way, as by a lost connection.
        let message = tokio::select! {
            message = incoming.message() => message,
            () = link.gone() => return Ok(()),
            () = link.cut.cancelled() => {
                return Err(Status::aborted("another stream of this Node took the place of this one, or IAM stops"));
            }
        };
        let Ok(Some(message)) = message else {
            return Ok(());
        };
        match message.iam_outgoing_message {
            Some(Answer::NodeInfo(info)) => nodes.update(origin, own(node, info)?, link).await,
            Some(answer) => nodes.answered(node, answer, link).await,
            None => tracing::warn!(%node, "a Node sent a message that is not known here"),
        }
    }
}

/// Reads a Node's info and refuses that of another one.
fn own(node: &NodeId, info: pb::NodeInfo) -> Result<NodeInfo, Status> {
    let info = node_info_from_proto(info)?;
    if info.id == *node {
        return Ok(info);
    }
    Err(Status::permission_denied(format!(
        "the certificate is of node {node}, the message speaks for node {}",
        info.id
    )))
}
