//! Bytes inside JSON: base64 without line breaks when written; AosCore breaks its lines, so white space is skipped.

use aos_types::tolerant::{FieldError, Fields, FromJson};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Writes base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn from_base64(text: &str) -> Result<Vec<u8>, FieldError> {
    let dense: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    BASE64
        .decode(dense)
        .map_err(|error| FieldError::new(format!("is not base64: {error}")))
}

/// Bytes that travel as base64.
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl FromJson for Base64 {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        from_base64(&String::from_json(value)?).map(Self)
    }
}

/// Optional bytes.
pub(crate) fn bytes(fields: &Fields<'_>, key: &str) -> Result<Option<Vec<u8>>, FieldError> {
    Ok(fields.opt::<Base64>(key)?.map(|bytes| bytes.0))
}

/// 32 bytes as 64 hex digits or as base64, told apart by the length.
pub(crate) fn hash(value: &Value) -> Result<[u8; 32], FieldError> {
    let text = String::from_json(value)?;
    let text = text.trim();
    let mut hash = [0; 32];
    if text.len() == 64 {
        hex::decode_to_slice(text, &mut hash)
            .map_err(|error| FieldError::new(format!("is not hex: {error}")))?;
        return Ok(hash);
    }
    from_base64(text)?
        .try_into()
        .map_err(|_| FieldError::new("is neither 64 hex digits nor base64 of 32 bytes"))
}
