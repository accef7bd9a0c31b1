use std::collections::BTreeSet;

use aos_time::Timestamp;
use aos_types::Digest;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Db, DbError,
    columns::{Columns, big},
    error::Doing,
    store::Tx,
};

/// A blob of the blob folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// SHA3-256 of its content in hex: what AosCore 9.1 compares.
    pub sha3_256: String,
    /// The cloud's signature as its maker wrote it (JSON of `aos_pki::BlobSignature`, or empty).
    pub signature: String,
}

fn blob(row: &AnyRow) -> Result<BlobRow, DbError> {
    Ok(BlobRow {
        digest: row
            .text("digest")?
            .parse()
            .map_err(|source| DbError::corrupt("digest", source))?,
        size: row.count("size")?,
        sha3_256: row.text("sha3_256")?,
        signature: row.text("signature")?,
    })
}

impl Db {
    /// One blob.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<BlobRow>, DbError> {
        sqlx::query("SELECT digest, size, sha3_256, signature FROM blobs WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("look up a blob")?
            .map(|row| blob(&row))
            .transpose()
    }

    /// Of these blobs the ones that a Unit may fetch: those of versions of services that are assigned to it, or that its
    /// stored desired states name.
    /// Each record by itself may be damaged.
    pub async fn blobs_for_unit(
        &self,
        unit: Uuid,
        digests: &[Digest],
    ) -> Result<Vec<(Digest, Result<BlobRow, DbError>)>, DbError> {
        let mut tx = self.snapshot().await?;
        let mut found = Vec::new();
        for digest in digests {
            let row = sqlx::query(
                "SELECT blobs.digest, blobs.size, blobs.sha3_256, blobs.signature FROM blobs WHERE blobs.digest = $1
                 AND EXISTS (SELECT 1 FROM version_blobs
                     JOIN service_versions ON service_versions.id = version_blobs.version_id
                     JOIN subject_services ON subject_services.service_id = service_versions.service_id
                     JOIN subjects_of_units ON subjects_of_units.subject_id = subject_services.subject_id
                     WHERE version_blobs.digest = blobs.digest AND subjects_of_units.unit_id = $2)",
            )
            .bind(digest.to_string())
            .bind(unit.to_string())
            .fetch_optional(&mut *tx)
            .await
            .doing("look up a blob")?;
            if let Some(row) = row {
                found.push((*digest, blob(&row)));
            }
        }
        Ok(found)
    }

    /// Digests of blobs that no version holds any more and that are older than `before`.
    pub async fn orphan_blobs(&self, before: Timestamp) -> Result<Vec<Digest>, DbError> {
        sqlx::query(
            "SELECT digest FROM blobs WHERE created_at < $1
             AND NOT EXISTS (SELECT 1 FROM version_blobs WHERE version_blobs.digest = blobs.digest)",
        )
        .bind(before.as_micros())
        .fetch_all(self.readers())
        .await
        .doing("look for orphan blobs")?
        .iter()
        .map(|row| {
            row.text("digest")?
                .parse()
                .map_err(|source| DbError::corrupt("digest", source))
        })
        .collect()
    }

    /// Digests of all blobs that are known, and of their encrypted forms: files of any others are left-overs.
    pub async fn known_blobs(&self) -> Result<BTreeSet<Digest>, DbError> {
        sqlx::query(
            "SELECT digest FROM blobs UNION SELECT file_digest AS digest FROM encrypted_blobs",
        )
        .fetch_all(self.readers())
        .await
        .doing("read the blobs")?
        .iter()
        .map(|row| {
            row.text("digest")?
                .parse()
                .map_err(|source| DbError::corrupt("digest", source))
        })
        .collect()
    }

    /// Forgets a blob that no version holds. True if it is unknown now, so that its file may be deleted.
    pub async fn forget_blob(&self, digest: &Digest) -> Result<bool, DbError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "DELETE FROM blobs WHERE digest = $1
             AND NOT EXISTS (SELECT 1 FROM version_blobs WHERE version_blobs.digest = blobs.digest)",
        )
        .bind(digest.to_string())
        .execute(tx.on())
        .await
        .doing("forget a blob")?;
        let left = sqlx::query("SELECT COUNT(*) AS total FROM blobs WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_one(tx.on())
            .await
            .doing("look up a blob")?
            .count("total")?;
        tx.commit().await?;
        Ok(left == 0)
    }
}

impl Tx {
    pub(crate) async fn put_blob(&mut self, blob: &BlobRow) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query(
            "INSERT INTO blobs (digest, size, sha3_256, signature, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (digest) DO UPDATE SET signature = excluded.signature",
        )
        .bind(blob.digest.to_string())
        .bind(big(blob.size))
        .bind(blob.sha3_256.clone())
        .bind(blob.signature.clone())
        .bind(now)
        .execute(self.on())
        .await
        .doing("store a blob")?;
        Ok(())
    }
}
