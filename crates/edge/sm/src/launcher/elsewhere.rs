use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use aos_launch::{Elsewhere, Peer, Progress};
use aos_types::ItemId;
use tokio::time::Instant;

use super::Launcher;

/// How far an instance is, as other Nodes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    #[default]
    Held,
    Starting,
    Started,
    Healthy,
    Completed,
    Failed,
    Resting,
}

impl Stage {
    pub(super) const fn of(progress: &Progress) -> Self {
        match progress {
            Progress::Held { .. } | Progress::Unknown => Self::Held,
            Progress::Starting => Self::Starting,
            Progress::Started => Self::Started,
            Progress::Healthy => Self::Healthy,
            Progress::Completed => Self::Completed,
            Progress::Failed(_) => Self::Failed,
            Progress::Resting => Self::Resting,
        }
    }
}

/// What CM has told of instances on other Nodes.
#[derive(Debug, Default)]
pub(super) struct Told {
    facts: Arc<Elsewhere>,
    /// Since when nobody tells any more.
    since: Option<Instant>,
}

impl Launcher {
    /// What is known of other Nodes, and since when nobody tells of them any more.
    pub(super) fn told(&self) -> (Arc<Elsewhere>, Option<Instant>) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.facts.clone(), told.since)
    }

    /// CM tells how these items are doing on other Nodes.
    pub(crate) fn hear(&self, news: BTreeMap<ItemId, Vec<Peer>>) {
        let needs = self.needs();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let facts = Arc::make_mut(&mut told.facts);
            facts.extend(news);
            // Nobody asks for the others any more.
            facts.retain(|item, _| needs.contains(item));
        }
        self.moved.notify_one();
    }

    /// Nobody tells of other Nodes any more: what was told may be wrong by now.
    pub(crate) fn cut_off(&self) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.facts.is_empty() {
                return;
            }
            *told = Told {
                facts: Arc::default(),
                since: Some(Instant::now()),
            };
        }
        self.moved.notify_one();
    }

    /// The items that instances of this Node wait for and that are not on it.
    pub(crate) fn needs(&self) -> BTreeSet<ItemId> {
        let entries = self.entries();
        let here: BTreeSet<&ItemId> = entries.keys().map(|ident| &ident.item).collect();
        let waiting = entries.values().filter(|entry| entry.held.is_some());
        let needed = waiting
            .flat_map(|entry| &entry.dependencies)
            .filter(|one| one.condition.requires() && !here.contains(&one.identifier));
        needed.map(|one| one.identifier.clone()).collect()
    }
}
