use aos_types::{
    Digest, ItemId, ItemType, NodeId, OwnerId, Schedule, SubjectId, SubjectType, UnitConfig,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    Caps, Unreadable,
    binary::{Base64, to_base64},
    envelope::Data,
    identity::{self, codename_json, id_json},
    reading::{Element, Named, Reader},
    writing::{Out, ToJson, words},
};

words! {
    /// What a Node is to be.
    DesiredNodeState = "desired node state" {
        /// To take part.
        Provisioned = "provisioned",
        /// To idle.
        Paused = "paused",
    }
}

/// The state one Node should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredNode {
    /// The Node.
    pub node: NodeId,
    /// The state.
    pub state: DesiredNodeState,
}

/// An item that should be there, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredItem {
    /// The cloud's id.
    pub item: ItemId,
    /// Service, component or layer.
    pub item_type: ItemType,
    /// Semantic version, as text.
    pub version: String,
    /// The organisation it belongs to.
    pub owner: OwnerId,
    /// The digest of its image index.
    pub index_digest: Digest,
    /// It may fail alone: then it stays as it is and the rest of the update goes on. False if the cloud says nothing.
    pub independent: bool,
}

/// Instances of an item that should run for a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredInstances {
    /// The item.
    pub item: ItemId,
    /// The subject.
    pub subject: SubjectId,
    /// Higher is placed first; 0 if the cloud says nothing.
    pub priority: u64,
    /// How many: instances 0 to this less one. 1 if the cloud says nothing. For a component 0 means one on every
    /// matching runtime.
    pub num_instances: u64,
    /// Labels a Node must have.
    pub labels: Vec<String>,
}

/// A subject the Unit should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSubject {
    /// Its id.
    pub subject: SubjectId,
    /// Group or user; group if the cloud says nothing.
    pub subject_type: SubjectType,
    /// It counts only while the Unit itself reports it.
    pub is_reported_from_unit: bool,
}

/// A certificate that chains refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// X.509 in DER.
    pub der: Vec<u8>,
    /// As the cloud calls it; the receiver computes its own. Written in upper-case hex.
    pub fingerprint: String,
}

/// A chain by which blobs are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain {
    /// What a signature calls it.
    pub name: String,
    /// First the signing certificate, then the intermediates.
    pub fingerprints: Vec<String>,
}

/// All a Unit should have and run. A list that is `None` stays as it is; an empty one means "none".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DesiredStatus {
    /// States of Nodes.
    pub nodes: Option<Vec<DesiredNode>>,
    /// The unit configuration; `None` leaves it as it is.
    pub unit_config: Option<UnitConfig>,
    /// Items.
    pub items: Option<Vec<DesiredItem>>,
    /// Instances.
    pub instances: Option<Vec<DesiredInstances>>,
    /// Subjects.
    pub subjects: Option<Vec<DesiredSubject>>,
    /// Certificates.
    pub certificates: Option<Vec<Certificate>>,
    /// Chains.
    pub certificate_chains: Option<Vec<CertificateChain>>,
    /// When services, configurations and node states may be changed; `None`: at once.
    pub sota_schedule: Option<Schedule>,
    /// When components may be changed; `None`: at once.
    pub fota_schedule: Option<Schedule>,
}

impl DesiredStatus {
    /// Its JSON without the envelope: what is stored and compared.
    pub fn to_json(&self) -> Value {
        self.write(Out::new()).into()
    }

    /// Reads what [`DesiredStatus::to_json`] or a peer wrote.
    pub fn from_json(value: &Value, caps: &Caps) -> Result<(Self, Vec<Unreadable>), FieldError> {
        let mut reader = Reader::new(caps);
        let desired = Self::read(Fields::of(value)?, &mut reader)?;
        Ok((desired, reader.finish()))
    }
}

