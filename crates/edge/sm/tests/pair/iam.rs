//! The little of IAM that SM asks for.

use std::path::{Path, PathBuf};

use aos_ipc::proto::{
    common::v2 as common,
    iamanager::v6::{
        self as pb, iam_public_cert_service_server as certs,
        iam_public_current_node_service_server as nodes,
    },
};
use aos_pki::{ALPN_GRPC, Authority, CertKind, public_server, write_private};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::RoutesBuilder};

use super::{HERE, certificate, node_name, source};

struct Iam {
    node: usize,
    folder: PathBuf,
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
            node_id: node_name(self.node),
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

pub async fn serve(root: &Authority, folder: &Path, node: usize) -> String {
    let (chain, key) = certificate(root, CertKind::Sm, node);
    std::fs::write(folder.join("sm.pem"), chain).unwrap();
    write_private(&folder.join("sm.key"), key.to_pem().as_bytes()).unwrap();
    let listener = aos_ipc::bind(&format!("{HERE}:0")).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = public_server(&source(root, CertKind::Iam, node), ALPN_GRPC);
    let mut routes = RoutesBuilder::default();
    let iam = |folder: &Path| Iam {
        node,
        folder: folder.to_path_buf(),
    };
    routes
        .add_service(certs::IamPublicCertServiceServer::new(iam(folder)))
        .add_service(nodes::IamPublicCurrentNodeServiceServer::new(iam(folder)));
    let routes = routes.routes();
    tokio::spawn(aos_ipc::serve(
        listener,
        tls,
        routes,
        CancellationToken::new(),
    ));
    address
}
