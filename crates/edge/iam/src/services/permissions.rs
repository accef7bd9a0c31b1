use std::collections::HashMap;

use aos_ipc::{
    convert::{ident_from_proto, ident_to_proto},
    proto::iamanager::v6::{
        self as pb, iam_permissions_service_server::IamPermissionsService,
        iam_public_permissions_service_server::IamPublicPermissionsService,
    },
};
use tonic::{Request, Response, Status};

use super::{access, status};
use crate::{
    node::ThisNode,
    permissions::{Permissions, Rights},
};

#[derive(Clone)]
pub(super) struct PermissionsService {
    pub this: ThisNode,
    pub permissions: Permissions,
}

#[tonic::async_trait]
impl IamPublicPermissionsService for PermissionsService {
    async fn get_permissions(
        &self,
        request: Request<pb::PermissionsRequest>,
    ) -> Result<Response<pb::PermissionsResponse>, Status> {
        let request = request.into_inner();
        let found = self
            .permissions
            .find(&request.secret, &request.functional_server_id)
            .await;
        let (ident, functions) = found.map_err(|error| status(&error))?;
        Ok(Response::new(pb::PermissionsResponse {
            instance: Some(ident_to_proto(&ident)),
            permissions: Some(pb::Permissions {
                permissions: functions.into_iter().collect(),
            }),
        }))
    }
}

#[tonic::async_trait]
impl IamPermissionsService for PermissionsService {
    async fn register_instance(
        &self,
        request: Request<pb::RegisterInstanceRequest>,
    ) -> Result<Response<pb::RegisterInstanceResponse>, Status> {
        access::instances(&request, &self.this)?;
        let request = request.into_inner();
        let ident = ident_from_proto(request.instance)?;
        let secret = self
            .permissions
            .register(ident, rights(request.permissions))
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(pb::RegisterInstanceResponse { secret }))
    }

    async fn unregister_instance(
        &self,
        request: Request<pb::UnregisterInstanceRequest>,
    ) -> Result<Response<()>, Status> {
        access::instances(&request, &self.this)?;
        let ident = ident_from_proto(request.into_inner().instance)?;
        self.permissions
            .unregister(&ident)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(()))
    }
}

fn rights(permissions: HashMap<String, pb::Permissions>) -> Rights {
    permissions
        .into_iter()
        .map(|(server, functions)| (server, functions.permissions.into_iter().collect()))
        .collect()
}
