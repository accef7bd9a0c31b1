use std::{
    io,
    path::{Path, PathBuf},
};

use aos_types::Digest;

/// Why the blob store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("the blob store could not {action} {path}: check free space and permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The content that was to be stored could not be read.
    #[error("the content of a new blob could not be read")]
    Source(#[source] io::Error),
    /// The content is not what its name says.
    #[error("content with digest {found} came where {expected} was expected: nothing was stored")]
    WrongDigest {
        /// Asked for.
        expected: Digest,
        /// Came.
        found: Digest,
    },
    /// A stored blob changed on disk.
    #[error(
        "blob {expected} was corrupt on disk (its content is {found}) and has been removed: fetch it again"
    )]
    Corrupt {
        /// Its name.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// More bytes than allowed.
    #[error("{} is longer than the allowed {cap} bytes", match digest { Some(digest) => format!("blob {digest}"), None => "the new blob".into() })]
    TooLong {
        /// Which, if it has a name yet.
        digest: Option<Digest>,
        /// Bytes allowed.
        cap: u64,
    },
    /// The blob is not in the store.
    #[error("blob {digest} is not in the store: fetch it first")]
    Absent {
        /// Which.
        digest: Digest,
    },
    /// Something that is not a regular file has the name of a blob.
    #[error("{path} should be a blob but is not a regular file: remove it")]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the disk is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
