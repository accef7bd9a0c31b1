use aos_api::{ChangeAction, ChangeEvent, ChangeTopic};
use aos_time::Timestamp;
use uuid::Uuid;

/// A committed change, as it is put on the bus. Says what to read again, not what it is now.
///
/// Whoever composes desired states listens to topic `Unit` with action `Desired`: it comes for every Unit whose desired
/// state may be another one now (assignment, new version, model, unit configuration, Nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub tenant: Uuid,
    /// About what.
    pub topic: ChangeTopic,
    /// What kind.
    pub action: ChangeAction,
    /// Id of the thing.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
}

impl From<Change> for ChangeEvent {
    fn from(change: Change) -> Self {
        Self {
            topic: change.topic,
            action: change.action,
            id: Some(change.id),
            at: change.at,
        }
    }
}
