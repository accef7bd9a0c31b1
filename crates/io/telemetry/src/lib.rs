//! What a Node uses and what it complains of, read from the kernel and the journal.
//!
//! [`Node`] reads processor, memory and partitions of the machine from `/proc` and `statvfs`, [`interfaces`] the bytes that
//! went through each network interface; cgroups are read by `aos-cgroup`. These are counters and sizes of one moment; what
//! they mean (a share of the Node's DMIPS, an average, an alert) is decided by those who ask. [`Journal`] and [`KernelLog`]
//! tell what is logged from now on, and wait in the kernel meanwhile.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod interfaces;
mod journal;
mod kernel_log;
mod node;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

pub use interfaces::{Bytes, interfaces};
pub use journal::{Entry, Journal};
pub use kernel_log::KernelLog;
pub use node::{Filled, Node, NodeReading, Ticks};

/// Longest kernel file that is read; the longest of them grows with the number of processors.
const MOST: u64 = 1 << 20;

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the kernel, or a partition.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that says something else than expected.
    #[error("{path} has no {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
    Ok(text)
}
