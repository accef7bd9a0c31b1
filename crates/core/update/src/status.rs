use aos_types::{AosCode, ErrorInfo, ItemId, ItemState, ItemType};

use crate::{DesiredItem, Direction, Engine, UpdateState};

/// The state of one version of an item, for the unit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemStatus {
    /// Which.
    pub id: ItemId,
    /// Service or component.
    pub item_type: ItemType,
    /// Of which version.
    pub version: String,
    /// Its state.
    pub state: ItemState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// What became of a unit configuration that is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConfigStatus {
    /// Its version.
    pub version: String,
    /// Why it was refused.
    pub error: ErrorInfo,
}

impl Engine {
    /// The state of every item version the cloud should know of: the committed ones, those on their way, those that failed.
    pub fn items(&self) -> Vec<ItemStatus> {
        let record = self.record();
        let is_committed = |item: &DesiredItem| record.committed.item(&item.id) == Some(item);
        let forward = record
            .cycle
            .as_ref()
            .filter(|cycle| cycle.direction == Direction::Forward);
        let mut items: Vec<ItemStatus> = record
            .committed
            .items
            .iter()
            .map(|item| status(item, ItemState::Installed, None))
            .collect();
        if let Some(cycle) = forward {
            items.extend(
                cycle
                    .target
                    .items
                    .iter()
                    .filter(|item| !is_committed(item))
                    .map(|item| {
                        let (state, error) = match (cycle.state, cycle.downloaded.get(&item.id)) {
                            (UpdateState::Downloading, None) => (ItemState::Downloading, None),
                            (UpdateState::Downloading, Some(Some(error))) => {
                                (ItemState::Failed, Some(error.clone()))
                            }
                            (UpdateState::Downloading | UpdateState::Pending, _) => {
                                (ItemState::Pending, None)
                            }
                            _ => (ItemState::Installing, None),
                        };
                        status(item, state, error)
                    }),
            );
        }
        // What waits at its gate while the other part is being updated.
        let rest = record.cycle.as_ref().and_then(|cycle| cycle.asked.as_ref());
        let mut waiting: Vec<ItemStatus> = rest
            .iter()
            .flat_map(|rest| &rest.items)
            .filter(|item| !is_committed(item))
            .filter(|item| {
                let on_its_way = forward.and_then(|cycle| cycle.target.item(&item.id));
                on_its_way != Some(item)
            })
            .map(|item| status(item, ItemState::Pending, None))
            .collect();
        items.append(&mut waiting);
        if let Some(failure) = &record.failure {
            let shown = |item: &DesiredItem| {
                items
                    .iter()
                    .any(|have| have.id == item.id && have.version == item.version)
            };
            let failed: Vec<ItemStatus> = failure
                .target
                .items
                .iter()
                .filter(|item| !is_committed(item) && !shown(item))
                .map(|item| status(item, ItemState::Failed, Some(cause_of(failure, &item.id))))
                .collect();
            items.extend(failed);
        }
        items
    }

    /// The unit configuration that the last failed update was to bring, if that is why it failed.
    pub fn failed_unit_config(&self) -> Option<UnitConfigStatus> {
        let failure = self.record().failure.as_ref()?;
        let error = failure.failures.unit_config.clone()?;
        let version = failure.target.unit_config.as_ref()?.version.clone();
        Some(UnitConfigStatus { version, error })
    }
}

fn status(item: &DesiredItem, state: ItemState, error: Option<ErrorInfo>) -> ItemStatus {
    ItemStatus {
        id: item.id.clone(),
        item_type: item.item_type,
        version: item.version.clone(),
        state,
        error,
    }
}

/// The item's own error, else that of one of its instances, else what made the update fail.
fn cause_of(failure: &crate::Failure, id: &ItemId) -> ErrorInfo {
    let own = failure.failures.items.get(id).cloned();
    let of_instance = || {
        failure
            .failures
            .instances
            .iter()
            .find(|(ident, _)| ident.item == *id)
            .map(|(ident, error)| ErrorInfo {
                message: format!("instance {}: {error}", ident.index),
                ..error.clone()
            })
    };
    own.or_else(of_instance).unwrap_or_else(|| {
        let why = failure.failures.summary().unwrap_or_default();
        ErrorInfo::new(
            AosCode::Canceled,
            format!(
                "not installed because the update failed while {}: {why}",
                failure.state
            ),
        )
    })
}
