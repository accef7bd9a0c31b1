use aos_cloud_protocol::UnitStatus;

/// What `now` says that `before` did not. `None` if something is gone: a delta cannot say that, a full status can.
pub(crate) fn delta(before: &UnitStatus, now: &UnitStatus) -> Option<UnitStatus> {
    let nodes = changed(&before.nodes, &now.nodes, |one, other| {
        one.info.id == other.info.id
    })?;
    let items = changed(&before.items, &now.items, |one, other| {
        one.item == other.item && one.version == other.version
    })?;
    let instances = changed(&before.instances, &now.instances, |one, other| {
        one.item == other.item && one.subject == other.subject && one.version == other.version
    })?;
    // Inside a group an instance may go too.
    for group in now.instances.iter().flatten() {
        let old = before.instances.iter().flatten().find(|old| {
            old.item == group.item && old.subject == group.subject && old.version == group.version
        });
        let kept = |index| group.instances.iter().any(|one| one.index == index);
        if old.is_some_and(|old| !old.instances.iter().all(|one| kept(one.index))) {
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
    })
}

/// Whether a delta says anything.
pub(crate) fn is_empty(status: &UnitStatus) -> bool {
    status.unit_config.is_none()
        && status.nodes.is_none()
        && status.items.is_none()
        && status.instances.is_none()
        && status.subjects.is_none()
}

/// The elements that are new or different; `None` if one has gone.
#[allow(clippy::option_option, reason = "gone, unchanged, changed")]
fn changed<T: Clone + PartialEq>(
    before: &Option<Vec<T>>,
    now: &Option<Vec<T>>,
    same: impl Fn(&T, &T) -> bool,
) -> Option<Option<Vec<T>>> {
    let (before, now) = (
        before.as_deref().unwrap_or_default(),
        now.as_deref().unwrap_or_default(),
    );
    if before
        .iter()
        .any(|old| !now.iter().any(|new| same(old, new)))
    {
        return None;
    }
    let news: Vec<T> = now
        .iter()
        .filter(|new| !before.contains(new))
        .cloned()
        .collect();
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
            node: NodeId::new("main").unwrap(),
            runtime: RuntimeId::new("crun").unwrap(),
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
}
