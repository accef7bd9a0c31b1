//! How far the downloads of a Unit are: rows of the update under way, added up for people.

use aos_api::{UnitDownload, UnitUpdate, UpdatePhase, UpdateStage};
use aos_time::Timestamp;
use aos_types::Digest;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    DbError,
    columns::{Columns, big},
    error::Doing,
    store::Tx,
};

/// Downloads kept of one Unit. Of more the later ones are not counted.
const MOST: i64 = 4_096;

/// What a Unit tells of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadReport {
    /// When, by the Unit's clock.
    pub at: Timestamp,
    /// Which blob.
    pub digest: Digest,
    /// Bytes that are on the Unit.
    pub here: u64,
    /// Bytes in all.
    pub total: u64,
    /// It is there whole.
    pub finished: bool,
    /// What broke it off, until it goes on.
    pub hindrance: Option<String>,
}

/// The sum over the blobs of a Unit, if it downloads.
pub(crate) fn summed(
    row: &AnyRow,
    phase: UpdatePhase,
    told: Option<&UnitUpdate>,
) -> Result<Option<UnitDownload>, DbError> {
    let blobs = row.count("blobs")?;
    let downloads = phase == UpdatePhase::Downloading
        || told.is_some_and(|update| update.stage == UpdateStage::Downloading);
    if blobs == 0 || !downloads {
        return Ok(None);
    }
    Ok(Some(UnitDownload {
        bytes_here: row.count("bytes_here")?,
        bytes_total: row.count("bytes_total")?,
        blobs,
        blobs_here: row.count("blobs_here")?,
        hindrance: row
            .text_or_null("hindrance")?
            .filter(|text| !text.is_empty()),
    }))
}

impl Tx {
    /// Keeps what a Unit tells of one blob. The end of a download of which nothing was heard is no news.
    pub(crate) async fn keep_download(
        &mut self,
        unit: Uuid,
        report: &DownloadReport,
    ) -> Result<(), DbError> {
        let total = report.total.max(report.here);
        let known = sqlx::query(
            "UPDATE unit_downloads SET bytes_here = $3, bytes_total = $4, is_here = $5, hindrance = $6, told_at = $7
             WHERE unit_id = $1 AND digest = $2",
        )
        .bind(unit.to_string())
        .bind(report.digest.to_string())
        .bind(big(report.here))
        .bind(big(total))
        .bind(i64::from(report.finished))
        .bind(report.hindrance.clone().unwrap_or_default())
        .bind(report.at.min(self.now).as_micros())
        .execute(self.on())
        .await
        .doing("keep how far a download is")?
        .rows_affected();
        if known == 0 && !report.finished {
            sqlx::query(
                "INSERT INTO unit_downloads (unit_id, digest, bytes_here, bytes_total, is_here, hindrance, told_at)
                 SELECT $1, $2, $3, $4, 0, $5, $6
                 WHERE (SELECT COUNT(*) FROM unit_downloads WHERE unit_id = $1) < $7",
            )
            .bind(unit.to_string())
            .bind(report.digest.to_string())
            .bind(big(report.here))
            .bind(big(total))
            .bind(report.hindrance.clone().unwrap_or_default())
            .bind(report.at.min(self.now).as_micros())
            .bind(MOST)
            .execute(self.on())
            .await
            .doing("keep how far a download is")?;
        }
        Ok(())
    }

    /// Forgets downloads that are over: all are here, and the Unit does not say that more are to come.
    pub(crate) async fn trim_downloads(&mut self, unit: Uuid) -> Result<(), DbError> {
        let stage = self.update_told(unit).await?.map(|update| update.stage);
        if stage == Some(UpdateStage::Downloading) {
            return Ok(());
        }
        sqlx::query(
            "DELETE FROM unit_downloads WHERE unit_id = $1
             AND NOT EXISTS (SELECT 1 FROM unit_downloads AS others WHERE others.unit_id = $1 AND others.is_here = 0)",
        )
        .bind(unit.to_string())
        .execute(self.on())
        .await
        .doing("forget downloads that are over")?;
        Ok(())
    }

    /// Forgets all downloads of a Unit: it says that it does not download.
    pub(crate) async fn downloads_over(&mut self, unit: Uuid) -> Result<(), DbError> {
        sqlx::query("DELETE FROM unit_downloads WHERE unit_id = $1")
            .bind(unit.to_string())
            .execute(self.on())
            .await
            .doing("forget downloads that are over")?;
        Ok(())
    }
}
