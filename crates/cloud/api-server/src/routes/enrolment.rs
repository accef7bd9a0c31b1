use std::collections::BTreeSet;

use aos_api::{
    AdditionalCert, EnrolUnit, EnrolledUnit, ProvisionedUnit, RegisterNode, RegisterUnit,
    SoftwareVersion, SupportedSoftware, paths,
};
use aos_db::{
    Actor, IssuedCertificate, NodeReport, RegisterBy, Registered, Registration, hash_secret,
};
use aos_pki::{CertKind, CertProfile};
use aos_types::{ArchInfo, CpuInfo, NodeId, NodeInfo, NodeState, OsInfo, PartitionInfo, SystemId};
use axum::{Json, extract::State};
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::account::refused_request;
use crate::{
    ApiError, ApiState, Caller, caller::FromAddress, extract::Body, limiter::Key, openapi::Refused,
    secret,
};

/// Most Nodes of one Unit, and most signing requests.
const MAX_NODES: usize = 64;
const MAX_REQUESTS: usize = 512;
const MAX_SECURE_DATA: usize = 64 * 1024;

/// A Unit that calls out enrols itself with a claim code
#[utoipa::path(post, path = paths::ENROL, tag = "provisioning", operation_id = "units_enrol", request_body = EnrolUnit,
    security(()), responses((status = 201, description = "Enrolled", body = EnrolledUnit), Refused))]
pub(crate) async fn enrol(
    State(state): State<ApiState>,
    FromAddress(address): FromAddress,
    Body(asked): Body<EnrolUnit>,
) -> Result<(StatusCode, Json<EnrolledUnit>), ApiError> {
    let keys = [Key::Address(address)];
    state
        .limiter()
        .attempt(&keys, state.db().now())
        .map_err(ApiError::slow_down)?;
    let hash = hash_secret(&secret::normal_claim_code(&asked.claim_code));
    let (registered, certificates) =
        register(&state, &RegisterBy::ClaimCode(&hash), asked.unit).await?;
    state.limiter().succeeded(&keys);
    Ok((
        StatusCode::CREATED,
        Json(EnrolledUnit {
            certificates,
            unit_id: registered.unit,
            title: registered.title,
            unit_model: registered.unit_model,
            root_certificate: state.options().authority.root_pem(),
            discovery_urls: state.options().discovery_urls.clone(),
        }),
    ))
}

/// A person's tool provisions a Unit
#[utoipa::path(post, path = paths::PROVISIONING, tag = "provisioning", operation_id = "units_provisioning",
    request_body = RegisterUnit, responses((status = 201, description = "Provisioned", body = ProvisionedUnit), Refused))]
pub(crate) async fn provision(
    State(state): State<ApiState>,
    caller: Caller,
    Body(asked): Body<RegisterUnit>,
) -> Result<(StatusCode, Json<ProvisionedUnit>), ApiError> {
    let actor: Actor = caller.actor();
    let (_, certificates) = register(&state, &RegisterBy::Actor(&actor), asked).await?;
    Ok((StatusCode::CREATED, Json(certificates)))
}

/// Provisioning tools that work with this cloud
#[utoipa::path(get, path = paths::SUPPORTED_SOFTWARE, tag = "provisioning", operation_id = "units_supported_software",
    responses((status = 200, description = "The tools", body = SupportedSoftware), Refused))]
pub(crate) async fn supported_software(_: Caller) -> Json<SupportedSoftware> {
    let tool = |name: &str, min_version: &str| SoftwareVersion {
        name: name.into(),
        min_version: min_version.into(),
    };
    Json(SupportedSoftware {
        software: vec![tool("aos-provisioning", "5.0.0"), tool("aos", "0.1.0")],
    })
}

/// A signing request that was read, and what it is for.
struct Request {
    field: String,
    kind: CertKind,
    node: NodeId,
    csr: String,
}

