use std::{io, net::SocketAddr, path::PathBuf};

/// The cloud cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the data folder cannot be used.
    #[error(
        "cannot use {path}: check that it is there for the cloud alone and that the disk has room"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process serves this data folder.
    #[error("another cloud runs on the data folder {path}; stop it first")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}; is another process there?")]
    Listen {
        /// Whom it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate authority.
    #[error("the certificate authority cannot be used")]
    Authority(#[from] aos_pki::AuthorityError),
    /// A key pair of the cloud.
    #[error("a key of the cloud cannot be used")]
    Key(#[from] aos_pki::KeyError),
    /// A certificate of the cloud.
    #[error("a certificate of the cloud cannot be used")]
    Certificate(#[from] aos_pki::LoadError),
    /// The signer of blobs.
    #[error("the signer of blobs cannot be used")]
    Signer(#[from] aos_pki::SignatureError),
    /// The key of the tokens.
    #[error("the key of the tokens cannot be used")]
    Tokens(#[from] aos_gateway::TokenKeyError),
    /// The database.
    #[error("the database cannot be used")]
    Db(#[from] aos_db::DbError),
    /// The parts that deal with passwords.
    #[error("passwords cannot be dealt with")]
    Passwords(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The link for the first user.
    #[error("the owner link cannot be made")]
    OwnerLink(#[from] aos_api_server::OwnerLinkError),
    /// The blob folder.
    #[error("the blob folder cannot be used")]
    Blobs(#[from] aos_image::blob::Error),
    /// A part of starting was broken off.
    #[error("starting was broken off")]
    Task(#[from] tokio::task::JoinError),
}
