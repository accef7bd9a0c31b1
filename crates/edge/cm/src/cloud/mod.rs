//! The link to the cloud: finds it, keeps one connection to it, and sees to it that messages in both directions are
//! neither lost nor taken twice.
//!
//! One task ([`driver`]) owns the session machine (`aos-session`) and carries out what it says. Others hold a [`Link`].
//!
//! ```text
//!   Link ──Command──► driver ──Persist──► outbox (SQLite)
//!                       │ ▲
//!         Connect ──► connector ──► socket tasks (reader, writer)
//!                       │
//!                    Incoming ──► whoever deals with desired states and requests
//! ```

mod alerts;
mod arrived;
mod connector;
mod discovery;
mod driver;
#[cfg(test)]
mod gaps;
mod link;
mod outbox;
#[cfg(test)]
mod peer;
mod socket;

pub(crate) use alerts::gather_alerts;
pub(crate) use connector::{Connector, Endpoints};
pub(crate) use driver::{Driver, Incoming, Setup};
pub(crate) use link::{Answer, Link, Outgoing, shared};
pub(crate) use outbox::{Outbox, SCHEMA};
