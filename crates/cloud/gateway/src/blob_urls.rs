use std::time::Duration;

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{
    BlobUrl, BlobUrls, DecryptInfo, FileHash, KeyReceiver, RequestBlobUrls, SignInfo,
};
use aos_db::{DbError, EncryptedBlob, Happening, LinkWrite, Receiver};
use aos_pki::{ContentKey, SignatureError};
use uuid::Uuid;

use crate::{
    encrypted::{self, EncryptionError},
    gateway::Shared,
};

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
    #[error("a blob cannot be encrypted")]
    Encrypt(#[from] EncryptionError),
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
    let db = &shared.options.db;
    let rows = db.blobs_for_unit(unit, &digests).await?;
    let receiver = db.receiver(unit).await?;
    if let Some(receiver) = &receiver
        && !can_receive(receiver)
    {
        let why = "its blobs are to be delivered encrypted, but its offline certificate holds no RSA key that is on record: \
                   nothing is delivered. Enrol the Unit again, or let its blobs be delivered plain";
        db.note(
            unit,
            &[Happening::new(TimelineKind::Item, Severity::Error, why)],
            &LinkWrite::default(),
        )
        .await?;
        return Ok(BlobUrls::default());
    }
    let mut forms = Vec::with_capacity(rows.len());
    for row in rows {
        let encrypted = match &receiver {
            Some(_) => Some(encrypted::form_of(shared, &row).await?),
            None => None,
        };
        forms.push((row, encrypted));
    }
    let now = shared.options.db.now();
    let expires = now + URL_LIFE;
    let signer = shared.options.signer.clone();
    let tokens = shared.options.tokens.clone();
    let authority = authority.to_owned();
    // Signing with RSA takes long enough to be kept off the threads that serve connections.
    let items = tokio::task::spawn_blocking(move || {
        forms
            .into_iter()
            .map(|(row, encrypted)| {
                let mut hash = [0; 32];
                let (file, size, checksum) = match &encrypted {
                    Some(form) => (form.file, form.size, &form.sha3_256),
                    None => (row.digest, row.size, &row.sha3_256),
                };
                hex::decode_to_slice(checksum, &mut hash)
                    .map_err(|_| AnswerError::Checksum(row.digest))?;
                let decrypt_info = match (&encrypted, &receiver) {
                    (Some(form), Some(receiver)) => Some(decrypt_info(form, receiver)?),
                    _ => None,
                };
                Ok(BlobUrl {
                    urls: vec![format!(
                        "https://{authority}/blobs/v7/{}",
                        tokens.blob(unit, &file, expires)
                    )],
                    sha256: FileHash(hash),
                    size,
                    decrypt_info,
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

/// Whether keys can be wrapped for the Unit.
fn can_receive(receiver: &Receiver) -> bool {
    receiver.public_key.as_deref().is_some_and(|key| {
        ContentKey::generate().is_ok_and(|content| content.wrap_for(key).is_ok())
    })
}

fn decrypt_info(form: &EncryptedBlob, receiver: &Receiver) -> Result<DecryptInfo, AnswerError> {
    let block_key = encrypted::wrapped(form, receiver).map_err(EncryptionError::from)?;
    Ok(DecryptInfo {
        block_alg: ContentKey::BLOCK_ALG.into(),
        block_iv: form.iv.clone(),
        block_key,
        asym_alg: Some(ContentKey::WRAP_ALG.into()),
        receiver: Some(KeyReceiver {
            serial: receiver.serial.clone(),
            issuer: Vec::new(),
        }),
    })
}
