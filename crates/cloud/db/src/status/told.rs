use aos_api::{UnitUpdate, UpdateStage};
use uuid::Uuid;

use crate::{
    Db, DbError, PlacementReport, UnitStatusReport,
    columns::{Columns, to_json},
    error::Doing,
    store::Tx,
};

impl Tx {
    /// Keeps what a Unit says of its update and of places. A full status that says nothing takes it back.
    pub(super) async fn told(
        &mut self,
        unit: Uuid,
        report: &UnitStatusReport,
    ) -> Result<(), DbError> {
        if let Some(update) = &report.update {
            let text = to_json("update", update)?;
            self.tell(unit, Column::Update, Some(text)).await?;
            if update.stage != UpdateStage::Downloading {
                self.downloads_over(unit).await?;
            }
        } else if !report.delta {
            self.tell(unit, Column::Update, None).await?;
        }
        if let Some(placements) = &report.placements {
            let text = to_json("placements", placements)?;
            self.tell(unit, Column::Placements, Some(text)).await?;
        } else if !report.delta {
            self.tell(unit, Column::Placements, None).await?;
        }
        Ok(())
    }

    async fn tell(
        &mut self,
        unit: Uuid,
        column: Column,
        text: Option<String>,
    ) -> Result<(), DbError> {
        let sql = match column {
            Column::Update => "UPDATE units SET update_told = $2 WHERE id = $1",
            Column::Placements => "UPDATE units SET placements_told = $2 WHERE id = $1",
        };
        sqlx::query(sql)
            .bind(unit.to_string())
            .bind(text)
            .execute(self.on())
            .await
            .doing("keep what a Unit says of its update")?;
        Ok(())
    }

    /// What a Unit says of its update.
    pub(crate) async fn update_told(&mut self, unit: Uuid) -> Result<Option<UnitUpdate>, DbError> {
        sqlx::query("SELECT update_told FROM units WHERE id = $1")
            .bind(unit.to_string())
            .fetch_one(self.on())
            .await
            .doing("read what a Unit says of its update")?
            .json_or_null("update_told")
    }
}

/// What is kept.
#[derive(Clone, Copy)]
enum Column {
    Update,
    Placements,
}

impl Db {
    /// What the scheduler of a Unit says of instances without a place, or not where they might be.
    pub async fn placements_told(&self, unit: Uuid) -> Result<Vec<PlacementReport>, DbError> {
        let told: Option<Vec<PlacementReport>> =
            sqlx::query("SELECT placements_told FROM units WHERE id = $1")
                .bind(unit.to_string())
                .fetch_one(self.readers())
                .await
                .doing("read what a Unit says of places")?
                .json_or_null("placements_told")?;
        Ok(told.unwrap_or_default())
    }
}
