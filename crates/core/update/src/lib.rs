//! The update engine: takes the desired state of a Unit and leads the Unit there, or back to where it was.
//!
//! [`Engine`] is the core of CM. It is told what the cloud wants and how the steps went ([`Input`]); it says what to store,
//! what to do and what to report ([`Output`]). It touches nothing itself, so the same machine runs in the product and
//! under simulated power cuts.
//!
//! ```text
//!            desired differs                                       every changed instance active
//!   None ────────────────► Downloading ─► Pending ─► Installing ─► Launching ─► WaitingActive ─► Finalizing ─► None
//!    ▲  │ identical:            │            │            │            │              │         (committed)
//!    │  └─ full status          │ failed     │ failed     │ failed     │ failed       │ failed, or the deadline
//!    │                          ▼            ▼            └────────────┴──────┬───────┘
//!    │◄──── nothing was touched: the old set never stopped                    ▼
//!    │                                                     the committed set comes back, same road:
//!    └──────────────────────────── WaitingActive ◄─ Launching ◄─ Installing (node states, configuration, images)
//!
//!   A different desired state supersedes: at once in every state but Launching and Finalizing, there when the step
//!   in hand has ended. It starts again in Downloading; what was touched meanwhile is remembered and undone if it fails.
//!   On the way back it waits until the Nodes have been given the committed set.
//! ```
//!
//! | went wrong | what follows |
//! |---|---|
//! | a download | nothing was touched; tried again for ever |
//! | node states, configuration, installing, launching, an instance that has failed for good, any deadline | the committed set comes back; tried again, at most so often ([`Retry`]) |
//! | the same of an item marked independent, and of nothing else | it stays as it is in the committed set, the rest goes on; it is tried again like a failed update |
//! | a gate that stayed shut too long | nothing was touched; not tried again by itself |
//! | the way back: not all instances of the committed set that were changed are active by the deadline, or a Node's state or configuration could not be restored | a [`Rollback`] is recorded and reported, and the way back tried again until it succeeds or another set is committed |
//! | a commit | cannot fail any more: it is repeated |
//!
//! The cause of a failure is kept, with the number of attempts and the next time, until an update succeeds or the cloud wants
//! what is committed. The same desired state again changes neither; anything newer takes its place.
//!
//! Nothing waits with a half-done set on the Nodes: one that was superseded is undone after
//! [`Deadlines::waiting_active`] at the latest, and before its successor waits at a gate ([`Undo`]).
//!
//! Promises kept here (`docs/architecture.md`): each transition is stored before what it leads to is done; after
//! [`Engine::restore`] the step in hand is asked for again; the committed set stays whole and its images stay kept until
//! the new one is active; every stage has a deadline; a list that is absent, or an element that cannot be read, never
//! removes anything ([`resolve`]).
//!
//! In Pending the gates are asked ([`GatePolicy`], [`Gates`]): schedule, consent, readiness, for software and firmware each. A
//! part that is let through goes alone and the rest follows; what waits survives restarts and has an end.
//!
//! An update is judged by what it changes: an instance whose item and version were already committed cannot make it fail,
//! or a lost Node would block every later update.

mod compare;
mod desired;
mod engine;
mod gate;
mod io;
pub mod policy;
mod record;
mod resolve;
mod retry;
mod status;

pub use compare::{Actual, Difference, differences, downgrade};
pub use desired::{
    Certificate, CertificateChain, Desired, DesiredInstances, DesiredItem, DesiredNode,
    DesiredNodeState, DesiredSubject, Part, Target, Unreadable, WantedInstance,
};
pub use engine::{Engine, Order, PartState, PartStatus, Refused};
pub use gate::{
    Consent, Gate, GatePolicy, Gates, PartChanges, Readiness, ReadinessPolicy, Stand, UpdatePart,
    Verdict, WaitReason, changes_of, evaluate, expiry, is_open, next_close, next_open, only,
};
pub use io::{Config, Deadlines, Effect, EffectId, Failures, Input, InstanceView, Output, Report};
pub use record::{Aside, Cycle, Direction, Failure, Record, Rollback, Undo, UpdateState};
pub use resolve::{Note, resolve};
pub use retry::Retry;
pub use status::{ItemStatus, UnitConfigStatus};
