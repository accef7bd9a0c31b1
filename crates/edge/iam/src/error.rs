use std::{io, path::PathBuf};

/// IAM cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An option cannot be used.
    #[error("the option `{field}` of IAM cannot be used: {why}")]
    Option {
        /// Which option.
        field: &'static str,
        /// Why.
        why: String,
    },
    /// Its database cannot be used.
    #[error("IAM's database cannot be used")]
    Store(#[from] aos_store::Error),
    /// Its key store cannot be used.
    #[error("IAM's key store cannot be used")]
    Keys(#[from] aos_pki::KeyStoreError),
    /// The Unit's root cannot be used.
    #[error("the Unit's root certificate cannot be used")]
    Root(#[from] aos_pki::LoadRootsError),
    /// The bootstrap key cannot be used.
    #[error("the bootstrap key cannot be used")]
    Bootstrap(#[from] aos_pki::BootstrapError),
    /// A port cannot be listened on.
    #[error("IAM cannot listen")]
    Listen(#[from] aos_ipc::AddressError),
    /// A server failed.
    #[error("a server of IAM failed")]
    Serve(#[from] aos_ipc::ServeError),
}
