use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo};

use super::{Engine, Step};
use crate::{Direction, Effect, Failures, Output, UpdateState};

/// What time alone brings.
impl Engine {
    /// The longest a stage may take; a gate has a time of its own, and a commit is repeated until it succeeds.
    pub(super) fn limit(&self, state: UpdateState) -> Option<std::time::Duration> {
        let limits = &self.config.deadlines;
        match state {
            UpdateState::Downloading => Some(limits.downloading),
            UpdateState::Installing => Some(limits.installing),
            UpdateState::Launching => Some(limits.launching),
            UpdateState::WaitingActive => Some(limits.waiting_active),
            UpdateState::None | UpdateState::Pending | UpdateState::Finalizing => None,
        }
    }

    pub(super) fn time_passed(&mut self, now: Timestamp) {
        if self.retry_commit_at.is_some_and(|at| at <= now) {
            self.retry_commit_at = None;
            self.act(now);
            return;
        }
        if self.due_back().is_some_and(|at| at <= now) {
            self.retry_back(now);
            return;
        }
        if self.due_again().is_some_and(|at| at <= now) {
            self.retry(now);
            return;
        }
        if self.state() == UpdateState::Pending {
            self.ask_gates(now);
            return;
        }
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.deadline.is_none_or(|at| at > now) {
            if self.settles_at().is_some_and(|at| at <= now) {
                self.judge(now);
            }
            return;
        }
        let undo_by = cycle.undo.as_ref().and_then(|undo| undo.by);
        match (cycle.state, cycle.direction) {
            (UpdateState::WaitingActive, _) => self.judge(now),
            (UpdateState::None | UpdateState::Pending | UpdateState::Finalizing, _) => {}
            (UpdateState::Downloading, Direction::Forward)
                if undo_by.is_some_and(|at| at <= now) =>
            {
                self.undo_first(now);
            }
            (state, Direction::Forward) => {
                self.cancel();
                let error = ErrorInfo::new(
                    AosCode::Timeout,
                    format!("{state} took longer than it may; the update was given up"),
                );
                self.fail(now, Failures::of_step(error));
            }
            (UpdateState::Launching, Direction::Back) => {
                self.cancel();
                self.launched(now);
            }
            (_, Direction::Back) => {
                self.cancel();
                self.enter(now, UpdateState::Launching);
            }
        }
    }

    /// Only a policy that plants a fault lets an event move a deadline.
    pub(super) fn restart_deadline(&mut self, now: Timestamp) {
        let state = self.state();
        if self.config.policy.keeps_deadline(state) {
            return;
        }
        let limit = self.limit(state);
        if let Some(cycle) = &mut self.record.cycle {
            cycle.deadline = limit.map(|limit| now + limit);
        }
    }

    pub(super) fn cancel(&mut self) {
        if let Some((effect, step)) = self.awaited.take()
            && let Step::Download | Step::Readiness | Step::Images | Step::Launch = step
            && self.config.policy.cancels()
        {
            let id = self.next_id();
            self.outputs
                .push_back(Output::Do(id, Effect::Cancel { effect }));
        }
    }

    /// When the failed way back is tried again, if nothing is under way that touches the Nodes.
    fn due_back(&self) -> Option<Timestamp> {
        let retries = self.config.policy.retries_back();
        let rollback = self.record.rollback.as_ref().filter(|_| retries)?;
        let cycle = self.record.cycle.as_ref();
        let free =
            cycle.is_none_or(|cycle| cycle.state == UpdateState::Pending && cycle.undo.is_none());
        free.then_some(rollback.retry_at)
    }

    /// When the failed update is tried again.
    fn due_again(&self) -> Option<Timestamp> {
        let free = self.record.cycle.is_none();
        let failure = self.record.failure.as_ref().filter(|_| free)?;
        failure.retry_at
    }

    /// A clock that was put back must not make anything wait longer than it may.
    fn follow_clock(&mut self, now: Timestamp) {
        if !self.config.policy.follows_clock() {
            return;
        }
        let state = self.state();
        let limit = self.limit(state);
        let record = &mut self.record;
        if let Some(cycle) = &mut record.cycle
            && let (Some(deadline), Some(limit)) = (&mut cycle.deadline, limit)
        {
            *deadline = (*deadline).min(now + limit);
        }
        if let Some(failure) = &mut record.failure
            && let Some(at) = &mut failure.retry_at
        {
            *at = (*at).min(now + self.config.retry.most);
        }
        if let Some(rollback) = &mut record.rollback {
            let most = now + self.config.rollback_retry.most;
            rollback.retry_at = rollback.retry_at.min(most);
        }
        if let Some(settling) = &mut self.settling {
            settling.since = settling.since.min(now);
        }
        if let Some(at) = &mut self.retry_commit_at {
            *at = (*at).min(now + self.config.commit_retry);
        }
    }

    pub(super) fn watch_time(&mut self, now: Timestamp) {
        self.follow_clock(now);
        let deadline = self.record.cycle.as_ref().and_then(|cycle| cycle.deadline);
        let pending = self.state() == UpdateState::Pending;
        let gates = pending.then(|| self.gates_wake()).flatten();
        let times = [
            deadline,
            self.retry_commit_at,
            gates,
            self.settles_at(),
            self.due_back(),
            self.due_again(),
        ];
        let wake = times.into_iter().flatten().min();
        if wake != self.wake {
            self.wake = wake;
            if let Some(at) = wake {
                self.outputs.push_back(Output::WakeAt(at.max(now)));
            }
        }
    }
}
