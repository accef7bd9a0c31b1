use aos_time::Timestamp;

use super::Engine;
use crate::{Failures, Target, UpdateState};

/// What the gates say of the update in Pending.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one exists at a time, for as long as it takes to act on it"
)]
#[expect(dead_code, reason = "no gate is asked yet")]
pub(super) enum Release {
    /// All of it may go on.
    All,
    /// This part of it may go on (the committed set in all other parts); the rest follows when this is committed.
    Part(Target),
    /// Nothing may go on yet.
    Wait {
        /// When a gate may open by itself.
        until: Option<Timestamp>,
    },
    /// It waited as long as it may: it fails, and only something newer brings it back.
    Expired(Failures),
}

/// Pending: everything is here and verified. The gates are asked what may go on: when the state is entered, after a
/// restart, after every input while something waits, and at the time the gates name.
impl Engine {
    pub(super) fn ask_gates(&mut self, now: Timestamp) {
        self.gate_at = None;
        match self.release(now) {
            Release::All => self.enter(now, UpdateState::Installing),
            Release::Part(part) => {
                if let Some(cycle) = &mut self.record.cycle {
                    let whole = std::mem::replace(&mut cycle.target, part);
                    cycle.asked.get_or_insert(whole);
                }
                self.enter(now, UpdateState::Installing);
            }
            Release::Wait { until } => self.gate_at = until,
            Release::Expired(failures) => self.fail(now, failures),
        }
    }

    /// What may go on at this moment.
    fn release(&mut self, _now: Timestamp) -> Release {
        Release::All
    }
}
