use aos_cloud_protocol::{Certificate, CertificateChain, DesiredNodeState};
use aos_types::{
    ArchInfo, Digest, ItemId, NodeId, NodeState, OsInfo, OwnerId, RuntimeInfo, Schedule, SubjectId,
    SubjectType, UnitConfig,
};

/// All that is known of one Unit when its desired state is composed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unit {
    /// Its Nodes, as last reported.
    pub nodes: Vec<Node>,
    /// The unit configuration that is ordered for it, if one is.
    pub unit_config: Option<UnitConfig>,
    /// When its software may be changed; `None`: at once.
    pub sota_schedule: Option<Schedule>,
    /// When its firmware may be changed; `None`: at once.
    pub fota_schedule: Option<Schedule>,
    /// The Subjects it belongs to.
    pub subjects: Vec<Subject>,
    /// How it can check what it fetches.
    pub trust: Trust,
}

/// A Node of the Unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Its type.
    pub node_type: String,
    /// What people want it to be; `None` if they said nothing.
    pub wanted: Option<DesiredNodeState>,
    /// Its runtimes, as last reported; empty until the Unit was online for the first time.
    pub runtimes: Vec<RuntimeInfo>,
    /// Names of its resources, as last reported.
    pub resources: Vec<String>,
    /// Its state, as last reported.
    pub state: NodeState,
    /// Whether the main Node is linked to it.
    pub connected: bool,
}

/// A Subject: units × services.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Which.
    pub id: SubjectId,
    /// Group or user.
    pub subject_type: SubjectType,
    /// It counts only while the Unit itself reports it.
    pub is_reported: bool,
    /// Orders placement where the assignment and the version say nothing.
    pub priority: Option<u64>,
    /// What runs for it.
    pub services: Vec<Assigned>,
}

/// A service assigned to a Subject, with what the assignment overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// The service.
    pub service: Service,
    /// How many instances, instead of the version's own number.
    pub num_instances: Option<u64>,
    /// Labels a Node must have, instead of the version's own.
    pub labels: Option<Vec<String>>,
    /// Priority, instead of the version's own.
    pub priority: Option<u64>,
    /// It may fail without taking the rest of the update back.
    pub independent: bool,
}

/// A service and its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Which.
    pub id: ItemId,
    /// Its name for people.
    pub codename: String,
    /// Who owns it.
    pub owner: OwnerId,
    /// Its versions, in any order.
    pub versions: Vec<Version>,
}

/// How far a version has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can be delivered.
    Ready,
    /// It is being processed.
    Processing,
    /// It cannot be delivered, and why.
    Unusable(String),
}

/// One version of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Semantic version, as text.
    pub version: String,
    /// How far it has come.
    pub readiness: Readiness,
    /// The digest of its image index.
    pub index_digest: Digest,
    /// What its images run on, one an image; empty if nothing is said, which fits everywhere.
    pub platforms: Vec<Platform>,
    /// Runtime types it may run on; empty means those of containers.
    pub runtimes: Vec<String>,
    /// Instances for each Subject.
    pub min_instances: u64,
    /// Labels a Node must have.
    pub labels: Vec<String>,
    /// Names of resources a Node must have.
    pub resources: Vec<String>,
    /// Higher is placed first.
    pub priority: u64,
}

/// What one image runs on. Empty parts fit everything (`docs/protocol/items.md`, image config).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platform {
    /// OCI architecture.
    pub arch: ArchInfo,
    /// OCI operating system.
    pub os: OsInfo,
}

/// The certificates by which the Unit checks signatures of blobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trust {
    /// Certificates of the chains.
    pub certificates: Vec<Certificate>,
    /// Chains that signatures name.
    pub chains: Vec<CertificateChain>,
}
