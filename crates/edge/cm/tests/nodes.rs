//! CM's server for Nodes against SMs that a test plays, over real TLS: who may speak, what is seen, how orders end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_cm::{
    NetworkOptions,
    contract::{
        BlobReader, DownloadRequest, Guarantee, Images, InstanceOrder, NodeEvent, Nodes, NodesView,
    },
    nodes::{Server, Setup},
};
use aos_ipc::proto::{
    aos::node::v1::{self as node_pb, node_service_client::NodeServiceClient},
    common::v2 as common,
    servicemanager::v5::{
        self as sm, network_service_client::NetworkServiceClient,
        sm_incoming_messages::SmIncomingMessage, sm_outgoing_messages::SmOutgoingMessage,
        sm_service_client::SmServiceClient,
    },
};
use aos_pki::{
    Authority, CertKind, CertProfile, CertSource, Expect, KeyAlgorithm, Trust,
    certificates_from_pem, certified_key, unit_client,
};
use aos_store::{Records, Store};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, Digest, ErrorInfo, InstanceIdent, ItemId, NodeConfig, NodeId, SystemId};
use aos_update::DesiredItem;
use async_trait::async_trait;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(10);

/// Knows the addresses of blobs and nothing else: all that the server asks of the images.
struct Blobs;

#[async_trait]
impl Images for Blobs {
    async fn download(
        &self,
        _: DownloadRequest,
        _: mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>,
        _: CancellationToken,
    ) -> BTreeMap<ItemId, ErrorInfo> {
        unreachable!("the server for Nodes downloads nothing")
    }

    async fn commit(&self, _: &[DesiredItem]) -> Result<(), ErrorInfo> {
        unreachable!("the server for Nodes commits nothing")
    }

    async fn images_of(&self, _: &DesiredItem) -> Result<Vec<aos_schedule::Image>, ErrorInfo> {
        unreachable!("the server for Nodes schedules nothing")
    }

    async fn blob_urls(
        &self,
        _reader: &BlobReader,
        digests: &[Digest],
    ) -> Result<Vec<String>, ErrorInfo> {
        if digests.iter().any(|digest| digest.as_bytes()[0] == 0xff) {
            return Err(ErrorInfo::new(
                AosCode::NotFound,
                "CM does not have that blob",
            ));
        }
        Ok(digests
            .iter()
            .map(|digest| format!("https://cm/blobs/sha256/{}", digest.hex()))
            .collect())
    }
}

struct Unit {
    root: Authority,
    server: Arc<Server>,
    events: mpsc::Receiver<NodeEvent>,
    address: String,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

fn source(root: &Authority, kind: CertKind, unit: &str, node: &str) -> CertSource {
    let (unit, node) = (SystemId::new(unit).unwrap(), NodeId::new(node).unwrap());
    let profile = CertProfile::unit(kind, &unit, Some(&node));
    let pair = root
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    CertSource::with(certified_key(chain, &pair.key).unwrap())
}

impl Unit {
    async fn start() -> Self {
        aos_pki::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let root = Authority::in_memory("root", SystemClock.now()).unwrap();
        let store = Store::open(folder.path().join("cm.db"), &[Records::<()>::SCHEMA]).unwrap();
        let (events, reader) = mpsc::channel(16);
        let server = Server::new(Setup {
            listen: ([127, 0, 0, 1], 0).into(),
            network: NetworkOptions::default(),
            source: source(&root, CertKind::Cm, "u1", "main"),
            trust: Trust::new(root.roots()),
            store,
            images: Arc::new(Blobs),
            events,
            launch: PATIENCE,
            local: Default::default(),
        })
        .await
        .unwrap();
        let server = Arc::new(server);
        let listener = aos_ipc::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let (serving, until) = (server.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, until).await.unwrap() });
        Self {
            root,
            server,
            events: reader,
            address,
            stop,
            _folder: folder,
        }
    }

    async fn channel(&self, kind: CertKind, unit: &str, node: &str) -> Result<Channel, String> {
        let tls = unit_client(
            &source(&self.root, kind, unit, node),
            &Trust::new(self.root.roots()),
            Expect::kinds([CertKind::Cm]),
        );
        aos_ipc::connect(&self.address, &tls)
            .await
            .map_err(|error| error.to_string())
    }

    async fn sm(&self, node: &str) -> Sm {
        Sm::open(self.channel(CertKind::Sm, "u1", node).await.unwrap(), node).await
    }

    /// Waits until the view of the Nodes is as wanted.
    async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&Arc<NodesView>) -> bool,
    ) -> Arc<NodesView> {
        let mut view = self.server.view();
        let seen = timeout(PATIENCE, view.wait_for(wanted))
            .await
            .unwrap_or_else(|_| panic!("never {what}"))
            .unwrap();
        seen.clone()
    }
}

