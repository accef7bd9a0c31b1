use std::sync::Arc;

use aos_ipc::{
    convert::error_to_proto,
    proto::iamanager::v6::{
        self as pb, iam_incoming_messages::IamIncomingMessage as Order,
        iam_outgoing_messages::IamOutgoingMessage as Answer,
    },
};
use aos_store::Records;
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, NodeInfo, NodeState};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::{Keys, cert_info_to_proto};

/// The state as it is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StoredState {
    state: NodeState,
}

/// This Node: its info, its state and its keys.
#[derive(Clone)]
pub(crate) struct ThisNode {
    info: watch::Sender<NodeInfo>,
    pub keys: Keys,
    records: Records<StoredState>,
    /// One order at a time: a state is looked at and changed without another order between.
    turn: Arc<Mutex<()>>,
}

impl ThisNode {
    /// Takes up the state that was stored.
    pub async fn load(
        mut info: NodeInfo,
        keys: Keys,
        records: Records<StoredState>,
    ) -> Result<Self, aos_store::Error> {
        if let Some(stored) = records.get("this").await? {
            info.state = stored.state;
        }
        Ok(Self {
            info: watch::Sender::new(info),
            keys,
            records,
            turn: Arc::default(),
        })
    }

    /// The Node as it is.
    pub fn info(&self) -> NodeInfo {
        self.info.borrow().clone()
    }

    /// Tells when it changes.
    pub fn subscribe(&self) -> watch::Receiver<NodeInfo> {
        self.info.subscribe()
    }

    /// Whether it takes part in its Unit.
    pub fn is_provisioned(&self) -> bool {
        self.info.borrow().state != NodeState::Unprovisioned
    }

    /// Carries out an order of the main Node's IAM; its own, if this is the main Node. States are checked alike on all
    /// Nodes (`docs/protocol/grpc.md`).
    pub async fn handle(&self, order: Order) -> Answer {
        let _turn = self.turn.lock().await;
        let error = |result: Result<(), ErrorInfo>| error_to_proto(result.err().as_ref());
        match order {
            Order::GetCertTypesRequest(_) => Answer::CertTypesResponse(pb::CertTypes {
                types: self.keys.kinds(),
            }),
            Order::StartProvisioningRequest(_) => {
                let error = error(self.start().await);
                Answer::StartProvisioningResponse(pb::StartProvisioningResponse { error })
            }
            Order::FinishProvisioningRequest(_) => {
                let error = error(self.finish().await);
                Answer::FinishProvisioningResponse(pb::FinishProvisioningResponse { error })
            }
            Order::DeprovisionRequest(_) => {
                let error = error(self.deprovision().await);
                Answer::DeprovisionResponse(pb::DeprovisionResponse { error })
            }
            Order::PauseNodeRequest(_) => {
                let error = error(self.change(NodeState::Provisioned, NodeState::Paused).await);
                Answer::PauseNodeResponse(pb::PauseNodeResponse { error })
            }
            Order::ResumeNodeRequest(_) => {
                let error = error(self.change(NodeState::Paused, NodeState::Provisioned).await);
                Answer::ResumeNodeResponse(pb::ResumeNodeResponse { error })
            }
            Order::CreateKeyRequest(request) => {
                let made = self.keys.create(&request.r#type, request.subject).await;
                Answer::CreateKeyResponse(pb::CreateKeyResponse {
                    node_id: self.info().id.to_string(),
                    r#type: request.r#type,
                    error: error_to_proto(made.as_ref().err()),
                    csr: made.unwrap_or_default(),
                })
            }
            Order::ApplyCertRequest(request) => {
                let now = SystemClock.now();
                let taken = self.keys.apply(&request.r#type, request.cert, now).await;
                Answer::ApplyCertResponse(pb::ApplyCertResponse {
                    node_id: self.info().id.to_string(),
                    error: error_to_proto(taken.as_ref().err()),
                    cert_info: taken.ok().map(cert_info_to_proto),
                })
            }
        }
    }

    async fn start(&self) -> Result<(), ErrorInfo> {
        self.expect(&[NodeState::Unprovisioned])?;
        self.keys.wipe().await
    }

    async fn finish(&self) -> Result<(), ErrorInfo> {
        self.expect(&[NodeState::Unprovisioned])?;
        let missing = self.keys.missing().await?;
        if !missing.is_empty() {
            return Err(ErrorInfo::new(
                AosCode::WrongState,
                format!(
                    "certificates of these types are still missing: {}",
                    missing.join(", ")
                ),
            ));
        }
        self.enter(NodeState::Provisioned).await
    }

    async fn deprovision(&self) -> Result<(), ErrorInfo> {
        self.expect(&[NodeState::Provisioned, NodeState::Paused])?;
        // The state first: a power cut between the two leaves a Node that can be provisioned again, which wipes too.
        self.enter(NodeState::Unprovisioned).await?;
        self.keys.wipe().await
    }

    async fn change(&self, from: NodeState, to: NodeState) -> Result<(), ErrorInfo> {
        if self.info.borrow().state == to {
            return Ok(());
        }
        self.expect(&[from])?;
        self.enter(to).await
    }

    fn expect(&self, states: &[NodeState]) -> Result<(), ErrorInfo> {
        let (id, state) = {
            let info = self.info.borrow();
            (info.id.clone(), info.state)
        };
        if states.contains(&state) {
            return Ok(());
        }
        let wanted: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        Err(ErrorInfo::new(
            AosCode::WrongState,
            format!(
                "node {id} is {state}; it must be {} for this",
                wanted.join(" or ")
            ),
        ))
    }

    async fn enter(&self, state: NodeState) -> Result<(), ErrorInfo> {
        self.records
            .put("this", &StoredState { state })
            .await
            .map_err(|error| ErrorInfo::from_error(AosCode::Runtime, &error))?;
        tracing::info!(%state, "this Node changed its state");
        self.info.send_modify(|info| info.state = state);
        Ok(())
    }
}
