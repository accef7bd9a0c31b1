use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};

use super::{Engine, Step};
use crate::{Direction, Failures, UpdateState};

impl Engine {
    /// Whether these failures end the update. Trouble with what the update does not change, or with a Node that none of
    /// its changes needs, does not.
    pub(super) fn decides(&self, step: Step, failures: &Failures) -> bool {
        let nodes_decide = step == Step::NodeStates;
        let relevant = !failures.items.is_empty()
            || failures.unit_config.is_some()
            || failures.step.is_some()
            || (nodes_decide && !failures.nodes.is_empty())
            || failures.instances.keys().any(|ident| self.changes(ident));
        self.config
            .policy
            .ends_update(self.state(), failures, relevant)
    }

    /// Whether the present cycle brings this instance, or another version of it.
    pub(super) fn changes(&self, ident: &InstanceIdent) -> bool {
        let committed = &self.record.committed;
        let target = self.record.cycle.as_ref().map(|cycle| &cycle.target);
        let before = committed.item(&ident.item);
        let same_item =
            before.is_some() && before == target.and_then(|target| target.item(&ident.item));
        let was_there = committed.instances.iter().any(|entry| {
            entry.item == ident.item
                && entry.subject == ident.subject
                && (ident.index < entry.num_instances || entry.num_instances == 0)
        });
        !(same_item && was_there)
    }

    /// In WaitingActive: whether it is over, one way or the other.
    pub(super) fn judge(&mut self, now: Timestamp) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.state != UpdateState::WaitingActive {
            return;
        }
        let forward = cycle.direction == Direction::Forward;
        let over = cycle.deadline.is_some_and(|at| now >= at);
        let mut failures = Failures::default();
        let mut waiting = false;
        for wanted in cycle.target.wanted_instances() {
            if forward && !self.changes(&wanted.ident) {
                continue;
            }
            let view = self
                .instances
                .get(&wanted.ident)
                .filter(|view| view.version == wanted.version);
            if view.is_some_and(|view| self.config.policy.is_up(view)) {
                continue;
            }
            match view.map(|view| view.state) {
                Some(InstanceState::Failed) => {
                    let error = view.and_then(|view| view.error.clone());
                    let error = error.unwrap_or_else(|| {
                        ErrorInfo::new(AosCode::Failed, "the instance failed without saying why")
                    });
                    failures.instances.insert(wanted.ident, error);
                }
                Some(_) | None if over => {
                    let error = ErrorInfo::new(
                        AosCode::Timeout,
                        "did not become active in time; look at its log and its Node",
                    );
                    failures.instances.insert(wanted.ident, error);
                }
                Some(_) | None => waiting = true,
            }
        }
        if forward && !failures.instances.is_empty() {
            self.fail(now, failures);
        } else if !waiting && forward {
            self.enter(now, UpdateState::Finalizing);
        } else if !waiting {
            self.end(now);
        }
    }
}
