use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_ipc::{
    convert::{error_from_proto, node_info_from_proto},
    proto::iamanager::v6::{
        ApplyCertRequest, CreateKeyRequest, GetNodeInfoRequest, NodeInfo as PbNodeInfo,
        PauseNodeRequest, ResumeNodeRequest,
        iam_certificate_service_client::IamCertificateServiceClient,
        iam_nodes_service_client::IamNodesServiceClient,
        iam_public_current_node_service_client::IamPublicCurrentNodeServiceClient,
        iam_public_identity_service_client::IamPublicIdentityServiceClient,
        iam_public_nodes_service_client::IamPublicNodesServiceClient,
    },
};
use aos_types::{AosCode, ErrorInfo, NodeId, NodeInfo, SubjectId, SystemId};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::Credentials;
use crate::contract::{Iam, IamNodes};

/// How long one call to IAM may take.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// How long making a key or taking a certificate may take: a secondary Node's IAM does it, and RSA keys take their time.
const CERTIFICATE: Duration = Duration::from_secs(60);
/// The pause between attempts to reach IAM.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows what IAM knows, and asks it to pause and resume Nodes.
#[derive(Debug)]
pub(crate) struct IamClient {
    credentials: Credentials,
    pub(super) public: String,
    protected: String,
    nodes: watch::Sender<Arc<IamNodes>>,
    subjects: watch::Sender<Arc<Vec<SubjectId>>>,
}

/// Who the Unit and this Node are.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) system_id: SystemId,
    pub(crate) node: NodeId,
}

fn failed(doing: &str, why: &str) -> ErrorInfo {
    ErrorInfo::new(AosCode::Failed, format!("IAM cannot {doing}: {why}"))
}

impl IamClient {
    pub(crate) fn new(credentials: Credentials, public: String, protected: String) -> Self {
        Self {
            credentials,
            public,
            protected,
            nodes: watch::channel(Arc::default()).0,
            subjects: watch::channel(Arc::default()).0,
        }
    }

    pub(super) async fn channel(&self, address: &str) -> Result<Channel, String> {
        aos_ipc::connect(address, &self.credentials.iam_tls())
            .await
            .map_err(|error| error.to_string())
    }

