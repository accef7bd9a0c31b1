use std::time::Duration;

use aos_ipc::{
    convert::node_info_from_proto,
    proto::iamanager::v6::iam_public_current_node_service_client::IamPublicCurrentNodeServiceClient,
};
use aos_pki::ClientTls;
use aos_types::{NodeInfo, RuntimeId, RuntimeInfo};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{NativeOptions, RuntimeOptions};

/// The type under which services are offered a root of their own and nothing else.
pub(crate) const NATIVE: &str = "native";

/// How long one call to IAM may take.
const CALL: Duration = Duration::from_secs(10);
/// The pause between attempts to reach IAM.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks IAM what this Node is until it answers. `None` if `stop` comes first.
pub(crate) async fn ask(
    iam_public: &str,
    tls: &ClientTls,
    stop: &CancellationToken,
) -> Option<NodeInfo> {
    let mut told = String::new();
    loop {
        // A call that is dropped leaves nothing behind.
        let answer = tokio::select! {
            answer = ask_once(iam_public, tls) => answer,
            () = stop.cancelled() => return None,
        };
        match answer {
            Ok(info) => return Some(info),
            Err(why) if why != told => {
                tracing::info!(why, "waiting for IAM to say what this Node is");
                told = why;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return None,
        }
    }
}

async fn ask_once(iam_public: &str, tls: &ClientTls) -> Result<NodeInfo, String> {
    let channel = aos_ipc::connect(iam_public, tls)
        .await
        .map_err(|error| error.to_string())?;
    let answer = IamPublicCurrentNodeServiceClient::new(channel)
        .get_current_node_info(aos_ipc::within(CALL, ()))
        .await
        .map_err(|status| aos_ipc::reason(&status))?;
    node_info_from_proto(answer.into_inner()).map_err(|error| error.to_string())
}

/// The runtime `native` of a Node, as CM is told of it.
pub(crate) fn native(node: &NodeInfo, options: &NativeOptions) -> Option<RuntimeInfo> {
    let as_container = RuntimeOptions {
        kind: NATIVE.into(),
        max_instances: options.max_instances,
        allowed_dmips: options.allowed_dmips,
        allowed_ram: options.allowed_ram,
        ..RuntimeOptions::default()
    };
    runtime(node, &as_container)
}

/// The container runtime of a Node, as CM is told of it. Its id is the same at every start.
pub(crate) fn runtime(node: &NodeInfo, options: &RuntimeOptions) -> Option<RuntimeInfo> {
    let name = format!("{}-{}", options.kind, node.id);
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
    let arch = node
        .cpus
        .first()
        .map(|cpu| cpu.arch.clone())
        .filter(|arch| !arch.architecture.is_empty())
        .unwrap_or_else(|| aos_types::ArchInfo {
            architecture: architecture().into(),
            variant: None,
        });
    Some(RuntimeInfo {
        id: RuntimeId::new(id.to_string()).ok()?,
        runtime_type: options.kind.clone(),
        arch,
        os: node.os.clone(),
        max_dmips: None,
        allowed_dmips: options.allowed_dmips,
        total_ram: None,
        allowed_ram: options.allowed_ram,
        max_instances: options.max_instances,
    })
}

/// The architecture this program was built for, in OCI's words.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "arm") {
        "arm"
    } else {
        "unknown"
    }
}
