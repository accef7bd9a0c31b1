use aos_types::ParseDigestError;

/// Why a document of an item cannot be used. `document` is what it should be, `field` the path inside it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has more bytes than allowed.
    #[error("the {document} has {size} bytes, more than the allowed {cap}")]
    TooLong {
        /// Which document.
        document: &'static str,
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        cap: u64,
    },
    /// It is not JSON.
    #[error("the {document} is not JSON")]
    Json {
        /// Which document.
        document: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A field that must be there is not.
    #[error("the {document} has no `{field}`")]
    Missing {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
    },
    /// A field is of another kind.
    #[error("`{field}` of the {document} is not {expected}")]
    Kind {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A digest is malformed.
    #[error("`{field}` of the {document} is refused")]
    Digest {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
        /// Why.
        #[source]
        source: ParseDigestError,
    },
    /// A list holds too much.
    #[error("`{field}` of the {document} has {count} entries, more than the allowed {cap}")]
    TooMany {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
        /// Its entries.
        count: usize,
        /// Entries allowed.
        cap: usize,
    },
    /// A value has the right kind but makes no sense.
    #[error("`{field}` of the {document} {why}")]
    Value {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
        /// What is wrong.
        why: String,
    },
}
