use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A kind of Unit ("target system"): Units name it `name;version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitModel {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Version of the newest unit configuration, if there is one.
    pub unit_config_version: Option<String>,
    /// Version of the unit configuration that is ordered for its Units, if one is.
    #[serde(default)]
    pub ordered_unit_config: Option<String>,
    /// Whether blobs of its Units are delivered encrypted, unless a Unit says otherwise.
    #[serde(default)]
    pub encrypts_blobs: bool,
    /// How many Units are of this model.
    pub unit_count: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// `POST /unit-models/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUnitModel {
    /// Name, without `;`.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// The first unit configuration, if it is known already; see [`NewUnitConfig::unit_config`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub unit_config: Option<serde_json::Value>,
}

/// A unit configuration as it was stored. Versions only grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnitConfigVersion {
    /// Id.
    pub id: Uuid,
    /// Its version.
    pub version: String,
    /// The document that Units get.
    #[schema(value_type = Object)]
    pub unit_config: serde_json::Value,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// `POST /unit-models/{id}/unit-configs/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUnitConfig {
    /// `{"formatVersion": "1", "version": "1.2.0", "nodes": [{"nodeGroupSubject"|"nodeType", "node"?, "labels", "priority",
    /// "resourceRatios", "alertRules"}]}`; the version must be higher than every one before.
    #[schema(value_type = Object)]
    pub unit_config: serde_json::Value,
    /// Order it for all Units of the model at once; true if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<bool>,
}

/// `PATCH /unit-models/{id}/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitModelPatch {
    /// Whether blobs of its Units are delivered encrypted, unless a Unit says otherwise.
    pub encrypts_blobs: bool,
}
