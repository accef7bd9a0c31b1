use aos_api::{UnitCounts, UnitUpdate, UpdatePhase, UpdateStage};
use aos_types::{InstanceState, ItemState};
use serde::{Deserialize, Serialize};

/// What a desired state asks for, as far as progress is measured by it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DesiredContent {
    /// Items by id and version.
    pub items: Vec<DesiredItem>,
    /// Instances by item and subject.
    pub instances: Vec<DesiredInstances>,
}

/// An item of a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredItem {
    /// Id of the item.
    pub item_id: String,
    /// Version.
    pub version: String,
}

/// The instances of one item for one subject in a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredInstances {
    /// Id of the item.
    pub item_id: String,
    /// Id of the subject.
    pub subject_id: String,
    /// How many.
    pub num_instances: u64,
    /// Their priority.
    pub priority: u64,
    /// Labels a Node must have.
    pub labels: Vec<String>,
}

/// An item as reported.
pub(crate) struct SeenItem {
    pub item_id: String,
    pub version: String,
    pub state: ItemState,
}

/// An instance as reported.
pub(crate) struct SeenInstance {
    pub item_id: String,
    pub subject_id: String,
    pub version: String,
    pub state: InstanceState,
    pub preinstalled: bool,
    pub has_error: bool,
}

impl SeenInstance {
    /// Active, or inactive without complaint: it was meant to end, and has.
    fn is_well(&self) -> bool {
        let completed = self.state == InstanceState::Inactive && !self.has_error;
        self.state == InstanceState::Active || completed
    }
}

/// Counts instances; Nodes and subjects are counted elsewhere.
pub(crate) fn count(desired: Option<&DesiredContent>, instances: &[SeenInstance]) -> UnitCounts {
    let of = |state| instances.iter().filter(|seen| seen.state == state).count() as u64;
    UnitCounts {
        instances: instances.len() as u64,
        instances_active: instances.iter().filter(|seen| seen.is_well()).count() as u64,
        instances_failed: of(InstanceState::Failed),
        instances_desired: desired.map_or(0, |desired| {
            desired
                .instances
                .iter()
                .map(|group| group.num_instances)
                .sum()
        }),
        ..UnitCounts::default()
    }
}

/// How far a Unit is, from what is desired and what it reports.
pub(crate) fn phase(
    desired: Option<&DesiredContent>,
    acknowledged: bool,
    items: &[SeenItem],
    instances: &[SeenInstance],
    told: Option<&UnitUpdate>,
) -> UpdatePhase {
    let Some(desired) = desired else {
        return UpdatePhase::None;
    };
    if !acknowledged {
        return UpdatePhase::WaitingForUnit;
    }
    let phase = seen(desired, items, instances);
    let Some(told) = told else {
        return phase;
    };
    // What the Unit says of its update as a whole is known nowhere else, if no item changes its version.
    let under_way = told.stage != UpdateStage::None;
    if told.rollback.is_some() || (told.failure.is_some() && !under_way) {
        return UpdatePhase::Failed;
    }
    match (phase, told.stage) {
        (UpdatePhase::Installed | UpdatePhase::Installing, UpdateStage::Downloading) => {
            UpdatePhase::Downloading
        }
        (UpdatePhase::Failed | UpdatePhase::Downloading, _) => phase,
        _ if !told.waits.is_empty() => UpdatePhase::Pending,
        (UpdatePhase::Installed, UpdateStage::Pending) => UpdatePhase::Pending,
        (UpdatePhase::Installed, UpdateStage::Installing | UpdateStage::Launching) => {
            UpdatePhase::Installing
        }
        (UpdatePhase::Installed, UpdateStage::WaitingActive | UpdateStage::Finalizing) => {
            UpdatePhase::WaitingForActive
        }
        _ => phase,
    }
}

