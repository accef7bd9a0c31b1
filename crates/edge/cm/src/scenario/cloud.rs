use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aos_cloud_protocol::{
    Body, Caps, DesiredStatus, DiscoveryRequest, DiscoveryResponse, Header, Message, Secret,
    UnitStatus, decode,
};
use aos_pki::{ALPN_HTTP, CertKind, CertSource, Expect, Trust, mutual_server};
use aos_time::{Clock, SystemClock};
use aos_types::SystemId;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite;

use super::SOON;

pub(super) const TOKEN: &str = "a-token";

/// A cloud that acks everything and keeps what it hears.
pub(super) struct Cloud {
    pub(super) discovery: SocketAddr,
    heard: mpsc::UnboundedReceiver<Message>,
    say: mpsc::UnboundedSender<Vec<u8>>,
    cut: watch::Sender<u64>,
    tasks: Vec<JoinHandle<()>>,
    /// The newest desired state that was not acked, with its txn: it is sent again on each connection.
    unacked: Unacked,
    whole: UnitStatus,
}

type Unacked = Arc<Mutex<Option<(String, Vec<u8>)>>>;

fn system_id() -> SystemId {
    SystemId::new("unit").unwrap()
}

fn message(txn: String, body: Body) -> Vec<u8> {
    Message {
        header: Header {
            system_id: system_id(),
            created_at: SystemClock.now(),
            txn,
        },
        correlation_id: None,
        body,
    }
    .encode()
}

