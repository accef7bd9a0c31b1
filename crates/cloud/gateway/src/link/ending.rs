//! Why a connection ended, in words for the timeline.

use std::{error::Error, io};

use axum::extract::ws::close_code;
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};

/// The code to close with, if the Unit is to be told one, and the reason, without the advice that TLS libraries give to
/// programmers.
pub(super) fn ending(error: &(dyn Error + 'static)) -> (Option<u16>, String) {
    use io::ErrorKind as Kind;
    let broken = || (None, "the Unit broke it off".to_owned());
    let mut cause = Some(error);
    while let Some(inner) = cause {
        match inner.downcast_ref::<tungstenite::Error>() {
            Some(tungstenite::Error::Capacity(error)) => {
                let reason = format!("a message is longer than anything that is read: {error}");
                return (Some(close_code::SIZE), reason);
            }
            Some(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return broken();
            }
            _ => {}
        }
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return match error.kind() {
                Kind::UnexpectedEof
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe => broken(),
                Kind::TimedOut => (None, "the Unit cannot be reached any more".into()),
                _ => (None, format!("the connection failed: {error}")),
            };
        }
        cause = inner.source();
    }
    (None, format!("the connection failed: {error}"))
}
