//! What a Node does with the list of instances it shall run.
//!
//! CM sends the complete list. [`plan`] holds it against what is found on the Node and says what to install, which networks
//! to have, what to stop and what to start. It is a plain function: the same list and the same Node always give the same
//! plan, and each step of it carries its reason.
//!
//! The order is fixed: install and verify everything new, have the networks, stop, start. Nothing is stopped for a
//! replacement that could not be installed ([`Plan::switch`]): the old instance then runs on and the failure is reported. A
//! list that arrives while an older one is being carried out supersedes it: the shell lets the step in hand end, looks at
//! what is there now and plans again. So a launch is never refused and never has to be undone.

mod instance;
mod plan;
pub mod policy;
mod switch;

pub use instance::{Found, Instance, Run};
pub use plan::{Install, Plan, Start, Stop, StopReason, plan, plan_by};
pub use switch::{Kept, Switch};
