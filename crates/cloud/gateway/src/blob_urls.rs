use std::time::Duration;

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{
    BlobUrl, BlobUrls, DecryptInfo, FileHash, KeyReceiver, RequestBlobUrls, SignInfo, Undelivered,
};
use aos_db::{BlobRow, DbError, EncryptedBlob, Happening, LinkWrite, Receiver};
use aos_pki::{ContentKey, SignatureError};
use aos_types::{AosCode, Digest, ErrorInfo};
use uuid::Uuid;

use crate::{
    encrypted::{self, EncryptionError},
    gateway::Shared,
};

/// What signatures of blobs call the chain of the cloud's signer.
pub const BLOB_CHAIN_NAME: &str = "aos-blob-signer";

/// How long the address of a blob is good. A Unit whose transfer takes longer asks again and resumes.
const URL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// One blob cannot be delivered.
#[derive(Debug, thiserror::Error)]
enum BlobError {
    #[error("its record cannot be read")]
    Record(#[source] DbError),
    #[error("it cannot be signed")]
    Sign(#[from] SignatureError),
    #[error("its stored checksum is damaged")]
    Checksum,
    #[error("it cannot be encrypted")]
    Encrypt(#[from] EncryptionError),
}

impl BlobError {
    fn info(&self) -> ErrorInfo {
        let code = match self {
            Self::Checksum | Self::Record(_) => AosCode::InvalidChecksum,
            Self::Sign(_) | Self::Encrypt(_) => AosCode::Failed,
        };
        ErrorInfo::from_error(code, self)
    }
}

/// How many damaged blobs an entry of the timeline names.
const NAMED: usize = 10;

/// Where a Unit can fetch these blobs, as far as they are known and it may have them.
pub(crate) async fn answer(
    shared: &Shared,
    unit: Uuid,
    authority: &str,
    request: RequestBlobUrls,
) -> Result<BlobUrls, DbError> {
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
    for (digest, row) in rows {
        let form = async {
            let row = row.map_err(BlobError::Record)?;
            let encrypted = match &receiver {
                Some(_) => Some(encrypted::form_of(shared, &row).await?),
                None => None,
            };
            Ok((row, encrypted))
        };
        forms.push((digest, form.await));
    }
    let now = shared.options.db.now();
    let expires = now + URL_LIFE;
    let signer = shared.options.signer.clone();
    let tokens = shared.options.tokens.clone();
    let authority = authority.to_owned();
    // Signing with RSA takes long enough to be kept off the threads that serve connections.
    let made = tokio::task::spawn_blocking(move || {
        let url = |(row, encrypted): (BlobRow, Option<EncryptedBlob>)| {
            let mut hash = [0; 32];
            let (file, size, checksum) = match &encrypted {
                Some(form) => (form.file, form.size, &form.sha3_256),
                None => (row.digest, row.size, &row.sha3_256),
            };
            hex::decode_to_slice(checksum, &mut hash).map_err(|_| BlobError::Checksum)?;
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
        };
        let outcomes = forms
            .into_iter()
            .map(|(digest, form)| (digest, form.and_then(url)));
        outcomes.collect::<Vec<(Digest, Result<BlobUrl, BlobError>)>>()
    })
    .await;
    let Ok(made) = made else {
        // The program is going down; the Unit asks again.
        return Ok(BlobUrls::default());
    };
    let mut answer = BlobUrls::default();
    for (digest, outcome) in made {
        match outcome {
            Ok(url) => answer.items.push(url),
            Err(error) => {
                let error = error.info();
                tracing::error!(%digest, %unit, %error, "a blob cannot be delivered");
                answer.undelivered.push(Undelivered { digest, error });
            }
        }
    }
    if !answer.undelivered.is_empty() {
        let event = Happening::new(
            TimelineKind::Item,
            Severity::Error,
            damaged(&answer.undelivered),
        );
        db.note(unit, &[event], &LinkWrite::default()).await?;
    }
    Ok(answer)
}

/// What people read of blobs that cannot be delivered.
fn damaged(undelivered: &[Undelivered]) -> String {
    let named = undelivered.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|one| format!("{} ({})", one.digest, one.error))
        .collect();
    let more = undelivered.len().saturating_sub(NAMED);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "it asked for blobs that cannot be delivered: {}{more}. Publish their version again, or restore the cloud's database \
         and blob folder",
        named.join(", ")
    )
}

/// Whether keys can be wrapped for the Unit.
fn can_receive(receiver: &Receiver) -> bool {
    receiver.public_key.as_deref().is_some_and(|key| {
        ContentKey::generate().is_ok_and(|content| content.wrap_for(key).is_ok())
    })
}

fn decrypt_info(form: &EncryptedBlob, receiver: &Receiver) -> Result<DecryptInfo, BlobError> {
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
