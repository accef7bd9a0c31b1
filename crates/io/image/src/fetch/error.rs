use std::time::Duration;

use aos_pki::DecryptError;
use aos_types::Digest;

use super::Checksum;
use crate::blob;

/// Why a blob was not fetched. URLs appear by host only: their paths may carry tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nowhere to fetch it from.
    #[error("the cloud gave no URL for the blob")]
    NoUrls,
    /// A URL is none.
    #[error("the cloud gave a URL that cannot be used")]
    BadUrl(#[source] reqwest::Error),
    /// Larger than the store takes.
    #[error("the blob has {size} bytes, more than the allowed {max}")]
    TooLong {
        /// Announced.
        size: u64,
        /// Allowed.
        max: u64,
    },
    /// It cannot be decrypted.
    #[error("the blob cannot be decrypted")]
    Decrypt(#[from] DecryptError),
    /// A source is slow, and there is another one.
    #[error("{host} gives fewer than {slowest} bytes a second, another source is tried")]
    Slow {
        /// Whom we asked.
        host: String,
        /// Expected.
        slowest: u64,
    },
    /// The server did not answer in time.
    #[error("{host} did not answer within {after:?}")]
    NoAnswer {
        /// Whom we asked.
        host: String,
        /// Waited.
        after: Duration,
    },
    /// The connection failed or broke off.
    #[error("the transfer from {host} failed after {done} bytes")]
    Transfer {
        /// Whom we asked.
        host: String,
        /// Bytes that are here.
        done: u64,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with something else than the blob.
    #[error("{host} answered {status}")]
    Status {
        /// Whom we asked.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// No bytes came for too long.
    #[error("the transfer from {host} stalled for {after:?} after {done} bytes")]
    Stalled {
        /// Whom we asked.
        host: String,
        /// Waited.
        after: Duration,
        /// Bytes that are here.
        done: u64,
    },
    /// The body ended early.
    #[error("{host} closed the connection after {done} of {size} bytes")]
    Short {
        /// Whom we asked.
        host: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes announced.
        size: u64,
    },
    /// The file is not as long as announced.
    #[error("{host} sends {found} bytes where {size} were announced")]
    Size {
        /// Whom we asked.
        host: String,
        /// Bytes the server speaks of.
        found: u64,
        /// Bytes announced.
        size: u64,
    },
    /// The transferred file has another checksum than announced.
    #[error("the transferred file has another checksum than the announced {expected}")]
    Checksum {
        /// Announced.
        expected: Checksum,
    },
    /// The content is another blob.
    #[error("the content received is {found}, not {expected}")]
    WrongDigest {
        /// Asked for.
        expected: Digest,
        /// Received.
        found: Digest,
    },
    /// The content is not signed by somebody trusted.
    #[error("the signature of the blob is refused")]
    Signature(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another transfer of the same blob is under way.
    #[error("the blob is being fetched already")]
    Busy,
    /// The store failed.
    #[error("the blob cannot be stored")]
    Store(#[from] blob::Error),
    /// All attempts failed.
    #[error("gave up after {attempts} attempts")]
    GaveUp {
        /// Made.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<Error>,
    },
    /// The whole took too long; what arrived is kept.
    #[error("the blob was not here within {after:?}; the next attempt goes on from what arrived")]
    Deadline {
        /// Allowed.
        after: Duration,
    },
    /// The caller stopped it; what arrived is kept.
    #[error("the transfer was stopped")]
    Stopped,
    /// The program is going down.
    #[error("the transfer was interrupted by the end of the program")]
    Interrupted,
}

impl Error {
    /// Whether trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NoUrls
                | Self::TooLong { .. }
                | Self::Signature(_)
                | Self::Busy
                | Self::Store(_)
                | Self::Stopped
                | Self::Interrupted
        )
    }

    /// Whether the same URL will fail again, so that only others are worth a try.
    pub(super) fn spoils_url(&self) -> bool {
        match self {
            Self::BadUrl(_) | Self::Size { .. } => true,
            Self::Status { status, .. } => {
                (400..500).contains(status) && ![408, 416, 425, 429].contains(status)
            }
            _ => false,
        }
    }

    /// Whether the disk is full.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Store(error) => error.is_out_of_space(),
            Self::GaveUp { source, .. } => source.is_out_of_space(),
            _ => false,
        }
    }
}
