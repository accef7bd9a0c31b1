//! Where a component of AosCore keeps what must survive: one SQLite file, one writer.
//!
//! A [`Store`] owns the file and the only thread that touches it, so that a durable write never blocks the async tasks
//! around it and two writes never meet. A call that has returned is on the disk: WAL with `synchronous=FULL`. The
//! write-ahead log is folded back into the file when the writer has nothing else to do, off the path of a waiting caller.
//! The schema is a list of SQL scripts; the file remembers how many of them it has seen (`PRAGMA user_version`).

mod records;
mod store;

pub use records::Records;
pub use rusqlite;
pub use store::{Error, Store};
