use std::{
    io,
    path::{Path, PathBuf},
};

use aos_types::Digest;

use crate::blob;

/// What an archive holds that it must not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A path from the root.
    #[error("its path is absolute")]
    Absolute,
    /// A path with `..`.
    #[error("its path leaves the folder")]
    Escapes,
    /// A path through a link, or through something that is not a folder.
    #[error("its path leads through a link or a file")]
    ThroughLink,
    /// An unusable name.
    #[error("its name {0}")]
    Name(&'static str),
    /// Not a file, folder or link.
    #[error("it is a {0}, only files, folders and links are taken")]
    Kind(&'static str),
    /// Named twice.
    #[error("the archive holds it twice")]
    Twice,
    /// A hard link to something else than a file earlier in the same archive.
    #[error("it is a hard link to `{0}`, which is not a file before it in the archive")]
    HardLink(String),
    /// A symbolic link out of the archive's root.
    #[error("it is a link to `{0}`, which leaves the folder")]
    LinkEscapes(String),
    /// A header that cannot be true.
    #[error("its header {0}")]
    Header(&'static str),
    /// An extended attribute that only the system may set.
    #[error("it sets the extended attribute `{0}`")]
    Attribute(String),
}

/// Why an archive was not unpacked. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry is refused.
    #[error("the archive is refused at `{path}`: {refusal}")]
    Refused {
        /// The entry, shortened.
        path: String,
        /// Why.
        refusal: Refusal,
    },
    /// The archive is larger than allowed.
    #[error("the archive is refused: it has more than {cap} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// Allowed.
        cap: u64,
    },
    /// The disk is too small for it.
    #[error(
        "the layer finds no room: it has more than the {cap} {what} that this disk has left for it"
    )]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// What is left.
        cap: u64,
        /// For whoever looks for a full disk.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged, or not of the kind it should be.
    #[error("the archive cannot be read: it is damaged or not a {expected}")]
    Damaged {
        /// What it should be.
        expected: &'static str,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// The file system refused.
    #[error("could not {action} {path} while unpacking: check free space and permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The packed layer is not the blob it should be.
    #[error("the packed layer is {found}, not {expected}: fetch it again")]
    WrongBlob {
        /// The layer's digest.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// Neither digest of the content is the one the image config names.
    #[error("the unpacked layer is not what the image config says: diff id {expected}, but the tar is {tar} and its tree {}", tree.map_or("has none".into(), |t| t.to_string()))]
    WrongDiffId {
        /// The image config's diff id.
        expected: Digest,
        /// SHA-256 of the uncompressed tar.
        tar: Digest,
        /// AosCore's tree digest.
        tree: Option<Digest>,
    },
    /// The layer is not a tar.
    #[error("layers of the kind `{0}` cannot be unpacked here")]
    NotSupported(String),
    /// The blob store failed.
    #[error("the packed layer cannot be opened")]
    Blob(#[from] blob::Error),
    /// The caller stopped it.
    #[error("unpacking was stopped")]
    Stopped,
}

impl Error {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.as_ref().to_owned(),
            source,
        }
    }

    pub(super) fn refused(path: &[u8], refusal: Refusal) -> Self {
        Self::Refused {
            path: short(path),
            refusal,
        }
    }
}

/// A name from an archive, fit to be shown.
pub(super) fn short(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .take(200)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}
