//! Real TLS handshakes: who gets in, who does not, and what each side is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{sync::Arc, time::Duration};

use aos_pki::*;
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{NodeId, SystemId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn now() -> Timestamp {
    SystemClock.now()
}

fn unit(name: &str) -> SystemId {
    SystemId::new(name).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn authority() -> Authority {
    Authority::in_memory("root", now()).unwrap()
}

fn pair(authority: &Authority, profile: &CertProfile) -> Arc<rustls::sign::CertifiedKey> {
    let pair = authority
        .issue_pair(KeyAlgorithm::EcP256, profile, now())
        .unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    certified_key(chain, &pair.key).unwrap()
}

fn source(authority: &Authority, profile: &CertProfile) -> CertSource {
    CertSource::with(pair(authority, profile))
}

fn text(error: &std::io::Error) -> String {
    handshake_reason(error)
}

/// Shakes hands and sends a byte each way; what each side says about it.
async fn meet(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Vec<u8>, String>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server.config.clone());
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.map_err(|e| text(&e))?;
        let peer = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| leaf.to_vec())
            .unwrap_or_default();
        stream.write_all(b"x").await.map_err(|e| text(&e))?;
        stream.flush().await.map_err(|e| text(&e))?;
        Ok(peer)
    });
    let called = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = client.name_for(host).unwrap();
        let mut stream = TlsConnector::from(client.config.clone())
            .connect(name, stream)
            .await
            .map_err(|e| text(&e))?;
        stream.read_u8().await.map_err(|e| text(&e))?;
        Ok(())
    };
    let called = tokio::time::timeout(Duration::from_secs(10), called)
        .await
        .unwrap();
    (served.await.unwrap(), called)
}

fn cm_server(authority: &Authority, trust: &Trust) -> ServerTls {
    let own = source(
        authority,
        &CertProfile::unit(CertKind::Cm, &unit("u1"), Some(&node("n1"))),
    );
    mutual_server(
        &own,
        trust,
        Expect::kinds([CertKind::Sm]).same_unit(),
        ALPN_GRPC,
    )
}

fn sm_client(own: CertSource, trust: &Trust) -> ClientTls {
    unit_client(&own, trust, Expect::kinds([CertKind::Cm]).same_unit())
}

#[tokio::test]
async fn the_right_peers_meet_and_know_each_other() {
    let root = authority();
    let trust = Trust::new(root.roots());
    let own = source(
        &root,
        &CertProfile::unit(CertKind::Sm, &unit("u1"), Some(&node("n2"))),
    );
    let (served, called) = meet(&cm_server(&root, &trust), &sm_client(own, &trust), "n1").await;
    called.unwrap();
    let peer = PeerIdentity::from_der(&served.unwrap()).unwrap();
    assert_eq!(peer.kind, CertKind::Sm);
    assert_eq!(peer.node_id, Some(node("n2")));
    assert_eq!(peer.system_id, Some(unit("u1")));
    assert_eq!(peer.common_name, "u1-sm");
}

#[tokio::test]
async fn each_wrong_client_is_refused_with_its_reason() {
    let (root, stranger) = (authority(), authority());
    let trust = Trust::new(root.roots());
    let server = cm_server(&root, &trust);
    let expired = CertProfile {
        validity: Duration::from_secs(1),
        ..CertProfile::unit(CertKind::Sm, &unit("u1"), None)
    };
    let expired = root
        .issue_pair(
            KeyAlgorithm::EcP256,
            &expired,
            now() - Duration::from_secs(60),
        )
        .unwrap();
    let expired = certified_key(vec![expired.issued.certificate], &expired.key).unwrap();
    let cases = [
        (
            source(
                &root,
                &CertProfile::unit(CertKind::Um, &unit("u1"), Some(&node("n2"))),
            ),
            "the peer is um of node n2 of unit u1; a certificate of type sm is wanted here",
        ),
        (
            source(
                &stranger,
                &CertProfile::unit(CertKind::Sm, &unit("u1"), None),
            ),
            "it names a trusted authority but was not signed by it",
        ),
        (
            source(&root, &CertProfile::unit(CertKind::Sm, &unit("u2"), None)),
            "the peer is sm of unit u2; unit u1 is wanted here",
        ),
        (CertSource::with(expired), "it expired at"),
        (CertSource::new(), "peer sent no certificates"),
    ];
    for (own, reason) in cases {
        // The client accepts the server, so that it is the server who refuses.
        let client = unit_client(&own, &trust, Expect::any());
        let (served, called) = meet(&server, &client, "n1").await;
        let said = served.unwrap_err();
        assert!(said.contains(reason), "{said} should say: {reason}");
        assert!(called.is_err(), "the client must notice: {reason}");
    }
}

