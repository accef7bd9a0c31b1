//! What a Unit shall have and run, worked out from what people decided.
//!
//! The cloud keeps assignments, versions, models and configurations; a Unit wants one complete desired state. [`compose`]
//! turns the one into the other. It is a plain function: the same decisions always give the same desired state, byte for
//! byte, so "has anything changed for this Unit?" is a comparison. Beside the desired state it gives, for every assigned
//! service, the rules that were looked at and how each came out, so that "why is it not there?" always has an answer.
//!
//! Every list of the result is present: an empty one means "none", because what is composed here is complete.

mod compose;
mod explain;
mod input;
mod placement;
mod version;

pub use compose::{Composed, compose};
pub use explain::{Outcome, Rule, RuleName, ServiceReport};
pub use input::{Assigned, Node, Platform, Readiness, Service, Subject, Trust, Unit, Version};
pub use placement::{Exclusion, NodeVerdict, verdicts};
