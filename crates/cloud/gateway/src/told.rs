//! What a Unit says of its update and of places, in the words of the REST API and the store.

use aos_api::{UnitUpdate, UpdatePart, UpdateStage};
use aos_cloud_protocol as wire;
use aos_db::PlacementReport;

const fn stage(stage: wire::UpdateStage) -> UpdateStage {
    match stage {
        wire::UpdateStage::None => UpdateStage::None,
        wire::UpdateStage::Downloading => UpdateStage::Downloading,
        wire::UpdateStage::Pending => UpdateStage::Pending,
        wire::UpdateStage::Installing => UpdateStage::Installing,
        wire::UpdateStage::Launching => UpdateStage::Launching,
        wire::UpdateStage::WaitingActive => UpdateStage::WaitingActive,
        wire::UpdateStage::Finalizing => UpdateStage::Finalizing,
    }
}

fn failure(failure: wire::UpdateFailure) -> aos_api::UpdateFailure {
    aos_api::UpdateFailure {
        stage: stage(failure.stage),
        at: failure.at,
        error: failure.error.map(Into::into),
        attempts: failure.attempts,
        next_try: failure.next_try,
    }
}

pub(crate) fn update(update: wire::UpdateStatus) -> UnitUpdate {
    let waits = update.waits.into_iter().map(|wait| aos_api::UpdateWait {
        part: match wait.part {
            wire::UpdatePart::Software => UpdatePart::Software,
            wire::UpdatePart::Firmware => UpdatePart::Firmware,
        },
        reason: wait.reason,
        until: wait.until,
    });
    UnitUpdate {
        stage: stage(update.stage),
        goes_back: update.goes_back,
        waits: waits.collect(),
        failure: update.failure.map(failure),
        rollback: update.rollback.map(failure),
    }
}

pub(crate) fn placement(placement: wire::PlacementStatus) -> PlacementReport {
    PlacementReport {
        item_id: placement.item.item.to_string(),
        subject_id: placement.subject.to_string(),
        instance: placement.index,
        node: placement.node.map(|node| node.to_string()),
        reason: placement.reason,
        excluded: placement
            .excluded
            .into_iter()
            .map(|one| (one.node.to_string(), one.rule, one.text))
            .collect(),
    }
}