async fn register(
    state: &ApiState,
    by: &RegisterBy<'_>,
    asked: RegisterUnit,
) -> Result<(Registered, ProvisionedUnit), ApiError> {
    let system_uid = SystemId::new(if asked.system_uid.is_empty() {
        &asked.hardware_id
    } else {
        &asked.system_uid
    })
    .map_err(|error| ApiError::invalid("system_uid", error.to_string()))?;
    let nodes = nodes(&asked)?;
    let requests = requests(&asked, &nodes)?;
    if asked.secure_data.len() > MAX_SECURE_DATA {
        return Err(ApiError::invalid("secure_data", "is longer than 64 KiB"));
    }
    let online_key = key_of("online_public_csr", &asked.online_public_csr)?;
    let bad_code = || {
        ApiError::unauthorised("the claim code is not good for this Unit")
            .field("claim_code")
            .hint(
                "codes work once and expire; `aos unit claim`, or the Units page, makes a new one",
            )
    };
    if !state
        .db()
        .may_register(by, &system_uid, &online_key)
        .await?
    {
        return Err(bad_code());
    }
    let (stored, answer) = issue(state, &system_uid, requests).await?;
    let registration = Registration {
        unit_model: format!("{};{}", asked.model_name, asked.model_version),
        system_uid,
        online_key,
        nodes,
    };
    let registered = state
        .db()
        .register_unit(by, &registration, &stored, &asked.secure_data)
        .await?
        .ok_or_else(bad_code)?;
    Ok((registered, answer))
}

fn requests(asked: &RegisterUnit, nodes: &[NodeReport]) -> Result<Vec<Request>, ApiError> {
    if asked.additional_csrs.len() > MAX_REQUESTS {
        return Err(ApiError::invalid(
            "additional_csrs",
            format!("holds more than {MAX_REQUESTS} requests"),
        ));
    }
    let main = nodes
        .iter()
        .find(|node| node.info.is_main())
        .or(nodes.first())
        .map(|node| node.info.id.clone());
    let node_of = |field: &str, text: &str| {
        if text.is_empty() {
            return main
                .clone()
                .ok_or_else(|| ApiError::invalid(field, "is missing, and there are no nodes"));
        }
        let node =
            NodeId::new(text).map_err(|error| ApiError::invalid(field, error.to_string()))?;
        if nodes.is_empty() || nodes.iter().any(|known| known.info.id == node) {
            Ok(node)
        } else {
            Err(ApiError::invalid(
                field,
                format!("Node `{node}` is not in `nodes`"),
            ))
        }
    };
    let mut requests = vec![
        Request {
            field: "online_public_csr".into(),
            kind: CertKind::Online,
            node: node_of("online_public_node_id", &asked.online_public_node_id)?,
            csr: asked.online_public_csr.clone(),
        },
        Request {
            field: "offline_public_csr".into(),
            kind: CertKind::Offline,
            node: node_of("offline_public_node_id", &asked.offline_public_node_id)?,
            csr: asked.offline_public_csr.clone(),
        },
    ];
    for (place, more) in asked.additional_csrs.iter().enumerate() {
        let field = format!("additional_csrs[{place}]");
        let kind: CertKind = more
            .cert_type
            .parse()
            .map_err(|error: aos_pki::UnknownKind| {
                ApiError::invalid(format!("{field}.cert_type"), error.to_string())
            })?;
        if !matches!(
            kind,
            CertKind::Iam | CertKind::Sm | CertKind::Cm | CertKind::Um
        ) {
            return Err(ApiError::invalid(
                format!("{field}.cert_type"),
                format!(
                    "a Unit gets no additional certificate of type `{kind}`; iam, sm, cm and um are those it gets"
                ),
            ));
        }
        requests.push(Request {
            kind,
            node: node_of(&format!("{field}.node_id"), &more.node_id)?,
            csr: more.csr.clone(),
            field: format!("{field}.csr"),
        });
    }
    let mut seen = BTreeSet::new();
    for request in &requests {
        if !seen.insert((request.kind, request.node.clone())) {
            return Err(ApiError::invalid(
                request.field.clone(),
                format!(
                    "is the second request for type `{}` of Node `{}`",
                    request.kind, request.node
                ),
            ));
        }
    }
    Ok(requests)
}

/// The SHA-256 of the public key of a signing request in hex. Its signature is checked when it is issued for.
fn key_of(field: &str, pem: &str) -> Result<String, ApiError> {
    let refuse =
        |why: String| ApiError::invalid(field, format!("is not a PKCS#10 request in PEM: {why}"));
    if pem.len() > 16 * 1024 {
        return Err(refuse("it is longer than 16 KiB".into()));
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|error| refuse(error.to_string()))?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(hex::encode(Sha256::digest(
        request.certification_request_info.subject_pki.raw,
    )))
}

