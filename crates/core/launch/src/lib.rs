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
//!
//! What an item says of other items it depends on is in its image, so it is known after the installation. [`starts`] then
//! says, whenever something has changed, which instances may start and what the others wait for; [`stop_waves`] is the
//! reverse order. A launch waits for no condition: it ends when everything that may start was started, the rest follows.

mod instance;
mod order;
mod plan;
pub mod policy;
mod switch;

pub use instance::{Found, Instance, Run};
pub use order::{Elsewhere, Member, Peer, Progress, Standstill, Starts, starts, stop_waves};
pub use plan::{Install, Plan, Start, Stop, StopReason, plan, plan_by};
pub use switch::{Kept, Switch};
