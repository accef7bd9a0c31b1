use std::{collections::HashMap, hash::Hash};

use aos_cloud_protocol::{InstancesStatus, UnitStatus};

/// What `now` says that `before` did not. `None` if something is gone: a delta cannot say that, a full status can.
pub(crate) fn delta(before: &UnitStatus, now: &UnitStatus) -> Option<UnitStatus> {
    let nodes = changed(&before.nodes, &now.nodes, |node| &node.info.id)?;
    let items = changed(&before.items, &now.items, |item| {
        (&item.item, &item.version)
    })?;
    let group = |group: &'_ InstancesStatus| {
        let (item, subject) = (group.item.clone(), group.subject.clone());
        (item, subject, group.version.clone())
    };
    let instances = changed(&before.instances, &now.instances, group)?;
    // Inside a group an instance may go too.
    let groups = before.instances.iter().flatten();
    let groups: HashMap<_, _> = groups.map(|one| (group(one), one)).collect();
    for one in instances.iter().flatten() {
        let old = groups.get(&group(one));
        let kept: Vec<u64> = one.instances.iter().map(|one| one.index).collect();
        if old.is_some_and(|old| !old.instances.iter().all(|one| kept.contains(&one.index))) {
            return None;
        }
    }
    Some(UnitStatus {
        is_delta: true,
        // Few and always together: all of them if one has changed.
        unit_config: (before.unit_config != now.unit_config)
            .then(|| now.unit_config.clone())
            .flatten(),
        nodes,
        items,
        instances,
        subjects: (before.subjects != now.subjects)
            .then(|| now.subjects.clone())
            .flatten(),
        update: (before.update != now.update)
            .then(|| now.update.clone())
            .flatten(),
        placements: (before.placements != now.placements)
            .then(|| now.placements.clone())
            .flatten(),
    })
}

/// Whether a delta says anything.
pub(crate) fn is_empty(status: &UnitStatus) -> bool {
    status.unit_config.is_none()
        && status.nodes.is_none()
        && status.items.is_none()
        && status.instances.is_none()
        && status.subjects.is_none()
        && status.update.is_none()
        && status.placements.is_none()
}

/// The elements that are new or different; `None` if one has gone.
#[allow(clippy::option_option, reason = "gone, unchanged, changed")]
fn changed<'a, T: Clone + PartialEq, K: Eq + Hash>(
    before: &'a Option<Vec<T>>,
    now: &'a Option<Vec<T>>,
    key: impl Fn(&'a T) -> K,
) -> Option<Option<Vec<T>>> {
    let (before, now) = (
        before.as_deref().unwrap_or_default(),
        now.as_deref().unwrap_or_default(),
    );
    let mut olds: HashMap<K, &T> = before.iter().map(|old| (key(old), old)).collect();
    let mut news = Vec::new();
    for new in now {
        if olds.remove(&key(new)) != Some(new) {
            news.push(new.clone());
        }
    }
    if !olds.is_empty() {
        return None;
    }
    Some((!news.is_empty()).then_some(news))
}

#[cfg(test)]
mod tests {
    use aos_cloud_protocol::{InstanceStatus, InstancesStatus, ItemIdentity, ItemStatus};
    use aos_types::{InstanceState, ItemId, ItemState, NodeId, RuntimeId, SubjectId};

    use super::*;

    fn item(name: &str, state: ItemState) -> ItemStatus {
        ItemStatus {
            item: ItemIdentity::service(ItemId::new(name).unwrap()),
            version: "1".into(),
            state,
            error: None,
        }
    }

    fn group(name: &str, states: &[InstanceState]) -> InstancesStatus {
        let instance = |(index, state): (usize, &InstanceState)| InstanceStatus {
            node: Some(NodeId::new("main").unwrap()),
            runtime: Some(RuntimeId::new("crun").unwrap()),
            index: index as u64,
            state: *state,
            state_checksum: None,
            error: None,
        };
        InstancesStatus {
            item: ItemIdentity::service(ItemId::new(name).unwrap()),
            subject: SubjectId::new("s").unwrap(),
            version: "1".into(),
            instances: states.iter().enumerate().map(instance).collect(),
        }
    }

    fn status(items: Vec<ItemStatus>, instances: Vec<InstancesStatus>) -> UnitStatus {
        UnitStatus {
            is_delta: false,
            unit_config: Some(vec![]),
            nodes: Some(vec![]),
            items: Some(items),
            instances: Some(instances),
            subjects: Some(vec![]),
            ..UnitStatus::default()
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        use InstanceState::{Activating, Active};
        let before = status(
            vec![
                item("a", ItemState::Installed),
                item("b", ItemState::Pending),
            ],
            vec![group("a", &[Active]), group("b", &[Activating, Active])],
        );
        let now = status(
            vec![
                item("a", ItemState::Installed),
                item("b", ItemState::Installed),
            ],
            vec![group("a", &[Active]), group("b", &[Active, Active])],
        );
        let told = delta(&before, &now).unwrap();
        assert!(told.is_delta);
        assert_eq!(told.items, Some(vec![item("b", ItemState::Installed)]));
        assert_eq!(told.instances, Some(vec![group("b", &[Active, Active])]));
        assert_eq!(
            (told.nodes, told.unit_config, told.subjects),
            (None, None, None)
        );
        assert!(is_empty(&delta(&now, &now).unwrap()));
    }

    #[test]
    fn what_is_gone_needs_a_full_status() {
        use InstanceState::Active;
        let two = status(
            vec![item("a", ItemState::Installed)],
            vec![group("a", &[Active, Active])],
        );
        let one = status(
            vec![item("a", ItemState::Installed)],
            vec![group("a", &[Active])],
        );
        assert_eq!(delta(&two, &one), None);
        assert_eq!(delta(&two, &status(vec![], vec![])), None);
        assert!(delta(&one, &two).is_some());
    }

    /// What the cloud makes of a delta: each element takes the place of the one with its name.
    fn applied(before: &UnitStatus, delta: UnitStatus) -> UnitStatus {
        let mut items = before.items.clone().unwrap();
        for new in delta.items.into_iter().flatten() {
            items.retain(|old| (&old.item, &old.version) != (&new.item, &new.version));
            items.push(new);
        }
        items.sort_by(|one, other| one.item.cmp(&other.item));
        UnitStatus {
            items: Some(items),
            ..before.clone()
        }
    }

    #[test]
    fn gap_20_items_that_come_anywhere_in_the_list_arrive_whole() {
        let states = [None, Some(ItemState::Pending), Some(ItemState::Installed)];
        // Every list of four items, each absent or in one of two states, to every one that has no item less.
        let list = |number: usize| {
            let items = ["a", "b", "c", "d"].iter().enumerate();
            let items = items.filter_map(|(place, name)| {
                states[number / 3_usize.pow(place as u32) % 3].map(|state| item(name, state))
            });
            status(items.collect(), vec![])
        };
        let mut told = 0;
        for before in (0..81).map(list) {
            for now in (0..81).map(list) {
                let Some(delta) = delta(&before, &now) else {
                    let has = |one: &ItemStatus| {
                        now.items.iter().flatten().any(|new| new.item == one.item)
                    };
                    assert!(!before.items.iter().flatten().all(has));
                    continue;
                };
                told += 1;
                assert_eq!(applied(&before, delta), now);
            }
        }
        assert_eq!(told, 7_usize.pow(4));
    }
}
