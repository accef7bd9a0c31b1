//! The planner's decisions as named points, each answered rightly by default.
//!
//! The product uses [`Rules`] and nothing else. A simulator answers one of them wrongly on purpose and checks that it
//! notices. The wrong answers live there, not here.

use std::{collections::BTreeSet, fmt};

use aos_types::{Digest, InstanceIdent};

use crate::{Found, Instance};

/// What the planner decides. Every method's own body is the rule; override only to plant a fault.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Whether what was found can go on as what is wanted.
    fn runs_on(&self, found: &Found, wanted: &Instance) -> bool {
        found.instance.runs_as(wanted)
    }

    /// Whether one that the list does not have any more is stopped.
    fn stops_unwanted(&self, _found: &Found) -> bool {
        true
    }

    /// Whether one that is replaced is stopped at all before the other one starts.
    fn stops_replaced(&self, _found: &Found) -> bool {
        true
    }

    /// The image that must be here before one that is replaced by `next` is stopped.
    fn stops_after(&self, next: &Instance) -> Option<Digest> {
        Some(next.manifest)
    }

    /// Whether CM asks for this one to be stopped by name.
    fn is_ordered(&self, ident: &InstanceIdent, ordered: &BTreeSet<InstanceIdent>) -> bool {
        ordered.contains(ident)
    }
}

/// The rules, unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules;

impl Policy for Rules {}
