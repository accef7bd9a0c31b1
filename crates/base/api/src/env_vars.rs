use std::fmt;

use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{ReportedError, ServiceRef, SubjectRef};

/// `GET /units/{id}/env-vars/`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EnvVarsQuery {
    /// Show the values too; that is written to the audit. They may be secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<bool>,
}

/// `POST /units/{id}/env-vars/`: sets variables over those of the items. One of the same name for the same instances is
/// replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnvVars {
    /// Only for this service (id or codename); for every one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only for this Subject (id or label); for every one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only for the instance of this number; for every one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u64>,
    /// 1 to 64 of them.
    pub variables: Vec<NewEnvVar>,
}

/// One variable to set. Its value may be a secret, so it is not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnvVar {
    /// 1 to 256 characters, without `=` and control characters.
    pub name: String,
    /// At most 10240 bytes, without NUL.
    pub value: String,
    /// Seconds after which it ends by itself: 1 to 315360000; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
}

impl fmt::Debug for NewEnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEnvVar")
            .field("name", &self.name)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// How far a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvVarState {
    /// The Unit has not taken it over yet.
    WaitingForUnit,
    /// The Unit has it.
    Taken,
    /// The Unit says that it is set in at least one instance, and failed in none.
    Set,
    /// The Unit says that it failed in some instance.
    Failed,
}

/// A variable that is set over those of the items. Its value may be a secret, so it is not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvVar {
    /// Id.
    pub id: Uuid,
    /// For this service only.
    pub service: Option<ServiceRef>,
    /// For this Subject only.
    pub subject: Option<SubjectRef>,
    /// For the instance of this number only.
    pub instance_id: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its value, if it was asked for.
    pub value: Option<String>,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Who set it.
    pub created_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// How far it is.
    pub state: EnvVarState,
    /// What the Unit says of each instance.
    pub instances: Vec<EnvVarInstance>,
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvVar")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What became of a variable in one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvVarInstance {
    /// Id of the item.
    pub item_id: String,
    /// Id of the subject.
    pub subject_id: String,
    /// From 0.
    pub instance_id: u64,
    /// Why it could not be set; none: it is set.
    pub error: Option<ReportedError>,
}