    /// Asks until IAM answers who we are. `None` if `stop` comes first.
    pub(crate) async fn own(&self, stop: &CancellationToken) -> Option<Own> {
        loop {
            // A call that is dropped leaves nothing behind.
            let asked = tokio::select! {
                asked = self.ask_own() => asked,
                () = stop.cancelled() => return None,
            };
            match asked {
                Ok(own) => return Some(own),
                Err(why) => tracing::info!(why, "waiting for IAM to say who this Unit is"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    async fn ask_own(&self) -> Result<Own, String> {
        let channel = self.channel(&self.public).await?;
        let mut identity = IamPublicIdentityServiceClient::new(channel.clone());
        let info = identity.get_system_info(aos_ipc::within(CALL, ())).await;
        let info = info
            .map_err(|status| aos_ipc::reason(&status))?
            .into_inner();
        let mut node = IamPublicCurrentNodeServiceClient::new(channel);
        let node = node.get_current_node_info(aos_ipc::within(CALL, ())).await;
        let node = node
            .map_err(|status| aos_ipc::reason(&status))?
            .into_inner();
        let bad = |error: aos_types::InvalidId| error.to_string();
        Ok(Own {
            system_id: SystemId::new(info.system_id).map_err(bad)?,
            node: NodeId::new(node.node_id).map_err(bad)?,
        })
    }

    /// Keeps the Nodes and subjects up to date until `stop`. While IAM is away the last known ones count.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let nodes = async {
            loop {
                let why = self.follow_nodes().await;
                tracing::info!(why, "following IAM's Nodes again");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let subjects = async {
            loop {
                self.follow_subjects().await;
                tokio::time::sleep(PAUSE * 5).await;
            }
        };
        // Both only read; dropping them in the middle leaves nothing behind.
        tokio::select! {
            () = nodes => {}
            () = subjects => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_nodes(&self) -> String {
        let channel = match self.channel(&self.public).await {
            Ok(channel) => channel,
            Err(why) => return why,
        };
        let mut client = IamPublicNodesServiceClient::new(channel);
        // Subscribed before asking: a change in between is not missed.
        let mut changes = match client.subscribe_node_changed(()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return aos_ipc::reason(&status),
        };
        let ids = match client.get_all_node_i_ds(aos_ipc::within(CALL, ())).await {
            Ok(answer) => answer.into_inner().ids,
            Err(status) => return aos_ipc::reason(&status),
        };
        let mut all = IamNodes::new();
        for node_id in ids {
            let ask = aos_ipc::within(CALL, GetNodeInfoRequest { node_id });
            match client.get_node_info(ask).await {
                Ok(answer) => {
                    if let Some(info) = readable(answer.into_inner()) {
                        all.insert(info.id.clone(), info);
                    }
                }
                Err(status) => return aos_ipc::reason(&status),
            }
        }
        self.nodes.send_replace(Arc::new(all));
        loop {
            match changes.message().await {
                Ok(Some(info)) => {
                    if let Some(info) = readable(info) {
                        self.nodes.send_modify(|nodes| {
                            Arc::make_mut(nodes).insert(info.id.clone(), info);
                        });
                    }
                }
                Ok(None) => return "IAM ended the subscription".into(),
                Err(status) => return aos_ipc::reason(&status),
            }
        }
    }

    async fn follow_subjects(&self) {
        let Ok(channel) = self.channel(&self.public).await else {
            return;
        };
        let mut client = IamPublicIdentityServiceClient::new(channel);
        let Ok(changes) = client.subscribe_subjects_changed(()).await else {
            return;
        };
        let mut changes = changes.into_inner();
        if let Ok(answer) = client.get_subjects(aos_ipc::within(CALL, ())).await {
            self.take_subjects(&answer.into_inner().subjects);
        }
        while let Ok(Some(subjects)) = changes.message().await {
            self.take_subjects(&subjects.subjects);
        }
    }

    fn take_subjects(&self, names: &[String]) {
        let subjects = names
            .iter()
            .filter_map(|name| SubjectId::new(name).ok())
            .collect();
        self.subjects.send_replace(Arc::new(subjects));
    }
}

fn readable(info: PbNodeInfo) -> Option<NodeInfo> {
    match node_info_from_proto(info) {
        Ok(info) => Some(info),
        Err(error) => {
            tracing::warn!(%error, "IAM tells of a Node that cannot be read");
            None
        }
    }
}

#[async_trait]
impl Iam for IamClient {
    fn nodes(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, NodeInfo>>> {
        self.nodes.subscribe()
    }

    fn subjects(&self) -> watch::Receiver<Arc<Vec<SubjectId>>> {
        self.subjects.subscribe()
    }

    async fn set_paused(&self, node: &NodeId, paused: bool) -> Result<(), ErrorInfo> {
        let doing = if paused {
            "pause the node"
        } else {
            "resume the node"
        };
        let node_id = node.to_string();
        let channel = self
            .channel(&self.protected)
            .await
            .map_err(|why| failed(doing, &why))?;
        let mut client = IamNodesServiceClient::new(channel);
        let error = if paused {
            let ask = aos_ipc::within(CALL, PauseNodeRequest { node_id });
            client
                .pause_node(ask)
                .await
                .map(|answer| answer.into_inner().error)
        } else {
            let ask = aos_ipc::within(CALL, ResumeNodeRequest { node_id });
            client
                .resume_node(ask)
                .await
                .map(|answer| answer.into_inner().error)
        };
        let error = error.map_err(|status| failed(doing, &aos_ipc::reason(&status)))?;
        error_from_proto(error).map_or(Ok(()), Err)
    }

    async fn create_key(
        &self,
        node: &NodeId,
        kind: &str,
        secret: &str,
    ) -> Result<String, ErrorInfo> {
        const DOING: &str = "make a key";
        let channel = self.channel(&self.protected).await;
        let channel = channel.map_err(|why| failed(DOING, &why))?;
        let ask = CreateKeyRequest {
            node_id: node.to_string(),
            r#type: kind.to_owned(),
            subject: String::new(),
            password: secret.to_owned(),
        };
        let mut client = IamCertificateServiceClient::new(channel);
        let answer = client.create_key(aos_ipc::within(CERTIFICATE, ask)).await;
        let answer = answer
            .map_err(|status| failed(DOING, &aos_ipc::reason(&status)))?
            .into_inner();
        error_from_proto(answer.error).map_or(Ok(answer.csr), Err)
    }

    async fn apply_cert(
        &self,
        node: &NodeId,
        kind: &str,
        chain: &str,
    ) -> Result<String, ErrorInfo> {
        const DOING: &str = "take a certificate";
        let channel = self.channel(&self.protected).await;
        let channel = channel.map_err(|why| failed(DOING, &why))?;
        let ask = ApplyCertRequest {
            node_id: node.to_string(),
            r#type: kind.to_owned(),
            cert: chain.to_owned(),
        };
        let mut client = IamCertificateServiceClient::new(channel);
        let answer = client.apply_cert(aos_ipc::within(CERTIFICATE, ask)).await;
        let answer = answer
            .map_err(|status| failed(DOING, &aos_ipc::reason(&status)))?
            .into_inner();
        if let Some(error) = error_from_proto(answer.error) {
            return Err(error);
        }
        let info = answer.cert_info.unwrap_or_default();
        // Hex as text, as peers do it.
        Ok(String::from_utf8_lossy(&info.serial).into_owned())
    }
}
