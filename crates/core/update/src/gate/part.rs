use std::{collections::BTreeSet, fmt};

use aos_types::{ItemId, ItemType};
use serde::{Deserialize, Serialize};

use crate::{DesiredItem, Target};

/// A part of an update that has a gate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdatePart {
    /// Services, unit configuration, node states (SOTA).
    Software,
    /// Components (FOTA).
    Firmware,
}

impl UpdatePart {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Software, Self::Firmware];

    /// The part an item belongs to.
    pub const fn of(item_type: ItemType) -> Self {
        match item_type {
            ItemType::Component => Self::Firmware,
            ItemType::Service | ItemType::Layer => Self::Software,
        }
    }
}

impl fmt::Display for UpdatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::Firmware => "firmware",
        })
    }
}

/// What an update changes in one part, against the committed set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartChanges {
    /// Item versions that come.
    pub install: Vec<DesiredItem>,
    /// Item versions that go, those that are replaced too.
    pub remove: Vec<DesiredItem>,
    /// The version of a unit configuration that comes.
    pub unit_config: Option<String>,
    /// Instances are counted, placed or named otherwise, or Nodes change their state.
    pub rearranged: bool,
}

impl PartChanges {
    /// Whether this part stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What `target` changes in this part of `committed`.
pub fn changes_of(part: UpdatePart, target: &Target, committed: &Target) -> PartChanges {
    let new_in = |these: &Target, those: &Target| -> Vec<DesiredItem> {
        let known: BTreeSet<(&ItemId, &str, ItemType)> = those
            .items
            .iter()
            .map(|item| (&item.id, item.version.as_str(), item.item_type))
            .collect();
        these
            .items
            .iter()
            .filter(|item| UpdatePart::of(item.item_type) == part)
            .filter(|item| !known.contains(&(&item.id, item.version.as_str(), item.item_type)))
            .cloned()
            .collect()
    };
    let (mut unit_config, mut rearranged) = (None, false);
    if part == UpdatePart::Software {
        if target.unit_config != committed.unit_config {
            unit_config = target
                .unit_config
                .as_ref()
                .map(|config| config.version.clone());
        }
        rearranged = target.nodes != committed.nodes || target.subjects != committed.subjects;
    }
    let of_part = |set: &Target| -> Vec<_> {
        let all = set.instances.iter();
        all.filter(|entry| part_of(set, &entry.item) == part)
            .cloned()
            .collect()
    };
    PartChanges {
        install: new_in(target, committed),
        remove: new_in(committed, target),
        unit_config,
        rearranged: rearranged || of_part(target) != of_part(committed),
    }
}

fn part_of(set: &Target, item: &ItemId) -> UpdatePart {
    set.item(item)
        .map_or(UpdatePart::Software, |item| UpdatePart::of(item.item_type))
}

/// `target` in these parts, `committed` in the others. Certificates are means and always those of `target`; a subject stays
/// as long as one of the two sets knows it.
pub fn only(parts: &BTreeSet<UpdatePart>, target: &Target, committed: &Target) -> Target {
    if UpdatePart::ALL.iter().all(|part| parts.contains(part)) {
        return target.clone();
    }
    let comes = |set: &Target, item: &ItemId| parts.contains(&part_of(set, item));
    let mut items: Vec<DesiredItem> = target
        .items
        .iter()
        .filter(|item| comes(target, &item.id))
        .cloned()
        .collect();
    let taken: BTreeSet<ItemId> = items.iter().map(|item| item.id.clone()).collect();
    // An item that changed its kind is in both; the one that comes counts.
    let stays = |item: &ItemId| !comes(committed, item) && !taken.contains(item);
    items.extend(
        committed
            .items
            .iter()
            .filter(|item| stays(&item.id))
            .cloned(),
    );
    let instances = target
        .instances
        .iter()
        .filter(|entry| comes(target, &entry.item))
        .chain(
            committed
                .instances
                .iter()
                .filter(|entry| stays(&entry.item)),
        )
        .cloned()
        .collect();
    let mut subjects = target.subjects.clone();
    for subject in &committed.subjects {
        if !subjects.iter().any(|known| known.id == subject.id) {
            subjects.push(subject.clone());
        }
    }
    let software = if parts.contains(&UpdatePart::Software) {
        target
    } else {
        committed
    };
    Target {
        nodes: software.nodes.clone(),
        unit_config: software.unit_config.clone(),
        items,
        instances,
        subjects,
        ..target.clone()
    }
}
