//! What tools on the Unit itself ask of CM: `aos.unit.v1` and `communicationmanager.v3`, on the port of the Nodes.
//!
//! A program of this machine comes over a Unix socket: the kernel asks whether it is root's or of the group that may. Over
//! the network a tool shows the `cm` or the `iam` certificate of the main Node: whoever can read its key is root there. The
//! services are there from the start; until CM has read what it stored they answer `UNAVAILABLE`.

mod chain;
mod unit_service;

use std::sync::{Arc, OnceLock};

use aos_ipc::proto::{
    aos::unit::v1::unit_service_server::UnitServiceServer,
    communicationmanager::v3::update_scheduler_service_server::UpdateSchedulerServiceServer,
};
use aos_pki::{CertKind, Expect};
use aos_types::{AosCode, ErrorInfo, NodeId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::Routes};

pub(crate) use chain::Explainer;

use crate::{
    Options,
    gates::{Desk, Scheduler},
};

/// Certificate types that tools on the Unit may show.
pub(crate) const CALLERS: [CertKind; 2] = [CertKind::Cm, CertKind::Iam];

/// The services for tools, and what they ask once it is there. Clones share it.
#[derive(Clone)]
pub(crate) struct Local {
    node: NodeId,
    explainer: Arc<OnceLock<Explainer>>,
    desk: Arc<OnceLock<Desk>>,
}

impl Local {
    /// `node` is the main Node: this one.
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            explainer: Arc::default(),
            desk: Arc::default(),
        }
    }

    /// All of them, to be served.
    pub(crate) fn routes(&self) -> Routes {
        Routes::default()
            .add_service(UnitServiceServer::new(unit_service::Service::new(
                self.clone(),
            )))
            .add_service(UpdateSchedulerServiceServer::new(Scheduler::new(
                self.clone(),
            )))
    }

    /// From now on questions are answered.
    pub(crate) fn open(&self, explainer: Explainer, desk: Desk) {
        // CM starts once; a second start would find the first one's answers, which are as good.
        let _ = self.explainer.set(explainer);
        let _ = self.desk.set(desk);
    }

    /// Where updates that wait are dealt with.
    pub(crate) fn desk(&self) -> Result<&Desk, Status> {
        self.desk.get().ok_or_else(starting)
    }

    /// All answers of this moment, for tests.
    #[cfg(test)]
    pub(crate) fn why(&self) -> aos_ipc::proto::aos::unit::v1::WhyResponse {
        self.explainer()
            .unwrap()
            .answer(&chain::Question::default())
    }

    fn explainer(&self) -> Result<&Explainer, Status> {
        self.explainer.get().ok_or_else(starting)
    }

    /// Serves the programs of this machine until `stop`. Without the socket CM is as good: the network is still there.
    pub(crate) async fn serve(self, options: &Options, stop: CancellationToken) {
        let path = &options.local_socket;
        if path.as_os_str().is_empty() {
            return;
        }
        let listener = match aos_ipc::listen_local(path, &options.local_group) {
            Ok(listener) => listener,
            Err(error) => {
                let error = ErrorInfo::from_error(AosCode::Failed, &error);
                tracing::warn!(%error, "programs of this machine cannot ask CM over its socket");
                return;
            }
        };
        if let Err(error) = aos_ipc::serve_local(listener, self.routes(), stop).await {
            tracing::error!(%error, path = %path.display(), "the socket for programs of this machine failed");
        }
    }

    /// Lets a tool of the main Node pass and nobody else.
    pub(crate) fn allow<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if aos_ipc::is_local(request) {
            return Ok(());
        }
        let expect = Expect::kinds(CALLERS).node(self.node.clone());
        aos_ipc::allow(request, &expect).map(|_| ())
    }
}

fn starting() -> Status {
    Status::unavailable("CM starts; ask again in a moment")
}

#[cfg(test)]
mod tests {
    use aos_ipc::Peer;
    use aos_pki::{Authority, CertProfile, KeyAlgorithm, PeerIdentity, certificates_from_pem};
    use aos_time::{Clock, SystemClock};
    use aos_types::SystemId;

    use super::*;

    #[test]
    fn only_a_tool_of_the_main_node_may_ask() {
        let root = Authority::in_memory("root", SystemClock.now()).unwrap();
        let unit = SystemId::new("u1").unwrap();
        let local = Local::new(NodeId::new("main").unwrap());
        let asks = |kind, node: &str| {
            let node = NodeId::new(node).unwrap();
            let profile = CertProfile::unit(kind, &unit, Some(&node));
            let pair = root
                .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
                .unwrap();
            let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
            let mut request = Request::new(());
            request.extensions_mut().insert(Peer {
                identity: Some(PeerIdentity::from_der(&chain[0]).unwrap()),
                address: None,
            });
            local.allow(&request).map_err(|status| status.code())
        };
        assert_eq!(asks(CertKind::Cm, "main"), Ok(()));
        assert_eq!(asks(CertKind::Iam, "main"), Ok(()));
        let denied = Err(tonic::Code::PermissionDenied);
        assert_eq!(asks(CertKind::Iam, "second"), denied);
        assert_eq!(asks(CertKind::Sm, "main"), denied);
        assert_eq!(asks(CertKind::Online, "main"), denied);
        assert_eq!(
            local
                .allow(&Request::new(()))
                .map_err(|status| status.code()),
            Err(tonic::Code::Unauthenticated)
        );
    }

    #[tokio::test]
    async fn a_program_of_this_machine_needs_no_certificate() {
        use aos_ipc::proto::{
            aos::unit::v1::{WhyRequest, unit_service_client::UnitServiceClient},
            communicationmanager::v3::update_scheduler_service_client::UpdateSchedulerServiceClient,
        };
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cm.sock");
        let options =
            format!("state_dir = \"/none\"\nca_cert = \"/none\"\nlocal_socket = {socket:?}");
        let options: Options = toml::from_str(&options).unwrap();
        let stop = CancellationToken::new();
        let local = Local::new(NodeId::new("main").unwrap());
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { local.serve(&options, stop).await }
        });
        let channel = loop {
            match aos_ipc::connect_local(&socket).await {
                Ok(channel) => break channel,
                // It is not there yet.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        // It is let in; CM has only not read yet what it stored.
        let unavailable = Some(tonic::Code::Unavailable);
        let mut unit = UnitServiceClient::new(channel.clone());
        let asked = unit.why(WhyRequest::default()).await;
        assert_eq!(asked.err().map(|status| status.code()), unavailable);
        let mut scheduler = UpdateSchedulerServiceClient::new(channel);
        let asked = scheduler.start_sota_update(()).await;
        assert_eq!(asked.err().map(|status| status.code()), unavailable);
        stop.cancel();
        serving.await.unwrap();
    }
}
