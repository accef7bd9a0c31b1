use aos_api::{
    ChangeAction, ChangeTopic, DesiredState, Severity, TimelineKind, UnitCounts, UpdatePhase,
};
use aos_time::Timestamp;
use aos_types::{InstanceState, ItemState};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, DesiredContent, Happening, LinkWrite,
    columns::{Columns, to_json, to_word},
    error::Doing,
    phase::{self, SeenInstance, SeenItem},
    store::Tx,
};

/// Desired states kept of one Unit.
const KEPT: i64 = 20;

/// A desired state that was composed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDesired {
    /// The document as it is sent (`desiredStatus`), as JSON text. Equal text is the same desired state.
    pub document: String,
    /// What it asks for, for measuring progress.
    pub content: DesiredContent,
    /// Why it was composed, for the timeline: `service X is assigned`; may be empty.
    pub reason: String,
}

/// A stored desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDesired {
    /// Counts the desired states of the Unit, from 1.
    pub number: i64,
    /// The document as it is sent.
    pub document: String,
    /// What it asks for.
    pub content: DesiredContent,
    /// The transmission it went out with last.
    pub txn: Option<String>,
    /// When it was composed.
    pub composed_at: Timestamp,
    /// When it was last sent.
    pub sent_at: Option<Timestamp>,
    /// When the Unit took it over.
    pub acked_at: Option<Timestamp>,
    /// When the Unit was first as it says.
    pub applied_at: Option<Timestamp>,
}

const NEWEST: &str = "SELECT number, document, content, txn, composed_at, sent_at, acked_at, applied_at FROM desired_states
     WHERE unit_id = $1 ORDER BY number DESC LIMIT 1";

fn stored(row: &AnyRow) -> Result<StoredDesired, DbError> {
    Ok(StoredDesired {
        number: row.int("number")?,
        document: row.text("document")?,
        content: row.json("content")?,
        txn: row.text_or_null("txn")?,
        composed_at: row.time("composed_at")?,
        sent_at: row.time_or_null("sent_at")?,
        acked_at: row.time_or_null("acked_at")?,
        applied_at: row.time_or_null("applied_at")?,
    })
}

impl Db {
    /// The newest desired state of a Unit.
    pub async fn newest_desired(&self, unit: Uuid) -> Result<Option<StoredDesired>, DbError> {
        sqlx::query(NEWEST)
            .bind(unit.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a desired state")?
            .map(|row| stored(&row))
            .transpose()
    }

    /// Stores a desired state if it differs from the newest one; gives its number then.
    pub async fn store_desired(
        &self,
        unit: Uuid,
        desired: &NewDesired,
    ) -> Result<Option<i64>, DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        let newest = tx.newest_desired(unit).await?;
        if newest
            .as_ref()
            .is_some_and(|newest| newest.document == desired.document)
        {
            return Ok(None);
        }
        let number = newest.map_or(1, |newest| newest.number.saturating_add(1));
        let now = tx.now.as_micros();
        sqlx::query(
            "INSERT INTO desired_states (unit_id, number, document, content, composed_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(unit.to_string())
        .bind(number)
        .bind(desired.document.clone())
        .bind(to_json("desired state", &desired.content)?)
        .bind(now)
        .execute(tx.on())
        .await
        .doing("store a desired state")?;
        sqlx::query("DELETE FROM desired_states WHERE unit_id = $1 AND number <= $2")
            .bind(unit.to_string())
            .bind(number.saturating_sub(KEPT))
            .execute(tx.on())
            .await
            .doing("drop old desired states")?;
        let reason = if desired.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", desired.reason)
        };
        let instances: u64 = desired
            .content
            .instances
            .iter()
            .map(|group| group.num_instances)
            .sum();
        tx.happened(
            unit,
            &[Happening::info(
                TimelineKind::Desired,
                format!(
                    "desired state {number} was composed{reason} ({} items, {instances} instances)",
                    desired.content.items.len()
                ),
            )],
        )
        .await?;
        tx.summarise(unit).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await?;
        Ok(Some(number))
    }

    /// Says that a desired state is being sent with this transmission id, with the session's records.
    pub async fn desired_sent(
        &self,
        unit: Uuid,
        number: i64,
        txn: &str,
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let now = tx.now.as_micros();
        sqlx::query(
            "UPDATE desired_states SET sent_at = $3, txn = $4 WHERE unit_id = $1 AND number = $2",
        )
        .bind(unit.to_string())
        .bind(number)
        .bind(now)
        .bind(txn.to_owned())
        .execute(tx.on())
        .await
        .doing("note that a desired state is sent")?;
        tx.happened(
            unit,
            &[Happening::info(
                TimelineKind::Desired,
                format!("desired state {number} is sent"),
            )],
        )
        .await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await
    }

