use std::collections::BTreeMap;

use aos_time::Timestamp;

use super::Engine;
use crate::{Actual, Cycle, Desired, Direction, Report, Target, UpdateState};

impl Engine {
    /// The newest set that was asked for, whether it was reached, is under way, or waits.
    pub(super) fn newest(&self) -> &Target {
        let cycle = self.record.cycle.as_ref();
        cycle
            .and_then(|cycle| cycle.next.as_ref())
            .or_else(|| cycle.and_then(Cycle::whole))
            .unwrap_or(&self.record.committed)
    }

    pub(super) fn desired(&mut self, now: Timestamp, desired: Desired, actual: &Actual) {
        let policy = self.config.policy;
        let (target, notes) = policy.resolve(desired, self.newest());
        if !notes.is_empty() {
            self.report(Report::Notes(notes));
        }
        let committed = &self.record.committed;
        let differs = !policy.differences(&target, committed, actual).is_empty();
        let again = self.gates_for(now, &target);
        let Some(cycle) = &mut self.record.cycle else {
            if differs && again && self.record.failure.as_ref().is_some_and(|it| it.expired) {
                self.report(Report::Full);
            } else if differs {
                self.start(now, target, false);
            } else {
                self.nothing_to_do(target);
            }
            return;
        };
        let same = cycle
            .whole()
            .is_some_and(|whole| whole.asks_the_same(&target));
        if same && cycle.next.is_none() {
            self.reschedule(now, target);
            return;
        }
        if !policy.gives_way(cycle.state) {
            cycle.next = (!same).then_some(target);
            self.persist();
            return;
        }
        let touched = cycle.touched;
        self.cancel();
        if touched || differs {
            self.start(now, target, touched);
        } else {
            self.record.cycle = None;
            self.nothing_to_do(target);
        }
    }

    /// The Unit is as desired; what is no end in itself (certificates, kinds of subjects) is taken over all the same.
    pub(super) fn nothing_to_do(&mut self, target: Target) {
        if self.record.committed != target || self.record.failure.is_some() {
            self.record.committed = target;
            self.record.failure = None;
        }
        self.persist();
        self.report(Report::Full);
    }

    pub(super) fn start(&mut self, now: Timestamp, target: Target, touched: bool) {
        self.record.cycle = Some(Cycle {
            target,
            asked: None,
            direction: Direction::Forward,
            state: UpdateState::Downloading,
            deadline: None,
            touched,
            downloaded: BTreeMap::new(),
            next: None,
        });
        self.enter(now, UpdateState::Downloading);
    }
}
