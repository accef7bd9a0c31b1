use std::collections::BTreeMap;

use aos_time::Timestamp;

use super::Engine;
use crate::{Cycle, Direction, Failure, Failures, Report, UpdateState};

impl Engine {
    pub(super) fn fail(&mut self, now: Timestamp, failures: Failures) {
        self.give_up(now, failures, false);
    }

    /// `expired`: it waited too long at its gate, so it is not tried again by itself.
    pub(super) fn give_up(&mut self, now: Timestamp, failures: Failures, expired: bool) {
        let Some(cycle) = self.record.cycle.take() else {
            return;
        };
        let touched = cycle.touched;
        let next = cycle.next.clone();
        self.record.failure = Some(Failure {
            state: cycle.state,
            at: now,
            target: cycle.asked.unwrap_or(cycle.target),
            failures,
            expired,
        });
        if let Some(next) = next {
            self.start(now, next, touched);
        } else if touched {
            self.record.cycle = Some(Cycle {
                target: self.config.policy.way_back(&self.record),
                asked: None,
                direction: Direction::Back,
                state: UpdateState::Installing,
                deadline: None,
                touched: true,
                downloaded: BTreeMap::new(),
                next: None,
            });
            self.enter(now, UpdateState::Installing);
        } else {
            self.end(now);
        }
    }

    pub(super) fn committed(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take() {
            // What was asked for last comes next: something newer, or the rest of this.
            match cycle.next.or(cycle.asked) {
                Some(next) => self.start(now, next, false),
                None => self.end(now),
            }
        }
    }

    pub(super) fn start_next(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take()
            && let Some(next) = cycle.next
        {
            self.start(now, next, cycle.touched);
        }
    }

    pub(super) fn end(&mut self, now: Timestamp) {
        let cycle = self.record.cycle.take();
        self.awaited = None;
        if let Some(rest) = cycle.and_then(|cycle| cycle.asked) {
            self.start(now, rest, false);
            return;
        }
        if self.record.failure.is_none() {
            self.record.gates = None;
        }
        self.persist();
        self.report(Report::Full);
    }
}
