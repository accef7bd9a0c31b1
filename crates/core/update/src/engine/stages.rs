use aos_time::Timestamp;

use super::{Engine, Step};
use crate::{Direction, Effect, EffectId, Failures, Report, UpdateState};

impl Engine {
    pub(super) fn enter(&mut self, now: Timestamp, state: UpdateState) {
        let limits = &self.config.deadlines;
        let limit = match state {
            UpdateState::Downloading => Some(limits.downloading),
            UpdateState::Installing => Some(limits.installing),
            UpdateState::Launching => Some(limits.launching),
            UpdateState::WaitingActive => Some(limits.waiting_active),
            // A gate may take as long as it likes; a commit is repeated until it succeeds.
            UpdateState::None | UpdateState::Pending | UpdateState::Finalizing => None,
        };
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        cycle.state = state;
        cycle.deadline = limit.map(|limit| now + limit);
        match state {
            UpdateState::Installing => cycle.touched = true,
            UpdateState::Launching => {
                self.record.launched = match cycle.direction {
                    Direction::Forward => Some(cycle.target.clone()),
                    Direction::Back => None,
                };
            }
            // The decision is this record; what follows tidies up and cannot fail the update any more.
            UpdateState::Finalizing => {
                self.record.committed = cycle.target.clone();
                self.record.launched = None;
                self.record.failure = None;
            }
            _ => {}
        }
        self.awaited = None;
        self.persist();
        self.report(Report::Changed);
        self.act(now);
    }

    /// Asks for what the present stage begins with. The same after a restart.
    pub(super) fn act(&mut self, now: Timestamp) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        match cycle.state {
            UpdateState::None => {}
            UpdateState::Downloading => {
                let target = &cycle.target;
                let effect = Effect::Download {
                    items: target.items.clone(),
                    certificates: target.certificates.clone(),
                    certificate_chains: target.certificate_chains.clone(),
                };
                self.ask(Step::Download, effect);
            }
            UpdateState::Pending => self.ask_gates(now),
            UpdateState::Installing => self.install_from(now, Step::NodeStates),
            UpdateState::Launching => {
                let target = cycle.target.clone();
                // What the Nodes said before says nothing about what comes now.
                if self.config.policy.forgets_views() {
                    self.instances.clear();
                }
                self.ask(Step::Launch, Effect::Launch { target });
            }
            UpdateState::WaitingActive => self.judge(now),
            UpdateState::Finalizing => {
                let target = cycle.target.clone();
                self.ask(Step::Commit, Effect::Commit { target });
            }
        }
    }

    /// Asks for the next step of Installing at or after `step` that has something to do.
    pub(super) fn install_from(&mut self, now: Timestamp, step: Step) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        let (target, back) = (&cycle.target, cycle.direction == Direction::Back);
        match step {
            Step::NodeStates if target.nodes.is_empty() => {
                self.install_from(now, Step::UnitConfig);
            }
            Step::NodeStates => {
                let nodes = target.nodes.clone();
                self.ask(Step::NodeStates, Effect::ApplyNodeStates { nodes });
            }
            Step::UnitConfig if target.unit_config.is_none() && !back => {
                self.install_from(now, Step::Images);
            }
            Step::UnitConfig => {
                let effect = Effect::ApplyUnitConfig {
                    config: target.unit_config.clone(),
                    restore: back,
                };
                self.ask(Step::UnitConfig, effect);
            }
            Step::Images => {
                let target = target.clone();
                self.ask(Step::Images, Effect::InstallOnNodes { target });
            }
            Step::Download | Step::Readiness | Step::Launch | Step::Commit => {
                self.enter(now, UpdateState::Launching);
            }
        }
    }

    pub(super) fn done(&mut self, now: Timestamp, effect: EffectId, failures: Failures) {
        let Some((awaited, step)) = self.awaited else {
            return;
        };
        if awaited != effect {
            return;
        }
        self.awaited = None;
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if step == Step::Commit {
            if failures.is_empty() {
                self.committed(now);
            } else {
                self.retry_commit_at = Some(now + self.config.commit_retry);
            }
            return;
        }
        if step == Step::Launch && cycle.next.is_some() {
            self.start_next(now);
            return;
        }
        // On the way back there is nothing better to go to: each step is tried, and the next one follows.
        if cycle.direction == Direction::Forward && self.decides(step, &failures) {
            self.fail(now, failures);
            return;
        }
        match step {
            Step::Download => self.enter(now, UpdateState::Pending),
            Step::NodeStates => self.install_from(now, Step::UnitConfig),
            Step::UnitConfig => self.install_from(now, Step::Images),
            Step::Images => self.enter(now, UpdateState::Launching),
            Step::Launch => self.enter(now, UpdateState::WaitingActive),
            Step::Readiness | Step::Commit => {}
        }
    }
}
