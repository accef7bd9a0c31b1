//! Which Units get their blobs encrypted, and the encrypted forms of blobs.

use aos_api::{BlobEncryption, ChangeAction, ChangeTopic, TimelineKind, UnitModel};
use aos_types::Digest;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening,
    columns::{Columns, big},
    error::Doing,
    store::Tx,
};

/// The encrypted form of a blob. Its key is a secret, so it is not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedBlob {
    /// The plain blob.
    pub digest: Digest,
    /// The encrypted file, by its own digest in the blob folder.
    pub file: Digest,
    /// Its bytes.
    pub size: u64,
    /// SHA3-256 of the file in hex.
    pub sha3_256: String,
    /// The key.
    pub key: Vec<u8>,
    /// The initialisation vector.
    pub iv: Vec<u8>,
}

impl std::fmt::Debug for EncryptedBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptedBlob")
            .field("digest", &self.digest)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// For whom blobs are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receiver {
    /// Serial of the Unit's `offline` certificate in hex.
    pub serial: String,
    /// That certificate's public key (SubjectPublicKeyInfo, DER); none if it is not on record.
    pub public_key: Option<Vec<u8>>,
}

fn bytes(name: &'static str, text: &str) -> Result<Vec<u8>, DbError> {
    hex::decode(text).map_err(|source| DbError::corrupt(name, source))
}

fn digest(text: &str) -> Result<Digest, DbError> {
    text.parse()
        .map_err(|source| DbError::corrupt("digest", source))
}

impl Db {
    /// For whom blobs of a Unit are encrypted; nothing if they are not.
    pub async fn receiver(&self, unit: Uuid) -> Result<Option<Receiver>, DbError> {
        let encrypts = sqlx::query(
            "SELECT COALESCE(units.encrypt_blobs, unit_models.encrypt_blobs, 0) AS encrypt FROM units
             LEFT JOIN unit_models ON unit_models.id = units.unit_model_id WHERE units.id = $1",
        )
        .bind(unit.to_string())
        .fetch_optional(self.readers())
        .await
        .doing("read a Unit")?
        .ok_or_else(|| DbError::not_found("Unit", unit))?
        .truth("encrypt")?;
        if !encrypts {
            return Ok(None);
        }
        let row = sqlx::query(
            "SELECT serial, public_key FROM unit_certificates WHERE unit_id = $1 AND cert_type = 'offline' AND installed_at IS NOT NULL
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(unit.to_string())
        .fetch_optional(self.readers())
        .await
        .doing("look up an offline certificate")?;
        let Some(row) = row else {
            return Ok(Some(Receiver::default()));
        };
        let public_key = row.text_or_null("public_key")?;
        Ok(Some(Receiver {
            serial: row.text("serial")?,
            public_key: public_key
                .map(|text| bytes("public key", &text))
                .transpose()?,
        }))
    }

    /// The encrypted form of a blob, if it was made already.
    pub async fn encrypted_blob(&self, of: &Digest) -> Result<Option<EncryptedBlob>, DbError> {
        sqlx::query(
            "SELECT file_digest, size, sha3_256, block_key, block_iv FROM encrypted_blobs WHERE digest = $1",
        )
        .bind(of.to_string())
        .fetch_optional(self.readers())
        .await
        .doing("look up an encrypted blob")?
        .map(|row| {
            Ok(EncryptedBlob {
                digest: *of,
                file: digest(&row.text("file_digest")?)?,
                size: row.count("size")?,
                sha3_256: row.text("sha3_256")?,
                key: bytes("content key", &row.text("block_key")?)?,
                iv: bytes("initialisation vector", &row.text("block_iv")?)?,
            })
        })
        .transpose()
    }

    /// Keeps the encrypted form of a blob in place of the one before.
    pub async fn keep_encrypted_blob(&self, new: &EncryptedBlob) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        sqlx::query(
            "INSERT INTO encrypted_blobs (digest, file_digest, size, sha3_256, block_key, block_iv, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (digest) DO UPDATE SET file_digest = excluded.file_digest,
             size = excluded.size, sha3_256 = excluded.sha3_256, block_key = excluded.block_key,
             block_iv = excluded.block_iv, created_at = excluded.created_at",
        )
        .bind(new.digest.to_string())
        .bind(new.file.to_string())
        .bind(big(new.size))
        .bind(new.sha3_256.clone())
        .bind(hex::encode(&new.key))
        .bind(hex::encode(&new.iv))
        .bind(now)
        .execute(tx.on())
        .await
        .doing("keep an encrypted blob")?;
        tx.commit().await
    }

    /// Says whether Units of a model get their blobs encrypted, as far as nothing else is said for them.
    pub async fn encrypt_for_model(
        &self,
        actor: &Actor,
        model: Uuid,
        encrypt: bool,
    ) -> Result<UnitModel, DbError> {
        self.unit_model(actor, model).await?;
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE unit_models SET encrypt_blobs = $2 WHERE id = $1")
            .bind(model.to_string())
            .bind(i64::from(encrypt))
            .execute(tx.on())
            .await
            .doing("say whether blobs are encrypted")?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Updated,
            model,
        );
        let target = format!("unit-model:{model}");
        let detail = format!("blobs encrypted: {encrypt}");
        tx.audit(actor, "unit_model.encrypt", target, detail)
            .await?;
        tx.commit().await?;
        self.unit_model(actor, model).await
    }
}

impl Tx {
    /// Says whether a Unit gets its blobs encrypted.
    pub(crate) async fn encrypt_for_unit(
        &mut self,
        actor: &Actor,
        unit: Uuid,
        encrypt: BlobEncryption,
    ) -> Result<(), DbError> {
        let (value, text) = match encrypt {
            BlobEncryption::Model => (None, "as its unit model says"),
            BlobEncryption::On => (Some(1_i64), "encrypted"),
            BlobEncryption::Off => (Some(0), "plain"),
        };
        sqlx::query("UPDATE units SET encrypt_blobs = $2 WHERE id = $1")
            .bind(unit.to_string())
            .bind(value)
            .execute(self.on())
            .await
            .doing("say whether blobs are encrypted")?;
        let text = format!("{} has its blobs delivered {text}", actor.name());
        self.happened(unit, &[Happening::info(TimelineKind::Unit, text)])
            .await?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Updated,
            unit,
        );
        Ok(())
    }
}
