use std::{fmt, sync::Arc};

use aos_time::Timestamp;
use aos_types::ErrorInfo;

use super::{Engine, pending::schedule};
use crate::{
    Consent, Direction, PartChanges, UpdatePart, UpdateState, WaitReason, changes_of, expiry,
};

/// Where one part of an update stands: the four states that programs on the Unit know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PartState {
    /// Nothing changes in it.
    #[default]
    NoUpdate,
    /// Its content is fetched and verified.
    Downloading,
    /// It waits at its gate.
    Ready,
    /// It is being carried out, or undone.
    Updating,
}

impl fmt::Display for PartState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUpdate => "there is no update of it",
            Self::Downloading => "it is being downloaded",
            Self::Ready => "it is ready and waits",
            Self::Updating => "it is being updated",
        })
    }
}

/// One part of the update under way, for programs and people on the Unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartStatus {
    /// Where it stands.
    pub state: PartState,
    /// The update's number.
    pub update: u64,
    /// What it changes.
    pub changes: Arc<PartChanges>,
    /// What it waits for.
    pub waits: Option<WaitReason>,
    /// It waits no longer, although the update goes on.
    pub expired: bool,
    /// Until when it may wait.
    pub expires_at: Option<Timestamp>,
    /// Somebody has started it.
    pub triggered: bool,
    /// The user is asked.
    pub needs_consent: bool,
    /// What he said.
    pub consent: Option<Consent>,
    /// Why the last update of this part did not happen.
    pub error: Option<ErrorInfo>,
}

impl Engine {
    /// Where one part of the update stands.
    pub fn part_state(&self, part: UpdatePart) -> PartState {
        let Some(cycle) = &self.record.cycle else {
            return PartState::NoUpdate;
        };
        let changes = self.waiting.changes.contains_key(&part);
        if cycle.direction == Direction::Back {
            // What failed is not known by part any more: both are held up by the way back.
            return PartState::Updating;
        }
        // An update that changes neither repairs what is committed, and that is software.
        let repairs = self.waiting.changes.is_empty() && part == UpdatePart::Software;
        if !changes && !repairs {
            return PartState::NoUpdate;
        }
        let later = cycle.asked.is_some()
            && changes_of(part, &cycle.target, &self.record.committed).is_empty();
        match cycle.state {
            _ if later => PartState::Ready,
            UpdateState::None => PartState::NoUpdate,
            UpdateState::Downloading => PartState::Downloading,
            UpdateState::Pending => PartState::Ready,
            UpdateState::Installing
            | UpdateState::Launching
            | UpdateState::WaitingActive
            | UpdateState::Finalizing => PartState::Updating,
        }
    }

    /// All that is to be said about one part of the update.
    pub fn part_status(&self, part: UpdatePart) -> PartStatus {
        let state = self.part_state(part);
        let held = self.waiting.held.get(&part);
        let mut status = PartStatus {
            state,
            error: self.part_error(part),
            ..PartStatus::default()
        };
        let cycle = self.record.cycle.as_ref();
        let (Some(gates), Some(whole)) = (&self.record.gates, cycle.and_then(crate::Cycle::whole))
        else {
            return status;
        };
        if state == PartState::NoUpdate {
            return status;
        }
        let gate = gates.of(part);
        let policy = &self.config.gates;
        status.update = gates.update;
        status.changes = self.waiting.changes.get(&part).cloned().unwrap_or_default();
        if state != PartState::Updating {
            status.waits = held.map(|held| held.reason.clone());
            status.expired = held.is_some_and(|held| held.expired);
            status.expires_at = Some(expiry(schedule(whole, part), gate.since, policy.ttl));
        }
        status.triggered = gate.triggered;
        status.needs_consent = policy.consent.contains(&part);
        status.consent.clone_from(&gate.consent);
        status
    }

    /// Why the last update of this part did not happen: an error of one of its items, else one of the whole.
    fn part_error(&self, part: UpdatePart) -> Option<ErrorInfo> {
        let failure = self.record.failure.as_ref()?;
        let target = &failure.target;
        let of_part = |id| {
            let item = target.item(id);
            item.is_some_and(|item| UpdatePart::of(item.item_type) == part)
        };
        let failures = &failure.failures;
        let item = failures.items.iter().find(|(id, _)| of_part(*id));
        let instance = failures
            .instances
            .iter()
            .find(|(ident, _)| of_part(&ident.item));
        let node = failures.nodes.values().next();
        let software = part == UpdatePart::Software;
        let config = failures.unit_config.as_ref().filter(|_| software);
        item.map(|(_, error)| error)
            .or(instance.map(|(_, error)| error))
            .or(config)
            .or(node.filter(|_| software))
            .or(failures.step.as_ref())
            .cloned()
    }
}
