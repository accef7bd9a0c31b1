use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aos_types::{ItemId, ItemType, SubjectId};
use serde::{Deserialize, Serialize};

use crate::{DesiredInstances, DesiredItem, Target};

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
    let same = target.items == committed.items && target.instances == committed.instances;
    let (new, old) = match same {
        true => (Items::new(), Items::new()),
        false => (by_id(target), by_id(committed)),
    };
    let missing = |these: &Items<'_>, those: &Items<'_>| -> Vec<DesiredItem> {
        let of_part = these
            .values()
            .filter(|item| UpdatePart::of(item.item_type) == part);
        of_part
            .filter(|item| those.get(&item.id) != Some(*item))
            .map(|item| (*item).clone())
            .collect()
    };
    let (mut unit_config, mut rearranged) = (None, false);
    if part == UpdatePart::Software {
        let config = target.unit_config.as_ref();
        if target.unit_config != committed.unit_config {
            unit_config = config.map(|config| config.version.clone());
        }
        let nodes = |set: &Target| -> BTreeMap<_, _> {
            let all = set.nodes.iter();
            all.map(|node| (node.node.clone(), node.state)).collect()
        };
        let subjects = |set: &Target| -> BTreeMap<_, _> {
            let all = set.subjects.iter();
            all.map(|subject| (subject.id.clone(), subject.subject_type))
                .collect()
        };
        rearranged = nodes(target) != nodes(committed) || subjects(target) != subjects(committed);
    }
    PartChanges {
        install: missing(&new, &old),
        remove: missing(&old, &new),
        unit_config,
        rearranged: rearranged
            || (!same && instances(part, target, &new) != instances(part, committed, &old)),
    }
}

/// The instances of one part, whatever their order.
fn instances<'a>(
    part: UpdatePart,
    set: &'a Target,
    items: &Items<'_>,
) -> BTreeMap<(&'a ItemId, &'a SubjectId), &'a DesiredInstances> {
    let all = set.instances.iter();
    all.filter(|entry| part_of(items, &entry.item) == part)
        .map(|entry| ((&entry.item, &entry.subject), entry))
        .collect()
}

type Items<'a> = BTreeMap<&'a ItemId, &'a DesiredItem>;

fn by_id(set: &Target) -> Items<'_> {
    set.items.iter().map(|item| (&item.id, item)).collect()
}

fn part_of(items: &Items<'_>, item: &ItemId) -> UpdatePart {
    items
        .get(item)
        .map_or(UpdatePart::Software, |item| UpdatePart::of(item.item_type))
}

/// `target` in these parts, `committed` in the others. Certificates are means and always those of `target`; a subject stays
/// as long as one of the two sets knows it.
pub fn only(parts: &BTreeSet<UpdatePart>, target: &Target, committed: &Target) -> Target {
    if UpdatePart::ALL.iter().all(|part| parts.contains(part)) {
        return target.clone();
    }
    let (new, old) = (by_id(target), by_id(committed));
    let comes = |set: &Items<'_>, item: &ItemId| parts.contains(&part_of(set, item));
    let mut items: Vec<DesiredItem> = target
        .items
        .iter()
        .filter(|item| comes(&new, &item.id))
        .cloned()
        .collect();
    let taken: BTreeSet<ItemId> = items.iter().map(|item| item.id.clone()).collect();
    // An item that changed its kind is in both; the one that comes counts.
    let stays = |item: &ItemId| !comes(&old, item) && !taken.contains(item);
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
        .filter(|entry| comes(&new, &entry.item))
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
