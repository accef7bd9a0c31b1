//! A cloud on loopback and a Unit that speaks the protocol by hand, with real certificates, TLS and WebSocket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use aos_api::{
    BlobEncryption, BundleState, DeploymentBundle, EnvVarState, ListQuery, LogKind, LogState,
    NewAssignedService, NewAssignment, NewEnvVar, NewEnvVars, NewLogRequest, NodeLogState,
    OnlineStatus, TimelineKind, UnitPatch, UpdatePhase,
};
use aos_cloud_protocol::{
    Body, Caps, CertType, CertificateRequest, DesiredStatus, DiscoveryRequest, DiscoveryResponse,
    EnvVarStatus, Header, InstallUnitCertificatesConfirmation, InstalledCertificate,
    InstanceStatus, InstancesStatus, IssueUnitCertificates, ItemIdentity, ItemStatus, LogStatus,
    Message, NewState, NodeStatus, OverrideEnvVarsStatus, PushLog, RequestBlobUrls, StateRequest,
    StateResult, UnitStatus, UploadType, decode,
};
use aos_db::{
    Actor, BlobRow, IssuedCertificate, NewVersion, RegisterBy, Registration, RenewalFilter,
    Retention, hash_secret,
};
use aos_image::BlobStore;
use aos_pki::{
    BlobDecryptor, BlobKey, BlobSignature, CertKind, CertProfile, CertSource, ChainBook, ClientTls,
    KeyAlgorithm, KeyPair, KeyUnwrapper as _, PeerIdentity, Roots, Trust, certificates_from_pem,
    certified_key, host_client,
};
use aos_server::{Options, Server};
use aos_time::{Clock, SystemClock};
use aos_types::{
    ArchInfo, Digest, ErrorInfo, InstanceIdent, InstanceState, ItemState, ItemType, NodeId,
    NodeInfo, NodeState, OsInfo, RuntimeId, RuntimeInfo, SystemId, state_checksum,
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use sha3::{Digest as _, Sha3_256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WAIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

async fn start(data: &Path) -> Server {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        data: data.into(),
        people: any,
        units: any,
        hosts: vec![],
        organisation: "Acme".into(),
        retention: Retention::default(),
    };
    Server::start(options, CancellationToken::new())
        .await
        .unwrap()
}

async fn stop(server: Server) {
    server.stop();
    soon("the server to stop", server.stopped()).await;
}

async fn owner(server: &Server, data: &Path) -> Actor {
    use std::os::unix::fs::PermissionsExt as _;
    let link = data.join("owner-link.txt");
    assert_eq!(
        std::fs::metadata(&link).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = std::fs::read_to_string(link).unwrap();
    let (_, token) = text.trim().split_once("/welcome#token=").unwrap();
    server
        .db()
        .set_up_owner(&hash_secret(token), "Acme", "owner", "hash")
        .await
        .unwrap()
        .unwrap()
        .actor()
}

/// A Unit with its own key and a certificate of the cloud.
struct FakeUnit {
    id: Uuid,
    system_id: SystemId,
    tls: ClientTls,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

fn client(server: &Server, profile: Option<&CertProfile>) -> (ClientTls, Option<String>) {
    let source = CertSource::new();
    let mut fingerprint = None;
    if let Some(profile) = profile {
        let pair = server
            .authority()
            .issue_pair(KeyAlgorithm::EcP256, profile, SystemClock.now())
            .unwrap();
        let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
        source.set(Some(certified_key(chain, &pair.key).unwrap()));
        fingerprint = Some(pair.issued.fingerprint.to_string());
    }
    let trust = Trust::new(server.authority().roots());
    (
        host_client(&source, &trust, None, &["http/1.1"]),
        fingerprint,
    )
}

async fn register(server: &Server, actor: &Actor, name: &str) -> FakeUnit {
    let system_id = SystemId::new(name).unwrap();
    let profile = CertProfile::unit(CertKind::Online, &system_id, None);
    let (tls, fingerprint) = client(server, Some(&profile));
    let registration = Registration {
        system_uid: system_id.clone(),
        online_key: format!("key of {name}"),
        unit_model: String::new(),
        nodes: vec![],
    };
    let certificate = IssuedCertificate {
        fingerprint: fingerprint.unwrap(),
        cert_type: "online".into(),
        node_id: "main".into(),
        serial: "01".into(),
        // Long enough not to be renewed by itself.
        not_after: SystemClock.now() + Duration::from_secs(300 * 24 * 3600),
        public_key: None,
    };
    let registered = server
        .db()
        .register_unit(&RegisterBy::Actor(actor), &registration, &[certificate], "")
        .await
        .unwrap()
        .unwrap();
    FakeUnit {
        id: registered.unit,
        system_id,
        tls,
    }
}

async fn connect(tls: &ClientTls, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = tls.name_for("127.0.0.1").unwrap();
    TlsConnector::from(tls.config.clone())
        .connect(name, stream)
        .await
}

async fn request(
    tls: &ClientTls,
    to: SocketAddr,
    request: Request<http_body_util::Full<Bytes>>,
) -> std::io::Result<(StatusCode, http::HeaderMap, Bytes)> {
    use http_body_util::BodyExt as _;
    let stream = connect(tls, to).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut send, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(std::io::Error::other)?;
    let driver = tokio::spawn(connection);
    let answer = send
        .send_request(request)
        .await
        .map_err(std::io::Error::other)?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driver.abort();
    Ok((head.status, head.headers, body))
}

fn get(to: SocketAddr, path: &str) -> http::request::Builder {
    Request::builder().uri(path).header("Host", to.to_string())
}

async fn discover(tls: &ClientTls, to: SocketAddr, system_id: &SystemId) -> (StatusCode, Bytes) {
    let body = DiscoveryRequest::new(system_id.clone()).encode();
    let ask = get(to, "/sd/v7/")
        .method("POST")
        .header("Content-Type", "application/json")
        .body(body.into());
    let (status, _, body) = request(tls, to, ask.unwrap()).await.unwrap();
    (status, body)
}

impl FakeUnit {
    async fn open(&self, to: SocketAddr) -> Socket {
        let (status, body) = discover(&self.tls, to, &self.system_id).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        let found = DiscoveryResponse::decode(&body).unwrap();
        assert_eq!(found.connection_info, [format!("wss://{to}/ws/v7/")]);
        self.socket(to, found.auth_token.expose()).await.unwrap()
    }

    async fn socket(&self, to: SocketAddr, token: &str) -> Result<Socket, tungstenite::Error> {
        use tungstenite::client::IntoClientRequest as _;
        let mut request = format!("wss://{to}/ws/v7/").into_client_request()?;
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("Authorization", value);
        let stream = connect(&self.tls, to).await?;
        tokio_tungstenite::client_async(request, stream)
            .await
            .map(|(socket, _)| socket)
    }

    fn frame(&self, txn: &str, correlation_id: Option<&str>, body: Body) -> tungstenite::Message {
        let message = Message {
            header: Header {
                system_id: self.system_id.clone(),
                created_at: SystemClock.now(),
                txn: txn.into(),
            },
            correlation_id: correlation_id.map(Into::into),
            body,
        };
        tungstenite::Message::Binary(message.encode().into())
    }

    async fn send(&self, socket: &mut Socket, correlation_id: Option<&str>, body: Body) {
        let txn = Uuid::new_v4().to_string();
        let frame = self.frame(&txn, correlation_id, body);
        socket.send(frame).await.unwrap();
        let ack = self.next(socket).await;
        assert_eq!((ack.body, ack.header.txn), (Body::Ack, txn));
    }

    async fn ack(&self, socket: &mut Socket, txn: &str) {
        socket.send(self.frame(txn, None, Body::Ack)).await.unwrap();
    }

    /// The next message of the cloud, whatever it is.
    async fn next(&self, socket: &mut Socket) -> Message {
        loop {
            match soon("a frame", socket.next()).await.unwrap().unwrap() {
                tungstenite::Message::Binary(bytes) => {
                    let decoded = decode(&bytes, &Caps::default()).unwrap();
                    assert_eq!(decoded.unreadable, []);
                    assert_eq!(decoded.message.header.system_id, self.system_id);
                    return decoded.message;
                }
                tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_) => {}
                other => panic!("unexpected frame {other:?}"),
            }
        }
    }

    async fn desired(&self, socket: &mut Socket) -> (String, DesiredStatus) {
        let message = self.next(socket).await;
        match message.body {
            Body::DesiredStatus(desired) => (message.header.txn, desired),
            other => panic!("expected a desired status, got {other:?}"),
        }
    }
}

/// What a bundle would have brought: one version of one service with four blobs.
async fn publish(server: &Server, actor: &Actor, data: &Path, version: &str) -> Vec<Digest> {
    publish_damaged(server, actor, data, version, "").await
}

/// The same, and the record of one of its blobs says nonsense.
async fn publish_damaged(
    server: &Server,
    actor: &Actor,
    data: &Path,
    version: &str,
    damaged: &str,
) -> Vec<Digest> {
    let store = BlobStore::open(data).unwrap();
    let blobs: Vec<BlobRow> = ["index", "manifest", "config", "layer"]
        .iter()
        .map(|what| {
            let content = format!("{what} of {version}").repeat(1000);
            let stored = store.insert_bytes(content.as_bytes()).unwrap();
            BlobRow {
                digest: stored.digest,
                size: stored.size,
                sha3_256: match *what == damaged {
                    true => "of no use".into(),
                    false => hex::encode(Sha3_256::digest(content.as_bytes())),
                },
                signature: String::new(),
            }
        })
        .collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let mut bundle = DeploymentBundle {
        id: Uuid::new_v4(),
        state: BundleState::Processing,
        build_info: String::new(),
        is_check: false,
        file_name: "b.tar.gz".into(),
        file_size: 1,
        sha256: String::new(),
        signed_by: String::new(),
        created_by: actor.name().into(),
        created_at: SystemClock.now(),
        items: vec![],
        stages: vec![],
    };
    let new = NewVersion {
        service: None,
        codename: "http".into(),
        title: "HTTP".into(),
        description: String::new(),
        version: version.parse().unwrap(),
        index_digest: digests[0].to_string(),
        configuration: serde_json::json!({}),
        platforms: vec![],
        labels: vec![],
        priority: 0,
        min_num_instances: 1,
        default_state: Some("begin with this".into()),
        blobs,
    };
    server
        .db()
        .publish_bundle(actor, &mut bundle, &[new])
        .await
        .unwrap();
    digests
}

async fn assign(server: &Server, actor: &Actor, unit: &FakeUnit) -> Uuid {
    let new = NewAssignment {
        subject: "all".into(),
        system_uids: vec![unit.system_id.to_string()],
        services: vec![NewAssignedService {
            service: "http".into(),
            ..NewAssignedService::default()
        }],
        ..NewAssignment::default()
    };
    let subject = server.db().assign(actor, &new).await.unwrap();
    subject.id
}

fn node() -> NodeStatus {
    let arch = ArchInfo {
        architecture: "amd64".into(),
        variant: None,
    };
    let os = OsInfo {
        os: "linux".into(),
        ..OsInfo::default()
    };
    NodeStatus {
        info: NodeInfo {
            id: NodeId::new("main").unwrap(),
            node_type: "main".into(),
            title: String::new(),
            max_dmips: 1000,
            total_ram: 1 << 30,
            physical_ram: None,
            os: os.clone(),
            cpus: vec![],
            partitions: vec![],
            attrs: [("MainNode".into(), String::new())].into(),
            state: NodeState::Provisioned,
            error: None,
        },
        runtimes: vec![RuntimeInfo {
            id: RuntimeId::new("crun-1").unwrap(),
            runtime_type: "crun".into(),
            arch,
            os,
            max_dmips: None,
            allowed_dmips: None,
            total_ram: None,
            allowed_ram: None,
            max_instances: 0,
        }],
        resources: vec![],
        is_connected: true,
    }
}

fn empty_status() -> UnitStatus {
    UnitStatus {
        nodes: Some(vec![node()]),
        items: Some(vec![]),
        instances: Some(vec![]),
        ..UnitStatus::default()
    }
}

fn status_of(desired: &DesiredStatus) -> UnitStatus {
    let item = &desired.items.as_ref().unwrap()[0];
    let group = &desired.instances.as_ref().unwrap()[0];
    let identity = ItemIdentity::service(item.item.clone());
    UnitStatus {
        is_delta: true,
        items: Some(vec![ItemStatus {
            item: identity.clone(),
            version: item.version.clone(),
            state: ItemState::Installed,
            error: None,
        }]),
        instances: Some(vec![InstancesStatus {
            item: identity,
            subject: group.subject.clone(),
            version: item.version.clone(),
            instances: vec![InstanceStatus {
                node: Some(NodeId::new("main").unwrap()),
                runtime: Some(RuntimeId::new("crun-1").unwrap()),
                index: 0,
                state: InstanceState::Active,
                state_checksum: None,
                error: None,
            }],
        }]),
        ..UnitStatus::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_gets_what_is_assigned_fetches_it_and_reports() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let to = server.units();

    // It comes with nothing assigned: the desired state is empty, and complete.
    let mut socket = unit.open(to).await;
    let (txn, desired) = unit.desired(&mut socket).await;
    assert_eq!(
        (desired.items, desired.instances),
        (Some(vec![]), Some(vec![]))
    );
    let chain = &desired.certificate_chains.as_ref().unwrap()[0];
    unit.ack(&mut socket, &txn).await;
    unit.send(&mut socket, None, Body::UnitStatus(empty_status()))
        .await;
    let shown = server.db().unit(&actor, "unit-1").await.unwrap();
    assert_eq!(shown.online_status, OnlineStatus::Online);
    assert_eq!(shown.counts.nodes, 1);

    // A service is published and assigned: a new desired state comes at once, with no question asked.
    let digests = publish(&server, &actor, data.path(), "1.0.0").await;
    assign(&server, &actor, &unit).await;
    let (txn, desired) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let items = desired.items.as_ref().unwrap();
    assert_eq!((items.len(), items[0].index_digest), (1, digests[0]));
    assert_eq!(desired.instances.as_ref().unwrap()[0].num_instances, 1);

    // It asks for the blobs, and for one that is none of its business.
    let mut wanted = digests.clone();
    wanted.push(Digest::from_bytes([9; 32]));
    let ask = Body::RequestBlobUrls(RequestBlobUrls { digests: wanted });
    unit.send(&mut socket, Some("ask-1"), ask).await;
    let answer = unit.next(&mut socket).await;
    assert_eq!(answer.correlation_id.as_deref(), Some("ask-1"));
    unit.ack(&mut socket, &answer.header.txn).await;
    let Body::BlobUrls(urls) = answer.body else {
        panic!("expected blob urls")
    };
    assert_eq!(urls.items.len(), 4);

    // It fetches one, in two parts, and checks hash and signature as AosCore does.
    let blob = &urls.items[0];
    let path = blob.urls[0]
        .strip_prefix(&format!("https://{to}"))
        .unwrap()
        .to_owned();
    let first = get(to, &path)
        .header("Range", "bytes=0-99")
        .body(Bytes::new().into());
    let (status, headers, start_of) = request(&unit.tls, to, first.unwrap()).await.unwrap();
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        headers["content-range"],
        format!("bytes 0-99/{}", blob.size)
    );
    let rest = get(to, &path)
        .header("Range", "bytes=100-")
        .body(Bytes::new().into());
    let (_, _, end_of) = request(&unit.tls, to, rest.unwrap()).await.unwrap();
    let content = [start_of, end_of].concat();
    assert_eq!(content.len() as u64, blob.size);
    assert_eq!(<[u8; 32]>::from(Sha3_256::digest(&content)), blob.sha256.0);
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(&content);
    assert_eq!(digest.as_slice(), blob.digest.as_bytes());
    let sign = blob.sign_info.as_ref().unwrap();
    assert_eq!(
        (sign.chain_name.as_str(), sign.alg.as_str()),
        (chain.name.as_str(), "RSA/SHA256")
    );
    verify(&server, &desired, sign, &content);

    // AosCore fetches without a certificate; another Unit's certificate opens nothing.
    let (bare, _) = client(&server, None);
    let head = get(to, &path).method("HEAD").body(Bytes::new().into());
    let (status, headers, _) = request(&bare, to, head.unwrap()).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["accept-ranges"], "bytes");
    let other = register(&server, &actor, "unit-2").await;
    let whole = get(to, &path).body(Bytes::new().into());
    let (status, _, _) = request(&other.tls, to, whole.unwrap()).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    let forged = get(to, "/blobs/v7/AAAA").body(Bytes::new().into());
    let (status, _, _) = request(&bare, to, forged.unwrap()).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);

    // It reports that it runs; a message that comes twice is acknowledged twice and handled once.
    let report = unit.frame("once", None, Body::UnitStatus(status_of(&desired)));
    for _ in 0..2 {
        socket.send(report.clone()).await.unwrap();
        let ack = unit.next(&mut socket).await;
        assert_eq!((ack.body, ack.header.txn.as_str()), (Body::Ack, "once"));
    }
    let shown = server.db().unit(&actor, "unit-1").await.unwrap();
    assert_eq!(shown.update_phase, UpdatePhase::Installed);
    assert_eq!(shown.counts.instances_active, 1);
    let told = server.db().newest_desired(unit.id).await.unwrap().unwrap();
    assert_eq!(told.txn.as_deref(), Some(txn.as_str()));
    assert!(told.acked_at.is_some() && told.applied_at.is_some());
    stop(server).await;
}

