use aos_time::Timestamp;
use aos_types::NodeId;

use super::Engine;
use crate::{
    Actual, Aside, Cycle, Desired, Direction, Note, Part, Report, Target, Undo, UnitConfigStatus,
    UpdateState,
};

/// Which desired state counts: the newest one, at once or at the next safe point.
impl Engine {
    /// The newest set that was asked for, whether it was reached, is under way, waits, or has failed and is tried again.
    pub(super) fn newest(&self) -> &Target {
        let record = &self.record;
        let cycle = record.cycle.as_ref();
        cycle
            .and_then(|cycle| cycle.next.as_ref())
            .or_else(|| {
                cycle
                    .filter(|cycle| cycle.direction == Direction::Forward)
                    .map(Cycle::asked)
            })
            .or_else(|| record.failure.as_ref().map(|failure| &failure.target))
            .unwrap_or(&record.committed)
    }

    pub(super) fn desired(&mut self, now: Timestamp, desired: Desired, actual: &Actual) {
        let policy = self.config.policy;
        let names_config = desired.unit_config.is_some();
        let (mut target, mut notes) = policy.resolve(desired, self.newest());
        notes.extend(unknown_nodes(&target, actual));
        if !notes.is_empty() {
            self.report(Report::Notes(notes));
        }
        self.refuse_config(&mut target, names_config);
        let same = policy.is_same(&target, self.newest());
        let again = self.gates_for(now, &target);
        let committed = &self.record.committed;
        let differs = !policy.differences(&target, committed, actual).is_empty();
        match &self.record.cycle {
            Some(_) if same => {
                self.the_same_under_way(&target, again);
                if !again {
                    self.look_again(now);
                }
            }
            Some(cycle) if cycle.direction == Direction::Back => self.supersede_back(now, target),
            Some(_) => self.supersede(now, target, differs),
            None if differs && same && self.waits_for_retry(again) => {
                self.the_failed_one(now, target);
            }
            None if differs => self.start(now, target, None, None),
            None => self.nothing_to_do(target),
        }
    }

    /// Whether the newest one has failed and is not begun anew for being asked for again; `again` says that its schedule
    /// is the same too.
    fn waits_for_retry(&self, again: bool) -> bool {
        let failure = self.record.failure.as_ref();
        failure.is_some_and(|failure| again || !failure.expired)
    }

    /// Identical to what is under way: ignored, save for what is no end in itself.
    fn the_same_under_way(&mut self, target: &Target, again: bool) {
        let before = self.record.clone();
        let record = &mut self.record;
        if let Some(cycle) = &mut record.cycle {
            if let Some(next) = &mut cycle.next {
                next.take_means(target);
            } else if cycle.direction == Direction::Forward {
                cycle.target.take_means(target);
                if let Some(asked) = &mut cycle.asked {
                    asked.take_means(target);
                }
                // What the Nodes shall run is what the launch, when it is repeated, is asked for.
                let launched = record.launched.iter_mut();
                launched
                    .filter(|launched| launched.asks_the_same(target))
                    .for_each(|launched| launched.take_means(target));
                // The two are one already: what is committed is what the commit, when it is repeated, is asked for.
                if cycle.state == UpdateState::Finalizing {
                    record.committed.take_means(target);
                }
            } else if let Some(failure) = &mut record.failure {
                failure.target.take_means(target);
            } else {
                record.committed.take_means(target);
            }
        }
        if self.record != before || !again {
            self.persist();
            self.report(Report::Changed);
        }
    }

    /// Identical to what has failed: its count and its next time stay. One that was given up gets another attempt, but not
    /// sooner than the longest pause after the last one.
    fn the_failed_one(&mut self, now: Timestamp, target: Target) {
        let most = self.config.retry.most;
        let fresh = self.config.policy.retries_at_once();
        let Some(failure) = &mut self.record.failure else {
            return;
        };
        let given_up = failure.retry_at.is_none() && !failure.expired;
        let rested = given_up && now.since(failure.at) >= most;
        if rested || fresh {
            self.start(now, target, None, None);
            return;
        }
        if failure.target != target {
            failure.target = target;
            self.persist();
        }
        self.report(Report::Full);
    }

    /// The Unit is as desired; what is no end in itself (certificates, kinds of subjects) is taken over all the same.
    pub(super) fn nothing_to_do(&mut self, target: Target) {
        let record = &mut self.record;
        record.gates = None;
        if record.committed != target || record.failure.is_some() || record.cycle.is_some() {
            record.committed = target;
            record.failure = None;
            record.cycle = None;
            self.persist();
        }
        self.report(Report::Full);
    }

