use aos_api::{ListQuery, Page, Severity, TimelineEvent, TimelineKind};
use aos_time::Timestamp;

use crate::{
    Actor, Db, DbError, LinkWrite,
    columns::{Columns, to_word},
    error::Doing,
    listing::page,
};

/// Timeline events kept of one Unit.
pub const KEPT_PER_UNIT: i64 = 1000;

/// A timeline event to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// About what.
    pub kind: TimelineKind,
    /// How much it matters.
    pub severity: Severity,
    /// What happened and why.
    pub text: String,
    /// The Node, if it is about one.
    pub node_id: Option<String>,
    /// The item, if it is about one.
    pub item_id: Option<String>,
    /// The subject, if it is about an instance.
    pub subject_id: Option<String>,
    /// The instance, if it is about one.
    pub instance: Option<u64>,
    /// The version, if it is about one.
    pub version: Option<String>,
}

impl Happening {
    /// An event about the Unit as a whole.
    pub fn new(kind: TimelineKind, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            kind,
            severity,
            text: text.into(),
            node_id: None,
            item_id: None,
            subject_id: None,
            instance: None,
            version: None,
        }
    }

    /// An event that went as it should.
    pub fn info(kind: TimelineKind, text: impl Into<String>) -> Self {
        Self::new(kind, Severity::Info, text)
    }
}

impl Db {
    /// What happened to a Unit, newest first. `unit` is an id or a system id.
    pub async fn timeline(
        &self,
        actor: &Actor,
        unit: &str,
        query: &ListQuery,
    ) -> Result<Page<TimelineEvent>, DbError> {
        let unit = self.find_unit(actor, unit).await?;
        let search = crate::like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM timeline WHERE unit_id = $1 AND LOWER(body) LIKE $2 ESCAPE '!'",
        )
        .bind(unit.to_string())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count the timeline")?
        .count("total")?;
        let rows = sqlx::query(
            "SELECT id, at, kind, severity, body, node_id, item_id, subject_id, instance, version FROM timeline
             WHERE unit_id = $1 AND LOWER(body) LIKE $2 ESCAPE '!' ORDER BY id DESC LIMIT $3 OFFSET $4",
        )
        .bind(unit.to_string())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the timeline")?;
        page(&rows, total, query, |row| {
            Ok(TimelineEvent {
                id: row.int("id")?,
                at: row.time("at")?,
                kind: row.word("kind")?,
                severity: row.word("severity")?,
                text: row.text("body")?,
                node_id: row.text_or_null("node_id")?,
                item_id: row.text_or_null("item_id")?,
                subject_id: row.text_or_null("subject_id")?,
                instance_id: row.count_or_null("instance")?,
                version: row.text_or_null("version")?,
            })
        })
    }

    /// What a Unit said of its update as a whole since a moment: the newest texts first, each once, at most `most`.
    pub async fn said_of_update(
        &self,
        unit: uuid::Uuid,
        since: Timestamp,
        most: usize,
    ) -> Result<Vec<String>, DbError> {
        let rows = sqlx::query(
            "SELECT body FROM timeline WHERE unit_id = $1 AND kind = $2 AND at >= $3 ORDER BY id DESC LIMIT 50",
        )
        .bind(unit.to_string())
        .bind(to_word("timeline kind", &TimelineKind::Update)?)
        .bind(since.as_micros())
        .fetch_all(self.readers())
        .await
        .doing("read what a Unit says of its update")?;
        let mut texts: Vec<String> = Vec::new();
        for row in &rows {
            let text = row.text("body")?;
            if texts.len() < most && !texts.contains(&text) {
                texts.push(text);
            }
        }
        Ok(texts)
    }

    /// Adds to the timeline of a Unit, with the session's records, in one transaction: for what no other call here sees,
    /// such as an alert or a message that could not be read.
    pub async fn note(
        &self,
        unit: uuid::Uuid,
        events: &[Happening],
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        if events.is_empty() {
            return self.write_link(unit, link).await;
        }
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        tx.happened(unit, events).await?;
        tx.announce(
            tenant,
            aos_api::ChangeTopic::Unit,
            aos_api::ChangeAction::Status,
            unit,
        );
        tx.commit().await
    }
}
