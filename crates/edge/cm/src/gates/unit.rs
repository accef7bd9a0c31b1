use std::{collections::BTreeSet, time::Duration};

use aos_ipc::{convert::time_to_proto, proto::aos::unit::v1 as pb};
use aos_update::{DesiredItem, Order, PartState, Readiness, UpdatePart, WaitReason};
use tonic::Status;

use super::Desk;

/// The longest a report of readiness may count, in seconds: a program that has died must not open gates for ever.
const LONGEST_REPORT: u32 = 3600;
/// How long it counts if it does not say, in seconds.
const REPORT: u32 = 60;

/// The word for a part, as it came.
fn part_word(word: &str) -> Result<UpdatePart, Status> {
    UpdatePart::ALL
        .into_iter()
        .find(|part| part.to_string() == word)
        .ok_or_else(|| {
            Status::invalid_argument("there are two parts of an update: software and firmware")
        })
}

fn part(desk: &Desk, part: UpdatePart) -> pb::UpdatePart {
    let status = desk.part(part);
    let items = |items: &[DesiredItem]| -> Vec<pb::UpdateItem> {
        items
            .iter()
            .map(|item| pb::UpdateItem {
                item_id: item.id.to_string(),
                version: item.version.clone(),
            })
            .collect()
    };
    pb::UpdatePart {
        part: part.to_string(),
        state: match status.state {
            PartState::NoUpdate => "no update",
            PartState::Downloading => "downloading",
            PartState::Ready => "ready",
            PartState::Updating => "updating",
        }
        .into(),
        update: status.update,
        install: items(&status.changes.install),
        remove: items(&status.changes.remove),
        unit_config: status.changes.unit_config.clone().unwrap_or_default(),
        waits_for: status.waits.as_ref().map(kind).unwrap_or_default().into(),
        reason: status
            .waits
            .map(|reason| reason.to_string())
            .unwrap_or_default(),
        expires_at: status.expires_at.map(time_to_proto),
        expired: status.expired,
        started: status.triggered,
        needs_consent: status.needs_consent,
        consent: status.consent.map(|consent| pb::UserConsent {
            given: consent.given,
            at: Some(time_to_proto(consent.at)),
            reason: consent.reason,
        }),
        error: status
            .error
            .map(|error| error.to_string())
            .unwrap_or_default(),
    }
}

const fn kind(reason: &WaitReason) -> &'static str {
    match reason {
        WaitReason::Trigger => "trigger",
        WaitReason::Slot { .. } => "slot",
        WaitReason::Clock => "clock",
        WaitReason::Consent => "consent",
        WaitReason::Refused { .. } => "refused",
        WaitReason::Asking | WaitReason::NotReady { .. } => "readiness",
    }
}

/// Both parts of the update under way.
pub(crate) fn shown(desk: &Desk) -> pb::GetUpdateResponse {
    pb::GetUpdateResponse {
        parts: UpdatePart::ALL.map(|one| part(desk, one)).into(),
    }
}

/// The user's yes or no.
pub(crate) async fn consent(desk: &Desk, asked: pb::ConsentRequest) -> Result<(), Status> {
    let parts = asked.parts.iter().map(|word| part_word(word));
    let parts: BTreeSet<UpdatePart> = parts.collect::<Result<_, _>>()?;
    let order = Order::Consent {
        update: asked.update,
        parts,
        given: asked.given,
        reason: asked.reason,
    };
    desk.order(order).await?;
    tracing::info!(given = asked.given, "the user has decided about the update");
    Ok(())
}

/// A start by hand, also of what has expired.
pub(crate) async fn start(desk: &Desk, asked: &pb::StartUpdateRequest) -> Result<(), Status> {
    let part = part_word(&asked.part)?;
    let order = Order::Start {
        part,
        again: asked.again,
    };
    desk.order(order).await?;
    tracing::info!(%part, "somebody on the Unit starts the update");
    Ok(())
}

/// What a program of the Unit says of its readiness.
pub(crate) fn report_readiness(
    desk: &Desk,
    asked: pb::ReportReadinessRequest,
) -> Result<(), Status> {
    let seconds = match asked.valid_for_secs {
        0 => REPORT,
        seconds if seconds <= LONGEST_REPORT => seconds,
        seconds => {
            return Err(Status::invalid_argument(format!(
                "valid_for_secs is {seconds}; a report counts {LONGEST_REPORT} s at most, so repeat it"
            )));
        }
    };
    let readiness = match asked.ready {
        true => Readiness::Ready,
        false => Readiness::NotReady(asked.reason.chars().take(256).collect()),
    };
    match desk
        .readiness
        .report(readiness, Duration::from_secs(seconds.into()))
    {
        true => Ok(()),
        false => Err(Status::failed_precondition(
            "readiness is not asked on this Unit: set `[cm.gates.readiness]` in the configuration of CM",
        )),
    }
}
