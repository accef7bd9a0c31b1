//! Turns layers into folders, and refuses archives that try anything else.
//!
//! [`extract`] writes one tar into one folder; [`LayerStore`] keeps unpacked layers by diff id, each complete or absent.
//! An archive is hostile until proven otherwise: every path is opened beneath the folder without following links, so a
//! link in the archive cannot redirect a later entry; sizes, counts and names have caps, and so has what a layer may take of
//! the disk; devices, pipes and sparse files are refused, except in `dev/`, which an instance has its own of: there they
//! are left out. Links may point anywhere in the *image*: they are data until a container resolves them in its own root.
//!
//! OCI whiteouts (`.wh.<name>`, `.wh..wh..opq`) become overlay whiteouts (character device 0:0, `trusted.overlay.opaque`).

mod entry;
mod error;
mod extract;
mod layers;
mod meter;
mod room;
mod rooted;
mod seal;

use aos_types::Digest;

pub use error::{Error, Refusal};
pub use extract::extract;
pub use layers::{LayerStore, UnpackedLayer};

/// What one archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links together.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Folders in a path.
    pub depth: usize,
    /// Bytes of one entry's extended header (long names, extended attributes).
    pub header: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 500_000,
            bytes: 16 << 30,
            path: 4095,
            depth: 128,
            header: 256 << 10,
        }
    }
}

/// What becomes of owners and overlay whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// A layer for a container: owners, modes, times and extended attributes are kept, whiteouts are translated.
    /// Needs root.
    Layer,
    /// Plain files of whoever unpacks: no owners, no extended attributes, no special mode bits; a name that would be a
    /// whiteout is an ordinary name.
    Files,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted {
    /// SHA-256 of the uncompressed tar: OCI's diff id.
    pub tar: Digest,
    /// AosCore's tree digest ([`crate::tree`]); none if a name holds a line break.
    pub tree: Option<Digest>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}
