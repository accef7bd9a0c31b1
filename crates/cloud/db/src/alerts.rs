//! Alerts of Units: one row for what goes on or repeats, with retention.

use std::time::Duration;

use aos_api::{
    Alert, AlertState, AlertTag, AlertsQuery, ChangeAction, ChangeTopic, Page, Severity,
};
use aos_time::Timestamp;
use aos_types::InstanceIdent;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, DownloadReport, Happening, LinkWrite, Retention,
    columns::{Columns, big, to_word},
    error::Doing,
    like,
    listing::page,
    store::Tx,
    usage::{service, subject},
};

/// Alerts kept of one Unit: of more the oldest that are over go.
pub const MOST_ALERTS: i64 = 2_000;
/// The same words within this time are told again, not another alert.
const AGAIN: Duration = Duration::from_secs(3600);
/// A quota alert whose end the Unit does not tell counts as over when it was not heard of for so long.
const FADES: Duration = Duration::from_secs(900);

/// How a quota alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaChange {
    /// It began or goes on; whoever says no more than that does not tell of the end either.
    On,
    /// It began.
    Raise,
    /// It goes on.
    Continue,
    /// It is over.
    Fall,
}

/// An alert that a Unit told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlert {
    /// When, by the Unit's clock.
    pub at: Timestamp,
    /// What kind.
    pub tag: AlertTag,
    /// How much it matters.
    pub severity: Severity,
    /// How it stands, if it is about a quota.
    pub quota: Option<QuotaChange>,
    /// The Node, if it is about one.
    pub node: Option<String>,
    /// The instance, if it is about one.
    pub instance: Option<InstanceIdent>,
    /// Of what too much is used.
    pub parameter: String,
    /// How much.
    pub value: Option<u64>,
    /// For people.
    pub text: String,
}

/// The columns of an alert; the query ends with `$1` the tenant.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT alerts.id, alerts.unit_id, alerts.tag, alerts.severity, alerts.is_quota, alerts.began_at, alerts.last_at,
             alerts.ended_at, alerts.told, alerts.node_id, alerts.item_id, alerts.subject_id, alerts.instance,
             alerts.parameter, alerts.quantity, alerts.body, units.system_uid, units.title AS unit_title,
             services.codename, services.title, subjects.label FROM alerts
             JOIN units ON units.id = alerts.unit_id AND units.tenant_id = $1
             LEFT JOIN services ON services.id = alerts.item_id AND services.tenant_id = $1
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = alerts.subject_id
             AND subjects.tenant_id = $1 ",
            $rest
        )
    };
}

/// What a page is narrowed to; an empty text, or a number that nothing has, leaves a filter out.
macro_rules! filtered {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " WHERE ($2 = '' OR alerts.unit_id = $2) AND ($3 = '' OR alerts.tag = $3) AND ($4 = '' OR alerts.severity = $4)
             AND ($5 = '' OR alerts.node_id = $5) AND ($6 = '' OR alerts.item_id = $6 OR services.codename = $6)
             AND alerts.last_at >= $7 AND LOWER(alerts.body) LIKE $8 ESCAPE '!'
             AND ($9 = '' OR ($9 = 'once' AND alerts.is_quota = 0)
                  OR ($9 = 'active' AND alerts.is_quota > 0 AND alerts.ended_at IS NULL
                      AND (alerts.is_quota = 1 OR alerts.last_at >= $10))
                  OR ($9 = 'ended' AND alerts.is_quota > 0 AND (alerts.ended_at IS NOT NULL
                      OR (alerts.is_quota = 2 AND alerts.last_at < $10)))) ",
            $tail
        )
    };
}

fn read(row: &AnyRow, now: Timestamp) -> Result<Alert, DbError> {
    let (item, subject_id) = (row.text("item_id")?, row.text("subject_id")?);
    let about = !item.is_empty();
    let (last_at, mut ended_at) = (row.time("last_at")?, row.time_or_null("ended_at")?);
    let state = match row.int("is_quota")? {
        0 => AlertState::Once,
        // Its end is not told.
        2 if ended_at.is_none() && now.since(last_at) > FADES => {
            ended_at = Some(last_at);
            AlertState::Ended
        }
        _ if ended_at.is_none() => AlertState::Active,
        _ => AlertState::Ended,
    };
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Alert {
        id: row.int("id")?,
        unit_id: row.uuid("unit_id")?,
        system_uid: row.text("system_uid")?,
        unit_title: row.text("unit_title")?,
        tag: row.word("tag")?,
        severity: row.word("severity")?,
        state,
        at: row.time("began_at")?,
        last_at,
        ended_at,
        count: row.count("told")?,
        node_id: filled(row.text("node_id")?),
        service: about.then(|| service(row, item)).transpose()?,
        subject: about.then(|| subject(row, subject_id)).transpose()?,
        instance_id: row.count_or_null("instance")?,
        parameter: filled(row.text("parameter")?),
        value: row.count_or_null("quantity")?,
        text: row.text("body")?,
    })
}

