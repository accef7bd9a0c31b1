use std::time::Duration;

use aos_ipc::{
    convert::ident_to_proto,
    proto::iamanager::v6::{
        Permissions as Rights, RegisterInstanceRequest, UnregisterInstanceRequest,
        iam_permissions_service_client::IamPermissionsServiceClient,
    },
};
use aos_pki::ClientTls;
use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tonic::{Code, transport::Channel};

use crate::records::Kept;

/// How long one call to IAM may take.
const CALL: Duration = Duration::from_secs(10);

/// Pauses between two attempts to take rights back.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// An instance that has, or may have, rights at IAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    ident: InstanceIdent,
    /// It shall have none any more.
    over: bool,
}

/// Registers what instances may do at functional servers with this Node's IAM, and takes it back.
///
/// The secret of an instance stays the same as long as IAM knows it, and the instance may have kept it. So rights that are
/// over are taken back however long IAM is away: what is registered is stored until IAM has confirmed that it is not.
pub(crate) struct Permissions {
    iam_protected: String,
    tls: ClientTls,
    registered: Records<Registered>,
    /// One call at a time: rights that are given anew are not taken back by an older wish.
    calls: Mutex<()>,
    news: Notify,
}

impl Permissions {
    pub(crate) fn new(
        iam_protected: String,
        tls: ClientTls,
        registered: Records<Registered>,
    ) -> Self {
        Self {
            iam_protected,
            tls,
            registered,
            calls: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// The secret by which functional servers know the instance; none if it has no permissions.
    pub(crate) async fn register(
        &self,
        ident: &InstanceIdent,
        item: &ItemConfig,
    ) -> Result<Option<String>, ErrorInfo> {
        if item.permissions.is_empty() {
            self.take_back(ident).await;
            return Ok(None);
        }
        let _turn = self.calls.lock().await;
        let stored = |error: aos_store::Error| ErrorInfo::from_error(AosCode::Failed, &error);
        let known = self
            .registered
            .get(Kept::key(ident))
            .await
            .map_err(stored)?;
        if known.is_none_or(|known| known.over) {
            // Before the call: its answer may get lost.
            self.put(ident, false).await.map_err(stored)?;
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

    /// An instance that runs already has rights.
    pub(crate) async fn note(&self, ident: &InstanceIdent, item: &ItemConfig) {
        if item.permissions.is_empty() {
            return;
        }
        let known = self.registered.get(Kept::key(ident)).await;
        if let Ok(None) = known
            && let Err(error) = self.put(ident, false).await
        {
            tracing::warn!(%ident, %error, "that it has rights cannot be stored");
        }
    }

    /// The instance is gone, or has no rights any more. IAM is told as soon as it is there.
    pub(crate) async fn take_back(&self, ident: &InstanceIdent) {
        let has = match self.registered.get(Kept::key(ident)).await {
            Ok(known) => known.is_some_and(|known| !known.over),
            Err(error) => {
                tracing::error!(%ident, %error, "nobody knows whether it has rights; they are taken back");
                true
            }
        };
        if !has {
            return;
        }
        if let Err(error) = self.put(ident, true).await {
            tracing::error!(%ident, %error, "its rights may stay");
        }
        self.news.notify_one();
    }

    async fn put(&self, ident: &InstanceIdent, over: bool) -> Result<(), aos_store::Error> {
        let registered = Registered {
            ident: ident.clone(),
            over,
        };
        self.registered.put(Kept::key(ident), &registered).await
    }

    /// Takes rights back that are over, for as long as it lives. Dropping it is safe.
    pub(crate) async fn follow(&self) {
        let [first, longest] = PAUSES;
        let mut pause = first;
        loop {
            let all = self.registered.all().await.unwrap_or_else(|error| {
                tracing::error!(%error, "rights that are over cannot be read");
                Vec::new()
            });
            let mut failed = false;
            for (key, one) in all.into_iter().filter(|(_, one)| one.over) {
                if let Err(error) = self.unregister(&key, &one.ident).await {
                    tracing::warn!(ident = %one.ident, %error, "its rights are taken back later");
                    failed = true;
                }
            }
            if failed {
                // Cancel-safe both.
                let _ = tokio::time::timeout(pause, self.news.notified()).await;
                pause = (pause * 2).min(longest);
            } else {
                pause = first;
                self.news.notified().await;
            }
        }
    }

    async fn unregister(&self, key: &str, ident: &InstanceIdent) -> Result<(), ErrorInfo> {
        let _turn = self.calls.lock().await;
        let stored = |error: aos_store::Error| ErrorInfo::from_error(AosCode::Failed, &error);
        let known = self.registered.get(key).await.map_err(stored)?;
        if known.is_none_or(|known| !known.over) {
            return Ok(());
        }
        let request = UnregisterInstanceRequest {
            instance: Some(ident_to_proto(ident)),
        };
        let answer = self
            .client()
            .await?
            .unregister_instance(aos_ipc::within(CALL, request))
            .await;
        match answer {
            Err(status) if status.code() != Code::NotFound => {
                Err(failed("take rights back", &aos_ipc::reason(&status)))
            }
            _ => self.registered.remove(key).await.map_err(stored),
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
