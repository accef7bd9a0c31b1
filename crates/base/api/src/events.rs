use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a change is about; also the name of the server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeTopic {
    /// A Unit: itself, its link, status, timeline or desired state.
    Unit,
    /// A deployment bundle.
    Bundle,
    /// A service or a version of it.
    Service,
    /// A Subject or its assignments.
    Subject,
    /// A unit model or its configurations.
    UnitModel,
    /// A claim code.
    ClaimCode,
    /// The usage of a Unit, by the Unit's id.
    Monitoring,
    /// Alerts of a Unit, by the Unit's id.
    Alert,
    /// A request for logs: what became of it, lines that came.
    Log,
    /// Events were missed: read everything again.
    Resync,
}

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    /// New.
    Created,
    /// Changed by a person.
    Updated,
    /// Gone.
    Deleted,
    /// Unit: the link came or went.
    Link,
    /// Unit: it reported something new.
    Status,
    /// Unit: what it should be may have changed, or was sent or acknowledged.
    Desired,
    /// Unit: it was asked for a log, or no longer is.
    LogAsked,
}

/// One change, as `GET /events/` sends it: `event: <topic>`, `data: <this as JSON>`. It says what to read again, not
/// what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeEvent {
    /// About what.
    pub topic: ChangeTopic,
    /// What kind.
    pub action: ChangeAction,
    /// Id of the thing; none for `resync`.
    pub id: Option<Uuid>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// A row of the audit: who changed what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `user:<name>`, `unit:<system id>`, `claim-code:<id>` or `system`.
    pub actor: String,
    /// What was done, such as `subject.create`.
    pub action: String,
    /// To what, such as `subject:<id>`.
    pub target: String,
    /// More, for people.
    pub detail: String,
}
