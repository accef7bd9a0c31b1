//! The logs of a Node on its disk: what instances write, how they crashed, and what the system says.
//!
//! ```text
//!   keeper: <id>.log ─full─► .1 .2 ──taken by SM──► archive/<id>/<first>-<last>.log.gz     bounded by size and age
//!   crash ──────────────────────────────────────► archive/<id>/<at>.crash.gz
//!   journalctl (where journald runs)  or  /dev/kmsg and our own log ──► the system's log
//! ```
//!
//! [`InstanceLogs`] reads and keeps the first two, [`SystemLog`] the last. Everything is read from its newest line back, so
//! that an answer that is bounded costs no more than itself; [`gather`] cuts it into parts in a file that nobody else
//! sees. [`Tail`] and [`SystemTail`] tell lines as they come, woken by the kernel.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod file;
mod gather;
mod journal;
mod kernel;
mod store;
mod system;
mod tail;
mod watch;

pub use file::{gzip, plain};
pub use gather::{Gathered, gather};
pub use store::InstanceLogs;
pub use system::{SystemLog, SystemOptions, SystemTail};
pub use tail::Tail;
pub use watch::Watch;

/// Whether more lines are wanted.
pub type Visit<'a> = &'a mut dyn FnMut(aos_log::Line) -> bool;
