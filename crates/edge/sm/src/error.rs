use std::path::PathBuf;

/// Why SM ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("setting `{field}` {why}")]
    Option {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The database.
    #[error("SM cannot use its database")]
    Store(#[from] aos_store::Error),
    /// The folder of images.
    #[error("SM cannot keep images in {folder}: {why}")]
    Images {
        /// Where.
        folder: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The container runtime or its keeper.
    #[error("the container runtime cannot be used")]
    Runtime(#[from] aos_runtime::Error),
    /// The Node's network.
    #[error("the network cannot be used")]
    Network(#[from] aos_netstack::Error),
    /// The folders of storages and states.
    #[error("storages and states cannot be kept (settings `quota`, `storage_dir`, `states_dir`)")]
    Quota(#[from] aos_quota::Error),
    /// The folder of logs.
    #[error("logs cannot be kept in {path}")]
    Logs {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A task failed unexpectedly.
    #[error("a part of SM failed unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}
