//! `aos unit join`: a Unit that calls out and gets its certificates with a claim code.
//!
//! Whoever holds the Unit's bootstrap key may provision it: this command speaks to the main Node's
//! IAM over mutual TLS made from that key. Keys are made on the Nodes and never leave them; only
//! signing requests travel to the cloud, and certificates back.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use aos_api::{
    AdditionalCsr, EnrolUnit, EnrolledUnit, RegisterCpu, RegisterNode, RegisterPartition,
    RegisterUnit, paths,
};
use aos_ipc::proto::common::v2::ErrorInfo;
use aos_ipc::proto::iamanager::v6::{
    ApplyCertRequest, CreateKeyRequest, FinishProvisioningRequest, GetCertTypesRequest,
    GetNodeInfoRequest, NodeInfo, StartProvisioningRequest,
    iam_certificate_service_client::IamCertificateServiceClient,
    iam_provisioning_service_client::IamProvisioningServiceClient,
    iam_public_identity_service_client::IamPublicIdentityServiceClient,
    iam_public_nodes_service_client::IamPublicNodesServiceClient,
};
use aos_ipc::{reason, within};
use aos_pki::{BootstrapKey, CertKind, CertSource, Expect, Fingerprint, Roots};
use clap::Args;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::Client;
use crate::failure::{Exit, Failure, OrFail as _};
use crate::progress::Spinner;
use crate::table;
use crate::trust::Trust;

/// How long an ordinary call to IAM may take.
const CALL: Duration = Duration::from_secs(20);
/// How long beginning and ending the provisioning of a Node may take.
const LONG_CALL: Duration = Duration::from_secs(300);
/// How long a Node may take to come back with its new certificates.
const SETTLE: Duration = Duration::from_secs(15);
/// How often the Nodes are counted while some are missing.
const COUNT: Duration = Duration::from_millis(300);

/// Enrol this Unit in a cloud with a claim code. Run it on the main Node, as root.
#[derive(Args)]
pub struct Join {
    /// Address of the cloud, such as https://cloud.example:10000
    #[arg(long, value_name = "URL")]
    cloud: String,
    /// The claim code that `aos unit claim` printed; `-` reads it from the standard input, where
    /// other users of this machine cannot see it.
    #[arg(long)]
    code: String,
    /// Trust the cloud whose root certificate has this fingerprint: sha256:<64 hex digits>
    #[arg(long, value_name = "FINGERPRINT", required_unless_present = "ca")]
    ca_fingerprint: Option<Fingerprint>,
    /// Trust the cloud by this root certificate (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "ca_fingerprint")]
    ca: Option<PathBuf>,
    /// Protected port of the main Node's IAM.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8089")]
    iam: String,
    /// The key that IAM made at its first start.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/aos/iam/bootstrap.key"
    )]
    bootstrap_key: PathBuf,
    /// How many Nodes the Unit has: waits until so many have come.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// Give up waiting for Nodes after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// A Node on its way to certificates.
struct Candidate {
    info: NodeInfo,
    is_main: bool,
    password: String,
    types: Vec<String>,
}

