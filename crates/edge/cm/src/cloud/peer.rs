//! A cloud over real TLS and WebSocket whose every word a test decides, and a Unit's link against it.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aos_cloud_protocol::{Body, Caps, DiscoveryResponse, Header, Message, Nack, Secret, decode};
use aos_pki::{
    ALPN_HTTP, Authority, CertKind, CertProfile, CertSource, Expect, KeyAlgorithm, Trust,
    certificates_from_pem, certified_key, mutual_server,
};
use aos_session::{Config, Reconnect};
use aos_store::{Records, Store};
use aos_time::{Clock, SystemClock};
use aos_types::{NodeId, SystemId};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tokio_util::sync::CancellationToken;

use super::{Connector, Driver, Endpoints, Incoming, Link, Outbox, SCHEMA, Setup, gather_alerts};

pub(super) const SOON: Duration = Duration::from_secs(15);

pub(super) fn unit_id() -> SystemId {
    SystemId::new("unit").unwrap()
}

/// Waits short enough for a test.
pub(super) fn hasty() -> Config {
    Config {
        reconnect: Some(Reconnect {
            first: Duration::from_millis(40),
            longest: Duration::from_millis(400),
            spread: Duration::from_millis(40),
            ..Reconnect::default()
        }),
        ack_wait: Duration::from_millis(300),
        ack_wait_longest: Duration::from_millis(300),
        ping_after: Duration::from_millis(200),
        dead_after: Duration::from_millis(800),
        ..Config::calling()
    }
}

/// What the service discovery says, and when it was asked for what.
#[derive(Default)]
struct Discovery {
    answers: VecDeque<DiscoveryResponse>,
    asked: Vec<(Instant, String)>,
}

/// The cloud.
pub(super) struct Peer {
    authority: Authority,
    trust: Trust,
    pub(super) at: String,
    pub(super) link: String,
    discovery: Arc<Mutex<Discovery>>,
    sockets: mpsc::UnboundedReceiver<PeerSocket>,
    tasks: JoinSet<()>,
}

/// One connection of the Unit. Nothing is read or answered but by the test.
pub(super) struct PeerSocket {
    stream: WebSocketStream<TlsStream<TcpStream>>,
    /// What the Unit showed.
    pub(super) certificate: Vec<u8>,
}

impl Peer {
    pub(super) async fn start() -> Self {
        aos_pki::install_provider();
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let trust = Trust::new(authority.roots());
        let server = issue(&authority, &CertProfile::server(vec!["localhost".into()]));
        let tls = mutual_server(
            &CertSource::with(server),
            &trust,
            Expect::kinds([CertKind::Online]),
            &ALPN_HTTP[1..],
        );
        let acceptor = TlsAcceptor::from(tls.config);
        let (finder, talker) = (bind().await, bind().await);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let at = format!("https://localhost:{}/sd/v7/", port(&finder));
        let link = format!("wss://localhost:{}/ws/v7/", port(&talker));
        let discovery = Arc::new(Mutex::new(Discovery::default()));
        let (tell, sockets) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(find(
            finder,
            acceptor.clone(),
            discovery.clone(),
            link.clone(),
        ));
        tasks.spawn(async move {
            loop {
                let (stream, _) = talker.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                let Ok(stream) = tokio_tungstenite::accept_async(stream).await else {
                    continue;
                };
                let socket = PeerSocket {
                    stream,
                    certificate,
                };
                if tell.send(socket).is_err() {
                    return;
                }
            }
        });
        Self {
            authority,
            trust,
            at,
            link,
            discovery,
            sockets,
            tasks,
        }
    }

    /// A new certificate for the Unit.
    pub(super) fn online(&self) -> Arc<tokio_rustls::rustls::sign::CertifiedKey> {
        let node = NodeId::new("main").unwrap();
        let profile = CertProfile::unit(CertKind::Online, &unit_id(), Some(&node));
        issue(&self.authority, &profile)
    }

    /// The next answers of the service discovery; then it names the link.
    pub(super) fn answer(&self, answers: impl IntoIterator<Item = DiscoveryResponse>) {
        self.discovery.lock().unwrap().answers.extend(answers);
    }

    /// The requests to the service discovery: when, and for which path.
    pub(super) fn asked(&self) -> Vec<(Instant, String)> {
        self.discovery.lock().unwrap().asked.clone()
    }

