//! What the status says of the update as a whole, and of instances without a place or not where they might be.

use aos_cloud_protocol::{
    ExcludedNode, ItemIdentity, PlacementStatus, UpdateFailure, UpdatePart as Part, UpdateStage,
    UpdateStatus, UpdateWait,
};
use aos_types::{AosCode, ErrorInfo};
use aos_update::{Direction, Failures, UpdatePart, UpdateState};

use super::EngineStatus;
use crate::placing::Explained;

/// Longest cause that is told, in characters; `aos unit why` tells the rest.
const LONGEST: usize = 1024;

/// Where the update stands, why the last one failed, and what keeps the committed set from coming back.
pub(super) fn of(engine: &EngineStatus) -> UpdateStatus {
    let cycle = engine.cycle.as_ref();
    let waits = UpdatePart::ALL.into_iter().filter_map(|part| {
        let status = engine.parts.of(part);
        Some(UpdateWait {
            part: match part {
                UpdatePart::Software => Part::Software,
                UpdatePart::Firmware => Part::Firmware,
            },
            reason: status.waits.as_ref()?.to_string(),
            until: status.expires_at,
        })
    });
    UpdateStatus {
        stage: stage(cycle.map_or(UpdateState::None, |cycle| cycle.state)),
        goes_back: cycle.is_some_and(|cycle| cycle.direction == Direction::Back),
        waits: waits.collect(),
        failure: engine.failure.as_ref().map(|failure| {
            let mut error = cause(&failure.failures);
            if failure.expired {
                error.message = format!("{} ({})", error.message, failure.outlook());
            }
            UpdateFailure {
                stage: stage(failure.state),
                at: failure.at,
                error: Some(error),
                attempts: failure.attempts,
                next_try: failure.retry_at,
            }
        }),
        rollback: engine.rollback.as_ref().map(|rollback| UpdateFailure {
            stage: UpdateStage::WaitingActive,
            at: rollback.at,
            error: Some(cause(&rollback.failures)),
            attempts: rollback.attempts,
            next_try: Some(rollback.retry_at),
        }),
    }
}

fn cause(failures: &Failures) -> ErrorInfo {
    let text = failures.summary().unwrap_or_default();
    let one = failures.step.clone();
    ErrorInfo {
        message: text.chars().take(LONGEST).collect(),
        ..one.unwrap_or_else(|| ErrorInfo::new(AosCode::Failed, ""))
    }
}

const fn stage(state: UpdateState) -> UpdateStage {
    match state {
        UpdateState::None => UpdateStage::None,
        UpdateState::Downloading => UpdateStage::Downloading,
        UpdateState::Pending => UpdateStage::Pending,
        UpdateState::Installing => UpdateStage::Installing,
        UpdateState::Launching => UpdateStage::Launching,
        UpdateState::WaitingActive => UpdateStage::WaitingActive,
        UpdateState::Finalizing => UpdateStage::Finalizing,
    }
}

/// The scheduler's own words.
pub(super) fn placements(explained: &[Explained]) -> Vec<PlacementStatus> {
    let all = explained.iter().map(|one| PlacementStatus {
        item: ItemIdentity::from(&one.ident),
        subject: one.ident.subject.clone(),
        index: one.ident.index,
        node: one.node.clone(),
        reason: one.reason.clone(),
        excluded: one
            .excluded
            .iter()
            .map(|excluded| ExcludedNode {
                node: excluded.node.clone(),
                rule: excluded.rule.to_owned(),
                text: excluded.text.clone(),
            })
            .collect(),
    });
    all.collect()
}
