use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ServiceRef, SubjectRef};

/// The last state of an instance that the cloud accepted: what the service wrote to keep over updates, reinstallation and
/// the loss of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptState {
    /// Whose.
    pub service: ServiceRef,
    /// For whom.
    pub subject: SubjectRef,
    /// From 0.
    pub instance_id: u64,
    /// Hex of the SHA3-224 of the content.
    pub checksum: String,
    /// Length of the content in bytes.
    pub size: u64,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub kept_at: Timestamp,
}

/// A state with its content. It is the service's own: it is not shown in lists, and not by `{:?}` of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptStateContent {
    /// What is known of it.
    #[serde(flatten)]
    pub about: KeptState,
    /// The content.
    pub state: String,
}
