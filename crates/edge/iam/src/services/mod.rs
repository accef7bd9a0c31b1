//! What IAM offers by gRPC. Each service is a thin layer: it says who may call, reads the message, and asks the parts that
//! know.

pub(crate) mod access;
mod certificates;
mod feed;
mod identity;
mod nodes;
mod permissions;
mod this_node;

use aos_ipc::proto::iamanager::{
    iam_version_service_server::IamVersionServiceServer,
    v6::{
        iam_certificate_service_server::IamCertificateServiceServer,
        iam_nodes_service_server::IamNodesServiceServer,
        iam_permissions_service_server::IamPermissionsServiceServer,
        iam_provisioning_service_server::IamProvisioningServiceServer,
        iam_public_cert_service_server::IamPublicCertServiceServer,
        iam_public_current_node_service_server::IamPublicCurrentNodeServiceServer,
        iam_public_identity_service_server::IamPublicIdentityServiceServer,
        iam_public_nodes_service_server::IamPublicNodesServiceServer,
        iam_public_permissions_service_server::IamPublicPermissionsServiceServer,
    },
};
use aos_types::{AosCode, ErrorInfo};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Status,
    service::{Routes, RoutesBuilder},
};

pub(crate) use self::identity::Identity;
use self::{
    certificates::Certificates, feed::Feeds, nodes::NodesService, permissions::PermissionsService,
    this_node::CurrentNode,
};
use crate::{node::ThisNode, nodes::Nodes, permissions::Permissions};

/// All parts that services ask.
#[derive(Clone)]
pub(crate) struct Services {
    this: ThisNode,
    permissions: Permissions,
    main: Option<(Nodes, Identity)>,
    feeds: Feeds,
}

impl Services {
    pub fn new(this: ThisNode, permissions: Permissions, main: Option<(Nodes, Identity)>) -> Self {
        Self {
            this,
            permissions,
            main,
            feeds: Feeds::default(),
        }
    }

    /// Gives the streams their owner and their end.
    pub fn running(mut self, tasks: TaskTracker, stop: CancellationToken) -> Self {
        self.feeds = Feeds { tasks, stop };
        self
    }

    /// What anyone may call.
    pub fn public(&self) -> Routes {
        self.reading().routes()
    }

    /// What holders of a certificate may call.
    pub fn protected(&self) -> Routes {
        let mut routes = self.reading();
        routes.add_service(IamPermissionsServiceServer::new(self.permissions()));
        if let Some((nodes, identity)) = &self.main {
            let certificates = Certificates {
                this: self.this.clone(),
                nodes: nodes.clone(),
                identity: identity.clone(),
            };
            routes
                .add_service(IamNodesServiceServer::new(certificates.clone()))
                .add_service(IamProvisioningServiceServer::new(certificates.clone()))
                .add_service(IamCertificateServiceServer::new(certificates));
        }
        routes.routes()
    }

    fn permissions(&self) -> PermissionsService {
        PermissionsService {
            this: self.this.clone(),
            permissions: self.permissions.clone(),
        }
    }

    fn reading(&self) -> RoutesBuilder {
        let current = CurrentNode {
            this: self.this.clone(),
            feeds: self.feeds.clone(),
        };
        let mut routes = Routes::builder();
        routes
            .add_service(IamVersionServiceServer::new(identity::Version))
            .add_service(IamPublicCurrentNodeServiceServer::new(current.clone()))
            .add_service(IamPublicCertServiceServer::new(current))
            .add_service(IamPublicPermissionsServiceServer::new(self.permissions()));
        if let Some((nodes, identity)) = &self.main {
            routes
                .add_service(IamPublicIdentityServiceServer::new(
                    identity::IdentityService {
                        identity: identity.clone(),
                        feeds: self.feeds.clone(),
                    },
                ))
                .add_service(IamPublicNodesServiceServer::new(NodesService {
                    this: self.this.clone(),
                    nodes: nodes.clone(),
                    feeds: self.feeds.clone(),
                }));
        }
        routes
    }
}

/// An error where the answer has no field for it.
pub(crate) fn status(error: &ErrorInfo) -> Status {
    let text = error.to_string();
    match error.aos_code {
        code if code == AosCode::NotFound as i32 => Status::not_found(text),
        code if code == AosCode::InvalidArgument as i32 => Status::invalid_argument(text),
        code if code == AosCode::NotSupported as i32 => Status::not_found(text),
        code if code == AosCode::WrongState as i32 => Status::failed_precondition(text),
        code if code == AosCode::OutOfRange as i32 => Status::resource_exhausted(text),
        code if code == AosCode::Timeout as i32 => Status::deadline_exceeded(text),
        _ => Status::internal(text),
    }
}
