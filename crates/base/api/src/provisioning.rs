use std::{collections::BTreeMap, fmt};

use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::UnitModelRef;

/// `POST /units/provisioning/`: a Unit's signing requests, as aos-prov sends them. Unknown fields are ignored.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RegisterUnit {
    /// The same as `system_uid`.
    pub hardware_id: String,
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Model: the part of the Unit's text before `;`.
    pub model_name: String,
    /// Model: the part behind it.
    pub model_version: String,
    /// `name:version` of the tool.
    pub provisioning_software: String,
    /// PKCS#10 in PEM for the certificate of type `online`.
    pub online_public_csr: String,
    /// The Node that holds its key.
    pub online_public_node_id: String,
    /// PKCS#10 in PEM for the certificate of type `offline`.
    pub offline_public_csr: String,
    /// The Node that holds its key.
    pub offline_public_node_id: String,
    /// All other signing requests.
    pub additional_csrs: Vec<AdditionalCsr>,
    /// What the Nodes are.
    pub nodes: Vec<RegisterNode>,
    /// JSON text `{"version":"2.0.0","nodes":{"<node id>":"<key store password>"}}`, kept for ordering renewals.
    #[schema(format = Password)]
    pub secure_data: String,
}

/// A signing request for one certificate of one Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdditionalCsr {
    /// `iam`, `cm`, `sm` or `um`.
    pub cert_type: String,
    /// PKCS#10 in PEM.
    pub csr: String,
    /// The Node that holds its key.
    #[serde(default)]
    pub node_id: String,
}

/// A Node in a register body; keys are camelCase as aos-prov writes them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterNode {
    /// Id of the Node.
    pub id: String,
    /// Its node group.
    #[serde(rename = "type")]
    pub node_type: String,
    /// Name for people.
    pub name: String,
    /// Processors.
    pub cpus: Vec<RegisterCpu>,
    /// DMIPS.
    pub max_dmips: u64,
    /// Bytes.
    pub total_ram: u64,
    /// Operating system.
    pub os_type: String,
    /// Free attributes: an object, or a list of `{name, value}`.
    #[schema(value_type = Object)]
    pub attrs: serde_json::Value,
    /// Partitions.
    pub partitions: Vec<RegisterPartition>,
    /// State at that moment.
    pub status: String,
    /// Error at that moment.
    #[schema(value_type = Option<Object>)]
    pub error_info: Option<serde_json::Value>,
}

impl RegisterNode {
    /// The attributes as a map, from either form.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match &self.attrs {
            serde_json::Value::Object(map) => {
                map.iter().map(|(k, v)| (k.clone(), text(v))).collect()
            }
            serde_json::Value::Array(list) => list
                .iter()
                .filter_map(|pair| {
                    let name = pair.get("name")?.as_str()?.to_owned();
                    Some((name, pair.get("value").map(text).unwrap_or_default()))
                })
                .collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// A processor in a register body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterCpu {
    /// As `/proc/cpuinfo` names it.
    pub model_name: String,
    /// Cores.
    pub total_num_cores: u64,
    /// Hardware threads.
    pub total_num_threads: u64,
    /// Architecture.
    pub arch: String,
    /// Family or variant.
    pub arch_family: String,
}

/// A partition in a register body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterPartition {
    /// Name.
    pub name: String,
    /// What it holds.
    pub types: Vec<String>,
    /// Bytes.
    pub total_size: u64,
}

/// Answer to [`RegisterUnit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProvisionedUnit {
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Chain in PEM, leaf first, root last.
    pub online_certificate: String,
    /// Chain in PEM.
    pub offline_certificate: String,
    /// All others.
    pub additional_certs: Vec<AdditionalCert>,
}

/// A certificate of one Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdditionalCert {
    /// Its type.
    pub cert_type: String,
    /// The Node that holds its key.
    pub node_id: String,
    /// Chain in PEM.
    pub cert: String,
}

/// `POST /units/enrol/`: a Unit that calls out. The claim code is the credential.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolUnit {
    /// The code a person made for this Unit.
    #[schema(format = Password)]
    pub claim_code: String,
    /// The rest is as for provisioning.
    #[serde(flatten)]
    pub unit: RegisterUnit,
}

/// Answer to [`EnrolUnit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolledUnit {
    /// The certificates.
    #[serde(flatten)]
    pub certificates: ProvisionedUnit,
    /// Id of the Unit in this cloud.
    pub unit_id: Uuid,
    /// The name a person gave it; may be empty.
    pub title: String,
    /// Its model.
    pub unit_model: Option<UnitModelRef>,
    /// PEM of the root that all its certificates chain to.
    pub root_certificate: String,
    /// Where to ask for a gateway, first choice first; the path is `/sd/v7/`.
    pub discovery_urls: Vec<String>,
}

/// `GET /units/provisioning/supported-software/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupportedSoftware {
    /// Tools that may provision.
    pub software: Vec<SoftwareVersion>,
}

/// A tool and its lowest version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SoftwareVersion {
    /// Name of the tool.
    pub name: String,
    /// Lowest version that works.
    pub min_version: String,
}

/// `POST /claim-codes/`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewClaimCode {
    /// Name the Unit gets.
    pub title: String,
    /// Model the Unit gets, as `name;version` or by id; if absent, what the Unit says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_model: Option<String>,
    /// Only a Unit of this system id may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_uid: Option<String>,
    /// Minutes until it expires: 1 to 43200, a day if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_minutes: Option<u32>,
}

/// A claim code without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimCode {
    /// Id.
    pub id: Uuid,
    /// Name the Unit gets.
    pub title: String,
    /// Model the Unit gets.
    pub unit_model: Option<UnitModelRef>,
    /// Only this Unit may use it.
    pub system_uid: Option<String>,
    /// `open`, `used` or `expired`.
    pub state: String,
    /// The Unit that used it.
    pub unit_id: Option<Uuid>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it was used.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub used_at: Option<Timestamp>,
}

/// Answer to [`NewClaimCode`]: the only time the code is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedClaimCode {
    /// What was made.
    pub claim_code: ClaimCode,
    /// The code itself. It is stored hashed and cannot be shown again.
    pub code: String,
    /// SHA-256 of the root certificate (DER), `sha256:<hex>`: what a Unit pins.
    pub ca_fingerprint: String,
    /// What to type on the Unit's main Node.
    pub join_command: String,
}

// Written by hand so that no secret reaches a log through `{:?}`.
impl fmt::Debug for RegisterUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterUnit")
            .field("system_uid", &self.system_uid)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EnrolUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolUnit")
            .field("unit", &self.unit)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuedClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedClaimCode")
            .field("claim_code", &self.claim_code)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_body_of_a_tool_is_read_with_unknown_fields_and_both_forms_of_attributes() {
        let body = serde_json::json!({
            "claim_code": "secret-code",
            "system_uid": "unit-1",
            "online_public_csr": "PEM",
            "secure_data": "secret-data",
            "something_new": [1, 2],
            "nodes": [
                {"id": "main", "type": "vm", "maxDmips": 5, "attrs": {"MainNode": ""}},
                {"id": "second", "attrs": [{"name": "a", "value": "b"}]}
            ]
        });
        let read: EnrolUnit = serde_json::from_value(body).unwrap();
        assert_eq!(read.claim_code, "secret-code");
        assert_eq!(read.unit.nodes[0].max_dmips, 5);
        assert!(read.unit.nodes[0].attributes().contains_key("MainNode"));
        assert_eq!(read.unit.nodes[1].attributes()["a"], "b");
        assert!(!format!("{read:?}").contains("secret"));
    }
}
