use std::collections::BTreeMap;

use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{ReportedError, ServiceRef, SubjectRef, UnitDownload, UnitUpdate, WantedNodeState};

/// Whether a Unit has certificates of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnitStatus {
    /// Known, but it has none yet.
    New,
    /// It has.
    Provisioned,
}

/// Whether a Unit is linked to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum OnlineStatus {
    /// No link.
    Offline,
    /// A link, but no full status over it yet.
    Connected,
    /// A link, and its status is understood.
    Online,
}

/// How far a Unit is with its newest desired state, derived from what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdatePhase {
    /// Nothing was ever sent to it.
    None,
    /// A desired state waits for the Unit to come and acknowledge it.
    WaitingForUnit,
    /// Some item is being fetched.
    Downloading,
    /// All is fetched and verified; the Unit waits to go on.
    Pending,
    /// The Nodes are being changed.
    Installing,
    /// Instances are starting.
    WaitingForActive,
    /// The Unit is as desired.
    Installed,
    /// Something failed; the items and instances say what.
    Failed,
}

/// A Unit, in lists and by itself alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unit {
    /// Id of the Unit in this cloud.
    pub id: Uuid,
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Name for people; may be empty.
    pub title: String,
    /// Whether it has certificates.
    pub status: UnitStatus,
    /// Whether it is linked.
    pub online_status: OnlineStatus,
    /// When `online_status` last changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_online_changed_at: Option<Timestamp>,
    /// When the Unit was last heard.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen_at: Option<Timestamp>,
    /// Its model, if it has one.
    pub unit_model: Option<UnitModelRef>,
    /// The unit configuration in force, as the Unit reports it; a newer one that failed in its place.
    pub installed_unit_config: Option<InstalledUnitConfig>,
    /// Version of the unit configuration that is ordered for it.
    #[serde(default)]
    pub wanted_unit_config: Option<String>,
    /// Whether its blobs are delivered encrypted, as said for it.
    #[serde(default)]
    pub blob_encryption: BlobEncryption,
    /// How far it is with its newest desired state.
    pub update_phase: UpdatePhase,
    /// How far it is with fetching; none if it fetches nothing, or has not told yet.
    #[serde(default)]
    pub download: Option<UnitDownload>,
    /// What the Unit says of its update; none if it does not say it (a Unit of another make).
    #[serde(default)]
    pub update: Option<UnitUpdate>,
    /// What is counted over its parts.
    pub counts: UnitCounts,
    /// When it became known.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When anything of it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Numbers shown beside a Unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct UnitCounts {
    /// Nodes it reported.
    pub nodes: u64,
    /// Of them, linked to the main Node.
    pub nodes_connected: u64,
    /// Instances it reported.
    pub instances: u64,
    /// Of them, active.
    pub instances_active: u64,
    /// Of them, failed.
    pub instances_failed: u64,
    /// Instances that are desired.
    pub instances_desired: u64,
    /// Subjects it is assigned to.
    pub subjects: u64,
}

/// A unit model, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitModelRef {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// The unit configuration a Unit reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstalledUnitConfig {
    /// Its version.
    pub version: String,
    /// `absent`, `installed` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<ReportedError>,
}

/// `POST /units/`: makes a Unit known before it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUnit {
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Name for people.
    #[serde(default)]
    pub title: String,
    /// Model as `name;version` or by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_model: Option<String>,
}

/// Whether the blobs of a Unit are delivered encrypted, each by a key wrapped for the Unit's `offline` certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlobEncryption {
    /// As its unit model says.
    #[default]
    Model,
    /// They are.
    On,
    /// They are not; TLS protects them on their way.
    Off,
}

/// `PATCH /units/{id}/`: an absent field stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitPatch {
    /// New name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// New model as `name;version` or by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_model: Option<String>,
    /// Whether its blobs are delivered encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_encryption: Option<BlobEncryption>,
}

/// Which Units are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UnitsQuery {
    /// Exactly this system id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_uid: Option<String>,
    /// `new` or `provisioned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<UnitStatus>,
    /// `Offline`, `Connected` or `Online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_status: Option<OnlineStatus>,
    /// Most elements on the page: 1 to 1000, 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many elements to leave out at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// Only Units whose system id or title holds this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

/// A Node of a Unit, as the Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Id of the Node, unique in its Unit.
    pub node_id: String,
    /// Its node group.
    pub node_type: String,
    /// Name for people.
    pub title: String,
    /// Whether it is the main Node.
    pub is_main: bool,
    /// Whether the main Node is linked to it.
    pub is_connected: bool,
    /// `unprovisioned`, `provisioned`, `paused` or `error`.
    pub state: String,
    /// What people ordered it to be, if they did.
    #[serde(default)]
    pub wanted_state: Option<WantedNodeState>,
    /// Why the state is `error`.
    pub error: Option<ReportedError>,
    /// Operating system.
    pub os: String,
    /// Computing power in DMIPS.
    pub max_dmips: u64,
    /// Memory with swap, bytes.
    pub total_ram: u64,
    /// Memory without swap, bytes.
    pub physical_ram: Option<u64>,
    /// Processors.
    pub cpus: Vec<Cpu>,
    /// Free attributes.
    pub attrs: BTreeMap<String, String>,
    /// Labels the unit configuration gives it.
    pub labels: Vec<String>,
    /// Partitions.
    pub partitions: Vec<Partition>,
    /// Runtimes.
    pub runtimes: Vec<Runtime>,
    /// Devices and other resources.
    pub resources: Vec<Resource>,
}

