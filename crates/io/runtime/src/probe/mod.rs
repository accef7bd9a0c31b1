//! Looking whether an instance is healthy: over the network here, inside it by the runtime ([`crate::Runtime::probe`]).

mod network;

use std::{io, time::Duration};

pub(crate) use network::{http, tcp};

/// Why an instance does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The probe took too long; what ran for it was ended.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The program of an exec probe says so.
    #[error("exit code {code}{}", said(.output))]
    ExitCode {
        /// Not 0.
        code: i32,
        /// The end of what it wrote; may be empty.
        output: String,
    },
    /// The program of an exec probe was killed.
    #[error("the probe was ended by a signal")]
    Killed,
    /// The program of an exec probe cannot be started in the instance.
    #[error("{0}")]
    Refused(String),
    /// Nobody listens, or the connection broke.
    #[error("port {port}: {source}")]
    Connection {
        /// The port inside the instance.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The page has a status that is not healthy.
    #[error("HTTP status {0}")]
    Status(u16),
    /// What listens does not speak HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// It could not be tried, which says nothing about the instance.
    #[error("the probe could not be made: {0}")]
    Untried(#[source] io::Error),
}

impl Unhealthy {
    /// Whether nothing was learnt about the instance.
    pub const fn is_untried(&self) -> bool {
        matches!(self, Self::Untried(_))
    }
}

fn said(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!(": {output}")
    }
}
