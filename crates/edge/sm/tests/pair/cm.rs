//! CM for two Nodes: lists, blobs, and the networks of `aos-network`, told as the real CM tells them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aos_image::BlobStore;
use aos_ipc::{
    convert::{ident_from_proto, ident_to_proto},
    proto::{
        aos::node::v1::{self as node_pb, node_service_server as node_service},
        servicemanager::v5::{
            self as pb, network_service_server as network, sm_incoming_messages::SmIncomingMessage,
            sm_outgoing_messages::SmOutgoingMessage, sm_service_server as sm,
        },
    },
};
use aos_network::{Networks, Pool, Request as Wanted};
use aos_pki::{ALPN_GRPC, Authority, CertKind, CertSource, Expect, Trust, mutual_server};
use aos_types::{AllowedConnection, Digest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};

use super::{HERE, One, node_name, source};

type Told = Result<pb::InstanceNetworkUpdateNotification, Status>;

/// What both Nodes share.
struct Shared {
    networks: Mutex<Networks>,
    version: watch::Sender<u64>,
    subscribers: Mutex<BTreeMap<String, mpsc::Sender<Told>>>,
    blobs: BlobStore,
    blob_url: String,
}

impl Shared {
    fn decide<T>(&self, decide: impl FnOnce(&mut Networks) -> T) -> T {
        let mut networks = self.networks.lock().unwrap();
        let answer = decide(&mut networks);
        networks.take_changes();
        let pushes = networks.take_pushes();
        drop(networks);
        for push in pushes {
            let update = pb::PendingFirewallUpdate {
                instance: Some(ident_to_proto(&push.ident)),
                firewall_rules: push.rules.iter().map(rule).collect(),
            };
            let update =
                pb::instance_network_update_notification::Update::PendingFirewallUpdate(update);
            let message = pb::InstanceNetworkUpdateNotification {
                update: Some(update),
            };
            if let Some(out) = self.subscribers.lock().unwrap().get(push.node.as_str()) {
                let _ = out.try_send(Ok(message));
            }
        }
        self.version.send_modify(|version| *version += 1);
        answer
    }