#[tokio::test]
async fn each_wrong_server_is_refused_with_its_reason() {
    let root = authority();
    let stranger = Authority::in_memory("another root", now()).unwrap();
    let trust = Trust::new(root.roots());
    let open = |own: &CertSource| public_server(own, ALPN_GRPC);
    let me = || {
        source(
            &root,
            &CertProfile::unit(CertKind::Sm, &unit("u1"), Some(&node("n2"))),
        )
    };
    let cases = [
        (
            source(&root, &CertProfile::unit(CertKind::Iam, &unit("u1"), None)),
            "the peer is iam of unit u1; a certificate of type cm is wanted here",
        ),
        (
            source(&root, &CertProfile::unit(CertKind::Cm, &unit("u9"), None)),
            "the peer is cm of unit u9; unit u1 is wanted here",
        ),
        (
            source(
                &stranger,
                &CertProfile::unit(CertKind::Cm, &unit("u1"), None),
            ),
            "issued by another authority than the trusted ones",
        ),
        (
            source(&root, &CertProfile::unit(CertKind::Sm, &unit("u1"), None)),
            "it may not be used by a server",
        ),
    ];
    for (server, reason) in cases {
        let (_, called) = meet(&open(&server), &sm_client(me(), &trust), "n1").await;
        let said = called.unwrap_err();
        assert!(said.contains(reason), "{said} should say: {reason}");
    }
    let client = unit_client(
        &me(),
        &trust,
        Expect::kinds([CertKind::Cm]).node(node("n1")),
    );
    let elsewhere = source(
        &root,
        &CertProfile::unit(CertKind::Cm, &unit("u1"), Some(&node("n7"))),
    );
    let said = meet(&open(&elsewhere), &client, "n1").await.1.unwrap_err();
    assert!(said.contains("node n1 is wanted here"), "{said}");
}

#[tokio::test]
async fn a_certificate_changes_without_a_new_server() {
    let root = authority();
    let trust = Trust::new(root.roots());
    let own = source(&root, &CertProfile::unit(CertKind::Cm, &unit("u1"), None));
    let server = mutual_server(&own, &trust, Expect::any(), ALPN_GRPC);
    let me = source(&root, &CertProfile::unit(CertKind::Sm, &unit("u1"), None));
    let client = sm_client(me.clone(), &trust);
    let first = meet(&server, &client, "n1").await.0.unwrap();
    me.set(Some(pair(
        &root,
        &CertProfile::unit(CertKind::Sm, &unit("u1"), Some(&node("n5"))),
    )));
    let second = meet(&server, &client, "n1").await.0.unwrap();
    assert_ne!(first, second);
    assert_eq!(
        PeerIdentity::from_der(&second).unwrap().node_id,
        Some(node("n5"))
    );
    // The roots may change too: after that the old authority's peers are strangers.
    trust.set_roots(authority().roots());
    let (served, called) = meet(&server, &client, "n1").await;
    assert!(served.is_err() && called.is_err());
}

