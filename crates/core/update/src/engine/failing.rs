use std::collections::BTreeMap;

use aos_time::Timestamp;

use super::Engine;
use crate::{Cycle, Direction, Failure, Failures, Report, UpdateState};

impl Engine {
    pub(super) fn fail(&mut self, now: Timestamp, failures: Failures) {
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
            self.end();
        }
    }

    pub(super) fn committed(&mut self, now: Timestamp) {
        if let Some(cycle) = self.record.cycle.take() {
            // What was asked for last comes next: something newer, or the rest of this.
            match cycle.next.or(cycle.asked) {
                Some(next) => self.start(now, next, false),
                None => self.end(),
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

    pub(super) fn end(&mut self) {
        self.record.cycle = None;
        self.awaited = None;
        self.persist();
        self.report(Report::Full);
    }
}
