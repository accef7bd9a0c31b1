use std::time::Duration;

use aos_api::{ChangeAction, ChangeTopic, ClaimCode, ListQuery, NewClaimCode, Page, UnitModelRef};
use aos_time::Timestamp;
use aos_types::SystemId;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, columns::Columns, error::Doing, like, listing::page, units::check_title,
};

/// A day.
const DEFAULT_MINUTES: u32 = 24 * 60;

macro_rules! codes {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT claim_codes.id, claim_codes.title, claim_codes.system_uid, claim_codes.created_by,
             claim_codes.created_at, claim_codes.expires_at, claim_codes.used_at, claim_codes.unit_id,
             unit_models.id AS model_id, unit_models.name AS model_name, unit_models.version AS model_version
             FROM claim_codes LEFT JOIN unit_models ON unit_models.id = claim_codes.unit_model_id
             WHERE claim_codes.tenant_id = $1 ",
            $rest
        ))
    };
}

fn code(row: &AnyRow, now: Timestamp) -> Result<ClaimCode, DbError> {
    let unit_model = match row.uuid_or_null("model_id")? {
        Some(id) => Some(UnitModelRef {
            id,
            name: row.text("model_name")?,
            version: row.text("model_version")?,
        }),
        None => None,
    };
    let expires_at = row.time("expires_at")?;
    let used_at = row.time_or_null("used_at")?;
    let state = if used_at.is_some() {
        "used"
    } else if expires_at <= now {
        "expired"
    } else {
        "open"
    };
    Ok(ClaimCode {
        id: row.uuid("id")?,
        title: row.text("title")?,
        unit_model,
        system_uid: row.text_or_null("system_uid")?,
        state: state.into(),
        unit_id: row.uuid_or_null("unit_id")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        expires_at,
        used_at,
    })
}

impl Db {
    /// Claim codes of the actor's organisation, newest first.
    pub async fn claim_codes(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<ClaimCode>, DbError> {
        let search = like(query.search.as_deref());
        let now = self.now();
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM claim_codes WHERE tenant_id = $1 AND LOWER(title) LIKE $2 ESCAPE '!'",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count claim codes")?
        .count("total")?;
        let rows = codes!(
            "AND LOWER(claim_codes.title) LIKE $2 ESCAPE '!' ORDER BY claim_codes.created_at DESC, claim_codes.id DESC
             LIMIT $3 OFFSET $4"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read claim codes")?;
        page(&rows, total, query, |row| code(row, now))
    }

    /// Stores a claim code under its hash.
    pub async fn create_claim_code(
        &self,
        actor: &Actor,
        new: &NewClaimCode,
        code_hash: &str,
    ) -> Result<ClaimCode, DbError> {
        check_title(&new.title)?;
        let minutes = new.expires_in_minutes.unwrap_or(DEFAULT_MINUTES);
        if !(1..=43_200).contains(&minutes) {
            return Err(DbError::invalid(
                "expires_in_minutes",
                "must be 1 to 43200 (30 days)",
            ));
        }
        if let Some(system_uid) = &new.system_uid {
            SystemId::new(system_uid)
                .map_err(|why| DbError::invalid("system_uid", why.to_string()))?;
        }
        let mut tx = self.begin().await?;
        let model = match &new.unit_model {
            Some(text) => Some(tx.model_asked(actor, text).await?),
            None => None,
        };
        let id = Uuid::now_v7();
        let now = tx.now;
        sqlx::query(
            "INSERT INTO claim_codes (id, tenant_id, code_hash, title, unit_model_id, system_uid, created_by, created_at,
             expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(code_hash.to_owned())
        .bind(new.title.trim().to_owned())
        .bind(model.map(|model| model.to_string()))
        .bind(new.system_uid.clone())
        .bind(actor.name().to_owned())
        .bind(now.as_micros())
        .bind((now + Duration::from_secs(u64::from(minutes) * 60)).as_micros())
        .execute(tx.on())
        .await
        .doing("store a claim code")?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::ClaimCode,
            ChangeAction::Created,
            id,
        );
        tx.audit(
            actor,
            "claim_code.create",
            format!("claim-code:{id}"),
            new.title.clone(),
        )
        .await?;
        tx.commit().await?;
        let row = codes!("AND claim_codes.id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_one(self.readers())
            .await
            .doing("read a claim code")?;
        code(&row, now)
    }

    /// Makes a claim code worthless.
    pub async fn delete_claim_code(&self, actor: &Actor, id: Uuid) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let gone = sqlx::query("DELETE FROM claim_codes WHERE id = $1 AND tenant_id = $2")
            .bind(id.to_string())
            .bind(actor.tenant_text())
            .execute(tx.on())
            .await
            .doing("delete a claim code")?
            .rows_affected();
        if gone == 0 {
            return Err(DbError::not_found("claim code", id));
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::ClaimCode,
            ChangeAction::Deleted,
            id,
        );
        tx.audit(actor, "claim_code.delete", format!("claim-code:{id}"), "")
            .await?;
        tx.commit().await
    }
}
