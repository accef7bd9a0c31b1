//! Decides which instance runs on which Node, in which runtime, from which image.
//!
//! [`plan`] is a plain function: the whole situation in, the whole [`Plan`] out, with a reason for every decision. CM
//! carries the plan out and decides nothing itself. The same input gives the same plan, whatever the order of its lists.
//!
//! 1. What has a place keeps it if it still fits there: nothing moves without a cause.
//! 2. From Nodes that are overloaded instances move away whose item allows it, as long as others have room.
//! 3. Everything else looks for a place, by priority; of equals those that lost theirs come first. The images of the item are
//!    tried in the order of the index, and Nodes and runtimes are filtered by the rules of [`Rule`], in that order
//!    (`docs/protocol/scheduling.md`). Of what is left only the Nodes of the highest priority count, and of these the one
//!    with the fewest instances of the same item and subject, then the most free CPU, then the most free memory, then the
//!    lowest id.
//! 4. An instance that fits nowhere takes the place of less important ones, if that is enough.
//!
//! Planning again from what a plan left behind gives the same plan, also where not everything fits: what has a place keeps
//! it and what found none finds none. Only an overloaded Node may need several plans until nothing moves any more. The
//! shell's part is to remember, with its place, what waits for a paused Node ([`Cause::Waits`]).
//!
//! What an instance keeps on a Node, its storage or state, holds it there, unless its item accepts the loss.
//!
//! An instance that fits nowhere is in the plan too, with the rule that stopped it on each Node and what it waits for.

mod amounts;
mod board;
mod fit;
mod handover;
mod identity;
mod input;
mod load;
mod plan;
mod planner;
pub mod policy;
mod rule;
mod select;

pub use handover::{Handover, Holder, handover};
pub use identity::IdRange;
pub use input::{
    Availability, Defaults, Image, Input, KnownInstance, Node, Overload, Request, Space, Usage,
};
pub use load::{Average, overload};
pub use plan::{Cause, Disabled, Excluded, Exclusions, Placement, Plan, Spoke, Unplaced, Why};
pub use planner::{plan, plan_by};
pub use rule::Rule;