    /// Something newer while an update is under way.
    fn supersede(&mut self, now: Timestamp, target: Target, differs: bool) {
        let policy = self.config.policy;
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        if !policy.gives_way(cycle.state) {
            let same = cycle.asked().asks_the_same(&target);
            cycle.next = (!same).then_some(target);
            self.persist();
            return;
        }
        let undo = cycle.undo.clone();
        self.cancel();
        if undo.is_none() && !differs {
            self.nothing_to_do(target);
        } else if undo.is_none() {
            self.start(now, target, None, None);
        } else {
            self.go_to(now, target, undo);
        }
    }

    /// Something newer on the way back. The committed set is given to the Nodes in any case: nothing leads out of a half-done
    /// one sooner.
    fn supersede_back(&mut self, now: Timestamp, target: Target) {
        let retry = self.next_try(now);
        let record = &mut self.record;
        let Some(cycle) = &mut record.cycle else {
            return;
        };
        let failed = record.failure.as_ref();
        let failed_again = failed.is_some_and(|failure| failure.target.asks_the_same(&target));
        if record.committed.asks_the_same(&target) {
            record.committed.take_means(&target);
            record.failure = None;
            cycle.next = None;
        } else if failed_again {
            cycle.next = None;
        } else if cycle.state == UpdateState::WaitingActive {
            self.start(now, target, None, None);
            return;
        } else {
            cycle.next = Some(target);
            if cycle.state == UpdateState::Launching {
                // A Node that hangs does not hold it up: the list waits for that Node, whatever follows.
                let soon = now + self.config.deadlines.giving_way;
                cycle.deadline = cycle.deadline.into_iter().chain([soon]).min();
            }
        }
        if let Some(failure) = &mut record.failure {
            failure.retry_at = retry.filter(|_| failed_again);
        }
        self.persist();
        self.report(Report::Changed);
    }

    /// A unit configuration that may not follow the committed one stays as it is, and it is told why; the rest of the set
    /// goes on. `named`: the desired state names one; what is left out does not take back that another was refused.
    fn refuse_config(&mut self, target: &mut Target, named: bool) {
        let committed = &self.record.committed;
        let error = self.config.policy.refuses_config(target, committed);
        let kept = committed.unit_config.clone();
        let refused = match (error, &mut target.unit_config) {
            (Some(error), Some(config)) => {
                let version = config.version.clone();
                target.unit_config = kept;
                Some(UnitConfigStatus { version, error })
            }
            (_, config) if !named && *config == kept => return,
            _ => None,
        };
        if self.record.refused_config != refused {
            self.record.refused_config = refused;
            self.persist();
            self.report(Report::Changed);
        }
    }

    /// Leads to `next`, which was asked for last, from a place where `undo` is to be undone.
    pub(super) fn go_to(&mut self, now: Timestamp, mut next: Target, undo: Option<Undo>) {
        self.refuse_config(&mut next, false);
        if !self.record.committed.asks_the_same(&next) {
            self.start(now, next, undo, None);
            return;
        }
        self.record.committed.take_means(&next);
        self.record.failure = None;
        match undo {
            Some(undo) => self.go_back(now, undo, None),
            None => self.end(),
        }
    }

    /// Begins a cycle. `aside` are independent items that have failed on the way here.
    pub(super) fn start(
        &mut self,
        now: Timestamp,
        mut asked: Target,
        mut undo: Option<Undo>,
        aside: Option<Aside>,
    ) {
        self.refuse_config(&mut asked, false);
        if let Some(undo) = &mut undo {
            let wait = self.config.deadlines.waiting_active;
            undo.by.get_or_insert(now + wait);
        }
        if let Some(failure) = &mut self.record.failure {
            failure.retry_at = None;
        }
        let mut cycle = Cycle::new(asked, Direction::Forward, UpdateState::Downloading);
        cycle.undo = undo;
        if let Some(aside) = aside {
            let items = aside.failures.items.keys().cloned().collect();
            let part = cycle.target.without(&items, &self.record.committed);
            cycle.asked = Some(std::mem::replace(&mut cycle.target, part));
            cycle.aside = Some(aside);
        }
        self.record.cycle = Some(cycle);
        self.enter(now, UpdateState::Downloading);
    }
}

/// A Node that is not part of the Unit is nobody's to pause or resume.
fn unknown_nodes<'a>(target: &'a Target, actual: &'a Actual) -> impl Iterator<Item = Note> + 'a {
    let known = |node: &NodeId| actual.nodes.is_empty() || actual.nodes.contains_key(node);
    let unknown = target.nodes.iter().filter(move |node| !known(&node.node));
    unknown.map(|node| Note {
        part: Part::Nodes,
        text: format!(
            "node `{}` is not part of this Unit; its entry waits until it is",
            node.node
        ),
    })
}