    fn picture(&self, node: usize) -> node_pb::UnitNetwork {
        let other = 1 - node;
        node_pb::UnitNetwork {
            link: "vxlan".into(),
            nodes: vec![node_pb::NetworkNode {
                node_id: node_name(other),
                address: format!("192.0.2.1{other}"),
            }],
            networks: self
                .networks
                .lock()
                .unwrap()
                .view()
                .into_iter()
                .map(|view| node_pb::OwnerNetwork {
                    network_id: view.owner.to_string(),
                    subnet: view.subnet.to_string(),
                    node_ids: view.nodes.iter().map(ToString::to_string).collect(),
                    instances: view
                        .instances
                        .iter()
                        .map(|one| node_pb::NetworkInstance {
                            instance: Some(ident_to_proto(&one.ident)),
                            ip: one.ip.to_string(),
                            hostname: one.hostname.clone().unwrap_or_default(),
                            hostname_refused: one
                                .taken
                                .as_ref()
                                .map(|(name, _)| name.clone())
                                .unwrap_or_default(),
                            hostname_held_by: one
                                .taken
                                .as_ref()
                                .map(|(_, item)| item.to_string())
                                .unwrap_or_default(),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

fn rule(rule: &aos_network::Rule) -> pb::FirewallRule {
    pb::FirewallRule {
        dst_ip: rule.dst.to_string(),
        dst_port: rule.ports(),
        proto: rule.protocol.to_string(),
        src_ip: rule.src.to_string(),
    }
}

#[derive(Default)]
struct Seen {
    runtime: String,
    introduced: bool,
    orders: Option<mpsc::Sender<Result<pb::SmIncomingMessages, Status>>>,
    /// Item and index; state and error.
    instances: BTreeMap<(String, u64), (String, String)>,
    /// Texts of alerts about instances.
    alerts: Vec<String>,
}

/// The side of CM that one Node sees.
#[derive(Clone)]
struct Side {
    node: usize,
    address: String,
    shared: Arc<Shared>,
    seen: Arc<watch::Sender<Seen>>,
    stop: Arc<Mutex<CancellationToken>>,
    pki: Arc<(CertSource, Trust)>,
}

pub struct Cm([Side; 2]);

impl Cm {
    pub async fn start(root: &Authority, blobs: BlobStore) -> Self {
        let blob_listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let pool = Pool::new(vec!["172.28.0.0/14".parse().unwrap()], 20, vec![]).unwrap();
        let shared = Arc::new(Shared {
            networks: Mutex::new(Networks::restore(pool, [])),
            version: watch::Sender::new(0),
            subscribers: Mutex::default(),
            blobs,
            blob_url: format!("https://{}", blob_listener.local_addr().unwrap()),
        });
        let pki = Arc::new((source(root, CertKind::Cm, 0), Trust::new(root.roots())));
        let mut sides = Vec::new();
        for node in 0..2 {
            let listener = TcpListener::bind((HERE, 0)).await.unwrap();
            let side = Side {
                node,
                address: listener.local_addr().unwrap().to_string(),
                shared: shared.clone(),
                seen: Arc::default(),
                stop: Arc::default(),
                pki: pki.clone(),
            };
            side.serve(listener);
            sides.push(side);
        }
        tokio::spawn(serve_blobs(shared, pki, blob_listener));
        Self(sides.try_into().ok().unwrap())
    }

    pub fn address(&self, node: usize) -> &str {
        &self.0[node].address
    }

    /// All connections break; CM is back at once, and what it stored is there.
    pub async fn restart(&self) {
        for side in &self.0 {
            std::mem::take(&mut *side.stop.lock().unwrap()).cancel();
            side.seen.send_modify(|seen| {
                seen.orders = None;
                seen.introduced = false;
            });
        }
        for side in &self.0 {
            let listener = loop {
                match TcpListener::bind(&side.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            side.serve(listener);
        }
    }

    pub async fn until_introduced(&self, node: usize) {
        let mut seen = self.0[node].seen.subscribe();
        let introduced = seen.wait_for(|seen| seen.introduced && seen.orders.is_some());
        let reached = timeout(super::PATIENCE, introduced).await;
        assert!(reached.is_ok(), "Node {node} does not come");
    }

    pub async fn order(&self, node: usize, wanted: &[One]) {
        self.until_introduced(node).await;
        let side = &self.0[node];
        let (orders, runtime) = {
            let seen = side.seen.borrow();
            (seen.orders.clone(), seen.runtime.clone())
        };
        let start = wanted
            .iter()
            .map(|(item, index, owner, manifest)| pb::InstanceInfo {
                instance: Some(aos_ipc::proto::common::v2::InstanceIdent {
                    item_id: (*item).into(),
                    subject_id: "subject".into(),
                    instance: *index,
                    ..Default::default()
                }),
                version: "1.0.0".into(),
                manifest_digest: manifest.to_string(),
                owner_id: (*owner).into(),
                runtime_id: runtime.clone(),
                uid: 5_000 + u32::try_from(*index).unwrap(),
                gid: 5_000,
                ..Default::default()
            });
        let message = pb::SmIncomingMessages {
            sm_incoming_message: Some(SmIncomingMessage::UpdateInstances(pb::UpdateInstances {
                start_instances: start.collect(),
                stop_instances: Vec::new(),
            })),
        };
        if let Some(orders) = orders {
            let _ = orders.send(Ok(message)).await;
        }
    }

    /// Whether the Node comes to run just these.
    pub async fn runs(&self, node: usize, wanted: &[One], patience: Duration) -> bool {
        let mut keys: Vec<(String, u64)> = wanted
            .iter()
            .map(|(item, index, _, _)| ((*item).to_owned(), *index))
            .collect();
        keys.sort();
        let mut seen = self.0[node].seen.subscribe();
        let same = seen.wait_for(|seen| {
            seen.introduced
                && seen.instances.keys().eq(keys.iter())
                && seen.instances.values().all(|(state, _)| state == "active")
        });
        timeout(patience, same).await.is_ok()
    }

    pub fn error_of(&self, node: usize, item: &str) -> String {
        let seen = self.0[node].seen.borrow();
        let found = seen.instances.iter().find(|((of, _), _)| of == item);
        found
            .map(|(_, (_, error))| error.clone())
            .unwrap_or_default()
    }

    pub fn alerts(&self, node: usize) -> Vec<String> {
        self.0[node].seen.borrow().alerts.clone()
    }

    pub fn told(&self, node: usize) -> String {
        format!(
            "Node {node} tells {:?}",
            self.0[node].seen.borrow().instances
        )
    }
}

impl Side {
    fn serve(&self, listener: TcpListener) {
        let expect = Expect::kinds([CertKind::Sm]);
        let tls = mutual_server(&self.pki.0, &self.pki.1, expect, ALPN_GRPC);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(sm::SmServiceServer::new(self.clone()))
            .add_service(network::NetworkServiceServer::new(self.clone()))
            .add_service(node_service::NodeServiceServer::new(self.clone()));
        let stop = self.stop.lock().unwrap().clone();
        tokio::spawn(aos_ipc::serve(listener, tls, routes.routes(), stop));
    }

    fn take(&self, message: SmOutgoingMessage) {
        let read = |status: pb::InstanceStatus| {
            let ident = status.instance.unwrap();
            let error = status.error.map(|error| error.message).unwrap_or_default();
            ((ident.item_id, ident.instance), (status.state, error))
        };
        self.seen.send_modify(|seen| match message {
            SmOutgoingMessage::SmInfo(info) => seen.runtime = info.runtimes[0].runtime_id.clone(),
            SmOutgoingMessage::NodeInstancesStatus(status) => {
                seen.instances = status.instances.into_iter().map(read).collect();
                seen.introduced = true;
            }
            SmOutgoingMessage::UpdateInstancesStatus(status) => {
                seen.instances
                    .extend(status.instances.into_iter().map(read));
            }
            SmOutgoingMessage::Alert(pb::Alert {
                alert_item: Some(pb::alert::AlertItem::InstanceAlert(alert)),
                ..
            }) => seen.alerts.push(alert.message),
            _ => {}
        });
    }
}

#[tonic::async_trait]
impl sm::SmService for Side {
    type RegisterSMStream = ReceiverStream<Result<pb::SmIncomingMessages, Status>>;

    async fn register_sm(
        &self,
        request: Request<Streaming<pb::SmOutgoingMessages>>,
    ) -> Result<Response<Self::RegisterSMStream>, Status> {
        let (orders, stream) = mpsc::channel(16);
        self.seen.send_modify(|seen| {
            seen.orders = Some(orders.clone());
            seen.introduced = false;
        });
        let (side, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                side.take(message.sm_outgoing_message.unwrap());
            }
            side.seen.send_modify(|seen| {
                if seen
                    .orders
                    .as_ref()
                    .is_some_and(|own| own.same_channel(&orders))
                {
                    seen.orders = None;
                    seen.introduced = false;
                }
            });
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_blobs_infos(
        &self,
        request: Request<pb::BlobsInfosRequest>,
    ) -> Result<Response<pb::BlobsInfos>, Status> {
        let digests = request.into_inner().digests;
        let urls = digests.iter().map(|digest| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            format!("{}/blobs/sha256/{hex}", self.shared.blob_url)
        });
        Ok(Response::new(pb::BlobsInfos {
            urls: urls.collect(),
        }))
    }
}

#[tonic::async_trait]
impl node_service::NodeService for Side {
    type AttachStream = ReceiverStream<Result<node_pb::NodeOrder, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<node_pb::NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (orders, stream) = mpsc::channel(16);
        let mut reports = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = reports.message().await {} });
        let side = self.clone();
        tokio::spawn(async move {
            let mut version = side.shared.version.subscribe();
            loop {
                version.borrow_and_update();
                let picture = side.shared.picture(side.node);
                let order = node_pb::NodeOrder {
                    order: Some(node_pb::node_order::Order::UnitNetwork(picture)),
                };
                if orders.send(Ok(order)).await.is_err() || version.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl network::NetworkService for Side {
    type SubscribeInstanceNetworkUpdatesStream = ReceiverStream<Told>;

    async fn get_node_network_params(
        &self,
        request: Request<pb::GetNodeNetworkParamsRequest>,
    ) -> Result<Response<pb::GetNodeNetworkParamsResponse>, Status> {
        let request = request.into_inner();
        let (owner, node) = (
            request.network_id.parse().unwrap(),
            request.node_id.parse().unwrap(),
        );
        let params = self.shared.decide(|networks| networks.node(&owner, &node));
        let params = params.unwrap();
        Ok(Response::new(pb::GetNodeNetworkParamsResponse {
            subnet: params.subnet.to_string(),
            ip: params.ip.to_string(),
            vlan_id: params.vlan.into(),
            error: None,
        }))
    }

    async fn allocate_instance_network(
        &self,
        request: Request<pb::AllocateInstanceNetworkRequest>,
    ) -> Result<Response<pb::AllocateInstanceNetworkResponse>, Status> {
        let request = request.into_inner();
        let data = request.service_data.unwrap_or_default();
        let allowed = data.allowed_connections.iter();
        let wanted = Wanted {
            ident: ident_from_proto(request.instance).unwrap(),
            owner: request.network_id.parse().unwrap(),
            node: request.node_id.parse().unwrap(),
            exposed: data
                .exposed_ports
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            allowed: allowed
                .map(|text| text.parse::<AllowedConnection>().unwrap().into())
                .collect(),
            hostname: data.hosts.into_iter().next(),
        };
        let place = self
            .shared
            .decide(|networks| networks.allocate(wanted))
            .unwrap();
        Ok(Response::new(pb::AllocateInstanceNetworkResponse {
            subnet: place.subnet.to_string(),
            ip: place.ip.to_string(),
            firewall_rules: place.rules.iter().map(rule).collect(),
            ..Default::default()
        }))
    }

    async fn release_instance_network(
        &self,
        request: Request<pb::ReleaseInstanceNetworkRequest>,
    ) -> Result<Response<pb::ReleaseInstanceNetworkResponse>, Status> {
        let request = request.into_inner();
        let ident = ident_from_proto(request.instance).unwrap();
        let node = request.node_id.parse().unwrap();
        self.shared
            .decide(|networks| networks.release(&ident, &node));
        Ok(Response::new(Default::default()))
    }

    async fn release_node_network(
        &self,
        request: Request<pb::ReleaseNodeNetworkRequest>,
    ) -> Result<Response<pb::ReleaseNodeNetworkResponse>, Status> {
        let request = request.into_inner();
        let (owner, node) = (
            request.network_id.parse().unwrap(),
            request.node_id.parse().unwrap(),
        );
        self.shared
            .decide(|networks| networks.release_node(&owner, &node));
        Ok(Response::new(Default::default()))
    }

    async fn subscribe_instance_network_updates(
        &self,
        request: Request<pb::SubscribeInstanceNetworkUpdatesRequest>,
    ) -> Result<Response<Self::SubscribeInstanceNetworkUpdatesStream>, Status> {
        let (out, stream) = mpsc::channel(64);
        let node = request.into_inner().node_id;
        self.shared.subscribers.lock().unwrap().insert(node, out);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn sync_network_state(
        &self,
        request: Request<pb::SyncNetworkStateRequest>,
    ) -> Result<Response<pb::SyncNetworkStateResponse>, Status> {
        let request = request.into_inner();
        let node = request.node_id.parse().unwrap();
        let reported = request
            .instances
            .into_iter()
            // Without rules all are told again.
            .map(|one| (ident_from_proto(one.instance).unwrap(), Vec::new()))
            .collect();
        self.shared
            .decide(|networks| networks.sync(&node, &reported));
        Ok(Response::new(Default::default()))
    }
}

async fn serve_blobs(shared: Arc<Shared>, pki: Arc<(CertSource, Trust)>, listener: TcpListener) {
    let tls = mutual_server(&pki.0, &pki.1, Expect::kinds([CertKind::Sm]), &["http/1.1"]);
    let acceptor = TlsAcceptor::from(tls.config);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
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
            let path = head.split(' ').nth(1).unwrap();
            let digest = format!("sha256:{}", path.rsplit('/').next().unwrap());
            let digest: Digest = digest.parse().unwrap();
            let body = shared.blobs.read(&digest, 1 << 30).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            let _ = stream.shutdown().await;
        });
    }
}