fn verify(
    server: &Server,
    desired: &DesiredStatus,
    sign: &aos_cloud_protocol::SignInfo,
    content: &[u8],
) {
    let mut book = ChainBook::new();
    for certificate in desired.certificates.iter().flatten() {
        book.add_certificate(&certificate.fingerprint, &certificate.der)
            .unwrap();
    }
    for chain in desired.certificate_chains.iter().flatten() {
        book.add_chain(&chain.name, &chain.fingerprints).unwrap();
    }
    let roots: Roots = server.authority().roots();
    let signature = BlobSignature {
        chain_name: sign.chain_name.clone(),
        algorithm: sign.alg.parse().unwrap(),
        value: sign.value.clone(),
        trusted_timestamp: sign.trusted_timestamp,
        ocsp_values: Vec::new(),
        require_ocsp: false,
    };
    let mut hash = signature.algorithm.hash().context();
    hash.update(content);
    book.verify(&signature, &hash.finish(), &roots, SystemClock.now())
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_outbox_and_who_the_units_are() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    publish(&server, &actor, data.path(), "1.0.0").await;
    assign(&server, &actor, &unit).await;

    // It gets the desired state, but the cloud dies before it says so.
    let mut socket = unit.open(server.units()).await;
    let (txn, desired) = unit.desired(&mut socket).await;
    assert_eq!(desired.items.as_ref().unwrap().len(), 1);
    stop(server).await;
    while let Some(Ok(frame)) = soon("the close", socket.next()).await {
        assert!(matches!(frame, tungstenite::Message::Close(_)), "{frame:?}");
    }

    // The same message comes again: same txn. Users stay, so there is no owner link any more.
    let server = start(data.path()).await;
    assert!(!data.path().join("owner-link.txt").exists());
    let mut socket = unit.open(server.units()).await;
    let (again, same) = unit.desired(&mut socket).await;
    assert_eq!((again.as_str(), &same), (txn.as_str(), &desired));
    unit.ack(&mut socket, &again).await;
    unit.send(&mut socket, None, Body::UnitStatus(empty_status()))
        .await;

    // Its status differs from what it took over, so it is told once more on this connection.
    let (third, same) = unit.desired(&mut socket).await;
    assert_ne!(third, txn);
    assert_eq!(same.items, desired.items);
    unit.ack(&mut socket, &third).await;
    unit.send(&mut socket, None, Body::UnitStatus(status_of(&same)))
        .await;
    stop(server).await;

    // All is well: after a third start nothing is sent.
    let server = start(data.path()).await;
    let mut socket = unit.open(server.units()).await;
    let mut status = status_of(&same);
    status.is_delta = false;
    status.nodes = Some(vec![node()]);
    unit.send(&mut socket, None, Body::UnitStatus(status)).await;
    let quiet = tokio::time::timeout(Duration::from_millis(500), socket.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    stop(server).await;
}

async fn protocol_events(server: &Server, actor: &Actor, unit: &str) -> Vec<String> {
    let page = server
        .db()
        .timeline(actor, unit, &ListQuery::default())
        .await
        .unwrap();
    page.items
        .into_iter()
        .filter(|event| event.kind == TimelineKind::Protocol)
        .map(|event| event.text)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_who_he_says_is_refused_and_people_see_it() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let other = register(&server, &actor, "unit-2").await;
    let to = server.units();

    // Discovery with another's system id.
    let (status, body) = discover(&unit.tls, to, &other.system_id).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("unit-1") && text.contains("unit-2"), "{text}");
    let events = protocol_events(&server, &actor, "unit-1").await;
    assert!(
        events[0].contains("claimed to be Unit `unit-2`"),
        "{events:?}"
    );

    // A message with another's system id closes the link; nothing of it is taken.
    let mut socket = unit.open(to).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let lie = other.frame("lie", None, Body::UnitStatus(empty_status()));
    socket.send(lie).await.unwrap();
    match soon("the close", socket.next()).await.unwrap().unwrap() {
        tungstenite::Message::Close(Some(frame)) => {
            assert_eq!(u16::from(frame.code), 1008);
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let events = protocol_events(&server, &actor, "unit-1").await;
    assert!(
        events[0].contains("claims to be of Unit `unit-2`"),
        "{events:?}"
    );
    let shown = server.db().unit(&actor, "unit-2").await.unwrap();
    assert_eq!(shown.counts.nodes, 0);

    // Another's token, none, and a forged one.
    let (_, body) = discover(&other.tls, to, &other.system_id).await;
    let token = DiscoveryResponse::decode(&body).unwrap().auth_token;
    for token in [token.expose(), "", "forged"] {
        match unit.socket(to, token).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 401),
            unexpected => panic!("{unexpected:?}"),
        }
    }

    // No certificate, one the cloud did not give to a Unit, one of another type, one of another authority.
    let (bare, _) = client(&server, None);
    assert_eq!(discover(&bare, to, &unit.system_id).await.0, 401);
    let stranger = CertProfile::unit(CertKind::Online, &unit.system_id, None);
    let (stranger, _) = client(&server, Some(&stranger));
    assert_eq!(discover(&stranger, to, &unit.system_id).await.0, 403);
    let (wrong, _) = client(
        &server,
        Some(&CertProfile::unit(CertKind::Sm, &unit.system_id, None)),
    );
    let ask = get(to, "/sd/v7/").method("POST").body(Bytes::new().into());
    assert!(request(&wrong, to, ask.unwrap()).await.is_err());
    let foreign = aos_pki::Authority::in_memory("other", SystemClock.now()).unwrap();
    let pair = foreign
        .issue_pair(
            KeyAlgorithm::EcP256,
            &CertProfile::unit(CertKind::Online, &unit.system_id, None),
            SystemClock.now(),
        )
        .unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    let source = CertSource::with(certified_key(chain, &pair.key).unwrap());
    let trust = Trust::new(server.authority().roots());
    let foreign = host_client(&source, &trust, None, &["http/1.1"]);
    let ask = get(to, "/sd/v7/").method("POST").body(Bytes::new().into());
    assert!(request(&foreign, to, ask.unwrap()).await.is_err());
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_protocol_is_acknowledged_reported_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let mut socket = unit.open(server.units()).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let header = |txn: &str| serde_json::json!({"version": 7, "systemId": "unit-1", "txn": txn});
    for (txn, data, event) in [
        (
            "t1",
            serde_json::json!({"messageType": "teleport"}),
            "`teleport`",
        ),
        (
            "t2",
            serde_json::json!({"messageType": "desiredStatus", "items": []}),
            "only a cloud sends",
        ),
        (
            "t3",
            serde_json::json!({"messageType": "unitStatus", "isDeltaInfo": true, "items": [{"version": "1"}]}),
            "`items[0].item`",
        ),
    ] {
        let text = serde_json::json!({"header": header(txn), "data": data}).to_string();
        // Text frames are read too.
        socket
            .send(tungstenite::Message::Text(text.into()))
            .await
            .unwrap();
        let ack = unit.next(&mut socket).await;
        assert_eq!((ack.body, ack.header.txn.as_str()), (Body::Ack, txn));
        let events = protocol_events(&server, &actor, "unit-1").await;
        assert!(events[0].contains(event), "{txn}: {events:?}");
    }
    socket
        .send(tungstenite::Message::Binary(Bytes::from_static(
            b"\xff not json",
        )))
        .await
        .unwrap();
    unit.next(&mut socket).await;
    let events = protocol_events(&server, &actor, "unit-1").await;
    assert!(events[0].contains("not JSON"), "{events:?}");
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_is_served_once_and_the_newest_connection_counts() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let second = Options {
        data: data.path().into(),
        people: any,
        units: any,
        hosts: vec![],
        organisation: "Acme".into(),
        retention: Retention::default(),
    };
    let error = Server::start(second, CancellationToken::new()).await;
    assert!(matches!(error, Err(aos_server::Error::InUse { .. })));

    let actor = owner(&server, data.path()).await;
    let unit = Arc::new(register(&server, &actor, "unit-1").await);
    let mut old = unit.open(server.units()).await;
    unit.desired(&mut old).await;
    let mut new = unit.open(server.units()).await;
    unit.desired(&mut new).await;
    let closed = soon("the close", old.next()).await;
    assert!(
        matches!(&closed, Some(Ok(tungstenite::Message::Close(_)))),
        "{closed:?}"
    );
    let shown = server.db().unit(&actor, "unit-1").await.unwrap();
    assert_ne!(shown.online_status, OnlineStatus::Offline);
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_served_on_their_own_listener_and_strangers_only_the_door() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let to = server.people();
    let (bare, _) = client(&server, None);
    let ask = |path: &str| get(to, path).body(Bytes::new().into()).unwrap();
    let (status, headers, page) = request(&bare, to, ask("/")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{page:?}");
    assert!(headers.contains_key("content-security-policy"));
    let (status, _, _) = request(&bare, to, ask("/api/v11/units/")).await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // What is for Units is not here, and the other way round.
    let (status, _, _) = request(&bare, to, ask("/blobs/v7/AAAA")).await.unwrap();
    assert_ne!(status, StatusCode::NOT_FOUND, "a page of the UI");
    let units = get(server.units(), "/api/v11/units/")
        .body(Bytes::new().into())
        .unwrap();
    let (status, _, _) = request(&bare, server.units(), units).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);

    // The owner link works once.
    let link = std::fs::read_to_string(data.path().join("owner-link.txt")).unwrap();
    assert!(link.starts_with(&format!("https://127.0.0.1:{}/welcome#token=", to.port())));
    let (_, token) = link.trim().split_once("#token=").unwrap();
    let set_up = serde_json::json!({
        "token": token, "username": "owner", "password": "correct horse battery staple",
    });
    for expected in [StatusCode::CREATED, StatusCode::FORBIDDEN] {
        let ask = get(to, "/api/v11/owner-setup/")
            .method("POST")
            .header("Content-Type", "application/json")
            .header("x-aos-request", "1")
            .body(set_up.to_string().into_bytes().into())
            .unwrap();
        let (status, _, body) = request(&bare, to, ask).await.unwrap();
        let refused = expected != StatusCode::CREATED && status.is_client_error();
        assert!(status == expected || refused, "{status} {body:?}");
    }
    assert!(!data.path().join("owner-link.txt").exists());

    // A Unit's certificate is of no use to people.
    let system_id = SystemId::new("unit-1").unwrap();
    let profile = CertProfile::unit(CertKind::Online, &system_id, None);
    let (unit, _) = client(&server, Some(&profile));
    assert!(request(&unit, to, ask("/")).await.is_err());
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_variables_reach_the_unit_and_what_became_of_them_comes_back() {
    const SECRET: &str = "not to be told";
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let (to, db) = (server.units(), server.db());
    publish(&server, &actor, data.path(), "1.0.0").await;
    let service = db.service(&actor, "http").await.unwrap().id.to_string();
    let set = async |name: &str, value: &str, service: Option<&str>| {
        let new = NewEnvVars {
            service: service.map(Into::into),
            subject: None,
            instance_id: None,
            variables: vec![NewEnvVar {
                name: name.into(),
                value: value.into(),
                ttl: Some(3600),
            }],
        };
        db.set_env_vars(&actor, "unit-1", &new).await.unwrap();
    };
    let env = async |socket: &mut Socket| loop {
        let message = unit.next(socket).await;
        let txn = message.header.txn.clone();
        match message.body {
            Body::OverrideEnvVars(set) => break (txn, set.items.unwrap()),
            Body::DesiredStatus(_) => unit.ack(socket, &txn).await,
            other => panic!("expected environment variables, got {other:?}"),
        }
    };
    let state = async || {
        let shown = db.env_vars(&actor, "unit-1", false).await.unwrap().items;
        shown.iter().map(|one| one.state).collect::<Vec<_>>()
    };

    // Set while the Unit is away: it gets them when it comes.
    set("TOKEN", SECRET, Some("http")).await;
    let mut socket = unit.open(to).await;
    let (_, items) = env(&mut socket).await;
    assert_eq!(items.len(), 1);
    assert_eq!(
        items[0].filter.item.as_ref().map(|it| it.as_str()),
        Some(&*service)
    );
    assert_eq!(items[0].variables[0].value, SECRET);
    assert!(items[0].variables[0].ttl.is_some());

    // Not acknowledged, and the link breaks: they come again.
    drop(socket);
    let mut socket = unit.open(to).await;
    let (txn, _) = env(&mut socket).await;
    assert_eq!(state().await, [EnvVarState::WaitingForUnit]);
    unit.ack(&mut socket, &txn).await;

    // Another one while it is linked: the whole set comes at once.
    set("MODE", "fast", None).await;
    let (txn, items) = env(&mut socket).await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].variables[0].name, "MODE");
    unit.ack(&mut socket, &txn).await;
    let status = |error: Option<ErrorInfo>| {
        Body::OverrideEnvVarsStatus(OverrideEnvVarsStatus {
            statuses: vec![EnvVarStatus {
                instance: InstanceIdent {
                    item: service.parse().unwrap(),
                    subject: "s".parse().unwrap(),
                    index: 0,
                    item_type: ItemType::Service,
                    preinstalled: false,
                },
                name: "TOKEN".into(),
                error,
            }],
        })
    };
    unit.send(&mut socket, None, status(None)).await;
    assert_eq!(state().await, [EnvVarState::Taken, EnvVarState::Set]);
    let error = ErrorInfo {
        aos_code: 1,
        exit_code: 0,
        message: "the instance does not start with it".into(),
    };
    unit.send(&mut socket, None, status(Some(error))).await;
    assert_eq!(state().await, [EnvVarState::Taken, EnvVarState::Failed]);

    // The Unit has them: a new connection brings nothing again but what is new.
    drop(socket);
    let mut socket = unit.open(to).await;
    let variable = db.env_vars(&actor, "unit-1", false).await.unwrap().items[1].id;
    db.remove_env_var(&actor, "unit-1", variable).await.unwrap();
    let (txn, items) = env(&mut socket).await;
    assert_eq!(items.len(), 1, "the one that is left");
    unit.ack(&mut socket, &txn).await;
    let events = db
        .timeline(&actor, "unit-1", &ListQuery::default())
        .await
        .unwrap();
    let texts: Vec<String> = events.items.into_iter().map(|event| event.text).collect();
    assert!(
        texts
            .iter()
            .any(|text| text.contains("does not start with it")),
        "{texts:?}"
    );
    assert!(!texts.iter().any(|text| text.contains(SECRET)));
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_of_a_blob_is_said_of_that_blob_and_the_link_stays() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let digests = publish_damaged(&server, &actor, data.path(), "1.0.0", "layer").await;
    assign(&server, &actor, &unit).await;
    let mut socket = unit.open(server.units()).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    for id in ["ask-1", "ask-2"] {
        let request = RequestBlobUrls {
            digests: digests.clone(),
        };
        unit.send(&mut socket, Some(id), Body::RequestBlobUrls(request))
            .await;
        let answer = unit.next(&mut socket).await;
        unit.ack(&mut socket, &answer.header.txn).await;
        assert_eq!(answer.correlation_id.as_deref(), Some(id));
        let Body::BlobUrls(urls) = answer.body else {
            panic!("expected blob urls")
        };
        assert_eq!(urls.items.len(), 3);
        assert_eq!(urls.undelivered.len(), 1);
        assert_eq!(urls.undelivered[0].digest, digests[3]);
        let why = &urls.undelivered[0].error.message;
        assert_eq!(why, "its stored checksum is damaged");
    }
    let db = server.db();
    let events = db.timeline(&actor, "unit-1", &ListQuery::default()).await;
    let events = events.unwrap().items;
    let digest = digests[3].to_string();
    assert!(
        events
            .iter()
            .any(|event| event.text.contains(&digest) && event.text.contains("checksum")),
        "{events:?}"
    );
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_delivered_encrypted_for_the_units_offline_key_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let (to, db) = (server.units(), server.db());
    let digests = publish(&server, &actor, data.path(), "1.0.0").await;
    assign(&server, &actor, &unit).await;
    let patch = UnitPatch {
        blob_encryption: Some(BlobEncryption::On),
        ..UnitPatch::default()
    };
    let shown = db.patch_unit(&actor, "unit-1", &patch).await.unwrap();
    assert_eq!(shown.blob_encryption, BlobEncryption::On);
    let mut socket = unit.open(to).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let ask = async |socket: &mut Socket| {
        let request = RequestBlobUrls {
            digests: digests.clone(),
        };
        unit.send(socket, Some("ask"), Body::RequestBlobUrls(request))
            .await;
        let answer = unit.next(socket).await;
        unit.ack(socket, &answer.header.txn).await;
        match answer.body {
            Body::BlobUrls(urls) => urls.items,
            other => panic!("expected blob urls, got {other:?}"),
        }
    };

    // No key that could receive is on record: nothing leaves plain, and people see why.
    assert_eq!(ask(&mut socket).await, []);
    let events = db
        .timeline(&actor, "unit-1", &ListQuery::default())
        .await
        .unwrap();
    assert!(
        events
            .items
            .iter()
            .any(|event| event.text.contains("no RSA key")),
        "{events:?}"
    );

    let key = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
    let registration = Registration {
        system_uid: unit.system_id.clone(),
        online_key: "key of unit-1".into(),
        unit_model: String::new(),
        nodes: vec![],
    };
    let certificate = IssuedCertificate {
        fingerprint: "ab".repeat(32),
        cert_type: "offline".into(),
        node_id: "main".into(),
        serial: "02".into(),
        not_after: SystemClock.now() + Duration::from_secs(1000),
        public_key: Some(key.public_key_der()),
    };
    db.register_unit(
        &RegisterBy::Actor(&actor),
        &registration,
        &[certificate],
        "",
    )
    .await
    .unwrap()
    .unwrap();
    let items = ask(&mut socket).await;
    assert_eq!(items.len(), digests.len());
    assert_eq!(ask(&mut socket).await.len(), 4, "again, of what is there");
    for item in &items {
        let path = item.urls[0].strip_prefix(&format!("https://{to}")).unwrap();
        let fetch = get(to, path).body(Bytes::new().into()).unwrap();
        let (status, _, file) = request(&unit.tls, to, fetch).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(file.len() as u64, item.size);
        assert_eq!(Sha3_256::digest(&file).as_slice(), item.sha256.0);
        let half = get(to, path)
            .header("Range", format!("bytes={}-", item.size / 2))
            .body(Bytes::new().into())
            .unwrap();
        let (status, _, rest) = request(&unit.tls, to, half).await.unwrap();
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(rest, file.slice(item.size as usize / 2..));

        let info = item.decrypt_info.as_ref().unwrap();
        assert_eq!(info.receiver.as_ref().unwrap().serial, "02");
        let wrap = info.asym_alg.as_ref().unwrap().parse().unwrap();
        let plain_key = key.unwrap_key(wrap, &info.block_key).unwrap();
        let cipher = info.block_alg.parse().unwrap();
        let blob_key = Arc::new(BlobKey::new(cipher, plain_key, info.block_iv.clone()).unwrap());
        let mut decryptor = BlobDecryptor::new(&blob_key).unwrap();
        let mut plain = Vec::new();
        decryptor.update(&file, &mut plain).unwrap();
        decryptor.finish(&mut plain).unwrap();
        let stored = BlobStore::open(data.path()).unwrap();
        assert_eq!(plain, stored.read(&item.digest, 1 << 20).unwrap());
        assert_ne!(plain, file);
    }
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_kept_when_they_are_right_and_given_back_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let actor = owner(&server, folder.path()).await;
    let unit = register(&server, &actor, "unit-a").await;
    let mut socket = unit.open(server.units()).await;
    let instance = InstanceIdent {
        item: "web".parse().unwrap(),
        subject: "s".parse().unwrap(),
        index: 1,
        item_type: ItemType::Service,
        preinstalled: false,
    };
    let ask = || {
        Body::StateRequest(StateRequest {
            instance: instance.clone(),
            default: false,
        })
    };
    let tell = |state: &str, checksum: String| {
        Body::NewState(NewState {
            instance: instance.clone(),
            checksum,
            state: state.into(),
        })
    };
    let sum = |state: &str| state_checksum(state.as_bytes());

    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let answer = async |socket: &mut Socket| {
        let message = unit.next(socket).await;
        unit.ack(socket, &message.header.txn).await;
        message.body
    };

    // Of what was never told there is nothing to give: the next answer is that to the next message.
    unit.send(&mut socket, None, ask()).await;
    for state in ["one", "two"] {
        unit.send(&mut socket, None, tell(state, sum(state))).await;
        let Body::StateAcceptance(said) = answer(&mut socket).await else {
            panic!("the state was not answered")
        };
        assert_eq!(
            (said.result, said.checksum),
            (StateResult::Accepted, sum(state))
        );
    }
    // Damaged on the way: said so, told to people, and the last good one stays.
    unit.send(&mut socket, None, tell("three", sum("four")))
        .await;
    let Body::StateAcceptance(said) = answer(&mut socket).await else {
        panic!("the state was not answered")
    };
    assert_eq!(said.result, StateResult::Rejected);
    assert!(said.reason.contains("checksum"), "{}", said.reason);
    unit.send(&mut socket, None, ask()).await;
    let Body::UpdateState(given) = answer(&mut socket).await else {
        panic!("no state was given back")
    };
    assert_eq!((given.state.as_str(), given.checksum), ("two", sum("two")));

    let list = server.db().states(&actor, "unit-a").await.unwrap();
    assert_eq!((list.total, list.items[0].size), (1, 3));
    let content = server
        .db()
        .state(&actor, "unit-a", "web", "s", 1)
        .await
        .unwrap();
    assert_eq!(content.state, "two");
    assert!(
        server
            .db()
            .state(&actor, "unit-a", "web", "s", 0)
            .await
            .is_err()
    );
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_begins_with_the_state_that_its_version_brings() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-a").await;
    publish(&server, &actor, data.path(), "1.0.0").await;
    assign(&server, &actor, &unit).await;
    let mut socket = unit.open(server.units()).await;
    let (txn, desired) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let item = &desired.items.as_ref().unwrap()[0];
    let instance = InstanceIdent {
        item: item.item.clone(),
        subject: "s".parse().unwrap(),
        index: 0,
        item_type: ItemType::Service,
        preinstalled: false,
    };
    let ask = |default: bool| {
        Body::StateRequest(StateRequest {
            instance: instance.clone(),
            default,
        })
    };
    let given = async |socket: &mut Socket, default: bool| {
        unit.send(socket, None, ask(default)).await;
        let message = unit.next(socket).await;
        unit.ack(socket, &message.header.txn).await;
        let Body::UpdateState(given) = message.body else {
            panic!("no state was given: {:?}", message.body)
        };
        assert_eq!(given.checksum, state_checksum(given.state.as_bytes()));
        given.state
    };
    let kept = async || {
        let list = server.db().states(&actor, "unit-a").await.unwrap();
        list.items.first().map(|kept| kept.size)
    };
    assert_eq!(kept().await, None);
    // Nobody has told any: it begins, and people see with what.
    assert_eq!(given(&mut socket, false).await, "begin with this");
    assert_eq!(kept().await, Some(15));
    // It went on; then it is asked to begin anew.
    let next = Body::NewState(NewState {
        instance: instance.clone(),
        checksum: state_checksum(b"went on"),
        state: "went on".into(),
    });
    unit.send(&mut socket, None, next).await;
    let accepted = unit.next(&mut socket).await;
    unit.ack(&mut socket, &accepted.header.txn).await;
    assert_eq!(given(&mut socket, false).await, "went on");
    assert_eq!(given(&mut socket, true).await, "begin with this");
    assert_eq!(kept().await, Some(15));
    stop(server).await;
}

