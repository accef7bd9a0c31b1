use std::sync::Arc;

use aos_api::{ChangeAction, ChangeTopic, OnlineStatus, Severity, TimelineKind, UnitStatus};
use uuid::Uuid;

use crate::{
    Db, DbError, Happening,
    columns::{Columns, big, to_word},
    error::Doing,
    store::Tx,
};

/// A Unit that has shown a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedUnit {
    /// Id.
    pub id: Uuid,
    /// Its organisation.
    pub tenant: Uuid,
    /// What it calls itself.
    pub system_uid: String,
}

/// What the session machine of a link keeps (`aos_session::Record`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkRecord {
    /// A message that was not acknowledged yet.
    Outgoing {
        /// Its place in the order.
        seq: u64,
        /// Its transmission id.
        txn: String,
        /// Its priority as a number.
        priority: u8,
        /// A later message of the same topic replaces it.
        topic: Option<String>,
        /// Its JSON.
        payload: Arc<[u8]>,
    },
    /// A message of the Unit that has been handled.
    Seen {
        /// Its place in the order.
        seq: u64,
        /// Its transmission id.
        txn: String,
    },
}

/// Names a stored [`LinkRecord`] of one Unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKey {
    /// `seq` of an outgoing message.
    Outgoing(u64),
    /// `seq` of a seen one.
    Seen(u64),
}

/// Records to write and forget in one transaction with something else. Empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkWrite {
    /// To store; replaces a record of the same key.
    pub put: Vec<LinkRecord>,
    /// To delete.
    pub forget: Vec<LinkKey>,
}

impl Db {
    /// The Unit that we issued this certificate to: `system_uid` as the certificate says, `fingerprint` the SHA-256 of
    /// its DER in hex. Nothing if the Unit was deleted, or enrolled again with other certificates.
    pub async fn unit_of_certificate(
        &self,
        system_uid: &str,
        fingerprint: &str,
    ) -> Result<Option<LinkedUnit>, DbError> {
        sqlx::query(
            "SELECT units.id, units.tenant_id, units.system_uid FROM units
             JOIN unit_certificates ON unit_certificates.unit_id = units.id
             WHERE units.system_uid = $1 AND unit_certificates.fingerprint = $2 AND units.status = $3",
        )
        .bind(system_uid.to_owned())
        .bind(fingerprint.to_ascii_lowercase())
        .bind(to_word("unit status", &UnitStatus::Provisioned)?)
        .fetch_optional(self.readers())
        .await
        .doing("look up a unit certificate")?
        .map(|row| {
            Ok(LinkedUnit {
                id: row.uuid("id")?,
                tenant: row.uuid("tenant_id")?,
                system_uid: row.text("system_uid")?,
            })
        })
        .transpose()
    }

    /// Says that the link of a Unit came (`Connected`), is understood (`Online`) or went (`Offline`), with the reason.
    pub async fn set_link(
        &self,
        unit: Uuid,
        status: OnlineStatus,
        reason: &str,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        if tx.change_link(unit, status, reason).await? {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Link, unit);
        }
        tx.commit().await
    }

    /// After a start of the cloud nothing is linked.
    pub async fn set_all_links_down(&self) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let offline = to_word("online status", &OnlineStatus::Offline)?;
        let rows = sqlx::query("SELECT id FROM units WHERE online_status <> $1")
            .bind(offline)
            .fetch_all(tx.on())
            .await
            .doing("read linked Units")?;
        for row in &rows {
            let unit = row.uuid("id")?;
            tx.change_link(unit, OnlineStatus::Offline, "the cloud was started again")
                .await?;
        }
        tx.commit().await
    }

    /// All records of the session of a Unit, in order.
    pub async fn link_records(&self, unit: Uuid) -> Result<Vec<LinkRecord>, DbError> {
        let mut tx = self.snapshot().await?;
        let mut records = Vec::new();
        let outgoing = sqlx::query(
            "SELECT seq, txn, priority, topic, payload FROM outbox WHERE unit_id = $1 ORDER BY seq",
        )
        .bind(unit.to_string())
        .fetch_all(&mut *tx)
        .await
        .doing("read the outbox")?;
        for row in &outgoing {
            records.push(LinkRecord::Outgoing {
                seq: row.count("seq")?,
                txn: row.text("txn")?,
                priority: u8::try_from(row.int("priority")?).unwrap_or(1),
                topic: row.text_or_null("topic")?,
                payload: row.text("payload")?.into_bytes().into(),
            });
        }
        let seen = sqlx::query("SELECT seq, txn FROM seen_txns WHERE unit_id = $1 ORDER BY seq")
            .bind(unit.to_string())
            .fetch_all(&mut *tx)
            .await
            .doing("read handled messages")?;
        for row in &seen {
            records.push(LinkRecord::Seen {
                seq: row.count("seq")?,
                txn: row.text("txn")?,
            });
        }
        Ok(records)
    }

    /// Writes and forgets records of the session of a Unit.
    pub async fn write_link(&self, unit: Uuid, write: &LinkWrite) -> Result<(), DbError> {
        if write.put.is_empty() && write.forget.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        tx.tenant_of(unit).await?;
        tx.link(unit, write).await?;
        tx.commit().await
    }
}

