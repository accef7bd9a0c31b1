use std::time::Duration;

use aos_cloud_protocol::{BlobUrl, BlobUrls, FileHash, RequestBlobUrls, SignInfo};
use aos_db::DbError;
use aos_pki::SignatureError;
use uuid::Uuid;

use crate::gateway::Shared;

/// What signatures of blobs call the chain of the cloud's signer.
pub const BLOB_CHAIN_NAME: &str = "aos-blob-signer";

/// How long the address of a blob is good. A Unit whose transfer takes longer asks again and resumes.
const URL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The answer to a Unit cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a blob cannot be signed")]
    Sign(#[from] SignatureError),
    #[error("the stored checksum of blob {0} is damaged")]
    Checksum(aos_types::Digest),
    #[error("the signing task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// Where a Unit can fetch these blobs, as far as they are known and it may have them.
pub(crate) async fn answer(
    shared: &Shared,
    unit: Uuid,
    authority: &str,
    request: RequestBlobUrls,
) -> Result<BlobUrls, AnswerError> {
    let mut digests = request.digests;
    digests.sort();
    digests.dedup();
    let rows = shared.options.db.blobs_for_unit(unit, &digests).await?;
    let now = shared.options.db.now();
    let expires = now + URL_LIFE;
    let signer = shared.options.signer.clone();
    let tokens = shared.options.tokens.clone();
    let authority = authority.to_owned();
    // Signing with RSA takes long enough to be kept off the threads that serve connections.
    let items = tokio::task::spawn_blocking(move || {
        rows.into_iter()
            .map(|row| {
                let mut hash = [0; 32];
                hex::decode_to_slice(&row.sha3_256, &mut hash)
                    .map_err(|_| AnswerError::Checksum(row.digest))?;
                Ok(BlobUrl {
                    urls: vec![format!(
                        "https://{authority}/blobs/v7/{}",
                        tokens.blob(unit, &row.digest, expires)
                    )],
                    sha256: FileHash(hash),
                    size: row.size,
                    decrypt_info: None,
                    sign_info: Some(SignInfo {
                        chain_name: BLOB_CHAIN_NAME.into(),
                        alg: signer.algorithm().to_string(),
                        value: signer.sign_blob(row.digest.as_bytes())?,
                        trusted_timestamp: Some(now),
                        ocsp_values: Vec::new(),
                    }),
                    digest: row.digest,
                })
            })
            .collect::<Result<_, AnswerError>>()
    })
    .await??;
    Ok(BlobUrls { items })
}
