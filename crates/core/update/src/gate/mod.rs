//! Update gates: whether an update that is here and verified may go on (between Pending and Installing).
//!
//! The software part (services, unit configuration, node states) and the firmware part (components) of an update have a
//! gate each. Three things hold one shut, asked in this order:
//!
//! | | opened by |
//! |---|---|
//! | schedule | `force`, a start by hand, a slot of the timetable ([`evaluate`]) |
//! | consent, if this Unit is configured to ask | the user, who may also refuse and change his mind |
//! | readiness, if there is a condition | the condition's answer, asked anew at intervals: it is the last thing asked, so that it is true when the update goes |
//!
//! A gate waits no longer than the schedule's TTL; readiness may have a shorter deadline. What has expired is a failure with
//! the reason it waited for, and only something newer, or a start by hand, brings it back.
//!
//! A part whose gate opens first goes alone ([`only`]); the other one keeps waiting and follows.

mod gates;
mod part;
mod timetable;
mod verdict;

pub use gates::{Consent, Gate, GatePolicy, Gates, Readiness, ReadinessPolicy, Stand, WaitReason};
pub use part::{PartChanges, UpdatePart, changes_of, only};
pub use timetable::{is_open, next_close, next_open};
pub use verdict::{Verdict, evaluate, expiry};
