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