impl Db {
    /// Keeps alerts of a Unit, how far its downloads are, what its timeline says of them, and the session's records.
    pub async fn keep_alerts(
        &self,
        unit: Uuid,
        (alerts, downloads): (&[NewAlert], &[DownloadReport]),
        events: &[Happening],
        retention: &Retention,
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        for download in downloads {
            tx.keep_download(unit, download).await?;
        }
        if !downloads.is_empty() {
            tx.trim_downloads(unit).await?;
        }
        tx.happened(unit, events).await?;
        for alert in alerts {
            tx.keep_alert(unit, alert).await?;
        }
        if !alerts.is_empty() {
            tx.trim_alerts(unit, retention).await?;
            tx.announce(tenant, ChangeTopic::Alert, ChangeAction::Status, unit);
        }
        if !events.is_empty() || !downloads.is_empty() {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        }
        tx.commit().await
    }

    /// Alerts of one Unit, or of all of the organisation, those told last first. `unit` is an id or a system id.
    pub async fn alerts(
        &self,
        actor: &Actor,
        unit: Option<&str>,
        query: &AlertsQuery,
    ) -> Result<Page<Alert>, DbError> {
        let unit = match unit {
            Some(unit) => self.find_unit(actor, unit).await?.to_string(),
            None => String::new(),
        };
        let word = |word: Result<Option<String>, DbError>| word.map(Option::unwrap_or_default);
        let tag = word(query.tag.map(|tag| to_word("tag", &tag)).transpose())?;
        let severity = word(
            query
                .severity
                .map(|one| to_word("severity", &one))
                .transpose(),
        )?;
        let state = word(
            query
                .state
                .map(|state| to_word("state", &state))
                .transpose(),
        )?;
        let now = self.now();
        let list = query.list();
        let since = query.datetime_from.map_or(i64::MIN, Timestamp::as_micros);
        let total = sqlx::query(filtered!(
            "SELECT COUNT(*) AS total FROM alerts JOIN units ON units.id = alerts.unit_id AND units.tenant_id = $1
             LEFT JOIN services ON services.id = alerts.item_id AND services.tenant_id = $1",
            ""
        ))
        .bind(actor.tenant_text())
        .bind(unit.clone())
        .bind(tag.clone())
        .bind(severity.clone())
        .bind(query.node.clone().unwrap_or_default())
        .bind(query.service.clone().unwrap_or_default())
        .bind(since)
        .bind(like(list.search.as_deref()))
        .bind(state.clone())
        .bind((now - FADES).as_micros())
        .fetch_one(self.readers())
        .await
        .doing("count alerts")?
        .count("total")?;
        let rows = sqlx::query(filtered!(
            "SELECT alerts.id, alerts.unit_id, alerts.tag, alerts.severity, alerts.is_quota, alerts.began_at, alerts.last_at,
             alerts.ended_at, alerts.told, alerts.node_id, alerts.item_id, alerts.subject_id, alerts.instance,
             alerts.parameter, alerts.quantity, alerts.body, units.system_uid, units.title AS unit_title,
             services.codename, services.title, subjects.label FROM alerts
             JOIN units ON units.id = alerts.unit_id AND units.tenant_id = $1
             LEFT JOIN services ON services.id = alerts.item_id AND services.tenant_id = $1
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = alerts.subject_id
             AND subjects.tenant_id = $1",
            "ORDER BY alerts.last_at DESC, alerts.id DESC LIMIT $11 OFFSET $12"
        ))
        .bind(actor.tenant_text())
        .bind(unit)
        .bind(tag)
        .bind(severity)
        .bind(query.node.clone().unwrap_or_default())
        .bind(query.service.clone().unwrap_or_default())
        .bind(since)
        .bind(like(list.search.as_deref()))
        .bind(state)
        .bind((now - FADES).as_micros())
        .bind(i64::from(list.limit()))
        .bind(i64::from(list.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read alerts")?;
        page(&rows, total, &list, |row| read(row, now))
    }

    /// Alerts about usage of a Unit that lasted at some moment from one to another.
    pub async fn usage_alerts(
        &self,
        actor: &Actor,
        unit: Uuid,
        (from, till): (Timestamp, Timestamp),
    ) -> Result<Vec<Alert>, DbError> {
        let now = self.now();
        sqlx::query(select!(
            "WHERE alerts.unit_id = $2 AND alerts.is_quota > 0 AND alerts.began_at <= $4
             AND (alerts.ended_at IS NULL OR alerts.ended_at >= $3) ORDER BY alerts.began_at LIMIT 500"
        ))
        .bind(actor.tenant_text())
        .bind(unit.to_string())
        .bind(from.as_micros())
        .bind(till.as_micros())
        .fetch_all(self.readers())
        .await
        .doing("read alerts about usage")?
        .iter()
        .map(|row| read(row, now))
        .collect()
    }
}

impl Tx {
    async fn keep_alert(&mut self, unit: Uuid, alert: &NewAlert) -> Result<(), DbError> {
        let (item, subject, index) = alert.instance.as_ref().map_or_else(
            || (String::new(), String::new(), -1),
            |one| {
                (
                    one.item.to_string(),
                    one.subject.to_string(),
                    big(one.index),
                )
            },
        );
        // Nobody's clock is right, and what is of the future would stay on top for ever.
        let at = alert.at.min(self.now);
        let tag = to_word("tag", &alert.tag)?;
        let node = alert.node.clone().unwrap_or_default();
        // The one that goes on; or the same words a short while ago.
        let found = sqlx::query(
            "SELECT id FROM alerts WHERE unit_id = $1 AND tag = $2 AND node_id = $3 AND item_id = $4 AND subject_id = $5
             AND instance = $6 AND parameter = $7 AND ((is_quota > 0 AND ended_at IS NULL AND $8 = 1)
             OR (is_quota = 0 AND body = $9 AND last_at >= $10 AND $8 = 0)) ORDER BY id DESC LIMIT 1",
        )
        .bind(unit.to_string())
        .bind(tag.clone())
        .bind(node.clone())
        .bind(item.clone())
        .bind(subject.clone())
        .bind(index)
        .bind(alert.parameter.clone())
        .bind(i64::from(alert.quota.is_some()))
        .bind(alert.text.clone())
        .bind((at - AGAIN).as_micros())
        .fetch_optional(self.on())
        .await
        .doing("look for an alert that goes on")?
        .map(|row| row.int("id"))
        .transpose()?;
        let ended = (alert.quota == Some(QuotaChange::Fall)).then_some(at);
        if let Some(id) = found {
            sqlx::query(
                "UPDATE alerts SET last_at = $2, ended_at = $3, told = told + 1, quantity = $4, body = $5 WHERE id = $1",
            )
            .bind(id)
            .bind(at.as_micros())
            .bind(ended.map(Timestamp::as_micros))
            .bind(alert.value.map(big))
            .bind(alert.text.clone())
            .execute(self.on())
            .await
            .doing("note that an alert goes on")?;
            return Ok(());
        }
        // The end of what nobody heard of is no news.
        if ended.is_some() {
            return Ok(());
        }
        let kind = match alert.quota {
            None => 0,
            Some(QuotaChange::On) => 2,
            Some(_) => 1,
        };
        let id = self.next_id();
        sqlx::query(
            "INSERT INTO alerts (id, unit_id, tag, severity, is_quota, began_at, last_at, ended_at, told, node_id, item_id,
             subject_id, instance, parameter, quantity, body)
             VALUES ($1, $2, $3, $4, $5, $6, $6, NULL, 1, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(id)
        .bind(unit.to_string())
        .bind(tag)
        .bind(to_word("severity", &alert.severity)?)
        .bind(kind)
        .bind(at.as_micros())
        .bind(node)
        .bind(item)
        .bind(subject)
        .bind(index)
        .bind(alert.parameter.clone())
        .bind(alert.value.map(big))
        .bind(alert.text.clone())
        .execute(self.on())
        .await
        .doing("keep an alert")?;
        Ok(())
    }

    async fn trim_alerts(&mut self, unit: Uuid, retention: &Retention) -> Result<(), DbError> {
        let oldest = (self.now - retention.alerts).as_micros();
        sqlx::query(
            "DELETE FROM alerts WHERE unit_id = $1 AND (last_at < $2 OR last_at < COALESCE(
             (SELECT last_at FROM alerts WHERE unit_id = $1 ORDER BY last_at DESC LIMIT 1 OFFSET $3), 0))",
        )
        .bind(unit.to_string())
        .bind(oldest)
        .bind(MOST_ALERTS)
        .execute(self.on())
        .await
        .doing("drop old alerts")?;
        Ok(())
    }
}
