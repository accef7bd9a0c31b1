//! The keeper: one small single-threaded process a Node, parent of its containers.
//!
//! ```text
//!   SM ──unix socket, JSON frames──► keeper ──fork──► crun run -d ──► container (child of the keeper: subreaper)
//!      ◄── answers, exits ─────────    │  ◄── stdout, stderr through FIFOs ──────┘
//!                                      ├── logs/<id>.log    rotating, bounded
//!                                      └── exits.journal    append + fdatasync before anybody is told
//! ```
//!
//! [`run`] is the program, [`serve`] the process, [`Client`] the other end and [`Starter`] who makes one if none is
//! there. The keeper never decides: it starts what it is told, passes
//! signals on, writes output down and remembers exits until they are acknowledged. Whoever gives the orders may die and
//! come back; the keeper and the containers do not notice. If the keeper dies, the containers run on: each holds its
//! FIFOs open for reading and writing, so it never sees a closed pipe. A new keeper adopts them by process id; of a
//! process that is not its child it can tell when it ended, not how.

mod client;
mod frame;
mod journal;
mod launch;
mod message;
mod output;
mod process;
mod program;
mod serve;
mod starter;

pub use client::{Client, Error, Events};
pub use message::{
    Answer, ExitRecord, Kept, LogPolicy, Message, Order, Request, StartOrder, VERSION,
};
pub use process::start_time;
pub(crate) use process::{facts, notices};
pub use program::run;
pub use serve::{ServeError, ServeOptions, serve};
pub use starter::Starter;
