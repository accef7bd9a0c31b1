//! A main and a secondary Node in one process, over real TLS on loopback. The test plays the cloud and the joining tool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aos_iam::{Iam, MainIam, NodeOptions, Options};
use aos_ipc::{
    convert::error_from_proto,
    proto::{
        common::v2 as common,
        iamanager::{
            iam_version_service_client::IamVersionServiceClient,
            v6::{
                self as pb, iam_certificate_service_client::IamCertificateServiceClient,
                iam_nodes_service_client::IamNodesServiceClient,
                iam_permissions_service_client::IamPermissionsServiceClient,
                iam_provisioning_service_client::IamProvisioningServiceClient,
                iam_public_cert_service_client::IamPublicCertServiceClient,
                iam_public_current_node_service_client::IamPublicCurrentNodeServiceClient,
                iam_public_identity_service_client::IamPublicIdentityServiceClient,
                iam_public_nodes_service_client::IamPublicNodesServiceClient,
                iam_public_permissions_service_client::IamPublicPermissionsServiceClient,
            },
        },
    },
};
use aos_pki::{
    Authority, BootstrapKey, CertKind, CertProfile, CertSource, ClientTls, Expect, KeyAlgorithm,
    Roots, Trust, certificates_from_pem, certified_key, load_certified_key, unit_client,
};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, NodeId, SystemId};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

const DEADLINE: Duration = Duration::from_secs(20);

/// One running IAM.
struct Node {
    dir: PathBuf,
    public: String,
    protected: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn options(dir: &Path, id: &str, main: Option<&Node>) -> Options {
    Options {
        state_dir: dir.to_path_buf(),
        public_listen: "127.0.0.1:0".into(),
        protected_listen: "127.0.0.1:0".into(),
        system_id: main.is_none().then(|| "unit-1".into()),
        unit_model: "model;2.0".into(),
        subjects: vec!["subject-1".into()],
        bootstrap_key: None,
        main_iam: main.map(|main| MainIam {
            public: main.public.clone(),
            protected: main.protected.clone(),
        }),
        node: NodeOptions {
            id: Some(id.into()),
            node_type: "type-1".into(),
            ..NodeOptions::default()
        },
    }
}

async fn start(options: Options) -> Node {
    std::fs::create_dir_all(&options.state_dir).unwrap();
    let dir = options.state_dir.clone();
    let iam = Iam::open(options).await.unwrap();
    let stop = CancellationToken::new();
    let (public, protected) = (
        iam.public_address().unwrap().to_string(),
        iam.protected_address().unwrap().to_string(),
    );
    let ended = stop.clone();
    let task = tokio::spawn(async move { iam.serve(ended).await.unwrap() });
    Node {
        dir,
        public,
        protected,
        stop,
        task,
    }
}

impl Node {
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    fn bootstrap(&self) -> BootstrapKey {
        BootstrapKey::load(&self.dir.join("bootstrap.key")).unwrap()
    }

    /// As the joining tool does.
    async fn join_tool(&self) -> Channel {
        let key = self.bootstrap();
        let trust = Trust::new(Roots::default());
        trust.set_bootstrap(Some(&key));
        let own = CertSource::with(key.credentials(None).unwrap());
        let tls = unit_client(&own, &trust, Expect::kinds([CertKind::Bootstrap])).bootstrap();
        aos_ipc::connect(&self.protected, &tls).await.unwrap()
    }

