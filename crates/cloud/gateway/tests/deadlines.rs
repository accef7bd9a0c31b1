//! What the gateway does with a Unit that is silent, says no, or says too much. TLS is left out: the certificate is put
//! into the request by hand, the rest is real.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aos_api::{ListQuery, OnlineStatus};
use aos_cloud_protocol::{
    Alert, AlertEvent, Alerts, Body, Caps, DiscoveryRequest, DiscoveryResponse, Header, Message,
    Nack, QuotaState, decode,
};
use aos_db::{Actor, Db, IssuedCertificate, RegisterBy, Registration, hash_secret};
use aos_gateway::{Gateway, GatewayOptions, TokenKey};
use aos_image::BlobStore;
use aos_pki::{
    Authority, CertKind, CertProfile, Fingerprint, KeyAlgorithm, PeerIdentity, Signer,
    certificates_from_pem,
};
use aos_time::{Clock, SystemClock};
use aos_types::{NodeId, SystemId};
use axum::Extension;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const WAIT: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<TcpStream>;

struct Stage {
    _folder: tempfile::TempDir,
    db: Db,
    actor: Actor,
    gateway: Gateway,
    peer: PeerIdentity,
    stop: CancellationToken,
    at: SocketAddr,
}

impl Stage {
    async fn new(session: aos_session::Config, caps: Caps) -> Self {
        aos_pki::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aos.db"), Arc::new(SystemClock))
            .await
            .unwrap();
        db.put_owner_token(&hash_secret("t")).await.unwrap();
        let actor = db
            .set_up_owner(&hash_secret("t"), "Acme", "owner", "hash")
            .await
            .unwrap()
            .unwrap()
            .actor();
        let peer = PeerIdentity {
            kind: CertKind::Online,
            system_id: Some(SystemId::new("unit-1").unwrap()),
            node_id: None,
            user_id: None,
            domain: None,
            common_name: String::new(),
            serial: "01".into(),
            fingerprint: Fingerprint::of(b"certificate"),
        };
        let registration = Registration {
            system_uid: SystemId::new("unit-1").unwrap(),
            online_key: "key".into(),
            unit_model: String::new(),
            nodes: vec![],
        };
        let certificate = IssuedCertificate {
            fingerprint: peer.fingerprint.to_string(),
            cert_type: "online".into(),
            node_id: "main".into(),
            serial: "01".into(),
            not_after: SystemClock.now() + Duration::from_secs(1000),
            public_key: None,
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
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let pair = authority
            .issue_pair(
                KeyAlgorithm::Rsa2048,
                &CertProfile::blob_signer(),
                SystemClock.now(),
            )
            .unwrap();
        let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
        let stop = CancellationToken::new();
        let gateway = Gateway::start(
            GatewayOptions {
                db: db.clone(),
                blobs: BlobStore::open(folder.path()).unwrap(),
                authority: Arc::new(authority),
                discovery_urls: vec![],
                signer: Arc::new(Signer::new(&pair.key, chain).unwrap()),
                tokens: TokenKey::ephemeral().unwrap(),
                caps,
                retention: aos_db::Retention::default(),
                session,
            },
            stop.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = gateway.router().layer(Extension(peer.clone()));
        let ending = stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(ending.cancelled_owned())
                .await
        });
        Self {
            _folder: folder,
            db,
            actor,
            gateway,
            peer,
            stop,
            at,
        }
    }

    async fn open(&self) -> Socket {
        use tungstenite::client::IntoClientRequest as _;
        let body = DiscoveryRequest::new(SystemId::new("unit-1").unwrap()).encode();
        let ask = http::Request::post("/sd/v7/")
            .header("Host", self.at.to_string())
            .body(axum::body::Body::from(body))
            .unwrap();
        let answer = self
            .gateway
            .router()
            .layer(Extension(self.peer.clone()))
            .oneshot(ask)
            .await
            .unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let found = DiscoveryResponse::decode(&bytes).unwrap();
        let mut request = format!("ws://{}/ws/v7/", self.at)
            .into_client_request()
            .unwrap();
        let value = format!("Bearer {}", found.auth_token.expose());
        request
            .headers_mut()
            .insert("Authorization", value.parse().unwrap());
        let stream = TcpStream::connect(self.at).await.unwrap();
        tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap()
            .0
    }