#[tokio::test]
async fn the_cloud_is_known_by_its_host_name_and_no_unit_can_pass_for_it() {
    let root = authority();
    let trust = Trust::new(root.roots());
    let cloud = source(
        &root,
        &CertProfile::server(vec!["cloud.test".into(), "127.0.0.1".into()]),
    );
    let people = optional_client_server(&cloud, &trust, Expect::kinds([CertKind::User]), ALPN_HTTP);
    let browser = host_client(&CertSource::new(), &trust, None, ALPN_HTTP);
    for host in ["cloud.test", "127.0.0.1"] {
        meet(&people, &browser, host).await.1.unwrap();
    }
    let said = meet(&people, &browser, "other.test").await.1.unwrap_err();
    assert!(said.contains("is not valid for `other.test`"), "{said}");

    let user = source(&root, &CertProfile::user("42", "ada", "cloud.test"));
    let tool = host_client(&user, &trust, None, ALPN_HTTP);
    let served = meet(&people, &tool, "cloud.test").await.0.unwrap();
    assert_eq!(
        PeerIdentity::from_der(&served).unwrap().user_id.as_deref(),
        Some("42")
    );

    let sly = CertProfile {
        names: vec!["cloud.test".into()],
        ..CertProfile::unit(CertKind::Iam, &unit("u1"), None)
    };
    let sly = public_server(&source(&root, &sly), ALPN_HTTP);
    let said = meet(&sly, &browser, "cloud.test").await.1.unwrap_err();
    assert!(
        said.contains("a certificate of type server is wanted"),
        "{said}"
    );
}

#[tokio::test]
async fn a_cloud_is_met_for_the_first_time_by_its_fingerprint() {
    let root = authority();
    let cloud = source(&root, &CertProfile::server(vec!["cloud.test".into()]));
    let server = public_server(&cloud, ALPN_HTTP);
    let trust = Trust::new(Roots::default());
    let wrong = host_client(
        &CertSource::new(),
        &trust,
        Some(Fingerprint::of(b"x")),
        ALPN_HTTP,
    );
    let said = meet(&server, &wrong, "cloud.test").await.1.unwrap_err();
    assert!(said.contains("no root certificate is known yet"), "{said}");
    let right = host_client(
        &CertSource::new(),
        &trust,
        Some(root.fingerprint()),
        ALPN_HTTP,
    );
    meet(&server, &right, "cloud.test").await.1.unwrap();
    assert_eq!(trust.roots().to_pem(), root.root_pem());
}

#[tokio::test]
async fn holders_of_the_bootstrap_key_meet_and_are_nothing_but_that() {
    let key = BootstrapKey::from_bytes([7; 32]).unwrap();
    let same = BootstrapKey::from_bytes([7; 32]).unwrap();
    let other = BootstrapKey::from_bytes([8; 32]).unwrap();
    assert_eq!(key.roots().to_pem(), same.roots().to_pem());

    // A provisioned main Node serves both: its Unit's certificate, and the bootstrap one to who asks for that.
    let root = authority();
    let trust = Trust::new(root.roots());
    trust.set_bootstrap(Some(&key));
    let own = source(
        &root,
        &CertProfile::unit(CertKind::Iam, &unit("u1"), Some(&node("n1"))),
    );
    own.set_bootstrap(Some(key.credentials(Some(&node("n1"))).unwrap()));
    let expect = Expect::kinds([CertKind::Iam, CertKind::Bootstrap]).same_unit();
    let server = mutual_server(&own, &trust, expect, ALPN_GRPC);

    let caller = |key: &BootstrapKey| {
        let trust = Trust::new(Roots::default());
        trust.set_bootstrap(Some(key));
        let own = CertSource::with(key.credentials(Some(&node("n2"))).unwrap());
        unit_client(&own, &trust, Expect::kinds([CertKind::Bootstrap])).bootstrap()
    };
    let peer = meet(&server, &caller(&same), "n1").await.0.unwrap();
    let peer = PeerIdentity::from_der(&peer).unwrap();
    assert_eq!(
        (peer.kind, peer.node_id),
        (CertKind::Bootstrap, Some(node("n2")))
    );
    assert!(meet(&server, &caller(&other), "n1").await.1.is_err());

    let member = source(
        &root,
        &CertProfile::unit(CertKind::Iam, &unit("u1"), Some(&node("n2"))),
    );
    let member = unit_client(&member, &trust, Expect::kinds([CertKind::Iam]).same_unit());
    meet(&server, &member, "n1").await.1.unwrap();

    // The Unit's authority cannot give the type `bootstrap`.
    let fake = CertProfile {
        kind: CertKind::Bootstrap,
        ..CertProfile::unit(CertKind::Iam, &unit("u1"), None)
    };
    let fake = unit_client(&source(&root, &fake), &trust, Expect::any());
    let said = meet(&server, &fake, "n1").await.0.unwrap_err();
    assert!(said.contains("which its issuer may not give"), "{said}");
}
