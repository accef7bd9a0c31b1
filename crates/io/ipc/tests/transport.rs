//! gRPC over real TLS on loopback: who is told to the service, what a refused client hears, how a server ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use aos_ipc::proto::servicemanager::v5::{
    self as sm,
    sm_service_client::SmServiceClient,
    sm_service_server::{SmService, SmServiceServer},
};
use aos_pki::{
    Authority, CertKind, CertProfile, CertSource, ClientTls, Expect, KeyAlgorithm, ServerTls,
    Trust, certificates_from_pem, certified_key, mutual_server, unit_client,
};
use aos_time::{Clock, SystemClock};
use aos_types::{NodeId, SystemId};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, service::Routes};

struct Echo;

#[tonic::async_trait]
impl SmService for Echo {
    type RegisterSMStream = ReceiverStream<Result<sm::SmIncomingMessages, Status>>;

    async fn register_sm(
        &self,
        _: Request<Streaming<sm::SmOutgoingMessages>>,
    ) -> Result<Response<Self::RegisterSMStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move { sender.closed().await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_blobs_infos(
        &self,
        request: Request<sm::BlobsInfosRequest>,
    ) -> Result<Response<sm::BlobsInfos>, Status> {
        assert!(
            request
                .extensions()
                .get::<aos_pki::PeerIdentity>()
                .is_some()
        );
        let node = NodeId::new("n2").unwrap();
        let peer = aos_ipc::allow(&request, &Expect::kinds([CertKind::Sm]).node(node))?;
        if request.get_ref().digests.iter().any(|one| one == "slow") {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        Ok(Response::new(sm::BlobsInfos {
            urls: vec![peer.to_string()],
        }))
    }
}

struct Unit {
    root: Authority,
    trust: Trust,
}

impl Unit {
    fn new() -> Self {
        let root = Authority::in_memory("root", SystemClock.now()).unwrap();
        let trust = Trust::new(root.roots());
        Self { root, trust }
    }

    fn source(&self, kind: CertKind, node: &str) -> CertSource {
        let (unit, node) = (SystemId::new("u1").unwrap(), NodeId::new(node).unwrap());
        let pair = self
            .root
            .issue_pair(
                KeyAlgorithm::EcP256,
                &CertProfile::unit(kind, &unit, Some(&node)),
                SystemClock.now(),
            )
            .unwrap();
        let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
        CertSource::with(certified_key(chain, &pair.key).unwrap())
    }

    fn server(&self) -> ServerTls {
        mutual_server(
            &self.source(CertKind::Cm, "n1"),
            &self.trust,
            Expect::any().same_unit(),
            aos_pki::ALPN_GRPC,
        )
    }

    fn client(&self, kind: CertKind, node: &str) -> ClientTls {
        unit_client(
            &self.source(kind, node),
            &self.trust,
            Expect::kinds([CertKind::Cm]).same_unit(),
        )
    }
}

async fn start(unit: &Unit, stop: &CancellationToken) -> (String, tokio::task::JoinHandle<()>) {
    let listener = aos_ipc::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = Routes::new(SmServiceServer::new(Echo));
    let (tls, stop) = (unit.server(), stop.clone());
    let task = tokio::spawn(async move {
        aos_ipc::serve(listener, tls, routes, stop).await.unwrap();
    });
    (address, task)
}

fn question(text: &str) -> sm::BlobsInfosRequest {
    sm::BlobsInfosRequest {
        digests: vec![text.into()],
    }
}

#[tokio::test]
async fn a_service_knows_its_peer_and_refuses_others_by_name() {
    let (unit, stop) = (Unit::new(), CancellationToken::new());
    let (address, task) = start(&unit, &stop).await;
    let ask = async |kind, node| {
        let channel = aos_ipc::connect(&address, &unit.client(kind, node))
            .await
            .unwrap();
        let request = aos_ipc::within(Duration::from_secs(5), question("x"));
        SmServiceClient::new(channel).get_blobs_infos(request).await
    };
    let answer = ask(CertKind::Sm, "n2").await.unwrap().into_inner();
    assert_eq!(answer.urls, ["sm of node n2 of unit u1"]);
    let status = ask(CertKind::Sm, "n3").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(aos_ipc::reason(&status).contains("node n2 is wanted here"));
    let status = ask(CertKind::Um, "n2").await.unwrap_err();
    assert!(status.message().contains("type sm is wanted"), "{status}");
    stop.cancel();
    timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_a_server_at_its_stop() {
    let (unit, stop) = (Unit::new(), CancellationToken::new());
    let (address, task) = start(&unit, &stop).await;
    let channel = aos_ipc::connect(&address, &unit.client(CertKind::Sm, "n2"))
        .await
        .unwrap();
    let mut client = SmServiceClient::new(channel);
    let slow = aos_ipc::within(Duration::from_millis(200), question("slow"));
    let status = timeout(Duration::from_secs(5), client.get_blobs_infos(slow))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
    // A stream that nobody ends does not hold the server.
    let (_keep, outgoing) = mpsc::channel(1);
    let mut stream = client
        .register_sm(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    stop.cancel();
    timeout(Duration::from_secs(8), task)
        .await
        .unwrap()
        .unwrap();
    let ended = timeout(Duration::from_secs(5), stream.message())
        .await
        .unwrap();
    assert!(!matches!(ended, Ok(Some(_))));
}

#[tokio::test]
async fn a_stranger_hears_why() {
    let (unit, stop) = (Unit::new(), CancellationToken::new());
    let (address, _task) = start(&unit, &stop).await;
    let stranger = Unit::new();
    let error = aos_ipc::connect(&address, &stranger.client(CertKind::Sm, "n2"))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(said.contains("was not signed by it"), "{said}");
    let error = aos_ipc::connect("127.0.0.1:1", &unit.client(CertKind::Sm, "n2"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("cannot connect to 127.0.0.1:1"),
        "{error}"
    );
    stop.cancel();
}
