use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an error on AosEdge wires (`docs/protocol/grpc.md`, errors on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(
    missing_docs,
    reason = "the variants are the documentation: one word each, in the reference's order"
)]
pub enum AosCode {
    None = 0,
    Failed = 1,
    Runtime = 2,
    NoMemory = 3,
    OutOfRange = 4,
    NotFound = 5,
    InvalidArgument = 6,
    Timeout = 7,
    AlreadyExists = 8,
    WrongState = 9,
    InvalidChecksum = 10,
    AlreadyLoggedIn = 11,
    NotSupported = 12,
    EndOfFile = 13,
    Canceled = 14,
}

/// What went wrong, in the form that travels between components and to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorInfo {
    /// One of [`AosCode`], kept as a number because peers may know more of them.
    pub aos_code: i32,
    /// An errno, or 0.
    pub exit_code: i32,
    /// Text for people: what failed, why, and what to do.
    pub message: String,
}

impl ErrorInfo {
    /// An error of the given kind.
    pub fn new(code: AosCode, message: impl Into<String>) -> Self {
        Self {
            aos_code: code as i32,
            exit_code: 0,
            message: message.into(),
        }
    }

    /// An error of the given kind whose text is the whole chain of causes of `error`.
    pub fn from_error(code: AosCode, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, chain(error))
    }

    /// Whether this says "no error": on the wire both codes are zero then.
    pub fn is_ok(&self) -> bool {
        self.aos_code == 0 && self.exit_code == 0
    }

    /// The error, or nothing if this says "no error".
    pub fn into_option(self) -> Option<Self> {
        if self.is_ok() { None } else { Some(self) }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "error {} (errno {})", self.aos_code, self.exit_code)
        } else {
            f.write_str(&self.message)
        }
    }
}

/// Joins an error and its causes with `: `, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
