//! CM as a Node sees it: it records what it is told and says what the test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aos_image::BlobStore;
use aos_ipc::proto::{
    aos::node::v1::{self as node_pb, node_report::Report, node_service_server as node_service},
    servicemanager::v5::{
        self as pb, network_service_server as network, sm_incoming_messages::SmIncomingMessage,
        sm_outgoing_messages::SmOutgoingMessage, sm_service_server as sm,
    },
};
use aos_pki::{ALPN_GRPC, Authority, CertKind, Expect, Trust, mutual_server};
use aos_types::Digest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};

use super::{PATIENCE, source};

type Orders = mpsc::Sender<Result<pb::SmIncomingMessages, Status>>;
type NodeOrders = mpsc::Sender<Result<node_pb::NodeOrder, Status>>;

/// What the test has seen and may change.
#[derive(Default)]
pub struct Seen {
    pub info: Option<pb::SmInfo>,
    /// By item and index.
    pub instances: BTreeMap<(String, u64), pb::InstanceStatus>,
    /// Complete lists told on the present connection.
    pub complete: u64,
    pub connections: u64,
    pub config: Vec<pb::NodeConfigStatus>,
    pub logs: Vec<pb::LogData>,
    pub lines: Vec<node_pb::LogLines>,
    pub exits: Vec<node_pb::InstanceExit>,
    /// By item.
    pub runs: BTreeMap<String, node_pb::InstanceRun>,
    /// Every state told, in order, by item.
    pub history: BTreeMap<String, Vec<String>>,
    pub installs: BTreeMap<String, Vec<node_pb::InstanceInstalled>>,
    pub states: Vec<node_pb::StateReport>,
    /// The items it waits for, as it told last.
    pub needs: Vec<String>,
    pub sets: BTreeMap<String, Option<aos_ipc::proto::common::v2::ErrorInfo>>,
    pub released: Vec<String>,
    /// Whom each is about, and its message.
    pub alerts: Vec<String>,
    /// What was said of quotas.
    pub quotas: Vec<Told>,
    pub measured: Vec<pb::InstantMonitoring>,
    pub averages: Vec<pb::AverageMonitoring>,
    pub addresses: BTreeMap<String, String>,
    orders: Option<Orders>,
    node_orders: Option<NodeOrders>,
    /// Blobs that are not handed out before the gate is opened.
    pub held: bool,
    /// Questions about the network are never answered.
    pub silent: bool,
    pub served: Vec<String>,
}

/// A quota alert.
#[derive(Debug, Clone)]
pub struct Told {
    /// When it came.
    pub at: Instant,
    pub parameter: String,
    pub status: String,
}

impl Told {
    fn of(item: &pb::alert::AlertItem) -> Option<Self> {
        use pb::alert::AlertItem;
        let (parameter, status) = match item {
            AlertItem::SystemQuotaAlert(quota) => (&quota.parameter, &quota.status),
            AlertItem::InstanceQuotaAlert(quota) => (&quota.parameter, &quota.status),
            _ => return None,
        };
        Some(Self {
            at: Instant::now(),
            parameter: parameter.clone(),
            status: status.clone(),
        })
    }
}

impl Seen {
    /// Whether no SM is connected.
    pub fn orders_gone(&self) -> bool {
        self.orders.is_none()
    }
}

#[derive(Clone)]
pub struct FakeCm {
    pub address: String,
    pub seen: Arc<Mutex<Seen>>,
    changed: Arc<watch::Sender<u64>>,
    gate: Arc<Notify>,
    blob_url: String,
    stop: Arc<Mutex<CancellationToken>>,
    pki: Arc<(aos_pki::CertSource, Trust)>,
    blobs: BlobStore,
    /// Whether it knows `aos.node.v1`.
    modern: bool,
}