/// How far a Unit is, from what it reports of items and instances alone.
fn seen(desired: &DesiredContent, items: &[SeenItem], instances: &[SeenInstance]) -> UpdatePhase {
    let version_of = |item_id: &str| {
        desired
            .items
            .iter()
            .find(|item| item.item_id == item_id)
            .map(|item| item.version.as_str())
    };
    // A desired item that the Unit does not speak of yet is about to be fetched.
    let states: Vec<ItemState> = desired
        .items
        .iter()
        .map(|item| {
            items
                .iter()
                .find(|seen| seen.item_id == item.item_id && seen.version == item.version)
                .map_or(ItemState::Downloading, |seen| seen.state)
        })
        .collect();
    let wanted = |seen: &&SeenInstance| version_of(&seen.item_id) == Some(seen.version.as_str());
    if states.contains(&ItemState::Failed)
        || instances
            .iter()
            .filter(wanted)
            .any(|seen| seen.state == InstanceState::Failed)
    {
        return UpdatePhase::Failed;
    }
    if states.iter().any(|state| {
        matches!(
            state,
            ItemState::Downloading | ItemState::Unknown | ItemState::Removed | ItemState::Removing
        )
    }) {
        return UpdatePhase::Downloading;
    }
    if states.contains(&ItemState::Pending) {
        return UpdatePhase::Pending;
    }
    let left_over = instances.iter().any(|seen| {
        !seen.preinstalled
            && seen.state != InstanceState::Inactive
            && (version_of(&seen.item_id) != Some(seen.version.as_str())
                || !desired.instances.iter().any(|group| {
                    group.item_id == seen.item_id && group.subject_id == seen.subject_id
                }))
    });
    let missing = desired.instances.iter().any(|group| {
        let of_group = |seen: &&SeenInstance| {
            seen.item_id == group.item_id && seen.subject_id == group.subject_id
        };
        (instances.iter().filter(of_group).filter(wanted).count() as u64) < group.num_instances
    });
    if left_over || missing {
        return UpdatePhase::Installing;
    }
    let active = desired.instances.iter().all(|group| {
        let active = instances
            .iter()
            .filter(wanted)
            .filter(|seen| {
                seen.item_id == group.item_id
                    && seen.subject_id == group.subject_id
                    && seen.is_well()
            })
            .count() as u64;
        active == group.num_instances
    });
    if !active {
        return UpdatePhase::WaitingForActive;
    }
    if states.contains(&ItemState::Installing) {
        return UpdatePhase::WaitingForActive;
    }
    UpdatePhase::Installed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(count: u64) -> DesiredContent {
        DesiredContent {
            items: vec![DesiredItem {
                item_id: "i".into(),
                version: "2.0.0".into(),
            }],
            instances: vec![DesiredInstances {
                item_id: "i".into(),
                subject_id: "s".into(),
                num_instances: count,
                priority: 0,
                labels: vec![],
            }],
        }
    }

    fn item(version: &str, state: ItemState) -> SeenItem {
        SeenItem {
            item_id: "i".into(),
            version: version.into(),
            state,
        }
    }

    fn instance(version: &str, state: InstanceState) -> SeenInstance {
        SeenInstance {
            item_id: "i".into(),
            subject_id: "s".into(),
            version: version.into(),
            state,
            preinstalled: false,
            has_error: state == InstanceState::Failed,
        }
    }

    #[test]
    fn the_phase_follows_what_the_unit_reports() {
        use InstanceState as N;
        use ItemState as I;
        use UpdatePhase as P;
        let one = desired(1);
        let table: Vec<(&str, Vec<SeenItem>, Vec<SeenInstance>, P)> = vec![
            ("silent", vec![], vec![], P::Downloading),
            (
                "old runs, new is fetched",
                vec![item("1.0.0", I::Installed), item("2.0.0", I::Downloading)],
                vec![instance("1.0.0", N::Active)],
                P::Downloading,
            ),
            (
                "fetched",
                vec![item("2.0.0", I::Pending)],
                vec![instance("1.0.0", N::Active)],
                P::Pending,
            ),
            (
                "old still runs",
                vec![item("2.0.0", I::Installing)],
                vec![instance("1.0.0", N::Active)],
                P::Installing,
            ),
            (
                "new starts",
                vec![item("2.0.0", I::Installing)],
                vec![instance("2.0.0", N::Activating)],
                P::WaitingForActive,
            ),
            (
                "new runs, not committed",
                vec![item("2.0.0", I::Installing)],
                vec![instance("2.0.0", N::Active)],
                P::WaitingForActive,
            ),
            (
                "done",
                vec![item("2.0.0", I::Installed), item("1.0.0", I::Removed)],
                vec![instance("2.0.0", N::Active)],
                P::Installed,
            ),
            (
                "it has completed",
                vec![item("2.0.0", I::Installed)],
                vec![instance("2.0.0", N::Inactive)],
                P::Installed,
            ),
            (
                "it rests while the Unit is offline",
                vec![item("2.0.0", I::Installed)],
                vec![SeenInstance {
                    has_error: true,
                    ..instance("2.0.0", N::Inactive)
                }],
                P::WaitingForActive,
            ),
            (
                "one crashed",
                vec![item("2.0.0", I::Installed)],
                vec![instance("2.0.0", N::Failed)],
                P::Failed,
            ),
            (
                "refused",
                vec![item("2.0.0", I::Failed)],
                vec![instance("1.0.0", N::Active)],
                P::Failed,
            ),
        ];
        for (name, items, instances, expected) in table {
            assert_eq!(
                phase(Some(&one), true, &items, &instances, None),
                expected,
                "{name}"
            );
        }
        assert_eq!(phase(None, false, &[], &[], None), P::None);
        assert_eq!(phase(Some(&one), false, &[], &[], None), P::WaitingForUnit);
        let nothing = DesiredContent::default();
        assert_eq!(phase(Some(&nothing), true, &[], &[], None), P::Installed);
        assert_eq!(
            phase(
                Some(&nothing),
                true,
                &[item("1.0.0", I::Installed)],
                &[instance("1.0.0", N::Active)],
                None
            ),
            P::Installing,
            "what is not desired any more still runs"
        );
        let two = desired(2);
        let seen = [instance("2.0.0", N::Active), instance("2.0.0", N::Active)];
        assert_eq!(count(Some(&two), &seen).instances_active, 2);
        assert_eq!(count(Some(&two), &seen).instances_desired, 2);
    }

    #[test]
    fn what_the_unit_says_of_its_update_counts_where_no_item_changes() {
        use UpdatePhase as P;
        use UpdateStage as S;
        let one = desired(1);
        let items = [item("2.0.0", ItemState::Installed)];
        let instances = [instance("2.0.0", InstanceState::Active)];
        let told = |stage| UnitUpdate {
            stage,
            goes_back: false,
            waits: vec![],
            failure: None,
            rollback: None,
        };
        let failed = || aos_api::UpdateFailure {
            stage: S::WaitingActive,
            at: aos_time::Timestamp::from_secs(0),
            error: None,
            attempts: 3,
            next_try: None,
        };
        let waiting = UnitUpdate {
            waits: vec![aos_api::UpdateWait {
                part: aos_api::UpdatePart::Software,
                reason: "it waits to be started".into(),
                until: None,
            }],
            ..told(S::Pending)
        };
        for (update, expected) in [
            (told(S::None), P::Installed),
            (waiting, P::Pending),
            (told(S::Launching), P::Installing),
            (told(S::WaitingActive), P::WaitingForActive),
            (
                UnitUpdate {
                    failure: Some(failed()),
                    ..told(S::None)
                },
                P::Failed,
            ),
            (
                UnitUpdate {
                    failure: Some(failed()),
                    ..told(S::Downloading)
                },
                P::Downloading,
            ),
            (
                UnitUpdate {
                    rollback: Some(failed()),
                    ..told(S::None)
                },
                P::Failed,
            ),
        ] {
            assert_eq!(
                phase(Some(&one), true, &items, &instances, Some(&update)),
                expected,
                "{update:?}"
            );
        }
    }
}
