//! Decides everything about logs that is not reading or sending: what a line is, which lines a request selects, how an
//! answer is cut into parts, what is kept, and when a request has been answered.
//!
//! ```text
//!   pieces of output ──► Joiner ──► Line ──► Span ──► Parts (newest first) ──► one gzip member each
//!   requestLog ──► Requests: whom to ask, what came, who is late ──► pushLog, always, within a deadline
//! ```
//!
//! [`Line`] and [`Joiner`] read what the keeper of a Node writes; [`Parts`] cuts an answer from its newest line back, so
//! that an answer that would be too long loses its oldest lines and says so; [`surplus`] says which old files go;
//! [`Requests`] is CM's book of requests; [`Budget`] bounds how much of a live log travels. The numbers are in
//! `docs/protocol/unit-cloud.md`, logs.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod budget;
mod crash;
mod keep;
mod line;
mod parts;
mod requests;
mod span;

pub use budget::Budget;
pub use crash::{Crash, signal_name};
pub use keep::{Keep, KeptFile, surplus};
pub use line::{Joiner, Line, MAX_LINE, Piece, Stream, clean};
pub use parts::{Limits, Parts};
pub use requests::{Open, Output, Reach, Requests, Wait};
pub use span::Span;
