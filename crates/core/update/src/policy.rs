//! The engine's decisions as named points, each answered rightly by default.
//!
//! The product uses [`Rules`] and nothing else. A simulator answers one of them wrongly on purpose and checks that it
//! notices: what never finds a planted fault proves nothing when it finds none. The wrong answers live there, not here.

use std::fmt;

use aos_types::ErrorInfo;

use crate::{
    Actual, Desired, DesiredItem, Difference, Failures, InstanceView, Note, Record, Report, Stand,
    Target, UpdateState, differences, downgrade, resolve,
};

/// What the engine decides. Every method's own body is the rule; override only to plant a fault.
pub trait Policy: fmt::Debug + Send + Sync {
    /// The whole set that a desired state asks for, on top of the newest one known.
    fn resolve(&self, desired: Desired, newest: &Target) -> (Target, Vec<Note>) {
        resolve(desired, newest)
    }

    /// What an update to `target` would change.
    fn differences(&self, target: &Target, committed: &Target, actual: &Actual) -> Vec<Difference> {
        differences(target, committed, actual)
    }

    /// Whether a desired state asks for the same as the newest one known.
    fn is_same(&self, target: &Target, newest: &Target) -> bool {
        target.asks_the_same(newest)
    }

    /// Why the unit configuration of a set can never follow the committed one; the rest of the set does not wait for it.
    fn refuses_config(&self, target: &Target, committed: &Target) -> Option<ErrorInfo> {
        downgrade(target, committed)
    }

    /// Whether the record is stored before what it leads to is done.
    fn stores(&self, _record: &Record) -> bool {
        true
    }

    /// Whether an update in this state gives way at once to a newer desired state; otherwise when its step has ended. A commit
    /// is the decision already; it can only be finished.
    fn gives_way(&self, state: UpdateState) -> bool {
        state != UpdateState::Finalizing
    }

    /// Whether the step in hand is stopped when it is no longer wanted.
    fn cancels(&self) -> bool {
        true
    }

    /// Whether what the present stage began with is asked for again after a restart.
    fn resumes(&self) -> bool {
        true
    }

    /// Whether a stage in this state that has a deadline keeps it whatever happens meanwhile.
    fn keeps_deadline(&self, _state: UpdateState) -> bool {
        true
    }

    /// Whether a part of an update whose gate stands so may go on.
    fn lets_through(&self, stand: &Stand) -> bool {
        *stand == Stand::Open
    }

    /// Whether what went wrong in this state ends the update; `relevant` says that it concerns what the update changes.
    fn ends_update(&self, _state: UpdateState, _failures: &Failures, relevant: bool) -> bool {
        relevant
    }

    /// Whether this instance is as a commit needs it. An inactive one rests by a rule of its item.
    fn is_up(&self, view: &InstanceView) -> bool {
        use aos_types::InstanceState::{Active, Inactive};
        matches!(view.state, Active | Inactive)
    }

    /// Whether this instance has failed for good: it will not come up by itself.
    fn is_lost(&self, view: &InstanceView) -> bool {
        view.state == aos_types::InstanceState::Failed && !view.recovers
    }

    /// Whether instances must stay active for a while before they are committed.
    fn settles(&self) -> bool {
        true
    }

    /// Whether what the Nodes said before a launch is forgotten when it begins.
    fn forgets_views(&self) -> bool {
        true
    }

    /// Whether a failed update that has touched the Nodes is undone.
    fn undoes(&self) -> bool {
        true
    }

    /// The set that an undone update leads back to.
    fn way_back(&self, record: &Record) -> Target {
        record.committed.clone()
    }

    /// Whether a failed update is tried again by itself.
    fn retries(&self) -> bool {
        true
    }

    /// Whether a failed update is tried at once when the same is asked for again, whatever its next time.
    fn retries_at_once(&self) -> bool {
        false
    }

    /// Whether a failed update counts its earlier attempts.
    fn counts_attempts(&self) -> bool {
        true
    }

    /// Whether an item may fail alone, and the rest of the update goes on without it.
    fn may_fail_alone(&self, item: &DesiredItem) -> bool {
        item.independent
    }

    /// Whether the way back is over only when what it brings back is up.
    fn judges_back(&self) -> bool {
        true
    }

    /// Whether a failed way back is tried again.
    fn retries_back(&self) -> bool {
        true
    }

    /// Whether a half-done set is undone before something newer waits.
    fn undoes_first(&self) -> bool {
        true
    }

    /// Whether a clock that was put back takes the deadlines with it.
    fn follows_clock(&self) -> bool {
        true
    }

    /// Whether the cloud is told this.
    fn tells(&self, _report: &Report) -> bool {
        true
    }

    /// Whether the cause of a failed update is kept.
    fn keeps_cause(&self) -> bool {
        true
    }
}

/// The rules, unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules;

impl Policy for Rules {}
