use std::collections::{BTreeMap, BTreeSet};

use aos_time::Timestamp;
use aos_types::{ErrorInfo, ItemId};

use super::{Engine, Step};
use crate::{
    Cycle, DesiredNode, DesiredNodeState, Direction, Failure, Failures, Report, Rollback, Target,
    Undo, UpdateState,
};

/// What follows when something went wrong: the way back, the next attempt, or going on without an independent item.
impl Engine {
    /// The update has failed; it is tried again later.
    pub(super) fn fail(&mut self, now: Timestamp, failures: Failures) {
        self.give_up(now, failures, false);
    }

    /// The update has failed. `expired`: it waited too long at its gate, so it is not tried again by itself.
    pub(super) fn give_up(&mut self, now: Timestamp, mut failures: Failures, expired: bool) {
        let Some(cycle) = self.record.cycle.take() else {
            return;
        };
        self.awaited = None;
        // What the link of two stages could not do is part of the cause.
        if let Some(aside) = &cycle.aside {
            failures.merge(aside.failures.clone());
        }
        let asked = cycle.asked.unwrap_or(cycle.target);
        self.keep_failure(now, cycle.state, asked, failures, expired);
        match (cycle.next, cycle.undo) {
            (Some(next), undo) => self.go_to(now, next, undo),
            (None, Some(undo)) if self.config.policy.undoes() => self.go_back(now, undo, None),
            (None, _) => self.end(),
        }
    }

    fn keep_failure(
        &mut self,
        now: Timestamp,
        state: UpdateState,
        target: Target,
        failures: Failures,
        expired: bool,
    ) {
        let policy = self.config.policy;
        let before = self.record.failure.take();
        let before = before
            .filter(|failure| policy.counts_attempts() && failure.target.asks_the_same(&target));
        let attempts = before.map_or(0, |failure| failure.attempts);
        if !policy.keeps_cause() {
            return;
        }
        self.record.failure = Some(Failure {
            state,
            at: now,
            target,
            failures: failures.bounded(),
            expired,
            attempts: attempts.saturating_add(1),
            retry_at: None,
        });
        if !expired && policy.retries() {
            let at = self.next_try(now);
            if let Some(failure) = &mut self.record.failure {
                failure.retry_at = at;
            }
        }
    }

    /// When what has failed is tried again. What touched nothing may be tried for ever.
    pub(super) fn next_try(&self, now: Timestamp) -> Option<Timestamp> {
        let retry = &self.config.retry;
        let failure = self.record.failure.as_ref()?;
        let harmless = failure.state <= UpdateState::Pending;
        let pause = || retry.pause(failure.attempts, self.config.seed);
        (harmless || failure.attempts < retry.attempts).then(|| now + pause())
    }

    /// The update is as good as committed: its earlier failures are history, those of independent items are not.
    pub(super) fn settle_failure(&mut self, now: Timestamp) {
        let cycle = self.record.cycle.as_ref();
        let aside = cycle.and_then(|cycle| Some((cycle.asked().clone(), cycle.aside.clone()?)));
        match aside {
            Some((asked, aside)) => {
                self.keep_failure(now, aside.state, asked, aside.failures, false);
            }
            None => self.record.failure = None,
        }
    }

    /// Takes independent items out of the update: they stay as they are in the committed set.
    pub(super) fn set_aside(&mut self, now: Timestamp, step: Step, failures: Failures) {
        let committed = &self.record.committed;
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        let items: BTreeSet<ItemId> = failures.items.keys().cloned().collect();
        let part = cycle.target.without(&items, committed);
        let whole = std::mem::replace(&mut cycle.target, part);
        cycle.asked.get_or_insert(whole);
        let aside = cycle.aside.get_or_insert_default();
        aside.state = cycle.state;
        aside.failures.merge(failures);
        self.awaited = None;
        match step {
            Step::Download => self.enter(now, UpdateState::Pending),
            Step::Launch => self.enter(now, UpdateState::Launching),
            _ => {
                self.persist();
                self.report(Report::Changed);
                self.install_from(now, step);
            }
        }
    }

    /// Leads back to the committed set; `next` follows when the Nodes have been given it.
    pub(super) fn go_back(&mut self, now: Timestamp, undo: Undo, next: Option<Target>) {
        let mut target = self.config.policy.way_back(&self.record);
        for node in &undo.paused {
            if !target.nodes.iter().any(|named| named.node == *node) {
                target.nodes.push(DesiredNode {
                    node: node.clone(),
                    state: DesiredNodeState::Provisioned,
                });
            }
        }
        let mut cycle = Cycle::new(target, Direction::Back, UpdateState::Installing);
        cycle.undo = Some(undo);
        cycle.next = next;
        self.record.cycle = Some(cycle);
        self.enter(now, UpdateState::Installing);
    }

    /// Nothing leads out of a half-done set for the time being: it is undone first, and what is on its way follows.
    pub(super) fn undo_first(&mut self, now: Timestamp) {
        self.cancel();
        if let Some(cycle) = self.record.cycle.take() {
            let asked = cycle.asked.unwrap_or(cycle.target);
            self.go_back(now, cycle.undo.unwrap_or_default(), Some(asked));
        }
    }

    /// The way back is at its end: all is as committed, or `failures` say what is not.
    pub(super) fn back_ended(&mut self, now: Timestamp, mut failures: Failures) {
        let Some(cycle) = self.record.cycle.take() else {
            return;
        };
        let trouble = cycle.trouble;
        if failures.is_empty() && !cycle.unrestored {
            self.record.rollback = None;
            self.end();
            return;
        }
        failures.merge(trouble);
        let attempts = self.record.rollback.as_ref().map_or(0, |old| old.attempts) + 1;
        let pause = self.config.rollback_retry.pause(attempts, self.config.seed);
        self.record.rollback = Some(Rollback {
            at: now,
            failures: failures.bounded(),
            attempts,
            retry_at: now + pause,
            undo: cycle.undo.unwrap_or_default(),
        });
        self.end();
    }

    /// Tries a failed way back again. Something newer that waits at a gate goes on waiting afterwards.
    pub(super) fn retry_back(&mut self, now: Timestamp) {
        let Some(rollback) = &mut self.record.rollback else {
            return;
        };
        let undo = rollback.undo.clone();
        let waits = self.record.cycle.take();
        if waits.is_some() {
            // Its end is not waited for then.
            rollback.attempts += 1;
            let pause = self
                .config
                .rollback_retry
                .pause(rollback.attempts, self.config.seed);
            rollback.retry_at = now + pause;
        }
        let next = waits.map(|cycle| cycle.asked.unwrap_or(cycle.target));
        self.go_back(now, undo, next);
    }

    /// Tries a failed update again.
    pub(super) fn retry(&mut self, now: Timestamp) {
        if let Some(failure) = &self.record.failure {
            let target = failure.target.clone();
            self.start(now, target, None, None);
        }
    }
}

/// The errors of `failures` by item, the item's own first.
pub(super) fn by_item(failures: &Failures) -> BTreeMap<ItemId, ErrorInfo> {
    let mut items = failures.items.clone();
    for (ident, error) in &failures.instances {
        items
            .entry(ident.item.clone())
            .or_insert_with(|| ErrorInfo {
                message: format!("instance {}: {error}", ident.index),
                ..error.clone()
            });
    }
    items
}
