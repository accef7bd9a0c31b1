//! How a Node goes from the instances it runs to the instances it shall run, without ever standing with neither.
//!
//! [`plan`] compares the wanted list with what was found and says what has to happen, in four phases. [`Launcher`] is the
//! machine that leads through them: SM tells it the lists and how the steps went ([`Input`]) and carries out what it says
//! ([`Output`]). Steps of one phase may run side by side; the next phase begins when all of them have ended.
//!
//! ```text
//!            new list                all ended          all ended          all ended          all ended
//!   Idle ───────────────► Installing ────────► Networks ────────► Stopping ────────► Starting ────────► Idle (Finished)
//!                          ▲      │             │    ▲               │ newer list: when the steps in hand have ended
//!                          └──────┴─────────────┘    └───────────────┴──────────────► Installing
//!                        newer list: at once; installs that it does not need are cancelled
//! ```
//!
//! An instance is stopped only if nothing shall take its place, or if what shall is installed, verified and has its
//! network. Where an install or a network fails, what runs goes on running and the failure is reported for the new version.

mod launcher;
mod plan;

pub use launcher::{Input, Launcher, Output, Step, StepId};
pub use plan::{Change, Found, Plan, Wanted, plan};
