use std::fmt;

use aos_types::tolerant::{FieldError, FromJson};
use serde_json::Value;

/// A password, key or token. It is never shown by `{:?}`, so it cannot slip into a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromJson for Secret {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        String::from_json(value).map(Self)
    }
}