/// `aos unit join`.
pub async fn run(command: Join) -> Result<(), Failure> {
    let trust = match (&command.ca_fingerprint, &command.ca) {
        (Some(pin), _) => Trust::Pin(*pin),
        (None, Some(file)) => Trust::pem(
            &std::fs::read_to_string(file)
                .or_fail(|| format!("cannot read the root certificate {}", file.display()))?,
        )?,
        (None, None) => return Err(Failure::new("nobody said whom to trust as the cloud")),
    };
    let code = if command.code == "-" {
        std::io::read_to_string(std::io::stdin().lock().take(1024))
            .or_fail(|| "cannot read the claim code")?
            .trim()
            .to_owned()
    } else {
        command.code.clone()
    };
    let cloud = Client::new(&command.cloud, &trust, None)?;
    let spinner = Spinner::new("join");
    spinner.say("asking IAM");
    let iam = connect(&command).await?;

    let system = IamPublicIdentityServiceClient::new(iam.clone())
        .get_system_info(within(CALL, ()))
        .await
        .map_err(|status| refused("IAM does not say who this Unit is", &status))?
        .into_inner();
    let mut nodes = gather(&iam, &command, &spinner).await?;

    let mut body = RegisterUnit {
        hardware_id: system.system_id.clone(),
        system_uid: system.system_id.clone(),
        provisioning_software: concat!("aos:", env!("CARGO_PKG_VERSION")).to_owned(),
        ..RegisterUnit::default()
    };
    // Newer IAMs give the model's version apart, older ones behind a semicolon.
    let (name, version) = system
        .unit_model
        .split_once(';')
        .unwrap_or((&system.unit_model, &system.version));
    body.model_name = name.to_owned();
    body.model_version = version.to_owned();
    for node in &mut nodes {
        spinner.say(&format!("{} makes its keys", node.info.node_id));
        request(&iam, node, &mut body).await?;
    }
    let passwords: BTreeMap<&str, &str> = nodes
        .iter()
        .map(|node| (node.info.node_id.as_str(), node.password.as_str()))
        .collect();
    body.secure_data = serde_json::json!({"version": "2.0.0", "nodes": passwords}).to_string();

    spinner.say("asking the cloud for certificates");
    let enrolled: EnrolledUnit = cloud
        .post(
            paths::ENROL,
            &EnrolUnit {
                claim_code: code,
                unit: body,
            },
        )
        .await?;
    let root = checked_root(&enrolled, &cloud)?;

    // Secondary Nodes first: once the main Node has its certificates it accepts only Nodes that
    // have theirs.
    nodes.sort_by_key(|node| node.is_main);
    let certificates = certificates(&enrolled, &nodes);
    for node in &nodes {
        spinner.say(&format!("{} takes its certificates", node.info.node_id));
        for (kind, chain) in certificates
            .get(node.info.node_id.as_str())
            .into_iter()
            .flatten()
        {
            apply(&iam, node, kind, &with_root(chain, &root)).await?;
        }
    }
    for node in &nodes {
        spinner.say(&format!("{} finishes", node.info.node_id));
        finish(&iam, node).await?;
    }
    spinner.done();
    table::say(format!(
        "{} joined {} with {} Node(s): {}",
        system.system_id,
        cloud.base(),
        nodes.len(),
        nodes
            .iter()
            .map(|node| node.info.node_id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    ));
    Ok(())
}

/// Connects to the main Node's IAM with the bootstrap key.
async fn connect(command: &Join) -> Result<Channel, Failure> {
    let key = BootstrapKey::load(&command.bootstrap_key)
        .or_fail(|| "cannot prove that you may enrol this Unit")
        .map_err(|failure| {
            failure.hint(
                "run this as root on the main Node while `aos iam run` (or `aos core run`) runs; \
                 --bootstrap-key says where its bootstrap.key is",
            )
        })?;
    let credentials = key
        .credentials(None)
        .or_fail(|| "cannot use the bootstrap key")?;
    let trust = aos_pki::Trust::new(Roots::default());
    trust.set_bootstrap(Some(&key));
    let expect = Expect::kinds([CertKind::Bootstrap, CertKind::Iam]);
    let tls = aos_pki::unit_client(&CertSource::with(credentials), &trust, expect).bootstrap();
    aos_ipc::connect(&command.iam, &tls)
        .await
        .or_fail(|| format!("cannot talk to IAM at {}", command.iam))
        .map_err(|failure| {
            failure
                .hint("start `aos iam run` or `aos core run` on this Node, and check --iam")
                .exit(Exit::NotReachable)
        })
}

/// Waits until enough Nodes have registered.
async fn gather(
    iam: &Channel,
    command: &Join,
    spinner: &Spinner,
) -> Result<Vec<Candidate>, Failure> {
    let mut client = IamPublicNodesServiceClient::new(iam.clone());
    let until = Instant::now() + Duration::from_secs(command.timeout);
    let ids = loop {
        let ids = client
            .get_all_node_i_ds(within(CALL, ()))
            .await
            .map_err(|status| refused("IAM does not list the Nodes", &status))?
            .into_inner()
            .ids;
        if ids.len() >= command.nodes {
            break ids;
        }
        if Instant::now() > until {
            return Err(Failure::new(format!(
                "{} of {} Nodes have come",
                ids.len(),
                command.nodes
            ))
            .why(format!("there are: {}", ids.join(", ")))
            .hint("start IAM on the missing Nodes; each needs a copy of the main Node's bootstrap.key"));
        }
        spinner.say(&format!(
            "{} of {} Nodes have come",
            ids.len(),
            command.nodes
        ));
        tokio::time::sleep(COUNT).await;
    };
    let mut nodes = Vec::new();
    for id in ids {
        let info = client
            .get_node_info(within(
                CALL,
                GetNodeInfoRequest {
                    node_id: id.clone(),
                },
            ))
            .await
            .map_err(|status| refused(&format!("IAM does not describe the Node {id}"), &status))?
            .into_inner();
        let is_main = info.attrs.iter().any(|attr| attr.name == "MainNode");
        nodes.push(Candidate {
            info,
            is_main,
            password: password(),
            types: Vec::new(),
        });
    }
    // The main Node's keys are made first, as AosEdge's tool does.
    nodes.sort_by_key(|node| !node.is_main);
    Ok(nodes)
}

/// A password for a Node's key store. The cloud keeps it to order renewals later.
fn password() -> String {
    let mut text = uuid::Uuid::new_v4().simple().to_string();
    text.push_str(&uuid::Uuid::new_v4().simple().to_string());
    text
}

/// Has a Node make its keys; adds it and its signing requests to what the cloud is asked.
async fn request(
    iam: &Channel,
    node: &mut Candidate,
    body: &mut RegisterUnit,
) -> Result<(), Failure> {
    let id = node.info.node_id.clone();
    let mut provisioning = IamProvisioningServiceClient::new(iam.clone());
    let start = StartProvisioningRequest {
        node_id: id.clone(),
        password: node.password.clone(),
    };
    let answer = provisioning
        .start_provisioning(within(LONG_CALL, start))
        .await
        .map_err(|status| refused(&format!("the Node {id} cannot be enrolled"), &status))?
        .into_inner();
    said(answer.error, &format!("the Node {id} cannot be enrolled"))?;
    node.types = provisioning
        .get_cert_types(within(
            CALL,
            GetCertTypesRequest {
                node_id: id.clone(),
            },
        ))
        .await
        .map_err(|status| {
            refused(
                &format!("the Node {id} does not name its certificates"),
                &status,
            )
        })?
        .into_inner()
        .types;
    for kind in &node.types {
        let what = format!("the Node {id} cannot make its key of type {kind}");
        let request = CreateKeyRequest {
            node_id: id.clone(),
            subject: body.system_uid.clone(),
            r#type: kind.clone(),
            password: node.password.clone(),
        };
        let answer = IamCertificateServiceClient::new(iam.clone())
            .create_key(within(CALL, request))
            .await
            .map_err(|status| refused(&what, &status))?
            .into_inner();
        said(answer.error, &what)?;
        match kind.as_str() {
            "online" => {
                body.online_public_csr = answer.csr;
                body.online_public_node_id.clone_from(&id);
            }
            "offline" => {
                body.offline_public_csr = answer.csr;
                body.offline_public_node_id.clone_from(&id);
            }
            _ => body.additional_csrs.push(AdditionalCsr {
                cert_type: kind.clone(),
                csr: answer.csr,
                node_id: id.clone(),
            }),
        }
    }
    body.nodes.push(register(&node.info));
    Ok(())
}

fn register(info: &NodeInfo) -> RegisterNode {
    let attributes: serde_json::Map<String, serde_json::Value> = info
        .attrs
        .iter()
        .map(|attr| (attr.name.clone(), attr.value.clone().into()))
        .collect();
    RegisterNode {
        id: info.node_id.clone(),
        node_type: info.node_type.clone(),
        name: info.title.clone(),
        cpus: info
            .cpus
            .iter()
            .map(|cpu| {
                let arch = cpu.arch_info.clone().unwrap_or_default();
                RegisterCpu {
                    model_name: cpu.model_name.clone(),
                    total_num_cores: cpu.num_cores,
                    total_num_threads: cpu.num_threads,
                    arch: arch.architecture,
                    arch_family: arch.variant,
                }
            })
            .collect(),
        max_dmips: info.max_dmips,
        total_ram: info.total_ram,
        os_type: info.os_info.clone().unwrap_or_default().os,
        attrs: serde_json::Value::Object(attributes),
        partitions: info
            .partitions
            .iter()
            .map(|part| RegisterPartition {
                name: part.name.clone(),
                types: part.types.clone(),
                total_size: part.total_size,
            })
            .collect(),
        status: info.state.clone(),
        error_info: None,
    }
}

/// The root in the answer, if it is the one the cloud was recognised by.
fn checked_root(enrolled: &EnrolledUnit, cloud: &Client) -> Result<String, Failure> {
    let named = aos_pki::certificates_from_pem(enrolled.root_certificate.as_bytes())
        .or_fail(|| "the cloud's answer holds no root certificate")?;
    let trusted = cloud.root();
    match named.first() {
        Some(root) if trusted.as_deref() == Some(root.as_ref()) => {
            Ok(enrolled.root_certificate.clone())
        }
        _ => Err(Failure::new(
            "the cloud's answer names another root certificate than its connection",
        )
        .hint("nothing was given to the Unit; do not go on before you know why")
        .exit(Exit::NotReachable)),
    }
}

/// Per Node: type and chain of each certificate.
fn certificates<'a>(
    enrolled: &'a EnrolledUnit,
    nodes: &'a [Candidate],
) -> BTreeMap<&'a str, Vec<(&'a str, &'a str)>> {
    let mut all: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let given = &enrolled.certificates;
    for node in nodes {
        let id = node.info.node_id.as_str();
        for (kind, chain) in [
            ("online", &given.online_certificate),
            ("offline", &given.offline_certificate),
        ] {
            if node.types.iter().any(|one| one == kind) && !chain.is_empty() {
                all.entry(id).or_default().push((kind, chain));
            }
        }
    }
    for one in &given.additional_certs {
        all.entry(&one.node_id)
            .or_default()
            .push((&one.cert_type, &one.cert));
    }
    all
}