impl Tx {
    pub(crate) async fn tenant_of(&mut self, unit: Uuid) -> Result<Uuid, DbError> {
        sqlx::query("SELECT tenant_id FROM units WHERE id = $1")
            .bind(unit.to_string())
            .fetch_optional(self.on())
            .await
            .doing("look up a Unit")?
            .ok_or_else(|| DbError::not_found("Unit", unit))?
            .uuid("tenant_id")
    }

    pub(crate) async fn change_link(
        &mut self,
        unit: Uuid,
        status: OnlineStatus,
        reason: &str,
    ) -> Result<bool, DbError> {
        let now = self.now.as_micros();
        let changed = sqlx::query(
            "UPDATE units SET online_status = $2, online_changed_at = $3, last_seen_at = $3, updated_at = $3
             WHERE id = $1 AND online_status <> $2",
        )
        .bind(unit.to_string())
        .bind(to_word("online status", &status)?)
        .bind(now)
        .execute(self.on())
        .await
        .doing("change the link of a Unit")?
        .rows_affected()
            > 0;
        if changed {
            let (severity, text) = match status {
                OnlineStatus::Offline => (Severity::Warning, "link lost"),
                OnlineStatus::Connected => (Severity::Info, "linked"),
                OnlineStatus::Online => (Severity::Info, "online: its full status is here"),
            };
            let text = if reason.is_empty() {
                text.to_owned()
            } else {
                format!("{text}: {reason}")
            };
            self.happened(unit, &[Happening::new(TimelineKind::Link, severity, text)])
                .await?;
        }
        Ok(changed)
    }

    pub(crate) async fn link(&mut self, unit: Uuid, write: &LinkWrite) -> Result<(), DbError> {
        let now = self.now.as_micros();
        for record in &write.put {
            match record {
                LinkRecord::Outgoing {
                    seq,
                    txn,
                    priority,
                    topic,
                    payload,
                } => {
                    let payload = std::str::from_utf8(payload)
                        .map_err(|source| DbError::corrupt("outgoing message", source))?;
                    sqlx::query(
                        "INSERT INTO outbox (unit_id, seq, txn, priority, topic, payload, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)
                         ON CONFLICT (unit_id, seq) DO UPDATE SET txn = excluded.txn, priority = excluded.priority,
                         topic = excluded.topic, payload = excluded.payload",
                    )
                    .bind(unit.to_string())
                    .bind(big(*seq))
                    .bind(txn.clone())
                    .bind(i64::from(*priority))
                    .bind(topic.clone())
                    .bind(payload.to_owned())
                    .bind(now)
                    .execute(self.on())
                    .await
                    .doing("store an outgoing message")?;
                }
                LinkRecord::Seen { seq, txn } => {
                    sqlx::query(
                        "INSERT INTO seen_txns (unit_id, seq, txn) VALUES ($1, $2, $3)
                         ON CONFLICT (unit_id, seq) DO UPDATE SET txn = excluded.txn",
                    )
                    .bind(unit.to_string())
                    .bind(big(*seq))
                    .bind(txn.clone())
                    .execute(self.on())
                    .await
                    .doing("remember a handled message")?;
                }
            }
        }
        for key in &write.forget {
            let (sql, seq) = match key {
                LinkKey::Outgoing(seq) => {
                    ("DELETE FROM outbox WHERE unit_id = $1 AND seq = $2", seq)
                }
                LinkKey::Seen(seq) => {
                    ("DELETE FROM seen_txns WHERE unit_id = $1 AND seq = $2", seq)
                }
            };
            sqlx::query(sql)
                .bind(unit.to_string())
                .bind(big(*seq))
                .execute(self.on())
                .await
                .doing("forget a message")?;
        }
        Ok(())
    }
}
