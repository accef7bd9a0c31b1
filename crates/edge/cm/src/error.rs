/// Why CM cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be used; nothing can be promised without it.
    #[error("CM cannot use its database")]
    Store(#[from] aos_store::Error),
    /// The Nodes cannot be served.
    #[error("CM cannot serve the Nodes")]
    Nodes(#[from] crate::nodes::Error),
    /// The images cannot be kept or served.
    #[error("CM cannot keep or serve images")]
    Images(#[from] crate::images::Error),
    /// The place whose local time counts is not known.
    #[error(
        "`{name}` is not a time zone of this machine: check `gates.time_zone` in the configuration of CM"
    )]
    TimeZone {
        /// The name that is configured.
        name: String,
        /// What is wrong with it.
        #[source]
        source: jiff::Error,
    },
    /// A task ended that should not.
    #[error("a part of CM ended without a reason")]
    Ended,
    /// A task failed unexpectedly.
    #[error("a part of CM failed unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}