impl FakeCm {
    pub async fn start(root: &Authority, blobs: BlobStore, modern: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let blob_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cm = Self {
            address: listener.local_addr().unwrap().to_string(),
            seen: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            gate: Arc::default(),
            blob_url: format!("https://{}", blob_listener.local_addr().unwrap()),
            stop: Arc::default(),
            pki: Arc::new((source(root, CertKind::Cm), Trust::new(root.roots()))),
            blobs,
            modern,
        };
        cm.serve(listener);
        tokio::spawn(cm.clone().serve_blobs(blob_listener));
        cm
    }

    fn serve(&self, listener: TcpListener) {
        let tls = mutual_server(
            &self.pki.0,
            &self.pki.1,
            Expect::kinds([CertKind::Sm]),
            ALPN_GRPC,
        );
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(sm::SmServiceServer::new(self.clone()))
            .add_service(network::NetworkServiceServer::new(self.clone()));
        if self.modern {
            routes.add_service(node_service::NodeServiceServer::new(self.clone()));
        }
        let stop = self.stop.lock().unwrap().clone();
        tokio::spawn(aos_ipc::serve(listener, tls, routes.routes(), stop));
    }

    /// CM is gone: connections break, nobody listens.
    pub async fn down(&self) {
        let old = std::mem::take(&mut *self.stop.lock().unwrap());
        old.cancel();
        let mut seen = self.seen.lock().unwrap();
        seen.orders = None;
        seen.node_orders = None;
    }

