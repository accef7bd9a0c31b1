use std::time::Duration;

use aos_ipc::{
    convert::ident_to_proto,
    proto::iamanager::v6::{
        Permissions as Rights, RegisterInstanceRequest, UnregisterInstanceRequest,
        iam_permissions_service_client::IamPermissionsServiceClient,
    },
};
use aos_pki::ClientTls;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemConfig};
use tonic::transport::Channel;

/// How long one call to IAM may take.
const CALL: Duration = Duration::from_secs(10);

/// Registers what instances may do at functional servers with this Node's IAM.
#[derive(Debug, Clone)]
pub(crate) struct Permissions {
    pub(crate) iam_protected: String,
    pub(crate) tls: ClientTls,
}

impl Permissions {
    /// The secret by which functional servers know the instance; none if it has no permissions.
    pub(crate) async fn register(
        &self,
        ident: &InstanceIdent,
        item: &ItemConfig,
    ) -> Result<Option<String>, ErrorInfo> {
        if item.permissions.is_empty() {
            return Ok(None);
        }
        let permissions = item
            .permissions
            .iter()
            .map(|(server, functions)| {
                let rights = Rights {
                    permissions: functions
                        .iter()
                        .map(|(function, right)| (function.clone(), right.clone()))
                        .collect(),
                };
                (server.clone(), rights)
            })
            .collect();
        let request = RegisterInstanceRequest {
            instance: Some(ident_to_proto(ident)),
            permissions,
        };
        let answer = self
            .client()
            .await?
            .register_instance(aos_ipc::within(CALL, request))
            .await
            .map_err(|status| failed("register its permissions", &aos_ipc::reason(&status)))?;
        Ok(Some(answer.into_inner().secret))
    }

    /// Forgets the instance. IAM may not know it, or be away: its secret is of no use without the instance.
    pub(crate) async fn unregister(&self, ident: &InstanceIdent) {
        let Ok(mut client) = self.client().await else {
            return;
        };
        let request = UnregisterInstanceRequest {
            instance: Some(ident_to_proto(ident)),
        };
        if let Err(status) = client
            .unregister_instance(aos_ipc::within(CALL, request))
            .await
        {
            tracing::debug!(%ident, why = aos_ipc::reason(&status), "permissions stay registered");
        }
    }

    async fn client(&self) -> Result<IamPermissionsServiceClient<Channel>, ErrorInfo> {
        let channel = aos_ipc::connect(&self.iam_protected, &self.tls)
            .await
            .map_err(|error| failed("be reached", &error.to_string()))?;
        Ok(IamPermissionsServiceClient::new(channel))
    }
}

fn failed(doing: &str, why: &str) -> ErrorInfo {
    ErrorInfo::new(AosCode::Failed, format!("IAM cannot {doing}: {why}"))
}