impl Element for DesiredNode {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let key = fields.any(&["item", "node"]).map_or("item", |(key, _)| key);
        Ok(Self {
            node: identity::node(&fields, key)?,
            state: fields
                .any(&["state", "status"])
                .map(|(key, value)| {
                    DesiredNodeState::from_json(value).map_err(|error| error.at(key))
                })
                .transpose()?
                .ok_or_else(|| FieldError::new("is missing").at("state"))?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        ["item", "node"]
            .iter()
            .find_map(|key| identity::node(&fields, key).ok())
            .map(Named::Node)
    }
}

impl ToJson for DesiredNode {
    fn to_json(&self) -> Value {
        Out::new()
            .put("item", codename_json(self.node.as_str()))
            .put("state", self.state.as_str())
            .into()
    }
}

impl Element for DesiredItem {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let item = identity::item(&fields, "item")?;
        // A component taken for a service would be stopped and removed, so its type is not guessed.
        let item_type = fields
            .get("item")
            .and_then(|value| Fields::of(value).ok())
            .and_then(|identity| identity.get("type"))
            .ok_or_else(|| FieldError::new("is missing"))
            .and_then(identity::item_type)
            .map_err(|error| error.at("type").at("item"))?;
        Ok(Self {
            item,
            item_type,
            version: fields.req("version")?,
            owner: identity::owner(&fields, "owner")?,
            index_digest: fields.req("indexDigest")?,
            independent: fields.or_default("independent")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::item(&fields, "item").ok().map(Named::Item)
    }
}

impl ToJson for DesiredItem {
    fn to_json(&self) -> Value {
        let item = Out::new()
            .put("id", self.item.as_str())
            .put("type", self.item_type.to_string());
        Out::new()
            .put("item", item)
            .put("version", self.version.as_str())
            .put("owner", id_json(self.owner.as_str()))
            .put("indexDigest", self.index_digest.to_string())
            .opt("independent", self.independent.then_some(true))
            .into()
    }
}

/// Most labels of one entry, and the longest in bytes. AosCore takes 4 of 64; what is stored with every step must stay small.
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 256;

fn labels(fields: &Fields<'_>) -> Result<Vec<String>, FieldError> {
    let labels: Vec<String> = fields.or_default("labels")?;
    if labels.len() > MAX_LABELS {
        let text = format!("holds {} labels, more than {MAX_LABELS}", labels.len());
        return Err(FieldError::new(text).at("labels"));
    }
    if let Some(long) = labels.iter().find(|label| label.len() > MAX_LABEL) {
        let text = format!(
            "holds a label of {} bytes, more than {MAX_LABEL}",
            long.len()
        );
        return Err(FieldError::new(text).at("labels"));
    }
    Ok(labels)
}

impl Element for DesiredInstances {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            item: identity::item(&fields, "item")?,
            subject: identity::subject(&fields, "subject")?,
            priority: fields.or_default("priority")?,
            num_instances: fields.opt("numInstances")?.unwrap_or(1),
            labels: labels(&fields)?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        Some(Named::Instances {
            item: identity::item(&fields, "item").ok()?,
            subject: identity::subject(&fields, "subject").ok(),
        })
    }
}

impl ToJson for DesiredInstances {
    fn to_json(&self) -> Value {
        Out::new()
            .put("item", id_json(self.item.as_str()))
            .put("subject", id_json(self.subject.as_str()))
            .put("priority", self.priority)
            .put("numInstances", self.num_instances)
            .put("labels", self.labels.clone())
            .into()
    }
}

impl Element for DesiredSubject {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let subject = match fields.get("identity") {
            Some(identity) => {
                identity::subject_of(identity, false).map_err(|error| error.at("identity"))?
            }
            None => identity::subject_of(value, false)?,
        };
        // A subject identity carries `type: subject`, the kind of identity; the kind of subject stands beside it.
        let subject_type = match fields.get("type") {
            None => SubjectType::Group,
            Some(Value::String(word))
                if fields.get("identity").is_none() && word.eq_ignore_ascii_case("subject") =>
            {
                SubjectType::Group
            }
            Some(value) => SubjectType::from_json(value).map_err(|error| error.at("type"))?,
        };
        Ok(Self {
            subject,
            subject_type,
            is_reported_from_unit: fields.or_default("isReportedFromUnit")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::subject(&fields, "identity")
            .ok()
            .map(Named::Subject)
    }
}

impl ToJson for DesiredSubject {
    fn to_json(&self) -> Value {
        Out::new()
            .put("identity", id_json(self.subject.as_str()))
            .put("type", self.subject_type.as_str())
            .opt(
                "isReportedFromUnit",
                self.is_reported_from_unit.then_some(true),
            )
            .into()
    }
}

impl Element for Certificate {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            der: fields.req::<Base64>("certificate")?.0,
            fingerprint: fields.or_default("fingerprint")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        fields.opt("fingerprint").ok().flatten().map(Named::Name)
    }
}

impl ToJson for Certificate {
    fn to_json(&self) -> Value {
        Out::new()
            .put("certificate", to_base64(&self.der))
            .put("fingerprint", self.fingerprint.to_ascii_uppercase())
            .into()
    }
}

impl Element for CertificateChain {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            name: fields.req("name")?,
            fingerprints: fields.req("fingerprints")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        fields.opt("name").ok().flatten().map(Named::Name)
    }
}

impl ToJson for CertificateChain {
    fn to_json(&self) -> Value {
        let fingerprints: Vec<String> = self
            .fingerprints
            .iter()
            .map(|fingerprint| fingerprint.to_ascii_uppercase())
            .collect();
        Out::new()
            .put("name", self.name.as_str())
            .put("fingerprints", fingerprints)
            .into()
    }
}

impl Data for DesiredStatus {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            nodes: reader.list(&fields, "nodes"),
            unit_config: reader.part(&fields, "unitConfig"),
            items: reader.list(&fields, "items"),
            instances: reader.list(&fields, "instances"),
            subjects: reader.list(&fields, "subjects"),
            certificates: reader.list(&fields, "certificates"),
            certificate_chains: reader.list(&fields, "certificateChains"),
            sota_schedule: reader.schedule(&fields, "sotaSchedule"),
            fota_schedule: reader.schedule(&fields, "fotaSchedule"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.opt_list("nodes", self.nodes.as_ref())
            .opt(
                "unitConfig",
                self.unit_config
                    .as_ref()
                    .and_then(|config| serde_json::to_value(config).ok()),
            )
            .opt_list("items", self.items.as_ref())
            .opt_list("instances", self.instances.as_ref())
            .opt_list("subjects", self.subjects.as_ref())
            .opt_list("certificates", self.certificates.as_ref())
            .opt_list("certificateChains", self.certificate_chains.as_ref())
            .opt(
                "sotaSchedule",
                self.sota_schedule.as_ref().map(Schedule::to_json),
            )
            .opt(
                "fotaSchedule",
                self.fota_schedule.as_ref().map(Schedule::to_json),
            )
    }
}