impl Cloud {
    pub(super) async fn start(source: CertSource, trust: Trust) -> Self {
        let expect = Expect::kinds([CertKind::Online]);
        let tls = mutual_server(&source, &trust, expect, &ALPN_HTTP[1..]);
        let acceptor = TlsAcceptor::from(tls.config);
        let discovery = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = discovery.local_addr().unwrap();
        let ws = sockets.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let (say, mut to_say) = mpsc::unbounded_channel::<Vec<u8>>();
        let (cut, cutting) = watch::channel(0);
        let unacked = Unacked::default();
        let again = unacked.clone();
        let shaking = acceptor.clone();
        let finding = tokio::spawn(async move {
            loop {
                let (stream, _) = discovery.accept().await.unwrap();
                let shaking = shaking.clone();
                tokio::spawn(async move { discover(shaking, stream, ws).await });
            }
        });
        let talking = tokio::spawn(async move {
            loop {
                let (stream, _) = sockets.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check_token).await
                else {
                    continue;
                };
                let mut cutting = cutting.clone();
                cutting.borrow_and_update();
                let (mut sink, mut source) = socket.split();
                let waiting = again.lock().unwrap().clone();
                if let Some((_, frame)) = waiting {
                    let frame = tungstenite::Message::Binary(frame.into());
                    let _ = sink.send(frame).await;
                }
                loop {
                    tokio::select! {
                        Some(frame) = to_say.recv() => {
                            let frame = tungstenite::Message::Binary(frame.into());
                            if sink.send(frame).await.is_err() { break; }
                        }
                        frame = source.next() => {
                            let Some(Ok(frame)) = frame else { break };
                            let tungstenite::Message::Binary(frame) = frame else { continue };
                            let message = decode(&frame, &Caps::default()).unwrap().message;
                            if message.body == Body::Ack {
                                let mut waiting = again.lock().unwrap();
                                if waiting.as_ref().is_some_and(|(txn, _)| *txn == message.header.txn) {
                                    *waiting = None;
                                }
                            }
                            if !matches!(message.body, Body::Ack | Body::Nack(_)) {
                                let ack = super::cloud::message(message.header.txn.clone(), Body::Ack);
                                let ack = tungstenite::Message::Binary(ack.into());
                                if sink.send(ack).await.is_err() { break; }
                            }
                            if tell.send(message).is_err() { return; }
                        }
                        _ = cutting.changed() => break,
                    }
                }
            }
        });
        Self {
            discovery: address,
            heard,
            say,
            cut,
            tasks: vec![finding, talking],
            unacked,
            whole: UnitStatus::default(),
        }
    }

    pub(super) async fn shut(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    pub(super) async fn drop_connection(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    pub(super) async fn raw(&self, text: &str) {
        self.say.send(text.as_bytes().to_vec()).unwrap();
    }

    pub(super) async fn tell(&self, body: Body) {
        let txn = uuid::Uuid::new_v4().to_string();
        self.say.send(message(txn, body)).unwrap();
    }

    /// Asks for what is answered with the same id.
    pub(super) async fn ask(&self, id: &str, body: Body) {
        let frame = Message {
            header: Header {
                system_id: system_id(),
                created_at: SystemClock.now(),
                txn: uuid::Uuid::new_v4().to_string(),
            },
            correlation_id: Some(id.into()),
            body,
        };
        self.say.send(frame.encode()).unwrap();
    }

    pub(super) async fn desire(&self, desired: DesiredStatus) {
        let txn = uuid::Uuid::new_v4().to_string();
        let body = Body::DesiredStatus(desired);
        let frame = message(txn.clone(), body);
        *self.unacked.lock().unwrap() = Some((txn, frame.clone()));
        self.say.send(frame).unwrap();
    }

    /// Says anything else, once.
    pub(super) async fn say(&self, body: Body) {
        self.say
            .send(message(uuid::Uuid::new_v4().to_string(), body))
            .unwrap();
    }

    /// The next message that is wanted.
    pub(super) async fn message(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        let next = async {
            loop {
                let message = self.heard.recv().await.unwrap();
                if let Body::UnitStatus(status) = &message.body {
                    self.whole = merge(std::mem::take(&mut self.whole), status.clone());
                }
                if wanted(&message) {
                    return message;
                }
            }
        };
        match tokio::time::timeout(SOON, next).await {
            Ok(message) => message,
            Err(_) => panic!("not heard in time; last status: {:#?}", self.whole),
        }
    }

    /// The next status that is wanted.
    pub(super) async fn status(&mut self, wanted: impl Fn(&UnitStatus) -> bool) -> UnitStatus {
        let message = self
            .message(|message| match &message.body {
                Body::UnitStatus(status) => wanted(status),
                _ => false,
            })
            .await;
        match message.body {
            Body::UnitStatus(status) => status,
            _ => unreachable!(),
        }
    }

    /// The whole status, put together from full ones and deltas, as soon as it is as wanted.
    pub(super) async fn whole(&mut self, wanted: impl Fn(&UnitStatus) -> bool) -> UnitStatus {
        loop {
            self.status(|_| true).await;
            if wanted(&self.whole) {
                return self.whole.clone();
            }
        }
    }
}

fn merge(whole: UnitStatus, status: UnitStatus) -> UnitStatus {
    if !status.is_delta {
        return status;
    }
    fn keyed<T, K: Ord>(
        old: Option<Vec<T>>,
        new: Option<Vec<T>>,
        key: impl Fn(&T) -> K,
    ) -> Option<Vec<T>> {
        let all = old.into_iter().flatten().chain(new.into_iter().flatten());
        let all: BTreeMap<K, T> = all.map(|one| (key(&one), one)).collect();
        Some(all.into_values().collect())
    }
    UnitStatus {
        is_delta: true,
        unit_config: status.unit_config.or(whole.unit_config),
        nodes: keyed(whole.nodes, status.nodes, |node| node.info.id.clone()),
        items: keyed(whole.items, status.items, |item| {
            (item.item.clone(), item.version.clone())
        }),
        instances: keyed(whole.instances, status.instances, |group| {
            (
                group.item.clone(),
                group.subject.clone(),
                group.version.clone(),
            )
        }),
        subjects: status.subjects.or(whole.subjects),
        update: status.update.or(whole.update),
        placements: status.placements.or(whole.placements),
    }
}

#[allow(
    clippy::result_large_err,
    clippy::unnecessary_wraps,
    reason = "tungstenite's signature"
)]
fn check_token(
    request: &tungstenite::handshake::server::Request,
    response: tungstenite::handshake::server::Response,
) -> Result<tungstenite::handshake::server::Response, tungstenite::handshake::server::ErrorResponse>
{
    let bearer = request.headers().get("authorization").unwrap();
    assert_eq!(bearer.to_str().unwrap(), format!("Bearer {TOKEN}"));
    assert_eq!(request.uri().path(), "/ws/v7/");
    Ok(response)
}

async fn discover(acceptor: TlsAcceptor, stream: tokio::net::TcpStream, ws: SocketAddr) {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut request = Vec::new();
    let body = loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap();
        request.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length: usize = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next())
                .unwrap()
                .parse()
                .unwrap();
            if request.len() >= end + 4 + length {
                break request[end + 4..].to_vec();
            }
        }
        assert!(count > 0, "broken off");
    };
    let asked = DiscoveryRequest::decode(&body).unwrap();
    let url = format!("wss://localhost:{}/ws/v7/", ws.port());
    // The first address does not work: the second one is tried.
    let urls = vec!["wss://localhost:1/ws/v7/".into(), url];
    let answer = DiscoveryResponse::connect(&asked.system_id, urls, Secret::new(TOKEN)).encode();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    let _ = stream.shutdown().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(Arc::new(stream));
}
