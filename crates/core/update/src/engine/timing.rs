use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo};

use super::{Engine, Step};
use crate::{Direction, Effect, Failures, Output, UpdateState};

impl Engine {
    pub(super) fn time_passed(&mut self, now: Timestamp) {
        if self.retry_commit_at.is_some_and(|at| at <= now) {
            self.retry_commit_at = None;
            self.act(now);
            return;
        }
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.state == UpdateState::Pending {
            self.ask_gates(now);
            return;
        }
        if cycle.deadline.is_none_or(|at| at > now) {
            return;
        }
        let (state, direction) = (cycle.state, cycle.direction);
        match (state, direction) {
            (UpdateState::WaitingActive, _) => self.judge(now),
            (UpdateState::None | UpdateState::Pending | UpdateState::Finalizing, _) => {}
            (_, Direction::Forward) => {
                self.cancel();
                let error = ErrorInfo::new(
                    AosCode::Timeout,
                    format!("{state} took longer than it may; the update was given up"),
                );
                self.fail(now, Failures::of_step(error));
            }
            (UpdateState::Launching, Direction::Back) => {
                self.awaited = None;
                self.enter(now, UpdateState::WaitingActive);
            }
            (_, Direction::Back) => {
                self.cancel();
                self.enter(now, UpdateState::Launching);
            }
        }
    }

    pub(super) fn cancel(&mut self) {
        if let Some((effect, Step::Download | Step::Readiness | Step::Images)) = self.awaited.take()
            && self.config.policy.cancels()
        {
            let id = self.next_id();
            self.outputs
                .push_back(Output::Do(id, Effect::Cancel { effect }));
        }
    }

    pub(super) fn watch_time(&mut self, now: Timestamp) {
        let deadline = self.record.cycle.as_ref().and_then(|cycle| cycle.deadline);
        let gates = (self.state() == UpdateState::Pending)
            .then(|| self.gates_wake())
            .flatten();
        let times = [deadline, self.retry_commit_at, gates];
        let wake = times.into_iter().flatten().min();
        if wake != self.wake {
            self.wake = wake;
            if let Some(at) = wake {
                self.outputs.push_back(Output::WakeAt(at.max(now)));
            }
        }
    }
}