/// The chain with the root at its end, as IAM wants it.
fn with_root(chain: &str, root: &str) -> String {
    if chain.trim_end().ends_with(root.trim()) {
        return chain.to_owned();
    }
    format!("{}\n{root}", chain.trim_end())
}

async fn apply(iam: &Channel, node: &Candidate, kind: &str, chain: &str) -> Result<(), Failure> {
    let id = &node.info.node_id;
    let what = format!("the Node {id} does not take its certificate of type {kind}");
    let request = ApplyCertRequest {
        node_id: id.clone(),
        r#type: kind.to_owned(),
        cert: chain.to_owned(),
    };
    let answer = IamCertificateServiceClient::new(iam.clone())
        .apply_cert(within(CALL, request))
        .await
        .map_err(|status| refused(&what, &status))?
        .into_inner();
    said(answer.error, &what)
}

/// Has a Node turn to its new certificates. It may change connections before its answer is through,
/// so what counts is the state it has afterwards.
async fn finish(iam: &Channel, node: &Candidate) -> Result<(), Failure> {
    let id = &node.info.node_id;
    let what = format!("the Node {id} does not finish its enrolment");
    let request = FinishProvisioningRequest {
        node_id: id.clone(),
        password: node.password.clone(),
    };
    let answer = IamProvisioningServiceClient::new(iam.clone())
        .finish_provisioning(within(LONG_CALL, request))
        .await;
    let failure = match answer {
        Ok(answer) => match said(answer.into_inner().error, &what) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        },
        // The main Node closes this connection when it turns to its new certificates.
        Err(status) if node.is_main && status.code() == tonic::Code::Unavailable => return Ok(()),
        Err(status) => refused(&what, &status),
    };
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        let request = GetNodeInfoRequest {
            node_id: id.clone(),
        };
        let info = IamPublicNodesServiceClient::new(iam.clone())
            .get_node_info(within(CALL, request))
            .await;
        if info.is_ok_and(|info| info.into_inner().state == "provisioned") {
            return Ok(());
        }
        tokio::time::sleep(COUNT).await;
    }
    Err(failure)
}

/// What a peer said about an error, if it said there was one.
fn said(error: Option<ErrorInfo>, what: &str) -> Result<(), Failure> {
    match error {
        Some(error) if error.aos_code != 0 || error.exit_code != 0 || !error.message.is_empty() => {
            Err(Failure::new(what).why(error.message).exit(Exit::Refused))
        }
        _ => Ok(()),
    }
}

fn refused(what: &str, status: &Status) -> Failure {
    Failure::new(what).why(reason(status)).exit(Exit::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_added_once() {
        let root = "-----BEGIN CERTIFICATE-----\nroot\n-----END CERTIFICATE-----\n";
        let leaf = "-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n";
        let whole = with_root(leaf, root);
        assert_eq!(whole, format!("{leaf}{root}"));
        assert_eq!(with_root(&whole, root), whole);
    }

    #[test]
    fn an_error_without_content_is_none() {
        assert!(said(None, "x").is_ok());
        assert!(said(Some(ErrorInfo::default()), "x").is_ok());
        let error = ErrorInfo {
            aos_code: 9,
            exit_code: 0,
            message: "wrong state".into(),
        };
        assert!(
            said(Some(error), "x")
                .unwrap_err()
                .to_string()
                .contains("wrong state")
        );
    }
}
