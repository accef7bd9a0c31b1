//! The little of IAM that SM asks for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use aos_ipc::proto::{
    common::v2 as common,
    iamanager::v6::{
        self as pb, iam_permissions_service_server as permissions,
        iam_public_cert_service_server as certs, iam_public_current_node_service_server as nodes,
    },
};
use aos_pki::{ALPN_GRPC, Authority, CertKind, public_server, write_private};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::RoutesBuilder};

use super::{NODE, certificate, source};

/// Server to function to rights, as they were registered.
pub type Rights = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default)]
pub struct Seen {
    /// By item. The secret of an instance stays the same, as long as it is registered.
    pub registered: BTreeMap<String, Rights>,
    pub taken_back: Vec<String>,
    /// It does not answer questions about rights.
    pub silent: bool,
}

/// What a test may see of it.
#[derive(Clone, Default)]
pub struct FakeIam {
    pub address: String,
    pub seen: Arc<Mutex<Seen>>,
}

struct Iam {
    folder: PathBuf,
}

/// What an instance of this item shows to functional servers.
pub fn secret(item: &str) -> String {
    format!("secret-of-{item}")
}

#[tonic::async_trait]
impl permissions::IamPermissionsService for FakeIam {
    async fn register_instance(
        &self,
        request: Request<pb::RegisterInstanceRequest>,
    ) -> Result<Response<pb::RegisterInstanceResponse>, Status> {
        let request = request.into_inner();
        let item = request.instance.unwrap().item_id;
        let rights = request.permissions.into_iter();
        let rights = rights.map(|(server, one)| (server, one.permissions.into_iter().collect()));
        let mut seen = self.seen.lock().unwrap();
        if seen.silent {
            return Err(Status::unavailable("not now"));
        }
        let answer = pb::RegisterInstanceResponse {
            secret: secret(&item),
        };
        seen.registered.insert(item, rights.collect());
        Ok(Response::new(answer))
    }

    async fn unregister_instance(
        &self,
        request: Request<pb::UnregisterInstanceRequest>,
    ) -> Result<Response<()>, Status> {
        let item = request.into_inner().instance.unwrap().item_id;
        let mut seen = self.seen.lock().unwrap();
        if seen.silent {
            return Err(Status::unavailable("not now"));
        }
        seen.registered.remove(&item);
        seen.taken_back.push(item);
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl certs::IamPublicCertService for Iam {
    type SubscribeCertChangedStream = ReceiverStream<Result<pb::CertInfo, Status>>;

    async fn get_cert(
        &self,
        request: Request<pb::GetCertRequest>,
    ) -> Result<Response<pb::CertInfo>, Status> {
        let kind = request.into_inner().r#type;
        assert_eq!(kind, "sm");
        Ok(Response::new(pb::CertInfo {
            r#type: kind,
            cert_url: format!("file:{}/sm.pem", self.folder.display()),
            key_url: format!("file:{}/sm.key", self.folder.display()),
            ..Default::default()
        }))
    }

    async fn subscribe_cert_changed(
        &self,
        _: Request<pb::SubscribeCertChangedRequest>,
    ) -> Result<Response<Self::SubscribeCertChangedStream>, Status> {
        let (sender, stream) = tokio::sync::mpsc::channel(1);
        // Open for as long as the test.
        tokio::spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl nodes::IamPublicCurrentNodeService for Iam {
    type SubscribeCurrentNodeChangedStream = ReceiverStream<Result<pb::NodeInfo, Status>>;

    async fn get_current_node_info(
        &self,
        _: Request<()>,
    ) -> Result<Response<pb::NodeInfo>, Status> {
        Ok(Response::new(pb::NodeInfo {
            node_id: NODE.into(),
            node_type: "main".into(),
            title: "Main".into(),
            max_dmips: 10_000,
            total_ram: 1 << 30,
            os_info: Some(common::OsInfo {
                os: "linux".into(),
                ..Default::default()
            }),
            cpus: vec![pb::CpuInfo {
                num_cores: 2,
                num_threads: 2,
                arch_info: Some(common::ArchInfo {
                    architecture: "amd64".into(),
                    variant: String::new(),
                }),
                ..Default::default()
            }],
            partitions: vec![pb::PartitionInfo {
                name: "aos".into(),
                types: vec!["storages".into(), "states".into()],
                total_size: 1 << 30,
                path: self.folder.display().to_string(),
            }],
            state: "provisioned".into(),
            ..Default::default()
        }))
    }

    async fn subscribe_current_node_changed(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::SubscribeCurrentNodeChangedStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

pub async fn serve(root: &Authority, folder: &Path) -> FakeIam {
    let (chain, key) = certificate(root, CertKind::Sm);
    std::fs::write(folder.join("sm.pem"), chain).unwrap();
    write_private(&folder.join("sm.key"), key.to_pem().as_bytes()).unwrap();
    let listener = aos_ipc::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = public_server(&source(root, CertKind::Iam), ALPN_GRPC);
    let mut routes = RoutesBuilder::default();
    let iam = |folder: &Path| Iam {
        folder: folder.to_path_buf(),
    };
    let fake = FakeIam {
        address,
        seen: Arc::default(),
    };
    routes
        .add_service(certs::IamPublicCertServiceServer::new(iam(folder)))
        .add_service(nodes::IamPublicCurrentNodeServiceServer::new(iam(folder)))
        .add_service(permissions::IamPermissionsServiceServer::new(fake.clone()));
    let routes = routes.routes();
    tokio::spawn(aos_ipc::serve(
        listener,
        tls,
        routes,
        CancellationToken::new(),
    ));
    fake
}