    /// CM is back at the same address.
    pub async fn up(&self) {
        for _ in 0..200 {
            if let Ok(listener) = TcpListener::bind(&self.address).await {
                self.serve(listener);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the port of CM stays taken");
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until what was seen is as wanted.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) {
        self.until_for(PATIENCE, what, wanted).await;
    }

    /// The same for what takes longer.
    pub async fn until_for(
        &self,
        patience: std::time::Duration,
        what: &str,
        mut wanted: impl FnMut(&Seen) -> bool,
    ) {
        let mut changed = self.changed.subscribe();
        let reached = timeout(patience, async {
            while !wanted(&self.seen.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        });
        if reached.await.is_err() {
            let seen = self.seen.lock().unwrap();
            panic!("never {what}; instances: {:#?}", seen.instances);
        }
    }

    pub async fn order(&self, order: SmIncomingMessage) {
        self.until("connected", |seen| seen.orders.is_some()).await;
        let orders = self.seen.lock().unwrap().orders.clone().unwrap();
        orders
            .send(Ok(pb::SmIncomingMessages {
                sm_incoming_message: Some(order),
            }))
            .await
            .unwrap();
    }

    /// Orders a list and waits for its end. One that was sent to an SM that had just ended is sent to the next one.
    pub async fn list(&self, instances: Vec<pb::InstanceInfo>) {
        loop {
            self.until("introduced", |seen| seen.complete > 0).await;
            let told = |seen: &Seen| (seen.connections, seen.complete);
            let (connection, before) = told(&self.seen.lock().unwrap());
            self.send_list(instances.clone()).await;
            let lost = |seen: &Seen| seen.connections != connection || seen.complete == 0;
            self.until("carried out", |seen| lost(seen) || seen.complete > before)
                .await;
            if !lost(&self.seen.lock().unwrap()) {
                return;
            }
        }
    }

    /// Whoever told something before is gone: what comes is of another SM.
    pub fn expects_another(&self) {
        self.note(|seen| {
            seen.complete = 0;
            seen.orders = None;
        });
    }

    pub async fn send_list(&self, instances: Vec<pb::InstanceInfo>) {
        self.order(SmIncomingMessage::UpdateInstances(pb::UpdateInstances {
            start_instances: instances,
            stop_instances: Vec::new(),
        }))
        .await;
    }

    pub async fn install(&self, id: &str, instances: Vec<pb::InstanceInfo>) {
        self.node_order(node_pb::node_order::Order::Install(node_pb::Install {
            request_id: id.into(),
            instances,
        }))
        .await;
    }

    pub async fn node_order(&self, order: node_pb::node_order::Order) {
        self.until("attached", |seen| seen.node_orders.is_some())
            .await;
        let orders = self.seen.lock().unwrap().node_orders.clone().unwrap();
        let order = node_pb::NodeOrder { order: Some(order) };
        orders.send(Ok(order)).await.unwrap();
    }

    /// Tells how items are doing on other Nodes.
    pub async fn tell_elsewhere(&self, items: Vec<node_pb::ItemElsewhere>) {
        self.node_order(node_pb::node_order::Order::Elsewhere(node_pb::Elsewhere {
            items,
        }))
        .await;
    }

    /// Waits for the next report of this state, which was not seen before.
    pub async fn until_told(&self, content: &str) -> node_pb::StateReport {
        let is = |report: &node_pb::StateReport| report.content == content.as_bytes();
        self.until(&format!("told the state `{content}`"), |seen| {
            seen.states.iter().any(is)
        })
        .await;
        let mut seen = self.seen.lock().unwrap();
        let place = seen.states.iter().position(is).unwrap();
        seen.states.remove(place)
    }

    /// An element of a list.
    pub fn instance(
        &self,
        item: &str,
        index: u64,
        version: &str,
        manifest: Digest,
    ) -> pb::InstanceInfo {
        let runtime = self
            .seen
            .lock()
            .unwrap()
            .info
            .as_ref()
            .map_or_else(String::new, |info| info.runtimes[0].runtime_id.clone());
        pb::InstanceInfo {
            instance: Some(aos_ipc::proto::common::v2::InstanceIdent {
                item_id: item.into(),
                subject_id: "subject".into(),
                instance: index,
                ..Default::default()
            }),
            version: version.into(),
            manifest_digest: manifest.to_string(),
            owner_id: "owner".into(),
            runtime_id: runtime,
            uid: 5_000 + u32::try_from(index).unwrap(),
            gid: 5_000,
            ..Default::default()
        }
    }

    pub fn state(&self, item: &str) -> (String, String) {
        let seen = self.seen.lock().unwrap();
        seen.instances
            .get(&(item.to_owned(), 0))
            .map(|status| (status.state.clone(), status.version.clone()))
            .unwrap_or_default()
    }

    /// Why an instance is not as it should be.
    pub fn error(&self, item: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let status = seen.instances.get(&(item.to_owned(), 0))?;
        let error = status.error.as_ref()?;
        (!error.message.is_empty()).then(|| error.message.clone())
    }

    /// Waits until the error of an instance contains a text.
    pub async fn until_error(&self, item: &str, text: &str) {
        self.until(text, |seen| {
            let status = seen.instances.get(&(item.to_owned(), 0));
            let error = status.and_then(|status| status.error.as_ref());
            error.is_some_and(|error| error.message.contains(text))
        })
        .await;
    }

    /// Tells SM whether the cloud is there.
    pub async fn tell_cloud(&self, connected: bool) {
        let status = match connected {
            true => pb::ConnectionEnum::Connected,
            false => pb::ConnectionEnum::Disconnected,
        };
        self.order(SmIncomingMessage::ConnectionStatus(pb::ConnectionStatus {
            cloud_status: status.into(),
        }))
        .await;
    }

    /// Waits until an instance is in a state.
    pub async fn until_state(&self, item: &str, version: &str, state: &str) {
        let what = format!("{item} {version} {state}");
        self.until(&what, |seen| {
            seen.instances
                .get(&(item.to_owned(), 0))
                .is_some_and(|status| status.state == state && status.version == version)
        })
        .await;
    }

    pub fn hold_blobs(&self) {
        self.seen.lock().unwrap().held = true;
    }

    pub fn release_blobs(&self) {
        self.seen.lock().unwrap().held = false;
        self.gate.notify_waiters();
    }

    async fn serve_blobs(self, listener: TcpListener) {
        let tls = mutual_server(
            &self.pki.0,
            &self.pki.1,
            Expect::kinds([CertKind::Sm]),
            &["http/1.1"],
        );
        let acceptor = TlsAcceptor::from(tls.config);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (cm, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let waiting = cm.gate.notified();
                if cm.seen.lock().unwrap().held {
                    waiting.await;
                }
                let digest: Digest = format!("sha256:{}", path.rsplit('/').next().unwrap())
                    .parse()
                    .unwrap();
                let answer = match cm.blobs.read(&digest, 1 << 30) {
                    Ok(body) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                            body.len()
                        );
                        [head.into_bytes(), body].concat()
                    }
                    Err(_) => {
                        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                            .to_vec()
                    }
                };
                cm.note(|seen| seen.served.push(digest.to_string()));
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    }

    fn take(&self, message: SmOutgoingMessage) {
        let key = |status: &pb::InstanceStatus| {
            let ident = status.instance.as_ref().unwrap();
            (ident.item_id.clone(), ident.instance)
        };
        let told: Vec<pb::InstanceStatus> = match &message {
            SmOutgoingMessage::NodeInstancesStatus(status) => status.instances.clone(),
            SmOutgoingMessage::UpdateInstancesStatus(status) => status.instances.clone(),
            _ => Vec::new(),
        };
        self.note(|seen| {
            for status in &told {
                let states = seen.history.entry(key(status).0).or_default();
                if states.last() != Some(&status.state) {
                    states.push(status.state.clone());
                }
            }
        });
        self.note(|seen| match message {
            SmOutgoingMessage::SmInfo(info) => seen.info = Some(info),
            SmOutgoingMessage::NodeInstancesStatus(status) => {
                seen.instances = status.instances.into_iter().map(|s| (key(&s), s)).collect();
                seen.complete += 1;
            }
            SmOutgoingMessage::UpdateInstancesStatus(status) => {
                seen.instances
                    .extend(status.instances.into_iter().map(|s| (key(&s), s)));
            }
            SmOutgoingMessage::NodeConfigStatus(status) => seen.config.push(status),
            SmOutgoingMessage::Log(log) => seen.logs.push(log),
            SmOutgoingMessage::Alert(alert) => {
                let told = alert.alert_item.as_ref().and_then(Told::of);
                match told {
                    Some(told) => seen.quotas.push(told),
                    None => seen.alerts.extend(alert.alert_item.map(text_of)),
                }
            }
            SmOutgoingMessage::InstantMonitoring(data) => seen.measured.push(data),
            SmOutgoingMessage::AverageMonitoring(data) => seen.averages.push(data),
        });
    }
}

fn text_of(item: pb::alert::AlertItem) -> String {
    use pb::alert::AlertItem;
    match item {
        AlertItem::InstanceAlert(alert) => {
            let item = alert
                .instance
                .map(|ident| ident.item_id)
                .unwrap_or_default();
            format!("{item}: {}", alert.message)
        }
        AlertItem::CoreAlert(alert) => format!("{}: {}", alert.core_component, alert.message),
        other => format!("{other:?}"),
    }
}

#[tonic::async_trait]
impl sm::SmService for FakeCm {
    type RegisterSMStream = ReceiverStream<Result<pb::SmIncomingMessages, Status>>;

    async fn register_sm(
        &self,
        request: Request<Streaming<pb::SmOutgoingMessages>>,
    ) -> Result<Response<Self::RegisterSMStream>, Status> {
        let (orders, stream) = mpsc::channel(16);
        let mut connection = 0;
        self.note(|seen| {
            seen.connections += 1;
            connection = seen.connections;
            seen.complete = 0;
            seen.orders = Some(orders);
        });
        let (cm, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                cm.take(message.sm_outgoing_message.unwrap());
            }
            cm.note(|seen| {
                if seen.connections == connection {
                    seen.complete = 0;
                    seen.orders = None;
                }
            });
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_blobs_infos(
        &self,
        request: Request<pb::BlobsInfosRequest>,
    ) -> Result<Response<pb::BlobsInfos>, Status> {
        let urls = request
            .into_inner()
            .digests
            .iter()
            .map(|digest| {
                let hex = digest.strip_prefix("sha256:").unwrap();
                format!("{}/blobs/sha256/{hex}", self.blob_url)
            })
            .collect();
        Ok(Response::new(pb::BlobsInfos { urls }))
    }
}

#[tonic::async_trait]
impl node_service::NodeService for FakeCm {
    type AttachStream = ReceiverStream<Result<node_pb::NodeOrder, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<node_pb::NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (orders, stream) = mpsc::channel(16);
        let (cm, mut reports) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                cm.note(|seen| match report.report.unwrap() {
                    Report::Hello(_) => seen.node_orders = Some(orders.clone()),
                    Report::InstallResult(result) => {
                        seen.installs.insert(result.request_id, result.instances);
                    }
                    Report::InstanceExit(exit) => seen.exits.push(exit),
                    Report::StateReport(report) => seen.states.push(report),
                    Report::StateSet(set) => {
                        seen.sets.insert(set.request_id, set.error);
                    }
                    Report::InstanceRuns(runs) => seen.runs.extend(
                        runs.instances
                            .into_iter()
                            .map(|run| (run.instance.clone().unwrap().item_id, run)),
                    ),
                    Report::Needs(needs) => seen.needs = needs.items,
                    Report::LogLines(lines) => seen.lines.push(lines),
                    Report::DataRemoved(_) | Report::Space(_) => {}
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl network::NetworkService for FakeCm {
    type SubscribeInstanceNetworkUpdatesStream =
        ReceiverStream<Result<pb::InstanceNetworkUpdateNotification, Status>>;

    async fn get_node_network_params(
        &self,
        _: Request<pb::GetNodeNetworkParamsRequest>,
    ) -> Result<Response<pb::GetNodeNetworkParamsResponse>, Status> {
        Ok(Response::new(pb::GetNodeNetworkParamsResponse {
            subnet: "172.31.0.0/16".into(),
            ip: "172.31.0.1".into(),
            ..Default::default()
        }))
    }

    async fn allocate_instance_network(
        &self,
        request: Request<pb::AllocateInstanceNetworkRequest>,
    ) -> Result<Response<pb::AllocateInstanceNetworkResponse>, Status> {
        if self.seen.lock().unwrap().silent {
            std::future::pending::<()>().await;
        }
        let ident = request.into_inner().instance.unwrap();
        let mut seen = self.seen.lock().unwrap();
        let next = format!("172.31.0.{}", seen.addresses.len() + 2);
        let key = format!("{}:{}", ident.item_id, ident.instance);
        let ip = seen.addresses.entry(key).or_insert(next).clone();
        Ok(Response::new(pb::AllocateInstanceNetworkResponse {
            subnet: "172.31.0.0/16".into(),
            ip,
            ..Default::default()
        }))
    }

    async fn release_instance_network(
        &self,
        request: Request<pb::ReleaseInstanceNetworkRequest>,
    ) -> Result<Response<pb::ReleaseInstanceNetworkResponse>, Status> {
        let ident = request.into_inner().instance.unwrap();
        self.note(|seen| seen.released.push(ident.item_id));
        Ok(Response::new(Default::default()))
    }

    async fn release_node_network(
        &self,
        _: Request<pb::ReleaseNodeNetworkRequest>,
    ) -> Result<Response<pb::ReleaseNodeNetworkResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn subscribe_instance_network_updates(
        &self,
        _: Request<pb::SubscribeInstanceNetworkUpdatesRequest>,
    ) -> Result<Response<Self::SubscribeInstanceNetworkUpdatesStream>, Status> {
        let (sender, stream) = mpsc::channel(1);
        let stop = self.stop.lock().unwrap().clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn sync_network_state(
        &self,
        _: Request<pb::SyncNetworkStateRequest>,
    ) -> Result<Response<pb::SyncNetworkStateResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}
