use std::{collections::HashSet, fmt};

use aos_types::{AosCode, ErrorInfo, ItemId, ItemState, ItemType};

use serde::{Deserialize, Serialize};

use crate::{Cycle, DesiredItem, Direction, Engine, Failure, Rollback, UpdateState};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        let committed = record.committed.items_by_id();
        let is_committed = |item: &DesiredItem| {
            let have = committed.get(&item.id);
            have.is_some_and(|have| have.same_content(item))
        };
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
            let coming = cycle.target.items_by_id();
            let under_way = cycle.asked().items.iter();
            items.extend(under_way.filter(|item| !is_committed(item)).map(|item| {
                let comes = coming.get(&item.id);
                let comes = comes.is_some_and(|comes| comes.same_content(item));
                let (state, error) = progress(cycle, item, comes);
                status(item, state, error)
            }));
        }
        let mut shown: HashSet<(ItemId, String)> = items
            .iter()
            .map(|item| (item.id.clone(), item.version.clone()))
            .collect();
        let mut show = |item: &DesiredItem, state, error| {
            if !is_committed(item) && shown.insert((item.id.clone(), item.version.clone())) {
                items.push(status(item, state, error));
            }
        };
        let next = record.cycle.as_ref().and_then(|cycle| cycle.next.as_ref());
        for item in next.iter().flat_map(|next| &next.items) {
            show(item, ItemState::Pending, None);
        }
        if let Some(failure) = &record.failure {
            for item in &failure.target.items {
                let error = cause_of(failure, &item.id);
                show(item, ItemState::Failed, Some(error));
            }
        }
        items
    }

    /// The unit configuration that was asked for last and is not in force: one that was refused, or that the last failed
    /// update was to bring, if that is why it failed.
    pub fn failed_unit_config(&self) -> Option<UnitConfigStatus> {
        let refused = self.record().refused_config.clone();
        refused.or_else(|| {
            let failure = self.record().failure.as_ref()?;
            let error = failure.failures.unit_config.clone()?;
            let version = failure.target.unit_config.as_ref()?.version.clone();
            Some(UnitConfigStatus { version, error })
        })
    }
}

/// An item version on its way; `comes` says that the present cycle brings it.
fn progress(cycle: &Cycle, item: &DesiredItem, comes: bool) -> (ItemState, Option<ErrorInfo>) {
    let aside = cycle.aside.as_ref();
    if let Some(error) = aside.and_then(|aside| aside.failures.items.get(&item.id)) {
        return (ItemState::Failed, Some(error.clone()));
    }
    match (cycle.state, cycle.downloaded.get(&item.id)) {
        (UpdateState::Downloading, None) => (ItemState::Downloading, None),
        (UpdateState::Downloading, Some(Some(error))) => (ItemState::Failed, Some(error.clone())),
        (UpdateState::Downloading | UpdateState::Pending, _) => (ItemState::Pending, None),
        _ if !comes => (ItemState::Pending, None),
        _ => (ItemState::Installing, None),
    }
}

impl Failure {
    /// What comes of it: how often it was tried, and when it is tried again.
    pub fn outlook(&self) -> String {
        match self.retry_at {
            _ if self.expired => {
                "it comes back by something newer, or by `aos update start PART --again`".into()
            }
            Some(at) => format!("attempt {}, tried again at {at}", self.attempts),
            None => format!("attempt {}", self.attempts),
        }
    }
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.failures.summary().unwrap_or_default();
        write!(
            f,
            "the committed set could not be brought back: {why} (attempt {}, tried again at {})",
            self.attempts, self.retry_at
        )
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
fn cause_of(failure: &Failure, id: &ItemId) -> ErrorInfo {
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
    let cause = own.or_else(of_instance).unwrap_or_else(|| {
        let why = failure.failures.summary().unwrap_or_default();
        ErrorInfo::new(
            AosCode::Canceled,
            format!(
                "not installed because the update failed while {}: {why}",
                failure.state
            ),
        )
    });
    ErrorInfo {
        message: format!("{cause} ({})", failure.outlook()),
        ..cause
    }
}
