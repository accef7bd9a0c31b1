use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A service that can be assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Id.
    pub id: Uuid,
    /// Name in bundles, unique in the organisation.
    pub codename: String,
    /// Name for people.
    pub title: String,
    /// What it is.
    pub description: String,
    /// The newest version that is ready.
    pub latest_version: Option<String>,
    /// How many versions there are.
    pub version_count: u64,
    /// On how many Units it is assigned.
    pub unit_count: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A service, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRef {
    /// Id.
    pub id: String,
    /// Name in bundles.
    pub codename: String,
    /// Name for people.
    pub title: String,
}

/// One version of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceVersion {
    /// Id.
    pub id: Uuid,
    /// SemVer.
    pub version: String,
    /// `ready`.
    pub state: String,
    /// What it can run on, as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
    /// Digest of its OCI image index.
    pub index_digest: String,
    /// Bytes a Unit may have to fetch, all platforms together.
    pub size: u64,
    /// How many instances run unless an assignment says otherwise.
    pub min_num_instances: u64,
    /// Its item configuration, as Nodes get it.
    #[schema(value_type = Object)]
    pub configuration: serde_json::Value,
    /// The bundle that brought it.
    pub bundle_id: Option<Uuid>,
    /// On how many Units it is installed.
    pub unit_count: u64,
    /// When it became ready.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A Unit that has or should have a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceUnit {
    /// Id of the Unit.
    pub id: Uuid,
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Name for people.
    pub title: String,
    /// Whether it is assigned through some subject.
    pub assigned: bool,
    /// Versions the Unit reports.
    pub versions: Vec<String>,
    /// Instances the Unit reports.
    pub instances: u64,
    /// Of them, active.
    pub instances_active: u64,
}
