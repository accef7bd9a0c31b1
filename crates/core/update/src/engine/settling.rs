use std::time::Duration;

use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo};

use super::Engine;
use crate::{Direction, Failures, UpdateState};

/// All changed instances are active: since when, without interruption. Not stored: after a restart it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settling {
    pub(super) since: Timestamp,
    /// Of all of them; another number means that one was down, even if nobody saw it.
    restarts: u64,
}

/// Whether it lasts. A service that ends over and over is active each time for a moment.
impl Engine {
    /// All changed instances are active now, after so many restarts: whether that has lasted long enough.
    pub(super) fn has_settled(&mut self, now: Timestamp, restarts: u64) -> bool {
        let settling = self
            .settling
            .filter(|settling| settling.restarts == restarts)
            .unwrap_or(Settling {
                since: now,
                restarts,
            });
        self.settling = Some(settling);
        now >= settling.since + self.settle()
    }

    fn settle(&self) -> Duration {
        if !self.config.policy.settles() {
            return Duration::ZERO;
        }
        let most = self.config.deadlines.waiting_active / 2;
        self.config.settle.min(most)
    }

    /// When the update may be committed if nothing changes until then.
    pub(super) fn settles_at(&self) -> Option<Timestamp> {
        let cycle = self.record.cycle.as_ref()?;
        let waits = cycle.state == UpdateState::WaitingActive;
        let settling = self
            .settling
            .filter(|_| waits && cycle.direction == Direction::Forward)?;
        Some(settling.since + self.settle())
    }

    pub(super) fn not_settled(&self) -> Failures {
        Failures::of_step(ErrorInfo::new(
            AosCode::Timeout,
            format!(
                "all instances were active when the time was over, but not for {:?} without interruption; look at their logs",
                self.settle()
            ),
        ))
    }
}
