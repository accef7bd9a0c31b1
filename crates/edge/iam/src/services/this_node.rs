use aos_ipc::{
    convert::node_info_to_proto,
    proto::iamanager::v6::{
        self as pb, iam_public_cert_service_server::IamPublicCertService,
        iam_public_current_node_service_server::IamPublicCurrentNodeService,
    },
};
use aos_pki::CertQuery;
use tonic::{Request, Response, Status};

use super::{
    feed::{Feed, Feeds},
    status,
};
use crate::node::{ThisNode, cert_info_to_proto};

/// This Node and its certificates, for reading.
#[derive(Clone)]
pub(super) struct CurrentNode {
    pub this: ThisNode,
    pub feeds: Feeds,
}

#[tonic::async_trait]
impl IamPublicCurrentNodeService for CurrentNode {
    async fn get_current_node_info(
        &self,
        _: Request<()>,
    ) -> Result<Response<pb::NodeInfo>, Status> {
        Ok(Response::new(node_info_to_proto(&self.this.info())))
    }

    type SubscribeCurrentNodeChangedStream = Feed<pb::NodeInfo>;

    async fn subscribe_current_node_changed(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::SubscribeCurrentNodeChangedStream>, Status> {
        let mut info = self.this.subscribe();
        info.mark_unchanged();
        Ok(self.feeds.open(|sender| async move {
            while info.changed().await.is_ok() {
                let message = node_info_to_proto(&info.borrow_and_update());
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }))
    }
}

#[tonic::async_trait]
impl IamPublicCertService for CurrentNode {
    async fn get_cert(
        &self,
        request: Request<pb::GetCertRequest>,
    ) -> Result<Response<pb::CertInfo>, Status> {
        let request = request.into_inner();
        let query = CertQuery {
            issuer: request.issuer,
            serial: request.serial,
        };
        let found = self.this.keys.find(&request.r#type, query).await;
        let found = found.map_err(|error| status(&error))?;
        Ok(Response::new(cert_info_to_proto(found)))
    }

    type SubscribeCertChangedStream = Feed<pb::CertInfo>;

    async fn subscribe_cert_changed(
        &self,
        request: Request<pb::SubscribeCertChangedRequest>,
    ) -> Result<Response<Self::SubscribeCertChangedStream>, Status> {
        let kind = request.into_inner().r#type;
        if !self.this.keys.kinds().contains(&kind) {
            return Err(Status::not_found(format!(
                "this Node keeps no certificates of type {}",
                kind.chars().take(64).collect::<String>()
            )));
        }
        let keys = self.this.keys.clone();
        let mut changes = keys.changes();
        changes.mark_unchanged();
        let mut last = keys.find(&kind, CertQuery::default()).await.ok();
        Ok(self.feeds.open(|sender| async move {
            while changes.changed().await.is_ok() {
                let Ok(present) = keys.find(&kind, CertQuery::default()).await else {
                    last = None;
                    continue;
                };
                if last.as_ref() != Some(&present) {
                    last = Some(present.clone());
                    if sender.send(Ok(cert_info_to_proto(present))).await.is_err() {
                        return;
                    }
                }
            }
        }))
    }
}
