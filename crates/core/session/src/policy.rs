//! The session's decisions as named points, each answered rightly by default.
//!
//! The product uses [`Rules`] and nothing else. A simulator answers one of them wrongly on purpose and checks that it
//! notices. The wrong answers live there, not here.

use std::fmt;

use crate::{Dropped, Message};

/// What the session decides. Every method's own body is the rule; override only to plant a fault.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Whether a message that was handled before is known again when it comes once more.
    fn recognises(&self) -> bool {
        true
    }

    /// Whether what follows a refused message waits until that one is back.
    fn keeps_order(&self) -> bool {
        true
    }

    /// Whether what was sent and not acknowledged is sent again on a new connection.
    fn resends(&self) -> bool {
        true
    }

    /// Whether what was sent and not acknowledged is sent again after a while on the same connection.
    fn repeats(&self) -> bool {
        true
    }

    /// Whether this message is stored before it is sent.
    fn stores(&self, message: &Message) -> bool {
        message.keep == crate::Keep::Durable
    }

    /// Whether a message that is dropped for this reason is counted, and the peer told.
    fn counts(&self, why: Dropped) -> bool {
        why == Dropped::Full
    }

    /// Whether a peer that says nothing for too long is given up.
    fn gives_up(&self) -> bool {
        true
    }

    /// Whether it tries to connect again after an attempt has failed.
    fn tries_again(&self) -> bool {
        true
    }
}

/// The rules, unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules;

impl Policy for Rules {}
