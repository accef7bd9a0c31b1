use aos_ipc::{
    convert::error_to_proto,
    proto::iamanager::v6::{
        self as pb, iam_certificate_service_server::IamCertificateService,
        iam_incoming_messages::IamIncomingMessage as Order,
        iam_nodes_service_server::IamNodesService,
        iam_outgoing_messages::IamOutgoingMessage as Answer,
        iam_provisioning_service_server::IamProvisioningService,
    },
};
use aos_types::{ErrorInfo, NodeId};
use tonic::{Request, Response, Status};

use super::{access, identity::Identity, status};
use crate::{
    node::ThisNode,
    nodes::{CallError, Nodes},
};

/// Longest subject and certificate chain accepted, in bytes.
const MAX_SUBJECT: usize = 256;
const MAX_CHAIN: usize = 256 * 1024;

/// Orders to Nodes: provisioning, certificates, pausing.
#[derive(Clone)]
pub(super) struct Certificates {
    pub this: ThisNode,
    pub nodes: Nodes,
    pub identity: Identity,
}

/// The field of an answer for an order that its Node did not carry out.
fn failed(error: &CallError) -> Option<aos_ipc::proto::common::v2::ErrorInfo> {
    error_to_proto(Some(&ErrorInfo::from_error(error.code(), error)))
}

impl Certificates {
    /// The Node a request names; an empty id is this Node.
    fn node(&self, id: &str) -> Result<NodeId, Status> {
        if id.is_empty() {
            return Ok(self.this.info().id);
        }
        NodeId::new(id).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    async fn call(&self, node: &NodeId, order: Order) -> Result<Answer, CallError> {
        let order_of = self.nodes.call(node, order);
        // Boxed: the state of an order on its way is large.
        Box::pin(order_of).await
    }

    fn confused(node: &NodeId) -> CallError {
        CallError::Confused(node.clone())
    }
}

/// Calls whose answer is an error and nothing else: gives the body of the method.
macro_rules! order {
    ($self:ident, $node:ident, $order:expr, $answer:ident, $response:ident) => {{
        let error = match $self.call(&$node, $order).await {
            Ok(Answer::$answer(answer)) => return Ok(Response::new(answer)),
            Ok(_) => failed(&Self::confused(&$node)),
            Err(error) => failed(&error),
        };
        Ok(Response::new(pb::$response { error }))
    }};
}

#[tonic::async_trait]
impl IamNodesService for Certificates {
    async fn pause_node(
        &self,
        request: Request<pb::PauseNodeRequest>,
    ) -> Result<Response<pb::PauseNodeResponse>, Status> {
        access::manage(&request, &self.this)?;
        let request = request.into_inner();
        let node = self.node(&request.node_id)?;
        let order = Order::PauseNodeRequest(request);
        order!(self, node, order, PauseNodeResponse, PauseNodeResponse)
    }

    async fn resume_node(
        &self,
        request: Request<pb::ResumeNodeRequest>,
    ) -> Result<Response<pb::ResumeNodeResponse>, Status> {
        access::manage(&request, &self.this)?;
        let request = request.into_inner();
        let node = self.node(&request.node_id)?;
        let order = Order::ResumeNodeRequest(request);
        order!(self, node, order, ResumeNodeResponse, ResumeNodeResponse)
    }
}

#[tonic::async_trait]
impl IamProvisioningService for Certificates {
    async fn get_cert_types(
        &self,
        request: Request<pb::GetCertTypesRequest>,
    ) -> Result<Response<pb::CertTypes>, Status> {
        let node = self.node(&request.get_ref().node_id)?;
        access::provision(&request, &self.this, &self.nodes, &node).await?;
        let order = Order::GetCertTypesRequest(request.into_inner());
        let error = match self.call(&node, order).await {
            Ok(Answer::CertTypesResponse(types)) => return Ok(Response::new(types)),
            Ok(_) => Self::confused(&node),
            Err(error) => error,
        };
        Err(status(&ErrorInfo::from_error(error.code(), &error)))
    }

    async fn start_provisioning(
        &self,
        request: Request<pb::StartProvisioningRequest>,
    ) -> Result<Response<pb::StartProvisioningResponse>, Status> {
        let node = self.node(&request.get_ref().node_id)?;
        access::provision(&request, &self.this, &self.nodes, &node).await?;
        let order = Order::StartProvisioningRequest(request.into_inner());
        order!(
            self,
            node,
            order,
            StartProvisioningResponse,
            StartProvisioningResponse
        )
    }

    async fn finish_provisioning(
        &self,
        request: Request<pb::FinishProvisioningRequest>,
    ) -> Result<Response<pb::FinishProvisioningResponse>, Status> {
        let node = self.node(&request.get_ref().node_id)?;
        access::provision(&request, &self.this, &self.nodes, &node).await?;
        let order = Order::FinishProvisioningRequest(request.into_inner());
        order!(
            self,
            node,
            order,
            FinishProvisioningResponse,
            FinishProvisioningResponse
        )
    }

    async fn deprovision(
        &self,
        request: Request<pb::DeprovisionRequest>,
    ) -> Result<Response<pb::DeprovisionResponse>, Status> {
        access::manage(&request, &self.this)?;
        let request = request.into_inner();
        let node = self.node(&request.node_id)?;
        let order = Order::DeprovisionRequest(request);
        order!(self, node, order, DeprovisionResponse, DeprovisionResponse)
    }
}

#[tonic::async_trait]
impl IamCertificateService for Certificates {
    async fn create_key(
        &self,
        request: Request<pb::CreateKeyRequest>,
    ) -> Result<Response<pb::CreateKeyResponse>, Status> {
        let node = self.node(&request.get_ref().node_id)?;
        access::provision(&request, &self.this, &self.nodes, &node).await?;
        let mut request = request.into_inner();
        if request.subject.len() > MAX_SUBJECT {
            return Err(Status::invalid_argument(format!(
                "the subject is longer than {MAX_SUBJECT} bytes"
            )));
        }
        if request.subject.is_empty() {
            request.subject = self.identity.system_id.to_string();
        }
        let kind = request.r#type.clone();
        let error = match self.call(&node, Order::CreateKeyRequest(request)).await {
            Ok(Answer::CreateKeyResponse(made)) => return Ok(Response::new(made)),
            Ok(_) => Self::confused(&node),
            Err(error) => error,
        };
        Ok(Response::new(pb::CreateKeyResponse {
            node_id: node.to_string(),
            r#type: kind,
            csr: String::new(),
            error: failed(&error),
        }))
    }

    async fn apply_cert(
        &self,
        request: Request<pb::ApplyCertRequest>,
    ) -> Result<Response<pb::ApplyCertResponse>, Status> {
        let node = self.node(&request.get_ref().node_id)?;
        access::provision(&request, &self.this, &self.nodes, &node).await?;
        let request = request.into_inner();
        if request.cert.len() > MAX_CHAIN {
            return Err(Status::invalid_argument(format!(
                "the certificate chain is longer than {MAX_CHAIN} bytes"
            )));
        }
        let error = match self.call(&node, Order::ApplyCertRequest(request)).await {
            Ok(Answer::ApplyCertResponse(taken)) => return Ok(Response::new(taken)),
            Ok(_) => Self::confused(&node),
            Err(error) => error,
        };
        Ok(Response::new(pb::ApplyCertResponse {
            node_id: node.to_string(),
            cert_info: None,
            error: failed(&error),
        }))
    }
}
