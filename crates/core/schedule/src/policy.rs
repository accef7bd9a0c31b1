//! The scheduler's decisions as named points, each answered rightly by default.
//!
//! The product uses [`Rules`] and nothing else. A simulator answers one of them wrongly on purpose and checks that it
//! notices. The wrong answers live there, not here.

use std::fmt;

use crate::{Availability, KnownInstance, Node, Rule};

/// What the scheduler decides. Every method's own body is the rule; override only to plant a fault.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Whether what has a place there keeps it if it fits.
    fn stays(&self, _known: &KnownInstance) -> bool {
        true
    }

    /// Whether a Node can be given instances.
    fn availability<'a>(&self, node: &'a Node) -> &'a Availability {
        &node.availability
    }

    /// Whether a rule about what is left keeps an instance from a place.
    fn stops(&self, _rule: &Rule) -> bool {
        true
    }

    /// Whether what an instance keeps on a Node holds it there, unless its item accepts the loss.
    fn pins(&self) -> bool {
        true
    }

    /// Whether one that fits nowhere takes the place of less important ones.
    fn pushes_out(&self) -> bool {
        true
    }

    /// Whether an instance that is remembered keeps its user id.
    fn keeps_numbers(&self) -> bool {
        true
    }
}

/// The rules, unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules;

impl Policy for Rules {}
