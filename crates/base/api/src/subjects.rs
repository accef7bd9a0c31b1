use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{OnlineStatus, ServiceRef};

/// A Subject: Units × services. What it binds runs on each of its Units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// Id.
    pub id: Uuid,
    /// Name for people, unique in the organisation.
    pub label: String,
    /// Orders the allocation of resources on a Unit: 0 is lowest.
    pub priority: u64,
    /// Many Units at once (`true`), or a person on one Unit at a time.
    pub is_group: bool,
    /// The name under which Units report it by themselves; what it brings runs only while they do.
    #[serde(default)]
    pub reported_as: Option<String>,
    /// Made by the cloud itself; cannot be deleted.
    pub is_protected: bool,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// How many Units it is on.
    pub unit_count: u64,
    /// What it brings.
    pub services: Vec<SubjectService>,
}

impl Subject {
    /// Its id as Units know it: the name they report it with, else its id.
    pub fn on_the_wire(&self) -> String {
        self.reported_as
            .clone()
            .unwrap_or_else(|| self.id.to_string())
    }
}

/// A Subject, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubjectRef {
    /// Id, or the codename of a Subject that the Unit itself reported.
    pub id: String,
    /// Name for people.
    pub label: String,
}

/// `POST /subjects/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSubject {
    /// Name for people, unique in the organisation.
    pub label: String,
    /// 0 (lowest) to 999999.
    #[serde(default)]
    pub priority: u64,
    /// Many Units at once; true if absent.
    #[serde(default = "yes")]
    pub is_group: bool,
    /// The name under which Units report it by themselves (such as a driver who signed in). It then concerns every Unit
    /// that reports it, and what it brings runs only while the Unit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_as: Option<String>,
}

fn yes() -> bool {
    true
}

/// `PATCH /subjects/{id}/`: an absent field stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectPatch {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// New priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
}

/// A Unit of a Subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubjectUnit {
    /// Id of the Unit.
    pub id: Uuid,
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Name for people.
    pub title: String,
    /// Whether it is linked.
    pub online_status: OnlineStatus,
}

/// `POST /subjects/{id}/units/`. Units that are in already stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddUnits {
    /// System ids (or ids) of Units.
    pub system_uids: Vec<String>,
}

/// A service of a Subject and what the assignment overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubjectService {
    /// Which.
    pub service: ServiceRef,
    /// The newest version that is ready.
    pub latest_version: Option<String>,
    /// What the assignment sets; absent fields are as the version's configuration says.
    pub overrides: Overrides,
}

/// What an assignment may set over the configuration of the service's version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// How many instances on each Unit: 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_instances: Option<u64>,
    /// Only Nodes that have all these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Priority of the instances: 0 to 999999.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// May fail by itself: the rest of the update stays. Counts if every assignment of the service on a Unit says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub independent: Option<bool>,
}

/// `POST /subjects/{id}/services/`. A service that is in already gets the new overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddServices {
    /// Ids or codenames of services.
    pub service_ids: Vec<String>,
    /// How many instances of each on each Unit: 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_instances: Option<u64>,
    /// Only Nodes that have all these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Priority of the instances: 0 to 999999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// May fail by itself: the rest of the update stays. Counts if every assignment of the service on a Unit says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub independent: Option<bool>,
}