/// A processor package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cpu {
    /// As `/proc/cpuinfo` names it.
    pub model_name: String,
    /// Cores.
    pub total_num_cores: u64,
    /// Hardware threads.
    pub total_num_threads: u64,
    /// Architecture in OCI names.
    pub architecture: String,
    /// OCI variant.
    pub variant: Option<String>,
}

/// A partition of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Partition {
    /// Name.
    pub name: String,
    /// What it holds.
    pub types: Vec<String>,
    /// Bytes.
    pub total_size: u64,
}

/// A runtime of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Runtime {
    /// Id, stable per Node.
    pub id: String,
    /// `crun`, `runc`, …
    pub runtime_type: String,
    /// Architecture in OCI names.
    pub architecture: String,
    /// Operating system in OCI names.
    pub os: String,
    /// Most instances; 0 is without limit.
    pub max_instances: u64,
}

/// A resource of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Name.
    pub name: String,
    /// How many instances may share it; 0 is without limit.
    pub shared_count: u64,
}

/// One version of a Deployable Item on a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitItem {
    /// Id of the item, or the codename of a preinstalled one.
    pub item_id: String,
    /// `service` or `component`.
    pub item_type: String,
    /// The service, if it is one of ours.
    pub service: Option<ServiceRef>,
    /// Version.
    pub version: String,
    /// `unknown`, `downloading`, `pending`, `installing`, `installed`, `removing`, `removed` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<ReportedError>,
    /// Whether the newest desired state names this version.
    pub desired: bool,
    /// When the Unit reported this state.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Timestamp,
}

/// One service for one subject on a Unit: what is desired and what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitSubjectService {
    /// For whom.
    pub subject: SubjectRef,
    /// What.
    pub service: ServiceRef,
    /// The version the newest desired state names; none if it is no longer desired or cannot be delivered.
    pub desired_version: Option<String>,
    /// The version the Unit says is installed.
    pub installed_version: Option<String>,
    /// How many instances are desired.
    pub num_instances: u64,
    /// Priority in force.
    pub priority: u64,
    /// Labels in force: the instances may run on Nodes that have them all.
    pub labels: Vec<String>,
    /// What the Unit reports.
    pub instances: Vec<UnitInstance>,
}

/// One instance on a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitInstance {
    /// From 0.
    pub instance_id: u64,
    /// The version it runs.
    pub version: String,
    /// `activating`, `active`, `inactive` or `failed`.
    pub run_state: String,
    /// The Node it is placed on.
    pub node_id: String,
    /// The runtime it is placed in.
    pub runtime_id: String,
    /// Why it failed.
    pub error: Option<ReportedError>,
    /// When the Unit reported this state.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Timestamp,
}

/// How much a timeline event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Went as it should.
    Info,
    /// Worth a look.
    Warning,
    /// Failed.
    Error,
}

/// What a timeline event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimelineKind {
    /// The Unit became known, got certificates, was renamed.
    Unit,
    /// The link came or went.
    Link,
    /// A desired state was composed, sent, acknowledged or met.
    Desired,
    /// An assignment changed.
    Assignment,
    /// A Node changed.
    Node,
    /// An item changed.
    Item,
    /// An instance changed.
    Instance,
    /// The unit configuration changed.
    UnitConfig,
    /// The Unit said something of its update as a whole: what it waits for, that the way back fails.
    Update,
    /// Environment variables were set or taken away.
    EnvVars,
    /// When it may be updated changed.
    Schedule,
    /// A message could not be used.
    Protocol,
}

/// Something that happened to a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEvent {
    /// Grows with time.
    pub id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// About what.
    pub kind: TimelineKind,
    /// How much it matters.
    pub severity: Severity,
    /// What happened and why, for people.
    pub text: String,
    /// The Node, if it is about one.
    pub node_id: Option<String>,
    /// The item, if it is about one.
    pub item_id: Option<String>,
    /// The subject, if it is about an instance.
    pub subject_id: Option<String>,
    /// The instance, if it is about one.
    pub instance_id: Option<u64>,
    /// The version, if it is about one.
    pub version: Option<String>,
}

/// The desired state last composed for a Unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredState {
    /// Counts the desired states of this Unit, from 1.
    pub number: i64,
    /// The document as it is sent.
    #[schema(value_type = Object)]
    pub desired_status: serde_json::Value,
    /// When it was composed.
    #[schema(value_type = String, format = DateTime)]
    pub composed_at: Timestamp,
    /// When it was last sent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub sent_at: Option<Timestamp>,
    /// When the Unit said it has it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acknowledged_at: Option<Timestamp>,
    /// When the Unit was first seen to be as it says.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub applied_at: Option<Timestamp>,
}

/// A certificate of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitCertificate {
    /// `online`, `offline`, `iam`, `cm`, `sm` or `um`.
    pub cert_type: String,
    /// The Node that holds its key.
    pub node_id: String,
    /// Serial in hex.
    pub serial: String,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    pub valid_till: Timestamp,
    /// `issued`; `renew_ordered`, `renew_sent` and `renew_failed` while it is to be renewed; `renew_issued` for the one that
    /// takes its place, and `renew_done` when the Unit has it in use.
    pub status: String,
    /// Why it could not be renewed last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which certificates of a Unit are to be renewed; absent fields are all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct RenewQuery {
    /// Only those of this type.
    pub cert_type: Option<String>,
    /// Only those of this Node.
    pub node_id: Option<String>,
}
