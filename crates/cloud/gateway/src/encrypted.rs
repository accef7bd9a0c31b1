//! Blobs as they are delivered to Units that get them encrypted.

use std::io::Read as _;

use aos_db::{BlobRow, DbError, EncryptedBlob, Receiver};
use aos_pki::{ContentKey, EncryptError};
use sha3::{Digest as _, Sha3_256};

use crate::gateway::Shared;

/// Bytes encrypted at a time.
const CHUNK: usize = 256 * 1024;

/// A blob cannot be delivered encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncryptionError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("a blob cannot be read, or its encrypted form not written")]
    Store(#[from] aos_image::blob::Error),
    #[error("a blob cannot be read")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    #[error("the encrypting task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// The encrypted form of a blob; made at the first request for it, with a key of its own.
pub(crate) async fn form_of(
    shared: &Shared,
    row: &BlobRow,
) -> Result<EncryptedBlob, EncryptionError> {
    let db = &shared.options.db;
    let store = shared.options.blobs.clone();
    // Two Units that ask first at the same time would make two keys, and the file of one would not be the other's.
    let _turn = shared.encrypting.lock().await;
    if let Some(known) = db.encrypted_blob(&row.digest).await?
        && store.contains(&known.file)?
    {
        return Ok(known);
    }
    let digest = row.digest;
    let made = tokio::task::spawn_blocking(move || {
        let key = ContentKey::generate()?;
        let mut encryptor = key.encryptor()?;
        let mut plain = store.open_blob(&digest)?;
        let mut writer = store.writer()?;
        let mut hash = Sha3_256::new();
        let (mut chunk, mut out) = (vec![0; CHUNK], Vec::new());
        loop {
            let count = plain.read(&mut chunk)?;
            let Some(piece) = chunk.get(..count).filter(|piece| !piece.is_empty()) else {
                break;
            };
            encryptor.update(piece, &mut out)?;
            hash.update(&out);
            writer.push(&out)?;
        }
        let last = encryptor.finish()?;
        hash.update(&last);
        writer.push(&last)?;
        let stored = writer.finish(None)?;
        Ok::<_, EncryptionError>(EncryptedBlob {
            digest,
            file: stored.digest,
            size: stored.size,
            sha3_256: hex::encode(hash.finalize()),
            key: key.expose().to_vec(),
            iv: key.iv().to_vec(),
        })
    })
    .await??;
    db.keep_encrypted_blob(&made).await?;
    Ok(made)
}

/// The key of a blob wrapped for a Unit.
pub(crate) fn wrapped(blob: &EncryptedBlob, receiver: &Receiver) -> Result<Vec<u8>, EncryptError> {
    let key = ContentKey::from_parts(blob.key.clone(), &blob.iv)?;
    let public_key = receiver.public_key.as_deref();
    key.wrap_for(public_key.ok_or(EncryptError::NotRsa)?)
}