/// An SM that a test plays.
struct Sm {
    node: String,
    channel: Channel,
    out: mpsc::Sender<sm::SmOutgoingMessages>,
    orders: Streaming<sm::SmIncomingMessages>,
}

impl Sm {
    async fn open(channel: Channel, node: &str) -> Self {
        let (out, messages) = mpsc::channel(16);
        let stream = ReceiverStream::new(messages);
        let orders = SmServiceClient::new(channel.clone())
            .register_sm(stream)
            .await
            .unwrap()
            .into_inner();
        Self {
            node: node.into(),
            channel,
            out,
            orders,
        }
    }

    async fn say(&self, message: SmOutgoingMessage) {
        self.out
            .send(sm::SmOutgoingMessages {
                sm_outgoing_message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn introduce(&self) {
        self.say(SmOutgoingMessage::SmInfo(sm::SmInfo {
            node_id: self.node.clone(),
            runtimes: vec![sm::RuntimeInfo {
                runtime_id: "crun-1".into(),
                r#type: "crun".into(),
                ..Default::default()
            }],
            resources: vec![],
        }))
        .await;
        self.say(SmOutgoingMessage::NodeInstancesStatus(
            sm::NodeInstancesStatus::default(),
        ))
        .await;
    }

    async fn hears(&mut self) -> Result<SmIncomingMessage, Status> {
        loop {
            let order = timeout(PATIENCE, self.orders.message())
                .await
                .expect("no order")?;
            match order
                .expect("the stream has ended")
                .sm_incoming_message
                .unwrap()
            {
                SmIncomingMessage::ConnectionStatus(_) => {}
                order => return Ok(order),
            }
        }
    }

    fn status(ident: &InstanceIdent, state: &str) -> sm::InstanceStatus {
        sm::InstanceStatus {
            instance: Some(aos_ipc::convert::ident_to_proto(ident)),
            version: "1.0.0".into(),
            runtime_id: "crun-1".into(),
            manifest_digest: Digest::from_bytes([1; 32]).to_string(),
            state: state.into(),
            ..Default::default()
        }
    }
}

fn ident(index: u64) -> InstanceIdent {
    InstanceIdent::service("item".parse().unwrap(), "subject".parse().unwrap(), index)
}

fn order(index: u64) -> InstanceOrder {
    InstanceOrder {
        ident: ident(index),
        version: "1.0.0".into(),
        manifest: Digest::from_bytes([1; 32]),
        owner: "sp".parse().unwrap(),
        runtime: "crun-1".parse().unwrap(),
        uid: 5000,
        gid: 5000,
        priority: 1,
        storage_path: String::new(),
        state_path: String::new(),
        env: vec![("A".into(), "1".into())],
        alert_rules: None,
    }
}

fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

#[tokio::test]
async fn a_list_is_carried_out_and_its_end_is_awaited() {
    let unit = Unit::start().await;
    let mut sm = unit.sm("n1").await;
    sm.introduce().await;
    unit.until("connected", |view| {
        view.get("n1").is_some_and(|n| n.instances.is_some())
    })
    .await;
    let server = unit.server.clone();
    let update = tokio::spawn(async move {
        server
            .update_instances(&node("n1"), vec![order(0)], vec![ident(7)])
            .await
    });
    let SmIncomingMessage::UpdateInstances(list) = sm.hears().await.unwrap() else {
        panic!("not a list")
    };
    assert_eq!(
        list.start_instances[0].manifest_digest,
        Digest::from_bytes([1; 32]).to_string()
    );
    assert_eq!(list.start_instances[0].env_vars[0].name, "A");
    assert_eq!(list.stop_instances[0].instance, 7);
    let activating = sm::UpdateInstancesStatus {
        instances: vec![Sm::status(&ident(0), "activating")],
    };
    sm.say(SmOutgoingMessage::UpdateInstancesStatus(activating))
        .await;
    unit.until("activating", |view| {
        view["n1"]
            .instances
            .as_ref()
            .unwrap()
            .contains_key(&ident(0))
    })
    .await;
    assert!(!update.is_finished(), "a delta does not end a launch");
    let active = sm::NodeInstancesStatus {
        instances: vec![Sm::status(&ident(0), "active")],
    };
    sm.say(SmOutgoingMessage::NodeInstancesStatus(active)).await;
    timeout(PATIENCE, update).await.unwrap().unwrap().unwrap();
    let view = unit.server.view().borrow().clone();
    assert_eq!(
        view["n1"].instances.as_ref().unwrap()[&ident(0)]
            .state
            .as_str(),
        "active"
    );
    assert_eq!(view["n1"].guarantee, Guarantee::PlainV5);
    unit.stop.cancel();
}

#[tokio::test]
async fn the_end_of_an_earlier_list_is_not_taken_for_that_of_a_newer_one() {
    let unit = Unit::start().await;
    let mut sm = unit.sm("n1").await;
    sm.introduce().await;
    unit.until("connected", |view| {
        view.get("n1").is_some_and(|n| n.instances.is_some())
    })
    .await;
    let server = unit.server.clone();
    let first = tokio::spawn(async move {
        server
            .update_instances(&node("n1"), vec![order(0), order(1)], vec![])
            .await
    });
    sm.hears().await.unwrap();
    // Something newer comes: nobody waits for this answer any more.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let server = unit.server.clone();
    let second = tokio::spawn(async move {
        server
            .update_instances(&node("n1"), vec![order(0)], vec![ident(1)])
            .await
    });
    sm.hears().await.unwrap();
    let running = |instances: &[u64]| {
        SmOutgoingMessage::NodeInstancesStatus(sm::NodeInstancesStatus {
            instances: instances
                .iter()
                .map(|index| Sm::status(&ident(*index), "active"))
                .collect(),
        })
    };
    sm.say(running(&[0, 1])).await;
    unit.until("the end of the first", |view| {
        view["n1"].instances.as_ref().unwrap().len() == 2
    })
    .await;
    assert!(!second.is_finished(), "instance 1 still runs on the Node");
    sm.say(running(&[0])).await;
    timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    let view = unit.server.view().borrow().clone();
    assert_eq!(view["n1"].instances.as_ref().unwrap().len(), 1);
    unit.stop.cancel();
}

#[tokio::test]
async fn install_waits_for_the_node_and_a_plain_v5_node_is_passed_over() {
    let mut unit = Unit::start().await;
    let sm = unit.sm("n1").await;
    sm.introduce().await;
    unit.until("connected", |view| view.contains_key("n1"))
        .await;
    let plain = unit
        .server
        .install(&node("n1"), vec![order(0)], CancellationToken::new())
        .await
        .unwrap();
    assert!(plain.is_empty());

    let (out, reports) = mpsc::channel(4);
    let mut orders = NodeServiceClient::new(sm.channel.clone())
        .attach(ReceiverStream::new(reports))
        .await
        .unwrap()
        .into_inner();
    let say = async |report| {
        out.send(node_pb::NodeReport {
            report: Some(report),
        })
        .await
        .unwrap()
    };
    say(node_pb::node_report::Report::Hello(node_pb::Hello {
        node_id: "n1".into(),
        protocol: 2,
        ..Default::default()
    }))
    .await;
    unit.until("attached", |view| {
        view["n1"].guarantee == Guarantee::InstallFirst
    })
    .await;
    let server = unit.server.clone();
    let install = tokio::spawn(async move {
        server
            .install(
                &node("n1"),
                vec![order(0), order(1)],
                CancellationToken::new(),
            )
            .await
    });
    let told = timeout(PATIENCE, orders.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let Some(node_pb::node_order::Order::Install(told)) = told.order else {
        panic!("not an install")
    };
    assert_eq!(told.instances.len(), 2);
    let result = |index, error| node_pb::InstanceInstalled {
        instance: Some(aos_ipc::convert::ident_to_proto(&ident(index))),
        manifest_digest: String::new(),
        error,
    };
    let bad = common::ErrorInfo {
        aos_code: 10,
        exit_code: 0,
        message: "bad layer".into(),
    };
    say(node_pb::node_report::Report::InstallResult(
        node_pb::InstallResult {
            request_id: told.request_id,
            instances: vec![result(0, None), result(1, Some(bad))],
        },
    ))
    .await;
    let failed = timeout(PATIENCE, install).await.unwrap().unwrap().unwrap();
    assert_eq!(
        failed
            .into_iter()
            .map(|(i, e)| (i.index, e.message))
            .collect::<Vec<_>>(),
        [(1, "bad layer".into())]
    );

    // How the runs go, before and after the instance itself is spoken of.
    let run = |version: &str, unrecoverable, complete| {
        node_pb::node_report::Report::InstanceRuns(node_pb::InstanceRuns {
            instances: vec![node_pb::InstanceRun {
                instance: Some(aos_ipc::convert::ident_to_proto(&ident(0))),
                version: version.into(),
                unrecoverable,
                restarts: 2,
                last_exit: None,
                ..Default::default()
            }],
            complete,
        })
    };
    let recovers = |view: &NodesView| {
        let node = &view["n1"];
        let report = node.instances.as_ref()?.get(&ident(0))?;
        Some(node.recovers(report))
    };
    sm.say(SmOutgoingMessage::NodeInstancesStatus(
        sm::NodeInstancesStatus {
            instances: vec![Sm::status(&ident(0), "failed")],
        },
    ))
    .await;
    unit.until("no word of it yet", |view| recovers(view) == Some(true))
        .await;
    say(run("1.0.0", true, true)).await;
    unit.until("given up", |view| recovers(view) == Some(false))
        .await;
    // Of another version: says nothing of this one.
    say(run("0.9.0", true, false)).await;
    unit.until("of another", |view| recovers(view) == Some(true))
        .await;

    say(node_pb::node_report::Report::InstanceExit(
        node_pb::InstanceExit {
            instance: Some(aos_ipc::convert::ident_to_proto(&ident(0))),
            version: "1.0.0".into(),
            exit_code: Some(3),
            ..Default::default()
        },
    ))
    .await;
    let Some(NodeEvent::Exit { how, .. }) = timeout(PATIENCE, unit.events.recv()).await.unwrap()
    else {
        panic!("not an exit")
    };
    assert_eq!(how, "ended with exit code 3");

    let server = unit.server.clone();
    let cancel = CancellationToken::new();
    let given_up = cancel.clone();
    let install =
        tokio::spawn(async move { server.install(&node("n1"), vec![order(0)], given_up).await });
    timeout(PATIENCE, orders.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    cancel.cancel();
    assert_eq!(
        timeout(PATIENCE, install)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err()
            .aos_code,
        AosCode::Canceled as i32
    );
    unit.stop.cancel();
}

#[tokio::test]
async fn a_node_is_who_its_certificate_says() {
    let unit = Unit::start().await;
    let mut liar = Sm::open(unit.channel(CertKind::Sm, "u1", "n1").await.unwrap(), "n2").await;
    liar.introduce().await;
    let refused = liar.hears().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("certificate is of Node n1"),
        "{}",
        refused.message()
    );
    assert!(unit.server.view().borrow().is_empty());

    for (kind, of_unit) in [
        (CertKind::Iam, "u1"),
        (CertKind::Online, "u1"),
        (CertKind::Sm, "u2"),
    ] {
        // With TLS 1.3 the refusal arrives at the first call, if not at the handshake.
        let refused = match unit.channel(kind, of_unit, "n1").await {
            Err(refused) => refused,
            Ok(channel) => {
                let ask = sm::BlobsInfosRequest { digests: vec![] };
                aos_ipc::reason(
                    &SmServiceClient::new(channel)
                        .get_blobs_infos(ask)
                        .await
                        .unwrap_err(),
                )
            }
        };
        assert!(!refused.is_empty(), "{kind} of {of_unit} must be refused");
    }
    unit.stop.cancel();
}

#[tokio::test]
async fn a_newer_stream_of_a_node_takes_over_and_the_end_of_a_stream_ends_waits() {
    let unit = Unit::start().await;
    let old = unit.sm("n1").await;
    old.introduce().await;
    let first = unit
        .until("connected", |view| view.contains_key("n1"))
        .await["n1"]
        .connection;
    let new = unit.sm("n1").await;
    new.introduce().await;
    unit.until("taken over", |view| {
        view.get("n1").is_some_and(|n| n.connection != first)
    })
    .await;
    old.introduce().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_ne!(
        unit.server.view().borrow()["n1"].connection,
        first,
        "the old stream must not come back"
    );
    let server = unit.server.clone();
    let update =
        tokio::spawn(async move { server.update_instances(&node("n1"), vec![], vec![]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(new);
    unit.until("gone", |view| view.is_empty()).await;
    let error = timeout(PATIENCE, update)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.aos_code, AosCode::NotFound as i32);
    unit.stop.cancel();
}

#[tokio::test]
async fn configurations_are_checked_set_and_asked_for() {
    let unit = Unit::start().await;
    let mut sm = unit.sm("n1").await;
    sm.introduce().await;
    unit.until("connected", |view| view.contains_key("n1"))
        .await;
    let config = NodeConfig {
        version: Some("2.0.0".into()),
        node_type: "main".into(),
        ..NodeConfig::default()
    };
    let server = unit.server.clone();
    let check = tokio::spawn(async move { server.check_config(&node("n1"), &config).await });
    let SmIncomingMessage::CheckNodeConfig(asked) = sm.hears().await.unwrap() else {
        panic!("not a check")
    };
    assert_eq!(asked.version, "2.0.0");
    assert!(
        asked.node_config.contains("nodeGroupSubject"),
        "{}",
        asked.node_config
    );
    let answer = |version: &str, error| {
        SmOutgoingMessage::NodeConfigStatus(sm::NodeConfigStatus {
            state: "installed".into(),
            version: version.into(),
            error,
        })
    };
    sm.say(answer("1.0.0", None)).await;
    let bad = common::ErrorInfo {
        aos_code: 6,
        exit_code: 0,
        message: "unknown label".into(),
    };
    sm.say(answer("2.0.0", Some(bad))).await;
    let error = timeout(PATIENCE, check)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.message, "unknown label",
        "the late answer about 1.0.0 must not count"
    );
    let server = unit.server.clone();
    let ask = tokio::spawn(async move { server.config_status(&node("n1")).await });
    assert!(matches!(
        sm.hears().await.unwrap(),
        SmIncomingMessage::GetNodeConfigStatus(_)
    ));
    sm.say(answer("1.0.0", None)).await;
    assert_eq!(
        timeout(PATIENCE, ask).await.unwrap().unwrap().unwrap().1,
        "1.0.0"
    );
    unit.stop.cancel();
}

#[tokio::test]
async fn nodes_learn_blob_addresses_and_networks() {
    let unit = Unit::start().await;
    let channel = unit.channel(CertKind::Sm, "u1", "n1").await.unwrap();
    let mut blobs = SmServiceClient::new(channel.clone());
    let good = Digest::from_bytes([1; 32]);
    let ask = |digests: &[String]| sm::BlobsInfosRequest {
        digests: digests.to_vec(),
    };
    let urls = blobs
        .get_blobs_infos(ask(&[good.to_string()]))
        .await
        .unwrap()
        .into_inner()
        .urls;
    assert_eq!(urls, [format!("https://cm/blobs/sha256/{}", good.hex())]);
    let unknown = Digest::from_bytes([0xff; 32]).to_string();
    assert_eq!(
        blobs
            .get_blobs_infos(ask(&[good.to_string(), unknown]))
            .await
            .unwrap_err()
            .code(),
        Code::Internal
    );
    let path = blobs
        .get_blobs_infos(ask(&["sha256:../../etc/passwd".into()]))
        .await
        .unwrap_err();
    assert_eq!(path.code(), Code::InvalidArgument);

    let mut networks = NetworkServiceClient::new(channel);
    let request = |node: &str, port: &str| sm::AllocateInstanceNetworkRequest {
        instance: Some(aos_ipc::convert::ident_to_proto(&ident(0))),
        network_id: "sp".into(),
        node_id: node.into(),
        service_data: Some(sm::UpdateItemNetworkParams {
            exposed_ports: vec![port.into()],
            ..Default::default()
        }),
    };
    let place = networks
        .allocate_instance_network(request("n1", "80/tcp"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (place.subnet.as_str(), place.ip.as_str(), place.error),
        ("172.28.0.0/20", "172.28.0.1", None)
    );
    let again = networks
        .allocate_instance_network(request("n1", "80/tcp"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.ip, place.ip);
    let bad = networks
        .allocate_instance_network(request("n1", "80/sctp"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(bad.error.unwrap().aos_code, AosCode::InvalidArgument as i32);
    let other = networks
        .allocate_instance_network(request("n2", "80/tcp"))
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    unit.stop.cancel();
}
