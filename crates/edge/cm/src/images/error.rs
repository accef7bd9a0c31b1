use std::{io, net::SocketAddr};

use aos_types::{AosCode, Digest, ErrorInfo};

/// Why images cannot be fetched, kept or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob store failed.
    #[error("the blob store cannot be used")]
    Store(#[from] aos_image::blob::Error),
    /// The database failed.
    #[error("the records of images cannot be read or written")]
    Records(#[from] aos_store::Error),
    /// The HTTP client could not be made.
    #[error("the client for downloads cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The address for SMs is taken or not ours.
    #[error("cannot listen on {address} for SMs: set `blob_listen` to a free address of this Node")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cloud does not know a blob.
    #[error("the cloud does not deliver blob {digest}: publish the item again")]
    Unknown {
        /// Which.
        digest: Digest,
    },
    /// The cloud knows a blob and cannot deliver it.
    #[error("the cloud cannot deliver blob {digest}: {why}")]
    Undelivered {
        /// Which.
        digest: Digest,
        /// What it says.
        why: ErrorInfo,
    },
    /// The cloud delivers a blob without a signature.
    #[error("the cloud delivers blob {digest} without a signature (signInfo): it is refused")]
    Unsigned {
        /// Which.
        digest: Digest,
    },
    /// There are Nodes for plain HTTP but no address to serve them at.
    #[error(
        "`images.legacy_blobs` names Nodes, so `images.legacy_listen` must say where they fetch blobs"
    )]
    NoLegacyListen,
    /// A Node for plain HTTP whose address is not known.
    #[error(
        "the address of Node {node} is not known, so no plain address of a blob can be made for it"
    )]
    NoAddress {
        /// Which.
        node: aos_types::NodeId,
    },
    /// The cloud leaves questions unanswered.
    #[error("the cloud did not say {times} times where the blobs are: {why}")]
    NoAnswer {
        /// Asked in a row.
        times: u32,
        /// What it said, or did not.
        why: ErrorInfo,
    },
    /// The cloud names a cipher we do not know.
    #[error("blob {digest} cannot be decrypted")]
    Cipher {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: aos_pki::UnknownCipher,
    },
    /// The cloud names a way to wrap keys that we do not know.
    #[error("blob {digest} cannot be decrypted")]
    KeyWrap {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: aos_pki::UnknownKeyWrap,
    },
    /// The key of a blob cannot be unwrapped.
    #[error("the key of blob {digest} cannot be unwrapped: {why}")]
    Unwrap {
        /// Which.
        digest: Digest,
        /// What IAM or the key says.
        why: ErrorInfo,
    },
    /// Key and cipher do not fit.
    #[error("blob {digest} cannot be decrypted")]
    Key {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: aos_pki::DecryptError,
    },
    /// The cloud names a signature algorithm we do not know.
    #[error("blob {digest} is refused")]
    Algorithm {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: aos_pki::UnknownAlgorithm,
    },
    /// A transfer failed.
    #[error("blob {digest} cannot be fetched")]
    Fetch {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: aos_image::fetch::Error,
    },
    /// A document of an item is not usable.
    #[error("the item's image is not usable")]
    Graph(#[from] aos_image::graph::LoadError),
    /// A service without an item config.
    #[error(
        "manifest {manifest} of a service has no item config (aosItemConfig): publish the item again"
    )]
    NoItemConfig {
        /// Which.
        manifest: Digest,
    },
    /// No image of an item fits a Node.
    #[error("no Node of this Unit can run the item: {why}")]
    NoPlatform {
        /// The last reason.
        why: String,
    },
    /// A blob that should be here is not.
    #[error("blob {digest} is not here")]
    Absent {
        /// Which.
        digest: Digest,
    },
    /// Everything that can go has gone.
    #[error("there is no room for {wanted} bytes of images: {free} are free")]
    NoRoom {
        /// Needed.
        wanted: u64,
        /// Left.
        free: u64,
    },
    /// The caller ended it.
    #[error("the download was ended")]
    Ended,
    /// A thread for file work was lost: the program is going down.
    #[error("file work was interrupted by the end of the program")]
    Interrupted,
}

impl Error {
    /// The error as it is reported.
    pub(super) fn info(&self) -> ErrorInfo {
        use aos_image::fetch::Error as Fetch;
        let code = match self {
            Self::Unknown { .. } | Self::Absent { .. } => AosCode::NotFound,
            Self::NoRoom { .. } => AosCode::NoMemory,
            Self::Fetch { source, .. } if source.is_out_of_space() => AosCode::NoMemory,
            Self::NoPlatform { .. }
            | Self::Algorithm { .. }
            | Self::Cipher { .. }
            | Self::KeyWrap { .. } => AosCode::NotSupported,
            Self::Fetch {
                source: Fetch::Signature(_) | Fetch::Checksum { .. } | Fetch::WrongDigest { .. },
                ..
            }
            | Self::Unsigned { .. } => AosCode::InvalidChecksum,
            Self::Fetch {
                source: Fetch::Deadline { .. },
                ..
            }
            | Self::NoAnswer { .. } => AosCode::Timeout,
            Self::Graph(_) | Self::NoItemConfig { .. } | Self::Key { .. } => {
                AosCode::InvalidArgument
            }
            Self::Ended | Self::Interrupted => AosCode::Canceled,
            _ => AosCode::Failed,
        };
        ErrorInfo::from_error(code, self)
    }
}