    async fn offline_reason(&self) -> String {
        let mut changes = self.db.changes();
        loop {
            let page = self
                .db
                .timeline(&self.actor, "unit-1", &ListQuery::default())
                .await
                .unwrap();
            if let Some(event) = page
                .items
                .into_iter()
                .find(|event| event.text.starts_with("link lost"))
            {
                let unit = self.db.unit(&self.actor, "unit-1").await.unwrap();
                assert_eq!(unit.online_status, OnlineStatus::Offline);
                return event.text;
            }
            tokio::time::timeout(WAIT, changes.recv())
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// Texts of the timeline that contain `words`.
    async fn told(&self, words: &str) -> Vec<String> {
        let page = self
            .db
            .timeline(&self.actor, "unit-1", &ListQuery::default())
            .await
            .unwrap();
        let texts = page.items.into_iter().map(|event| event.text);
        texts.filter(|text| text.contains(words)).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(WAIT, self.gateway.stopped())
            .await
            .unwrap();
    }
}

fn frame(txn: &str, body: Body) -> tungstenite::Message {
    let message = Message {
        header: Header {
            system_id: SystemId::new("unit-1").unwrap(),
            created_at: SystemClock.now(),
            txn: txn.into(),
        },
        correlation_id: None,
        body,
    };
    tungstenite::Message::Binary(message.encode().into())
}

async fn next(socket: &mut Socket) -> tungstenite::Message {
    tokio::time::timeout(WAIT, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

async fn message(socket: &mut Socket) -> Message {
    loop {
        if let tungstenite::Message::Binary(bytes) = next(socket).await {
            return decode(&bytes, &Caps::default()).unwrap().message;
        }
    }
}

fn hasty() -> aos_session::Config {
    aos_session::Config {
        ack_wait: Duration::from_millis(200),
        ping_after: Duration::from_millis(200),
        dead_after: Duration::from_millis(600),
        ..aos_session::Config::default()
    }
}

#[tokio::test]
async fn a_silent_unit_is_pinged_and_then_let_go() {
    let stage = Stage::new(hasty(), Caps::default()).await;
    let socket = stage.open().await;
    // Nobody reads, so nobody answers the pings.
    let reason = stage.offline_reason().await;
    assert!(reason.contains("nothing was heard"), "{reason}");
    drop(socket);
    stage.end().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_or_refused_comes_again_as_it_was() {
    let stage = Stage::new(hasty(), Caps::default()).await;
    let mut socket = stage.open().await;
    let first = message(&mut socket).await;
    assert!(matches!(first.body, Body::DesiredStatus(_)));
    assert_eq!(message(&mut socket).await, first);

    let retry_after_ms = 300;
    let refused = tokio::time::Instant::now();
    let nack = frame(&first.header.txn, Body::Nack(Nack { retry_after_ms }));
    socket.send(nack).await.unwrap();
    assert_eq!(message(&mut socket).await, first);
    assert!(refused.elapsed() >= Duration::from_millis(retry_after_ms));

    let ack = frame(&first.header.txn, Body::Ack);
    socket.send(ack).await.unwrap();
    // From now on there are pings only; reading them answers them, so the link lives on.
    let lives_until = tokio::time::Instant::now() + Duration::from_millis(1500);
    let mut pings = 0;
    while let Ok(frame) = tokio::time::timeout_at(lives_until, socket.next()).await {
        match frame.unwrap().unwrap() {
            tungstenite::Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(pings >= 3, "{pings}");
    stage.end().await;
}

#[tokio::test]
async fn an_alert_that_comes_twice_is_told_once() {
    let stage = Stage::new(aos_session::Config::default(), Caps::default()).await;
    let alert = Body::Alerts(Alerts {
        items: vec![Alert {
            timestamp: SystemClock.now(),
            event: AlertEvent::SystemQuota {
                node: NodeId::new("main").unwrap(),
                parameter: "ram".into(),
                value: 7,
                state: Some(QuotaState::Fall),
            },
        }],
    });
    for _ in 0..2 {
        let mut socket = stage.open().await;
        for _ in 0..2 {
            socket.send(frame("t", alert.clone())).await.unwrap();
            let acked = |message: &Message| message.header.txn == "t";
            while !acked(&message(&mut socket).await) {}
        }
    }
    let told = stage.told("ram").await;
    assert_eq!(told, ["Node main no longer uses too much ram: 7 B"]);
    stage.end().await;
}

#[tokio::test]
async fn an_ordinary_end_of_a_link_is_told_plainly() {
    let stage = Stage::new(aos_session::Config::default(), Caps::default()).await;
    let mut socket = stage.open().await;
    message(&mut socket).await;
    drop(socket);
    let reason = stage.offline_reason().await;
    assert_eq!(reason, "link lost: the Unit broke it off");
    stage.end().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_but_not_by_far_is_answered_and_noted() {
    let caps = Caps {
        message_bytes: 1000,
        ..Caps::default()
    };
    let stage = Stage::new(aos_session::Config::default(), caps).await;
    let mut socket = stage.open().await;
    let long = format!(
        r#"{{"header":{{"version":7,"systemId":"unit-1","txn":"long"}},"data":{{"x":"{}"}}}}"#,
        "x".repeat(1000)
    );
    socket
        .send(tungstenite::Message::Binary(long.into_bytes().into()))
        .await
        .unwrap();
    while message(&mut socket).await.header.txn != "long" {}
    assert_eq!(stage.told("more than the 1000").await.len(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_message_over_the_cap_ends_the_link_with_a_reason() {
    let caps = Caps {
        message_bytes: 1000,
        ..Caps::default()
    };
    let stage = Stage::new(aos_session::Config::default(), caps).await;
    let mut socket = stage.open().await;
    let long = tungstenite::Message::Binary(vec![b' '; 5000].into());
    socket.send(long).await.unwrap();
    let reason = stage.offline_reason().await;
    assert!(
        reason.contains("5000") || reason.contains("too"),
        "{reason}"
    );
    stage.end().await;
}
