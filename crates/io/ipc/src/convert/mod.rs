//! Between the words of the wire and the types of the product.
//!
//! Reading can fail, because a peer may send an id that cannot be one; the error names the field. Writing cannot.

mod alert_rules;
mod error;
mod ident;
mod node;
mod time;

pub use alert_rules::{alert_rules_from_proto, alert_rules_to_proto};
pub use error::{error_from_proto, error_to_proto, status_error_to_proto};
pub use ident::{ident_from_proto, ident_to_proto};
pub use node::{
    arch_from_proto, arch_to_proto, node_info_from_proto, node_info_to_proto, os_from_proto,
    os_to_proto, resource_from_proto, resource_to_proto, runtime_from_proto, runtime_to_proto,
};
pub use time::{duration_from_proto, duration_to_proto, time_from_proto, time_to_proto};

use aos_types::{InvalidId, UnknownState};

/// A message of a peer that does not say what it must.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A part that must be there is absent.
    #[error("the message lacks `{field}`")]
    Missing {
        /// Where in the message.
        field: &'static str,
    },
    /// An identifier cannot be one.
    #[error("the message has a bad `{field}`")]
    Id {
        /// Where in the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
    /// A state is none that we know.
    #[error("the message has a bad `{field}`")]
    State {
        /// Where in the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: UnknownState,
    },
}

fn id<T: std::str::FromStr<Err = InvalidId>>(
    field: &'static str,
    text: &str,
) -> Result<T, Unreadable> {
    text.parse()
        .map_err(|source| Unreadable::Id { field, source })
}

/// A number whose zero means "not set".
fn set(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// A text whose emptiness means "not set".
fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<Unreadable> for tonic::Status {
    fn from(error: Unreadable) -> Self {
        let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::invalid_argument(format!("{error}{}", why.unwrap_or_default()))
    }
}