    /// As a component with a certificate that IAM named.
    async fn component(&self, kind: &str, address: &str) -> Channel {
        let trust = self.trust();
        let mut reader = IamPublicCertServiceClient::new(self.reader().await);
        let info = reader
            .get_cert(pb::GetCertRequest {
                r#type: kind.into(),
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        let key = load_certified_key(&info.cert_url, &info.key_url).unwrap();
        let expect = Expect::kinds([CertKind::Iam]).same_unit();
        let tls = unit_client(&CertSource::with(key), &trust, expect);
        aos_ipc::connect(address, &tls).await.unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::new(Roots::from_file(&self.dir.join("ca.pem")).unwrap())
    }

    /// The public port, as a component without a certificate.
    async fn reader(&self) -> Channel {
        let expect = Expect::kinds([CertKind::Iam]);
        let tls = unit_client(&CertSource::new(), &self.trust(), expect);
        aos_ipc::connect(&self.public, &tls).await.unwrap()
    }
}

fn ok(error: Option<common::ErrorInfo>) {
    assert_eq!(error_from_proto(error), None);
}

fn code(error: Option<common::ErrorInfo>) -> i32 {
    error_from_proto(error).expect("an error").aos_code
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "waited too long for {what}"
        );
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn ids(channel: &Channel) -> Vec<String> {
    let mut nodes = IamPublicNodesServiceClient::new(channel.clone());
    nodes.get_all_node_i_ds(()).await.unwrap().into_inner().ids
}

async fn state(channel: &Channel, node: &str) -> Option<String> {
    let mut nodes = IamPublicNodesServiceClient::new(channel.clone());
    let request = pb::GetNodeInfoRequest {
        node_id: node.into(),
    };
    Some(nodes.get_node_info(request).await.ok()?.into_inner().state)
}

fn on(node: &str) -> (String, String) {
    (node.into(), "password".into())
}

/// What the joining tool does for one Node, and the cloud behind it.
async fn certify(channel: &Channel, cloud: &Authority, node: &str) {
    let mut provisioning = IamProvisioningServiceClient::new(channel.clone());
    let mut certificates = IamCertificateServiceClient::new(channel.clone());
    let (node_id, password) = on(node);
    let started = provisioning
        .start_provisioning(pb::StartProvisioningRequest { node_id, password })
        .await
        .unwrap();
    ok(started.into_inner().error);
    let types = provisioning
        .get_cert_types(pb::GetCertTypesRequest {
            node_id: node.into(),
        })
        .await
        .unwrap()
        .into_inner()
        .types;
    for kind in types {
        let key = certificates
            .create_key(pb::CreateKeyRequest {
                node_id: node.into(),
                r#type: kind.clone(),
                password: "password".into(),
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        ok(key.error);
        let profile = CertProfile::unit(
            kind.parse().unwrap(),
            &SystemId::new("unit-1").unwrap(),
            Some(&NodeId::new(node).unwrap()),
        );
        let issued = cloud.issue(&key.csr, &profile, SystemClock.now()).unwrap();
        let applied = certificates
            .apply_cert(pb::ApplyCertRequest {
                node_id: node.into(),
                r#type: kind.clone(),
                cert: issued.chain_pem,
            })
            .await
            .unwrap()
            .into_inner();
        ok(applied.error);
        let info = applied.cert_info.unwrap();
        assert_eq!(String::from_utf8(info.serial).unwrap(), issued.serial);
    }
}

async fn finish(channel: &Channel, node: &str) -> Option<common::ErrorInfo> {
    let (node_id, password) = on(node);
    IamProvisioningServiceClient::new(channel.clone())
        .finish_provisioning(pb::FinishProvisioningRequest { node_id, password })
        .await
        .unwrap()
        .into_inner()
        .error
}

/// A Unit of two Nodes, provisioned.
async fn unit(dir: &TempDir, cloud: &Authority) -> (Node, Node) {
    let main = start(options(&dir.path().join("main"), "n1", None)).await;
    let second = options(&dir.path().join("second"), "n2", Some(&main));
    std::fs::create_dir_all(&second.state_dir).unwrap();
    let key = "bootstrap.key";
    std::fs::copy(main.dir.join(key), second.state_dir.join(key)).unwrap();
    let second = start(second).await;
    let tool = main.join_tool().await;
    eventually("both Nodes", async || {
        (ids(&tool).await.len() == 2).then_some(())
    })
    .await;
    for node in ["n1", "n2"] {
        certify(&tool, cloud, node).await;
    }
    for node in ["n2", "n1"] {
        ok(finish(&tool, node).await);
    }
    (main, second)
}

fn cloud() -> Authority {
    Authority::in_memory("cloud root", SystemClock.now()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_provisioned_and_stay_so_after_a_restart() {
    let (dir, cloud) = (TempDir::new().unwrap(), cloud());
    let (main, second) = unit(&dir, &cloud).await;
    let reader = main.reader().await;
    for node in ["n1", "n2"] {
        let state = state(&reader, node).await;
        assert_eq!(state.as_deref(), Some("provisioned"));
    }
    // The secondary has changed over to its own certificate, without a restart: orders reach it.
    let cm = main.component("cm", &main.protected).await;
    let pause = async |cm: &Channel| {
        IamNodesServiceClient::new(cm.clone())
            .pause_node(pb::PauseNodeRequest {
                node_id: "n2".into(),
            })
            .await
            .unwrap()
            .into_inner()
            .error
    };
    ok(pause(&cm).await);
    let here = async |node: &Node| {
        IamPublicCurrentNodeServiceClient::new(node.reader().await)
            .get_current_node_info(())
            .await
            .unwrap()
            .into_inner()
    };
    assert_eq!(here(&second).await.state, "paused");
    // What was agreed survives: identity, state, certificates, root.
    let serial = async |node: &Node| {
        let request = pb::GetCertRequest {
            r#type: "iam".into(),
            ..Default::default()
        };
        let mut certs = IamPublicCertServiceClient::new(node.reader().await);
        certs.get_cert(request).await.unwrap().into_inner()
    };
    let (before_main, before_second) = (serial(&main).await, serial(&second).await);
    let (main_dir, second_dir) = (main.dir.clone(), second.dir.clone());
    second.end().await;
    main.end().await;
    let main = start(options(&main_dir, "n1", None)).await;
    let reader = main.reader().await;
    assert_eq!(
        ids(&reader).await,
        ["n1", "n2"],
        "known without being connected"
    );
    let second = start(options(&second_dir, "n2", Some(&main))).await;
    assert_eq!(serial(&main).await, before_main);
    assert_eq!(serial(&second).await, before_second);
    assert_eq!(here(&second).await.state, "paused");
    let cm = main.component("cm", &main.protected).await;
    let resumed = IamNodesServiceClient::new(cm)
        .resume_node(pb::ResumeNodeRequest {
            node_id: "n2".into(),
        })
        .await
        .unwrap();
    ok(resumed.into_inner().error);
    assert_eq!(state(&reader, "n2").await.as_deref(), Some("provisioned"));
    let info = IamPublicIdentityServiceClient::new(reader.clone())
        .get_system_info(())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            info.system_id.as_str(),
            info.unit_model.as_str(),
            info.version.as_str()
        ),
        ("unit-1", "model", "2.0")
    );
    let version = IamVersionServiceClient::new(reader)
        .get_api_version(())
        .await
        .unwrap();
    assert_eq!(version.into_inner().version, 6);
    let info = here(&main).await;
    assert!(info.attrs.iter().any(|attr| attr.name == "MainNode"));
    assert!(info.total_ram > 0 && !info.cpus.is_empty() && !info.partitions.is_empty());
    second.end().await;
    main.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_key_opens_nothing_once_a_node_is_provisioned() {
    let (dir, cloud) = (TempDir::new().unwrap(), cloud());
    let (main, second) = unit(&dir, &cloud).await;
    let tool = main.join_tool().await;
    for node in ["n1", "n2"] {
        let (node_id, password) = on(node);
        let mut provisioning = IamProvisioningServiceClient::new(tool.clone());
        let status = provisioning
            .start_provisioning(pb::StartProvisioningRequest { node_id, password })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("provisioned"), "{status}");
        let status = IamCertificateServiceClient::new(tool.clone())
            .create_key(pb::CreateKeyRequest {
                node_id: node.into(),
                r#type: "sm".into(),
                ..Default::default()
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let status = IamNodesServiceClient::new(tool)
        .pause_node(pb::PauseNodeRequest {
            node_id: "n2".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    // CM may, and is told that the state is wrong for it.
    let cm = main.component("cm", &main.protected).await;
    let (node_id, password) = on("n1");
    let answer = IamProvisioningServiceClient::new(cm.clone())
        .start_provisioning(pb::StartProvisioningRequest { node_id, password })
        .await
        .unwrap();
    assert_eq!(code(answer.into_inner().error), AosCode::WrongState as i32);
    // A Node that is deprovisioned can be joined again.
    let (node_id, password) = on("n2");
    let answer = IamProvisioningServiceClient::new(cm)
        .deprovision(pb::DeprovisionRequest { node_id, password })
        .await
        .unwrap();
    ok(answer.into_inner().error);
    assert!(!second.dir.join("ca.pem").exists());
    let tool = main.join_tool().await;
    eventually("the Node to come back by its bootstrap key", async || {
        (state(&tool, "n2").await.as_deref() == Some("unprovisioned")).then_some(())
    })
    .await;
    certify(&tool, &cloud, "n2").await;
    ok(finish(&tool, "n2").await);
    second.end().await;
    main.end().await;
}

/// A channel to the main IAM with a certificate of our choice.
async fn with(main: &Node, authority: &Authority, profile: CertProfile) -> Result<Channel, String> {
    let pair = authority
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    let own = CertSource::with(certified_key(chain, &pair.key).unwrap());
    let tls: ClientTls = unit_client(&own, &main.trust(), Expect::kinds([CertKind::Iam]));
    aos_ipc::connect(&main.protected, &tls)
        .await
        .map_err(|error| error.to_string())
}

async fn register(channel: Channel, claim: &str) -> tonic::Status {
    let (sender, outgoing) = tokio::sync::mpsc::channel(1);
    let info = pb::NodeInfo {
        node_id: claim.into(),
        state: "provisioned".into(),
        ..Default::default()
    };
    let message = pb::IamOutgoingMessages {
        iam_outgoing_message: Some(pb::iam_outgoing_messages::IamOutgoingMessage::NodeInfo(
            info,
        )),
    };
    sender.send(message).await.unwrap();
    let mut client = IamPublicNodesServiceClient::new(channel);
    match client.register_node(ReceiverStream::new(outgoing)).await {
        Err(status) => status,
        Ok(stream) => tokio::time::timeout(DEADLINE, stream.into_inner().message())
            .await
            .expect("refused in time")
            .expect_err("refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_as_itself_or_not_at_all() {
    let (dir, cloud) = (TempDir::new().unwrap(), cloud());
    let (main, second) = unit(&dir, &cloud).await;
    let unit_id = SystemId::new("unit-1").unwrap();
    let node = |name: &str| NodeId::new(name).unwrap();
    let profile = |kind, name: &str| CertProfile::unit(kind, &unit_id, Some(&node(name)));

    for kind in [CertKind::Sm, CertKind::Cm, CertKind::Online] {
        let channel = with(&main, &cloud, profile(kind, "n2")).await.unwrap();
        let status = register(channel, "n2").await;
        assert_eq!(status.code(), Code::PermissionDenied, "{kind}");
        assert!(
            status.message().contains("may not register a Node"),
            "{status}"
        );
    }
    let channel = with(&main, &cloud, profile(CertKind::Iam, "n3"))
        .await
        .unwrap();
    let status = register(channel, "n2").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("certificate is of node n3"),
        "{status}"
    );
    let channel = with(&main, &cloud, profile(CertKind::Iam, "n1"))
        .await
        .unwrap();
    let status = register(channel, "n1").await;
    assert!(status.message().contains("is the main Node"), "{status}");

    // Another Unit of the same cloud, and another cloud: not even a connection.
    let other = CertProfile::unit(
        CertKind::Iam,
        &SystemId::new("unit-2").unwrap(),
        Some(&node("n2")),
    );
    for (authority, profile) in [
        (&cloud, other),
        (&self::cloud(), profile(CertKind::Iam, "n2")),
    ] {
        if let Ok(channel) = with(&main, authority, profile).await {
            let status = register(channel, "n2").await;
            assert_ne!(status.code(), Code::PermissionDenied, "{status}");
        }
    }
    // The public port has no clients with certificates.
    let status = register(main.reader().await, "n2").await;
    assert_eq!(status.code(), Code::Unauthenticated);
    // A holder of the bootstrap key cannot pass for a Node that is provisioned.
    let key = main.bootstrap();
    let trust = Trust::new(Roots::default());
    trust.set_bootstrap(Some(&key));
    let own = CertSource::with(key.credentials(Some(&node("n2"))).unwrap());
    let tls = unit_client(&own, &trust, Expect::kinds([CertKind::Bootstrap])).bootstrap();
    let channel = aos_ipc::connect(&main.protected, &tls).await.unwrap();
    let status = register(channel, "n2").await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    // The real one is still there.
    let cm = main.component("cm", &main.protected).await;
    let answer = IamNodesServiceClient::new(cm)
        .pause_node(pb::PauseNodeRequest {
            node_id: "n2".into(),
        })
        .await
        .unwrap();
    ok(answer.into_inner().error);
    second.end().await;
    main.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_keep_their_secret_and_only_the_nodes_sm_gives_it() {
    let (dir, cloud) = (TempDir::new().unwrap(), cloud());
    let (main, second) = unit(&dir, &cloud).await;
    let functions = pb::Permissions {
        permissions: [("door".to_owned(), "rw".to_owned())].into(),
    };
    let request = pb::RegisterInstanceRequest {
        instance: Some(common::InstanceIdent {
            item_id: "item".into(),
            subject_id: "subject".into(),
            ..Default::default()
        }),
        permissions: [("vis".to_owned(), functions)].into(),
    };
    let sm = second.component("sm", &second.protected).await;
    let secret = IamPermissionsServiceClient::new(sm)
        .register_instance(request.clone())
        .await
        .unwrap()
        .into_inner()
        .secret;
    for (kind, node) in [("cm", &main), ("sm", &main)] {
        let other = node.component(kind, &second.protected).await;
        let status = IamPermissionsServiceClient::new(other)
            .register_instance(request.clone())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let dir_of_second = second.dir.clone();
    second.end().await;
    let second = start(options(&dir_of_second, "n2", Some(&main))).await;
    let ask = async |secret: &str| {
        IamPublicPermissionsServiceClient::new(second.reader().await)
            .get_permissions(pb::PermissionsRequest {
                secret: secret.into(),
                functional_server_id: "vis".into(),
            })
            .await
    };
    let found = ask(&secret).await.unwrap().into_inner();
    assert_eq!(found.instance.unwrap().item_id, "item");
    assert_eq!(found.permissions.unwrap().permissions["door"], "rw");
    assert_eq!(ask("guess").await.unwrap_err().code(), Code::NotFound);
    second.end().await;
    main.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_in_the_wrong_order_is_refused_and_harms_nothing() {
    let (dir, cloud) = (TempDir::new().unwrap(), cloud());
    let main = start(options(&dir.path().join("main"), "n1", None)).await;
    let tool = main.join_tool().await;
    assert_eq!(code(finish(&tool, "n1").await), AosCode::WrongState as i32);
    assert_eq!(code(finish(&tool, "").await), AosCode::WrongState as i32);
    let apply = async |kind: &str, cert: String| {
        IamCertificateServiceClient::new(tool.clone())
            .apply_cert(pb::ApplyCertRequest {
                node_id: "n1".into(),
                r#type: kind.into(),
                cert,
            })
            .await
            .unwrap()
            .into_inner()
            .error
    };
    let profile = CertProfile::unit(
        CertKind::Sm,
        &SystemId::new("unit-1").unwrap(),
        Some(&NodeId::new("n1").unwrap()),
    );
    let foreign = cloud
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    let error = apply("sm", foreign.issued.chain_pem).await;
    assert_eq!(code(error), AosCode::NotFound as i32);
    assert!(
        !main.dir.join("ca.pem").exists(),
        "a refused chain brings no root"
    );
    assert_eq!(
        code(apply("sm", "no PEM".into()).await),
        AosCode::InvalidArgument as i32
    );
    assert_eq!(
        code(apply("../../x", String::new()).await),
        AosCode::InvalidArgument as i32
    );
    certify(&tool, &cloud, "n1").await;
    // Later chains must lead to the same root.
    let key = IamCertificateServiceClient::new(tool.clone())
        .create_key(pb::CreateKeyRequest {
            node_id: "n1".into(),
            r#type: "sm".into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let forged = self::cloud()
        .issue(&key.csr, &profile, SystemClock.now())
        .unwrap();
    assert_eq!(
        code(apply("sm", forged.chain_pem).await),
        AosCode::InvalidArgument as i32
    );
    ok(finish(&tool, "n1").await);
    main.end().await;
}