    /// Waits until the service discovery was asked so often.
    pub(super) async fn asked_times(&self, times: usize) {
        let wait = async {
            while self.asked().len() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap();
    }

    /// The next connection.
    pub(super) async fn socket(&mut self) -> PeerSocket {
        let next = tokio::time::timeout(SOON, self.sockets.recv()).await;
        next.expect("no connection came").unwrap()
    }

    /// Whether a connection comes within `span`.
    pub(super) async fn connects_within(&mut self, span: Duration) -> bool {
        tokio::time::timeout(span, self.sockets.recv())
            .await
            .is_ok()
    }

    /// From now on nobody listens.
    pub(super) async fn go(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// An answer of the service discovery.
pub(super) fn answer(code: u32, delay_ms: u64, urls: &[&str]) -> DiscoveryResponse {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    DiscoveryResponse {
        error_code: code,
        next_request_delay_ms: delay_ms,
        ..DiscoveryResponse::connect(&unit_id(), urls, Secret::new("a-bearer-token"))
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn issue(
    authority: &Authority,
    profile: &CertProfile,
) -> Arc<tokio_rustls::rustls::sign::CertifiedKey> {
    let pair = authority
        .issue_pair(KeyAlgorithm::EcP256, profile, SystemClock.now())
        .unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    certified_key(chain, &pair.key).unwrap()
}

async fn find(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    discovery: Arc<Mutex<Discovery>>,
    link: String,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else {
            continue;
        };
        let mut request = String::new();
        while !request.ends_with('}') {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "broken off");
            request.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let answer = {
            let mut discovery = discovery.lock().unwrap();
            discovery.asked.push((Instant::now(), path));
            discovery.answers.pop_front()
        };
        let body = answer
            .unwrap_or_else(|| self::answer(0, 0, &[&link]))
            .encode();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let all = [head.as_bytes(), &body].concat();
        let _ = stream.write_all(&all).await;
        let _ = stream.shutdown().await;
    }
}

/// A message for the Unit.
pub(super) fn frame(txn: &str, correlation_id: Option<&str>, body: Body) -> Vec<u8> {
    Message {
        header: Header {
            system_id: unit_id(),
            created_at: SystemClock.now(),
            txn: txn.into(),
        },
        correlation_id: correlation_id.map(Into::into),
        body,
    }
    .encode()
}

impl PeerSocket {
    pub(super) async fn raw(&mut self, frame: Vec<u8>) {
        let frame = tungstenite::Message::Binary(frame.into());
        self.stream.send(frame).await.unwrap();
    }

    pub(super) async fn say(&mut self, txn: &str, body: Body) {
        self.raw(frame(txn, None, body)).await;
    }

    pub(super) async fn ack(&mut self, message: &Message) {
        self.say(&message.header.txn, Body::Ack).await;
    }

    /// The next frame that is no message: pings are answered on the way.
    pub(super) async fn next(&mut self) -> Option<tungstenite::Message> {
        let next = tokio::time::timeout(SOON, self.stream.next()).await;
        next.expect("nothing was heard").and_then(Result::ok)
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Message {
        let next = async {
            loop {
                match self.next().await {
                    Some(tungstenite::Message::Binary(bytes)) => {
                        return decode(&bytes, &Caps::default()).unwrap().message;
                    }
                    Some(_) => {}
                    None => panic!("the connection is over"),
                }
            }
        };
        let next = tokio::time::timeout(SOON, next).await;
        next.expect("no message was heard")
    }

    /// The next message that is wanted; what comes before it is acknowledged, if it is to be.
    pub(super) async fn wanted(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.message().await;
            if !matches!(message.body, Body::Ack | Body::Nack(_)) {
                self.ack(&message).await;
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Waits for the ack of `txn`; a nack is none.
    pub(super) async fn acked(&mut self, txn: &str) {
        let answer = self.answered(txn).await;
        assert_eq!(answer, Body::Ack, "{txn}");
    }

    /// Waits for a nack of `txn` and gives the time it asks for.
    pub(super) async fn nacked(&mut self, txn: &str) -> u64 {
        match self.answered(txn).await {
            Body::Nack(Nack { retry_after_ms }) => retry_after_ms,
            other => panic!("{txn} got {other:?}"),
        }
    }

    async fn answered(&mut self, txn: &str) -> Body {
        let wanted = |message: &Message| {
            message.header.txn == txn && matches!(message.body, Body::Ack | Body::Nack(_))
        };
        self.wanted(wanted).await.body
    }

    /// Reads and answers pings for `span`; gives the messages.
    pub(super) async fn listen(&mut self, span: Duration) -> Vec<Message> {
        let until = tokio::time::Instant::now() + span;
        let mut heard = Vec::new();
        while let Ok(Some(Ok(next))) = tokio::time::timeout_at(until, self.stream.next()).await {
            if let tungstenite::Message::Binary(bytes) = next {
                heard.push(decode(&bytes, &Caps::default()).unwrap().message);
            }
        }
        heard
    }
}

/// The link of a Unit.
pub(super) struct Unit {
    pub(super) link: Link,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) online: CertSource,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Unit {
    pub(super) async fn start(peer: &Peer, folder: &Path, config: Config, caps: Caps) -> Self {
        let online = CertSource::with(peer.online());
        Self::with(peer, folder, config, caps, online).await
    }

    pub(super) async fn with(
        peer: &Peer,
        folder: &Path,
        config: Config,
        caps: Caps,
        online: CertSource,
    ) -> Self {
        let schema = [Records::<()>::SCHEMA, SCHEMA];
        let store = Store::open(folder.join("cm.db"), &schema).unwrap();
        let endpoints = Endpoints {
            configured: String::new(),
            overriding: Some(peer.at.clone()),
        };
        let (to, incoming) = mpsc::channel(16);
        let node = NodeId::new("main").unwrap();
        let (link, alerts, driver) = Driver::restore(Setup {
            system_id: unit_id(),
            node: node.clone(),
            config,
            caps,
            outbox: Outbox::new(store),
            connector: Connector::new(endpoints, online.clone(), &peer.trust, caps),
            incoming: to,
            patience: Duration::from_millis(400),
        })
        .await
        .unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move { driver.run(token).await.unwrap() });
        tasks.spawn(gather_alerts(link.clone(), node, alerts, stop.clone()));
        Self {
            link,
            incoming,
            online,
            stop,
            tasks,
        }
    }

    /// Waits until the link counts as connected.
    pub(super) async fn connected(&self) {
        let mut connected = self.link.connected.clone();
        connected.wait_for(|connected| *connected).await.unwrap();
    }

    /// The next message for the rest of CM.
    pub(super) async fn incoming(&mut self) -> Incoming {
        let next = tokio::time::timeout(SOON, self.incoming.recv()).await;
        next.expect("nothing came").unwrap()
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// The power goes.
    pub(super) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}