async fn issue(
    state: &ApiState,
    system_uid: &SystemId,
    requests: Vec<Request>,
) -> Result<(Vec<IssuedCertificate>, ProvisionedUnit), ApiError> {
    let authority = state.options().authority.clone();
    let discovery_urls = state.options().discovery_urls.clone();
    let now = state.db().now();
    let system_uid = system_uid.clone();
    tokio::task::spawn_blocking(move || {
        let mut stored = Vec::new();
        let mut answer = ProvisionedUnit {
            system_uid: system_uid.to_string(),
            online_certificate: String::new(),
            offline_certificate: String::new(),
            additional_certs: Vec::new(),
        };
        for request in requests {
            let mut profile = CertProfile::unit(request.kind, &system_uid, Some(&request.node));
            if request.kind == CertKind::Online {
                profile.discovery_urls.clone_from(&discovery_urls);
            }
            let issued = authority
                .issue(&request.csr, &profile, now)
                .map_err(|error| refused_request(&request.field, &error))?;
            stored.push(IssuedCertificate {
                fingerprint: issued.fingerprint.to_string(),
                cert_type: request.kind.to_string(),
                node_id: request.node.to_string(),
                serial: issued.serial,
                not_after: issued.not_after,
                // Keys of blobs are wrapped for it.
                public_key: (request.kind == CertKind::Offline)
                    .then(|| aos_pki::public_key_of(&issued.certificate))
                    .flatten(),
            });
            match request.kind {
                CertKind::Online => answer.online_certificate = issued.chain_pem,
                CertKind::Offline => answer.offline_certificate = issued.chain_pem,
                kind => answer.additional_certs.push(AdditionalCert {
                    cert_type: kind.to_string(),
                    node_id: request.node.to_string(),
                    cert: issued.chain_pem,
                }),
            }
        }
        Ok((stored, answer))
    })
    .await
    .map_err(|error| ApiError::internal(&error))?
}

fn nodes(asked: &RegisterUnit) -> Result<Vec<NodeReport>, ApiError> {
    if asked.nodes.len() > MAX_NODES {
        return Err(ApiError::invalid(
            "nodes",
            format!("holds more than {MAX_NODES} Nodes"),
        ));
    }
    let mut seen = BTreeSet::new();
    asked
        .nodes
        .iter()
        .enumerate()
        .map(|(place, node)| {
            let field = format!("nodes[{place}].id");
            let id = NodeId::new(&node.id)
                .map_err(|error| ApiError::invalid(&field, error.to_string()))?;
            if !seen.insert(id.clone()) {
                return Err(ApiError::invalid(
                    &field,
                    format!("Node `{id}` is there twice"),
                ));
            }
            Ok(report(id, node))
        })
        .collect()
}

/// What is known of a Node until the Unit itself reports it.
fn report(id: NodeId, node: &RegisterNode) -> NodeReport {
    NodeReport {
        info: NodeInfo {
            node_type: node.node_type.clone(),
            title: node.name.clone(),
            max_dmips: node.max_dmips,
            total_ram: node.total_ram,
            physical_ram: None,
            os: OsInfo {
                os: node.os_type.to_ascii_lowercase(),
                ..OsInfo::default()
            },
            cpus: node
                .cpus
                .iter()
                .map(|cpu| CpuInfo {
                    model_name: cpu.model_name.clone(),
                    num_cores: cpu.total_num_cores,
                    num_threads: cpu.total_num_threads,
                    arch: ArchInfo {
                        architecture: cpu.arch.clone(),
                        variant: (!cpu.arch_family.is_empty()).then(|| cpu.arch_family.clone()),
                    },
                    max_dmips: None,
                })
                .collect(),
            partitions: node
                .partitions
                .iter()
                .map(|partition| PartitionInfo {
                    name: partition.name.clone(),
                    types: partition.types.clone(),
                    total_size: partition.total_size,
                    path: String::new(),
                })
                .collect(),
            attrs: node.attributes(),
            state: NodeState::Provisioned,
            error: None,
            id,
        },
        runtimes: Vec::new(),
        resources: Vec::new(),
        connected: false,
    }
}
