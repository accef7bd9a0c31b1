use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_ipc::{
    convert::{error_from_proto, node_info_to_proto},
    proto::iamanager::v6::{
        self as pb, iam_incoming_messages::IamIncomingMessage as Order,
        iam_outgoing_messages::IamOutgoingMessage as Answer,
    },
};
use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, NodeId, NodeInfo, NodeState};
use tokio::sync::{Mutex, broadcast, watch};

use super::{Link, link::NoAnswer};
use crate::node::ThisNode;

/// How long an order waits for its Node to connect.
const WAIT_FOR_NODE: Duration = Duration::from_secs(15);
/// Changes a subscriber may lag behind before it is told everything again.
const CHANGES: usize = 64;
/// Nodes a Unit may have.
const MAX_NODES: usize = 1024;

/// Whose stream a Node's info came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A holder of the bootstrap key: it may speak for unprovisioned Nodes only.
    Bootstrap,
    /// The Node's own `iam` certificate.
    Member,
}

/// An order could not be carried out by its Node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("node {0} is not known")]
    Unknown(NodeId),
    #[error("node {0} is not connected; check that its IAM runs and reaches this one")]
    NotConnected(NodeId),
    #[error("node {0} did not answer in time")]
    TooLate(NodeId),
    #[error("node {0} answered something else than it was asked")]
    Confused(NodeId),
}

impl CallError {
    pub fn code(&self) -> AosCode {
        match self {
            Self::Unknown(_) => AosCode::NotFound,
            Self::TooLate(_) => AosCode::Timeout,
            Self::NotConnected(_) | Self::Confused(_) => AosCode::Failed,
        }
    }
}

/// All Nodes of the Unit. The main Node is one of them.
#[derive(Clone)]
pub(crate) struct Nodes {
    this: ThisNode,
    inner: Arc<Inner>,
}

struct Inner {
    records: Records<NodeInfo>,
    known: Mutex<BTreeMap<NodeId, Known>>,
    changes: broadcast::Sender<NodeInfo>,
    /// Counts connections; orders that wait for a Node look again at each.
    connections: watch::Sender<u64>,
}

struct Known {
    info: NodeInfo,
    link: Option<Arc<Link>>,
}

impl Nodes {
    /// Takes up the Nodes that were stored: those that are not unprovisioned.
    pub async fn load(
        this: ThisNode,
        records: Records<NodeInfo>,
    ) -> Result<Self, aos_store::Error> {
        let known = records.all().await?;
        let known = known.into_iter().map(|(_, info)| {
            let known = Known { info, link: None };
            (known.info.id.clone(), known)
        });
        let inner = Inner {
            known: Mutex::new(known.collect()),
            records,
            changes: broadcast::Sender::new(CHANGES),
            connections: watch::Sender::new(0),
        };
        Ok(Self {
            this,
            inner: Arc::new(inner),
        })
    }

    /// All Nodes, the main one first.
    pub async fn all(&self) -> Vec<NodeInfo> {
        let known = self.inner.known.lock().await;
        std::iter::once(self.this.info())
            .chain(known.values().map(|known| known.info.clone()))
            .collect()
    }

    /// One Node.
    pub async fn get(&self, id: &NodeId) -> Option<NodeInfo> {
        let this = self.this.info();
        if this.id == *id {
            return Some(this);
        }
        let known = self.inner.known.lock().await;
        known.get(id).map(|known| known.info.clone())
    }

    /// Tells each change of a Node other than the main one.
    pub fn changes(&self) -> broadcast::Receiver<NodeInfo> {
        self.inner.changes.subscribe()
    }

