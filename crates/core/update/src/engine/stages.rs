use aos_time::Timestamp;

use super::{Engine, Step, judge::Outcome};
use crate::{DesiredNodeState, Direction, Effect, EffectId, Failures, Report, UpdateState};

/// What a stage begins with, and where it leads.
impl Engine {
    pub(super) fn enter(&mut self, now: Timestamp, state: UpdateState) {
        let limit = self.limit(state);
        let committed = &self.record.committed;
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        cycle.state = state;
        cycle.deadline = limit.map(|limit| now + limit);
        let forward = cycle.direction == Direction::Forward;
        match state {
            UpdateState::Downloading => {
                let by = cycle.undo.as_ref().and_then(|undo| undo.by);
                cycle.deadline = cycle.deadline.into_iter().chain(by).min();
            }
            UpdateState::Installing if forward => {
                let undo = cycle.undo.get_or_insert_default();
                let unnamed = cycle.target.nodes.iter().filter(|node| {
                    node.state == DesiredNodeState::Paused
                        && !committed.nodes.iter().any(|old| old.node == node.node)
                });
                undo.paused.extend(unnamed.map(|node| node.node.clone()));
            }
            UpdateState::Launching if forward => {
                let undo = cycle.undo.get_or_insert_default();
                undo.items.extend(cycle.target.changed_items(committed));
                undo.by = None;
                self.record.launched = Some(cycle.target.clone());
            }
            UpdateState::Launching => self.record.launched = None,
            // The decision is this record; what follows tidies up and cannot fail the update any more.
            UpdateState::Finalizing => {
                self.record.committed = cycle.target.clone();
                self.record.launched = None;
                self.record.rollback = None;
                self.settle_failure(now);
            }
            _ => {}
        }
        self.awaited = None;
        self.settling = None;
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
                // An update that was superseded may have left a newer one behind.
                let committed = self.record.committed.unit_config == target.unit_config;
                let effect = Effect::ApplyUnitConfig {
                    config: target.unit_config.clone(),
                    restore: back || committed,
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
        } else if cycle.direction == Direction::Back {
            self.done_back(now, step, failures);
        } else if step == Step::Launch && cycle.next.is_some() {
            self.start_next(now);
        } else {
            match self.outcome(step, &failures) {
                Outcome::GoesOn => self.proceed(now, step),
                Outcome::Fails => self.fail(now, failures),
                Outcome::WithoutThem(failures) => self.set_aside(now, step, failures),
            }
        }
    }

    /// On the way back there is nothing better to go to: each step is tried, what went wrong is kept, and the next follows.
    fn done_back(&mut self, now: Timestamp, step: Step, failures: Failures) {
        if let Some(cycle) = &mut self.record.cycle {
            let restores = matches!(step, Step::NodeStates | Step::UnitConfig);
            cycle.unrestored |= restores && !failures.is_empty();
            cycle.trouble.merge(failures);
            cycle.trouble = std::mem::take(&mut cycle.trouble).bounded();
        }
        self.proceed(now, step);
    }

    fn proceed(&mut self, now: Timestamp, step: Step) {
        match step {
            Step::Download => self.enter(now, UpdateState::Pending),
            Step::NodeStates => self.install_from(now, Step::UnitConfig),
            Step::UnitConfig => self.install_from(now, Step::Images),
            Step::Images => self.enter(now, UpdateState::Launching),
            Step::Launch => self.launched(now),
            Step::Readiness | Step::Commit => {}
        }
    }

    /// The Nodes have been given their lists, or had the time for it.
    pub(super) fn launched(&mut self, now: Timestamp) {
        if let Some(cycle) = &mut self.record.cycle
            && cycle.direction == Direction::Back
            && let Some(next) = cycle.next.take()
        {
            // They have what is committed: nothing is left to be undone.
            self.go_to(now, next, None);
            return;
        }
        self.enter(now, UpdateState::WaitingActive);
    }

    fn committed(&mut self, now: Timestamp) {
        let Some(cycle) = self.record.cycle.take() else {
            return;
        };
        self.awaited = None;
        let rest = cycle.asked.filter(|asked| {
            let aside = cycle
                .aside
                .iter()
                .flat_map(|aside| aside.failures.items.keys());
            let aside = aside.cloned().collect();
            let committed = &self.record.committed;
            !asked.without(&aside, committed).asks_the_same(committed)
        });
        // What was asked for last comes next: something newer, or the rest of this.
        if cycle.next.is_some() || rest.is_some() {
            self.report(Report::Full);
        }
        match (cycle.next, rest) {
            (Some(next), _) => self.go_to(now, next, None),
            (None, Some(rest)) => self.start(now, rest, None, cycle.aside),
            (None, None) => self.end(),
        }
    }

    /// A step that cannot be broken off has ended: what was asked for meanwhile follows.
    pub(super) fn start_next(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take()
            && let Some(next) = cycle.next
        {
            self.go_to(now, next, cycle.undo);
        }
    }

    pub(super) fn end(&mut self) {
        self.record.cycle = None;
        self.awaited = None;
        if self.record.failure.is_none() {
            self.record.gates = None;
        }
        self.persist();
        self.report(Report::Full);
    }
}
