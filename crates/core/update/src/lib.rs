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
//! ```
//!
//! Promises kept here (`docs/architecture.md`): each transition is stored before what it leads to is done; after
//! [`Engine::restore`] the step in hand is asked for again; the committed set stays whole and its images stay kept until
//! the new one is active; every stage has a deadline; a list that is absent, or an element that cannot be read, never
//! removes anything ([`resolve`]).
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

pub use compare::{Actual, Difference, differences};
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
