//! The images of the Unit: fetched, verified, kept, and served to the Nodes.
//!
//! ```text
//! download ── waves: indexes ► manifests ► configs ► layers ──► blob store ──► server ──► SMs
//!                │ all missing digests of a wave in one question to the cloud      (HTTPS, Range, type `sm`)
//!                └ each fetched side by side, verified while it arrives
//!                └ room is made first: unused items go, the oldest first
//! commit ── records: which item needs which blobs ── collect: blobs that no record names
//! ```
//!
//! A blob is in the store only if its digest, checksum and signature were right. Manifests that no runtime of the Unit can
//! run are left out. What is installed is looked after beside the updates (`mend`), so that damage in an old item holds up
//! no new one. [`Library`] is the one handle; it implements [`contract::Images`](crate::contract::Images).

mod ask;
mod error;
mod graph;
mod keep;
mod legacy;
mod library;
mod mend;
mod notices;
mod options;
mod request;
mod room;
mod server;
mod signature;
mod source;
#[cfg(test)]
mod tests;

pub use ask::Tries;
pub use error::Error;
pub use library::{Library, Setup};
pub use options::ImageOptions;
