use std::io::Write as _;

use axum::extract::Multipart;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{ApiError, ApiState};

/// A file that was taken in. It goes when this is dropped.
pub(crate) struct Received {
    pub(super) file: NamedTempFile,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Takes the field `file` of a form into a file of its own, as long as it is not over-long.
pub(crate) async fn receive(state: &ApiState, mut form: Multipart) -> Result<Received, ApiError> {
    let cap = state.options().caps.bundle;
    let broken = |error: axum::extract::multipart::MultipartError| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the upload broke off: {}", error.body_text()),
        )
        .hint("send it again")
    };
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("file") {
            continue;
        }
        let name: String = field
            .file_name()
            .unwrap_or("batch.tar.gz")
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let mut file = NamedTempFile::with_prefix_in("upload-", &state.options().scratch)
            .map_err(|error| ApiError::internal(&error))?;
        let mut hash = Sha256::new();
        let mut size = 0_u64;
        while let Some(chunk) = field.chunk().await.map_err(broken)? {
            size = size.saturating_add(chunk.len() as u64);
            if size > cap {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the bundle is longer than the allowed {cap} bytes"),
                )
                .field("file"));
            }
            // Chunks are small and go to the page cache.
            file.write_all(&chunk)
                .map_err(|error| ApiError::internal(&error))?;
            hash.update(&chunk);
        }
        return Ok(Received {
            file,
            name,
            size,
            sha256: hex::encode(hash.finalize()),
        });
    }
    Err(
        ApiError::new(StatusCode::BAD_REQUEST, "the form has no field `file`")
            .field("file")
            .hint("send `multipart/form-data` with the bundle in the field `file`"),
    )
}
