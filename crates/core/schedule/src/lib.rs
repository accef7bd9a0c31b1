//! Decides which instance runs on which Node, in which runtime, from which image.
//!
//! [`plan`] is a plain function: the whole situation in, the whole [`Plan`] out, with a reason for every decision. CM
//! carries the plan out and decides nothing itself. The same input gives the same plan, whatever the order of its lists.
//!
//! Instances are taken by priority; of equal ones those that have a place already come first, so a newcomer never pushes an
//! equal out. For each, the images of its item are tried in the order of the index, and Nodes and runtimes are filtered
//! (`docs/protocol/scheduling.md`): usable Node, labels, resources, host ports, runtime type, platform, CPU, memory, number
//! of instances. What is left:
//!
//! 1. the place the instance has now: nothing moves without need;
//! 2. else only the Nodes of the highest priority, and of these the one with the fewest instances of the same item and
//!    subject, then the most free CPU, then the most free memory, then the lowest id.
//!
//! An instance that fits nowhere is in the plan too, with the filter that stopped it on each Node.

mod amounts;
mod capacity;
mod identity;
mod input;
mod plan;
mod planner;
mod select;

pub use identity::IdRange;
pub use input::{Availability, Image, Input, KnownInstance, Node, Pools, Request};
pub use plan::{Placement, Plan, Unplaced, Why};
pub use planner::plan;