    /// Binds a stream to the Node it claims to be; a former stream of that Node is cut. Says why it may not be.
    pub async fn connect(
        &self,
        origin: Origin,
        info: NodeInfo,
        link: &Arc<Link>,
    ) -> Result<(), ErrorInfo> {
        let id = info.id.clone();
        let wrong = |why: String| Err(ErrorInfo::new(AosCode::WrongState, why));
        if id == self.this.info().id {
            return wrong(format!(
                "node {id} is the main Node; give the other one another id"
            ));
        }
        let mut known = self.inner.known.lock().await;
        let stored = known.get(&id).map(|known| known.info.state);
        match origin {
            Origin::Bootstrap if info.state != NodeState::Unprovisioned => {
                return wrong(format!(
                    "node {id} says it is {}; only an unprovisioned Node registers by the bootstrap key",
                    info.state
                ));
            }
            Origin::Bootstrap if stored.is_some_and(|state| state != NodeState::Unprovisioned) => {
                return wrong(format!(
                    "node {id} is provisioned; deprovision it before it registers by the bootstrap key"
                ));
            }
            Origin::Member if info.state == NodeState::Unprovisioned => {
                return wrong(format!(
                    "node {id} says it is unprovisioned, yet shows a certificate of the Unit"
                ));
            }
            _ => {}
        }
        if stored.is_none() && known.len() >= MAX_NODES {
            return Err(ErrorInfo::new(
                AosCode::OutOfRange,
                format!("{MAX_NODES} Nodes are registered already"),
            ));
        }
        if let Some(former) = known.get_mut(&id).and_then(|known| known.link.take()) {
            former.cut.cancel();
        }
        self.store(&mut known, info, Some(link.clone())).await?;
        tracing::info!(node = %id, ?origin, "a Node registered");
        self.inner.connections.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Takes a Node's new info from its stream. What a bootstrap peer says of its state is not believed: the state follows
    /// from the answers to our orders.
    pub async fn update(&self, origin: Origin, mut info: NodeInfo, link: &Arc<Link>) {
        let mut known = self.inner.known.lock().await;
        let Some(present) = known.get(&info.id) else {
            return;
        };
        if !present
            .link
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, link))
        {
            return;
        }
        if origin == Origin::Bootstrap {
            info.state = present.info.state;
        }
        if let Err(error) = self.store(&mut known, info, Some(link.clone())).await {
            tracing::error!(%error, "a Node's info cannot be stored");
        }
    }

    /// Forgets a stream that ended, unless another took its place. An unprovisioned Node goes with it.
    pub async fn disconnect(&self, id: &NodeId, link: &Arc<Link>) {
        let mut known = self.inner.known.lock().await;
        let Some(present) = known.get_mut(id) else {
            return;
        };
        if !present
            .link
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, link))
        {
            return;
        }
        tracing::info!(node = %id, "a Node's stream ended");
        present.link = None;
        if present.info.state == NodeState::Unprovisioned {
            known.remove(id);
        }
    }

    async fn store(
        &self,
        known: &mut BTreeMap<NodeId, Known>,
        info: NodeInfo,
        link: Option<Arc<Link>>,
    ) -> Result<(), ErrorInfo> {
        let changed = known.get(&info.id).map(|known| &known.info) != Some(&info);
        if changed {
            let key = info.id.to_string();
            let stored = if info.state == NodeState::Unprovisioned {
                self.inner.records.remove(key).await
            } else {
                self.inner.records.put(key, &info).await
            };
            stored.map_err(|error| ErrorInfo::from_error(AosCode::Runtime, &error))?;
        }
        known.insert(
            info.id.clone(),
            Known {
                info: info.clone(),
                link,
            },
        );
        if changed {
            let _ = self.inner.changes.send(info);
        }
        Ok(())
    }

    /// Has a Node carry out an order.
    pub async fn call(&self, id: &NodeId, order: Order) -> Result<Answer, CallError> {
        if self.this.info().id == *id {
            return Ok(self.this.handle(order).await);
        }
        let link = match self.link(id, &order).await? {
            Some(link) => link,
            None => return self.forget(id).await,
        };
        link.call(order).await.map_err(|error| match error {
            NoAnswer::Gone => CallError::NotConnected(id.clone()),
            NoAnswer::TooLate => CallError::TooLate(id.clone()),
        })
    }

    /// Takes over the state that a Node's answer means, then hands it to who asked. In this order: the Node may close its
    /// stream right after the answer.
    pub async fn answered(&self, id: &NodeId, answer: Answer, link: &Link) {
        let Some(asked) = link.waiting_for(&answer) else {
            tracing::warn!(node = %id, "a Node sent an answer that nobody waits for");
            return;
        };
        if let Some(state) = state_after(&answer) {
            self.enter(id, state).await;
        }
        let _ = asked.send(answer);
    }

    /// The Node's stream; waits a while for a Node that is on its way. Nothing for a Node that is to be deprovisioned and
    /// is not there: it is lost, and only to be forgotten.
    async fn link(&self, id: &NodeId, order: &Order) -> Result<Option<Arc<Link>>, CallError> {
        let mut connections = self.inner.connections.subscribe();
        let forget = matches!(order, Order::DeprovisionRequest(_));
        let look = async {
            loop {
                connections.mark_unchanged();
                {
                    let known = self.inner.known.lock().await;
                    match known.get(id) {
                        Some(Known {
                            link: Some(link), ..
                        }) => return Ok(Some(link.clone())),
                        Some(_) if forget => return Ok(None),
                        _ => {}
                    }
                }
                if connections.changed().await.is_err() {
                    return Err(CallError::NotConnected(id.clone()));
                }
            }
        };
        match tokio::time::timeout(WAIT_FOR_NODE, look).await {
            Ok(found) => found,
            Err(_) if self.get(id).await.is_none() => Err(CallError::Unknown(id.clone())),
            Err(_) => Err(CallError::NotConnected(id.clone())),
        }
    }

    async fn forget(&self, id: &NodeId) -> Result<Answer, CallError> {
        self.enter(id, NodeState::Unprovisioned).await;
        self.inner.known.lock().await.remove(id);
        Ok(Answer::DeprovisionResponse(pb::DeprovisionResponse {
            error: None,
        }))
    }

    async fn enter(&self, id: &NodeId, state: NodeState) {
        let mut known = self.inner.known.lock().await;
        let Some(present) = known.get(id) else {
            return;
        };
        let (info, link) = (present.info.clone(), present.link.clone());
        let info = NodeInfo { state, ..info };
        if let Err(error) = self.store(&mut known, info, link).await {
            tracing::error!(node = %id, %error, "a Node's state cannot be stored");
        }
    }
}

/// The state a Node is in after a good answer.
fn state_after(answer: &Answer) -> Option<NodeState> {
    let (error, state) = match answer {
        Answer::FinishProvisioningResponse(one) => (one.error.clone(), NodeState::Provisioned),
        Answer::DeprovisionResponse(one) => (one.error.clone(), NodeState::Unprovisioned),
        Answer::PauseNodeResponse(one) => (one.error.clone(), NodeState::Paused),
        Answer::ResumeNodeResponse(one) => (one.error.clone(), NodeState::Provisioned),
        _ => return None,
    };
    error_from_proto(error).is_none().then_some(state)
}

/// A Node's info as a message of its stream.
pub(crate) fn info_message(info: &NodeInfo) -> pb::IamOutgoingMessages {
    pb::IamOutgoingMessages {
        iam_outgoing_message: Some(Answer::NodeInfo(node_info_to_proto(info))),
    }
}
