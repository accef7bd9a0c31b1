use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ReportedError;

/// What people want a Node to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WantedNodeState {
    /// It takes part.
    Provisioned,
    /// It idles: its instances are stopped and placed elsewhere.
    Paused,
}

/// `PATCH /units/{id}/nodes/{node}/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// What the Node should be from now on.
    pub wanted_state: WantedNodeState,
}

/// `PUT /units/{id}/unit-config/` and `PUT /unit-models/{id}/unit-config/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderUnitConfig {
    /// A version of the unit configuration that the model has. Not lower than the one a Unit has in force: a Unit
    /// refuses to go back.
    pub version: String,
}

/// Who a unit configuration was ordered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderedFor {
    /// This Unit alone.
    Unit,
    /// All Units of its model.
    Model,
}

/// How far a Unit is with the unit configuration that is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnitConfigProgress {
    /// None is ordered.
    None,
    /// The Unit has not reported the wanted one yet.
    Waiting,
    /// The wanted one is in force.
    Installed,
    /// The Unit refused the wanted one.
    Failed,
}

/// The unit configuration of a Unit: wanted and actual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitConfigOrder {
    /// The version that is ordered.
    pub wanted: Option<String>,
    /// For whom it was ordered.
    pub ordered_for: Option<OrderedFor>,
    /// The version in force, as the Unit reports it.
    pub installed: Option<String>,
    /// A version that the Unit could not take, and why.
    pub failed: Option<FailedUnitConfig>,
    /// How far it is.
    pub progress: UnitConfigProgress,
}

/// A unit configuration that a Unit could not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedUnitConfig {
    /// Its version.
    pub version: String,
    /// Why.
    pub error: Option<ReportedError>,
}

/// A Unit of a model, and its unit configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelUnit {
    /// Id of the Unit.
    pub id: Uuid,
    /// What the Unit calls itself.
    pub system_uid: String,
    /// Name for people.
    pub title: String,
    /// Its unit configuration.
    pub unit_config: UnitConfigOrder,
}

/// `POST /assignments/`: Subject, Units and services in one step, so that each Unit gets one new desired state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAssignment {
    /// Label or id of the Subject; one with this label is made if there is none.
    pub subject: String,
    /// If the Subject is made: many Units at once, or a person; true if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_group: Option<bool>,
    /// If the Subject is made: its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_priority: Option<u64>,
    /// If the Subject is made: the name under which Units report it by themselves; see `NewSubject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_as: Option<String>,
    /// System ids (or ids) of Units to put into it; those that are in already stay.
    #[serde(default)]
    pub system_uids: Vec<String>,
    /// Services to assign; those that are in already get the new overrides.
    #[serde(default)]
    pub services: Vec<NewAssignedService>,
}

/// A service to assign.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAssignedService {
    /// Id or codename.
    pub service: String,
    /// What holds for it.
    #[serde(default)]
    pub overrides: crate::Overrides,
}

/// A subject as it concerns one Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitSubject {
    /// Id of the Subject in this cloud; none while a reported one is not known here.
    pub id: Option<Uuid>,
    /// Its label, or the name it is reported with.
    pub label: String,
    /// The name under which Units report it, if it is of that kind.
    pub reported_as: Option<String>,
    /// Whether the Unit reports it now.
    pub reported: bool,
    /// Whether the Unit was put into it.
    pub member: bool,
    /// How many services it brings.
    pub service_count: u64,
}