fn request_for(cert_type: CertType, key: &KeyPair) -> CertificateRequest {
    CertificateRequest {
        cert_type,
        node: "main".parse().unwrap(),
        // What it asks to be called is not believed.
        csr: key.request("somebody else", &[]).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_ordered_is_issued_and_the_old_certificate_counts_until_the_new_one_is_shown()
{
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let mut unit = register(&server, &actor, "unit-1").await;
    let (to, db) = (server.units(), server.db());
    let mut socket = unit.open(to).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let nobodys = db
        .order_renewal(
            &actor,
            "unit-1",
            &RenewalFilter {
                cert_type: Some("iam".into()),
                node_id: None,
            },
        )
        .await;
    assert!(nobodys.is_err(), "it has no such certificate");
    let ordered = db
        .order_renewal(&actor, "unit-1", &RenewalFilter::default())
        .await
        .unwrap();
    assert_eq!(ordered.items[0].status, "renew_ordered");
    let message = unit.next(&mut socket).await;
    unit.ack(&mut socket, &message.header.txn).await;
    let Body::RenewCertificatesNotification(order) = message.body else {
        panic!("expected an order, got {:?}", message.body)
    };
    assert_eq!(order.certificates.len(), 1);
    assert_eq!(order.certificates[0].cert_type, CertType::Online);
    assert_eq!(order.certificates[0].serial.as_deref(), Some("01"));

    let key = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    let requests = vec![
        request_for(CertType::Online, &key),
        request_for(CertType::Iam, &key),
        request_for(CertType::Online, &key),
    ];
    let ask = Body::IssueUnitCertificates(IssueUnitCertificates { requests });
    unit.send(&mut socket, Some("renewal"), ask.clone()).await;
    let message = unit.next(&mut socket).await;
    unit.ack(&mut socket, &message.header.txn).await;
    assert_eq!(message.correlation_id.as_deref(), Some("renewal"));
    let Body::IssuedUnitCertificates(issued) = message.body else {
        panic!("expected certificates, got {:?}", message.body)
    };
    assert_eq!(issued.certificates.len(), 1, "what was not ordered is not");
    let chain = issued.certificates[0].certificate_chain.as_bytes();
    let chain = certificates_from_pem(chain).unwrap();
    let named = PeerIdentity::from_der(&chain[0]).unwrap();
    assert_eq!(named.system_id, Some(unit.system_id.clone()));
    assert_eq!(named.kind, CertKind::Online);
    // Once for each order.
    unit.send(&mut socket, None, ask).await;
    let shown = db.unit_certificates(&actor, "unit-1").await.unwrap();
    assert_eq!(shown.items.len(), 2, "{shown:?}");
    let events = db.timeline(&actor, "unit-1", &ListQuery::default()).await;
    let refused = "no certificate `iam` was issued to Node main: its renewal was not ordered";
    assert!(
        events
            .unwrap()
            .items
            .iter()
            .any(|event| event.text.contains(refused))
    );

    let serial = shown.items[1].serial.clone();
    let installed = InstalledCertificate {
        cert_type: CertType::Online,
        node: "main".parse().unwrap(),
        serial: serial.to_ascii_uppercase(),
        error: None,
    };
    let confirm = InstallUnitCertificatesConfirmation {
        certificates: vec![installed],
    };
    unit.send(
        &mut socket,
        None,
        Body::InstallUnitCertificatesConfirmation(confirm),
    )
    .await;
    let (status, _) = discover(&unit.tls, to, &unit.system_id).await;
    assert_eq!(status, StatusCode::OK, "it may still come with the old one");

    let old = unit.tls.clone();
    let source = CertSource::new();
    source.set(Some(certified_key(chain, &key).unwrap()));
    let trust = Trust::new(server.authority().roots());
    unit.tls = host_client(&source, &trust, None, &["http/1.1"]);
    let mut socket = unit.open(to).await;
    let ended = async {
        loop {
            let (status, _) = discover(&old, to, &unit.system_id).await;
            if status == StatusCode::FORBIDDEN {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the old certificate to be worth nothing", ended).await;
    let shown = db.unit_certificates(&actor, "unit-1").await.unwrap();
    assert_eq!(shown.items.len(), 1);
    assert_eq!(shown.items[0].serial, serial);
    assert_eq!(shown.items[0].status, "renew_done");
    // The link is as good as before.
    unit.send(&mut socket, None, Body::UnitStatus(UnitStatus::default()))
        .await;
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_end_soon_are_renewed_without_being_asked_and_failures_are_shown() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let (to, db) = (server.units(), server.db());
    let mut socket = unit.open(to).await;
    let (txn, _) = unit.desired(&mut socket).await;
    unit.ack(&mut socket, &txn).await;
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(db.renew_in_time(day * 200).await.unwrap(), 0);
    assert_eq!(db.renew_in_time(day * 400).await.unwrap(), 1);
    let message = unit.next(&mut socket).await;
    unit.ack(&mut socket, &message.header.txn).await;
    assert!(matches!(
        message.body,
        Body::RenewCertificatesNotification(_)
    ));
    assert_eq!(db.renew_in_time(day * 400).await.unwrap(), 0, "it was told");
    let failed = InstalledCertificate {
        cert_type: CertType::Online,
        node: "main".parse().unwrap(),
        serial: "01".into(),
        error: Some(ErrorInfo::new(
            aos_types::AosCode::Failed,
            "the token is full",
        )),
    };
    let confirm = InstallUnitCertificatesConfirmation {
        certificates: vec![failed],
    };
    unit.send(
        &mut socket,
        None,
        Body::InstallUnitCertificatesConfirmation(confirm),
    )
    .await;
    let shown = db.unit_certificates(&actor, "unit-1").await.unwrap();
    assert_eq!(shown.items[0].status, "renew_failed");
    assert_eq!(shown.items[0].error.as_deref(), Some("the token is full"));
    let (status, _) = discover(&unit.tls, to, &unit.system_id).await;
    assert_eq!(status, StatusCode::OK, "the old one counts");
    stop(server).await;
}

/// Asks for logs of `unit-1`.
fn log_request(log_type: LogKind) -> NewLogRequest {
    NewLogRequest {
        log_type,
        nodes: vec![],
        service: None,
        subject: None,
        instance_id: None,
        date_from: None,
        date_till: None,
        follow: false,
    }
}

fn log_part(node: &str, part: u64, parts_count: u64, status: LogStatus) -> Body {
    Body::PushLog(PushLog {
        node: NodeId::new(node).unwrap(),
        part,
        parts_count,
        content: match status {
            LogStatus::Ok => vec![0x1f, 0x8b, u8::try_from(part).unwrap()],
            _ => vec![],
        },
        status,
        error: (status == LogStatus::Absent)
            .then(|| ErrorInfo::new(aos_types::AosCode::NotFound, "no such Node here")),
    })
}

#[tokio::test]
async fn logs_are_asked_for_kept_followed_and_answered_for() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path()).await;
    let actor = owner(&server, data.path()).await;
    let unit = register(&server, &actor, "unit-1").await;
    let stranger = register(&server, &actor, "unit-2").await;
    let (to, db) = (server.units(), server.db());
    let asked = async |socket: &mut Socket| loop {
        let message = unit.next(socket).await;
        let txn = message.header.txn.clone();
        unit.ack(socket, &txn).await;
        match message.body {
            Body::RequestLog(request) => break (message.correlation_id.unwrap(), request),
            Body::DesiredStatus(_) => {}
            other => panic!("expected a request for logs, got {other:?}"),
        }
    };
    // Made while the Unit is away: it waits for it.
    let mut new = log_request(LogKind::System);
    new.nodes = vec!["main".into(), "nobody".into()];
    let log = db.request_log(&actor, "unit-1", &new).await.unwrap();
    assert_eq!(log.state, LogState::WaitingUnit);
    let mut socket = unit.open(to).await;
    let (id, request) = asked(&mut socket).await;
    assert_eq!(id, log.id.to_string());
    assert_eq!(
        (request.filter.nodes.len(), request.upload_options),
        (2, None)
    );
    let read = async |id| db.log(&actor, "unit-1", id).await.unwrap();
    assert_eq!(read(log.id).await.state, LogState::Sent);
    // Parts come in any order, one of them twice, from a Unit that it is not about too.
    let parts = [
        log_part("nobody", 1, 1, LogStatus::Absent),
        log_part("main", 2, 2, LogStatus::Ok),
        log_part("main", 2, 2, LogStatus::Ok),
    ];
    for part in parts {
        unit.send(&mut socket, Some(&id), part).await;
    }
    let mut other = stranger.open(to).await;
    let theirs = log_part("main", 1, 2, LogStatus::Ok);
    other
        .send(stranger.frame("t", Some(&id), theirs))
        .await
        .unwrap();
    while stranger.next(&mut other).await.body != Body::Ack {}
    assert_eq!(read(log.id).await.state, LogState::Receiving);
    unit.send(
        &mut socket,
        Some(&id),
        log_part("main", 1, 2, LogStatus::Ok),
    )
    .await;
    let done = read(log.id).await;
    assert_eq!((done.state, done.bytes), (LogState::Done, 6));
    assert!(done.finished_at.is_some() && done.kept_until > done.finished_at);
    let states: Vec<_> = done
        .nodes
        .iter()
        .map(|node| (node.state, node.parts))
        .collect();
    assert_eq!(states, [(NodeLogState::Ok, 2), (NodeLogState::Absent, 0)]);
    let kept = db
        .log_parts(&actor, "unit-1", log.id, None, 10)
        .await
        .unwrap();
    let content: Vec<u8> = kept.iter().map(|part| part.content[2]).collect();
    assert_eq!(content, [1, 2]);
    // What comes after the end, for nobody, or without an id changes nothing.
    for id in [Some(id.as_str()), Some("no id"), None] {
        unit.send(&mut socket, id, log_part("main", 3, 9, LogStatus::Ok))
            .await;
    }
    assert_eq!(read(log.id).await, done);

    // Live: only a Unit that can is asked for it.
    let mut new = log_request(LogKind::Instance);
    new.follow = true;
    let mut status = empty_status();
    unit.send(&mut socket, None, Body::UnitStatus(status.clone()))
        .await;
    let snapshot = db.request_log(&actor, "unit-1", &new).await.unwrap();
    let (id, request) = asked(&mut socket).await;
    assert_eq!(request.upload_options, None);
    assert!(
        read(snapshot.id)
            .await
            .message
            .unwrap()
            .contains("cannot tell lines")
    );
    unit.send(
        &mut socket,
        Some(&id),
        log_part("main", 1, 1, LogStatus::Empty),
    )
    .await;
    assert_eq!(read(snapshot.id).await.state, LogState::Empty);
    let attrs = &mut status.nodes.as_mut().unwrap()[0].info.attrs;
    attrs.insert("AosGuarantee".into(), "install-first".into());
    unit.send(&mut socket, None, Body::UnitStatus(status)).await;
    let live = db.request_log(&actor, "unit-1", &new).await.unwrap();
    let (id, request) = asked(&mut socket).await;
    assert_eq!(request.upload_options.unwrap().upload_type, UploadType::Wss);
    assert!(request.filter.till.unwrap() > SystemClock.now());
    for number in 1..=3 {
        unit.send(
            &mut socket,
            Some(&id),
            log_part("main", number, 0, LogStatus::Ok),
        )
        .await;
    }
    assert_eq!(read(live.id).await.state, LogState::Receiving);
    let parts = db
        .log_parts(&actor, "unit-1", live.id, None, 10)
        .await
        .unwrap();
    let after = Some(parts[1].place);
    let newer = db
        .log_parts(&actor, "unit-1", live.id, after, 10)
        .await
        .unwrap();
    assert_eq!(newer.len(), 1);
    // It is ended: the Unit is told by the same id, and says goodbye.
    db.stop_log(&actor, "unit-1", live.id).await.unwrap();
    let (again, request) = asked(&mut socket).await;
    assert_eq!(again, id);
    assert!(request.filter.till.unwrap() <= SystemClock.now());
    unit.send(
        &mut socket,
        Some(&id),
        log_part("main", 4, 4, LogStatus::Empty),
    )
    .await;
    assert_eq!(read(live.id).await.state, LogState::Done);
    assert!(db.stop_log(&actor, "unit-1", live.id).await.is_ok());

    // Too many at once, and what no Unit could answer.
    let mut last = None;
    for _ in 0..10 {
        let new = log_request(LogKind::Crash);
        last = Some(db.request_log(&actor, "unit-1", &new).await.unwrap());
    }
    let more = db
        .request_log(&actor, "unit-1", &log_request(LogKind::Crash))
        .await;
    assert!(more.unwrap_err().to_string().contains("10 requests"));
    db.delete_log(&actor, "unit-1", last.unwrap().id)
        .await
        .unwrap();
    let now = SystemClock.now();
    let bad = [
        NewLogRequest {
            date_from: Some(now),
            date_till: Some(now),
            ..log_request(LogKind::System)
        },
        NewLogRequest {
            date_from: Some(now + WAIT),
            ..log_request(LogKind::System)
        },
        NewLogRequest {
            instance_id: Some(1),
            ..log_request(LogKind::System)
        },
        NewLogRequest {
            follow: true,
            ..log_request(LogKind::Crash)
        },
        NewLogRequest {
            nodes: vec!["../x".into()],
            ..log_request(LogKind::System)
        },
        NewLogRequest {
            service: Some("nothing".into()),
            ..log_request(LogKind::Instance)
        },
    ];
    for new in bad {
        let refused = db.request_log(&actor, "unit-1", &new).await;
        assert!(refused.is_err(), "{new:?}");
    }
    stop(server).await;
}