    /// Says that the Unit took over the message with this transmission id: a desired state (true), a set of environment
    /// variables, or something that nobody asks after.
    pub async fn desired_acked(
        &self,
        unit: Uuid,
        txn: &str,
        link: &LinkWrite,
    ) -> Result<bool, DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let now = tx.now.as_micros();
        let row = sqlx::query(
            "SELECT number FROM desired_states WHERE unit_id = $1 AND txn = $2 AND acked_at IS NULL",
        )
        .bind(unit.to_string())
        .bind(txn.to_owned())
        .fetch_optional(tx.on())
        .await
        .doing("look up a desired state")?;
        let Some(row) = row else {
            if tx.env_acked(unit, txn).await? {
                tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
            }
            tx.commit().await?;
            return Ok(false);
        };
        let number = row.int("number")?;
        sqlx::query("UPDATE desired_states SET acked_at = $3 WHERE unit_id = $1 AND number = $2")
            .bind(unit.to_string())
            .bind(number)
            .bind(now)
            .execute(tx.on())
            .await
            .doing("note that a Unit has its desired state")?;
        tx.happened(
            unit,
            &[Happening::info(
                TimelineKind::Desired,
                format!("the Unit has desired state {number}"),
            )],
        )
        .await?;
        tx.summarise(unit).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await?;
        Ok(true)
    }

    /// The newest desired state of a Unit, for people.
    pub async fn desired_state(&self, actor: &Actor, unit: &str) -> Result<DesiredState, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let newest = self
            .newest_desired(id)
            .await?
            .ok_or_else(|| DbError::not_found("desired state of Unit", unit))?;
        Ok(DesiredState {
            number: newest.number,
            desired_status: serde_json::from_str(&newest.document)
                .map_err(|source| DbError::corrupt("desired state", source))?,
            composed_at: newest.composed_at,
            sent_at: newest.sent_at,
            acknowledged_at: newest.acked_at,
            applied_at: newest.applied_at,
        })
    }
}

impl Tx {
    pub(crate) async fn newest_desired(
        &mut self,
        unit: Uuid,
    ) -> Result<Option<StoredDesired>, DbError> {
        sqlx::query(NEWEST)
            .bind(unit.to_string())
            .fetch_optional(self.on())
            .await
            .doing("read a desired state")?
            .map(|row| stored(&row))
            .transpose()
    }

    /// Works out afresh the phase and the counts shown beside a Unit, and notes when it reaches its desired state.
    pub(crate) async fn summarise(&mut self, unit: Uuid) -> Result<(), DbError> {
        let desired = self.newest_desired(unit).await?;
        let mut items = Vec::new();
        for row in sqlx::query("SELECT item_id, version, state FROM unit_items WHERE unit_id = $1")
            .bind(unit.to_string())
            .fetch_all(self.on())
            .await
            .doing("read the items of a Unit")?
        {
            items.push(SeenItem {
                item_id: row.text("item_id")?,
                version: row.text("version")?,
                state: row.text("state")?.parse().unwrap_or(ItemState::Unknown),
            });
        }
        let mut instances = Vec::new();
        for row in sqlx::query(
            "SELECT item_id, subject_id, version, state, preinstalled, error FROM unit_instances WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the instances of a Unit")?
        {
            instances.push(SeenInstance {
                item_id: row.text("item_id")?,
                subject_id: row.text("subject_id")?,
                version: row.text("version")?,
                state: row.text("state")?.parse().unwrap_or(InstanceState::Failed),
                preinstalled: row.truth("preinstalled")?,
                has_error: row.text_or_null("error")?.is_some(),
            });
        }
        let nodes = sqlx::query(
            "SELECT COUNT(*) AS nodes, CAST(COALESCE(SUM(connected), 0) AS BIGINT) AS connected FROM unit_nodes WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_one(self.on())
        .await
        .doing("count the Nodes of a Unit")?;
        let content = desired.as_ref().map(|desired| &desired.content);
        let acknowledged = desired
            .as_ref()
            .is_some_and(|desired| desired.acked_at.is_some());
        let told = self.update_told(unit).await?;
        let phase = phase::phase(content, acknowledged, &items, &instances, told.as_ref());
        let counts = UnitCounts {
            nodes: nodes.count("nodes")?,
            nodes_connected: nodes.count("connected")?,
            ..phase::count(content, &instances)
        };
        let before = sqlx::query("SELECT phase FROM units WHERE id = $1")
            .bind(unit.to_string())
            .fetch_one(self.on())
            .await
            .doing("read a Unit")?
            .word::<UpdatePhase>("phase")?;
        sqlx::query("UPDATE units SET phase = $2, counts = $3 WHERE id = $1")
            .bind(unit.to_string())
            .bind(to_word("phase", &phase)?)
            .bind(to_json("counts", &counts)?)
            .execute(self.on())
            .await
            .doing("store how far a Unit is")?;
        let Some(desired) = desired else {
            return Ok(());
        };
        if phase == UpdatePhase::Installed && desired.applied_at.is_none() {
            let now = self.now.as_micros();
            sqlx::query(
                "UPDATE desired_states SET applied_at = $3 WHERE unit_id = $1 AND number = $2",
            )
            .bind(unit.to_string())
            .bind(desired.number)
            .bind(now)
            .execute(self.on())
            .await
            .doing("note that a desired state is met")?;
            let number = desired.number;
            let after = desired.sent_at.map_or_else(String::new, |sent| {
                format!(
                    ", {:.1} s after it was sent",
                    self.now.since(sent).as_secs_f64()
                )
            });
            self.happened(
                unit,
                &[Happening::info(
                    TimelineKind::Desired,
                    format!("desired state {number} is met{after}"),
                )],
            )
            .await?;
        }
        if phase == UpdatePhase::Failed && before != UpdatePhase::Failed {
            self.happened(
                unit,
                &[Happening::new(
                    TimelineKind::Desired,
                    Severity::Error,
                    format!(
                        "desired state {} is not met: an item or an instance failed",
                        desired.number
                    ),
                )],
            )
            .await?;
        }
        Ok(())
    }
}
