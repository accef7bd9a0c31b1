//! Requests for logs: made by people, sent to Units by the gateway, answered part by part, and kept for a while.

mod intake;
mod retention;

use std::time::Duration;

use aos_api::{
    ChangeAction, ChangeTopic, ListQuery, LogKind, LogRequest, LogState, NewLogRequest, NodeLog,
    OnlineStatus, Page, ServiceRef, SubjectRef,
};
use aos_time::Timestamp;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError,
    columns::{Columns, big, to_word},
    error::Doing,
};

pub use intake::{LogOrder, LogPart};
pub use retention::{KEEP_LOGS, LogsKept};

/// Most requests of one Unit that are not over.
const MOST_OPEN: u64 = 10;
/// Most requests of one Unit that are kept; the oldest go.
const MOST_KEPT: i64 = 100;
/// Most Nodes in one request.
const MOST_NODES: usize = 64;
/// How long lines come as they are written, unless it is ended before.
const FOLLOW: Duration = Duration::from_secs(15 * 60);

/// A part of a log as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPart {
    /// Its place among the parts of its log; what lies between two places does not matter.
    pub place: i64,
    /// Of which Node.
    pub node_id: String,
    /// A gzip stream of its own.
    pub content: Vec<u8>,
}

/// What is read of a request, whatever else is.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT log_requests.id, log_requests.log_type, log_requests.item_id, log_requests.subject_id,
             log_requests.instance, log_requests.date_from, log_requests.date_till, log_requests.follow_until,
             log_requests.state, log_requests.message, log_requests.bytes, log_requests.created_by,
             log_requests.created_at, log_requests.finished_at, services.codename, services.title, subjects.label
             FROM log_requests
             LEFT JOIN services ON services.id = log_requests.item_id AND services.tenant_id = $2
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = log_requests.subject_id
             AND subjects.tenant_id = $2
             WHERE log_requests.unit_id = $1 ",
            $rest
        )
    };
}

fn read(row: &AnyRow) -> Result<LogRequest, DbError> {
    let finished_at = row.time_or_null("finished_at")?;
    let service = match row.text_or_null("item_id")? {
        Some(id) => Some(ServiceRef {
            codename: row.text_or_null("codename")?.unwrap_or_else(|| id.clone()),
            title: row.text_or_null("title")?.unwrap_or_default(),
            id,
        }),
        None => None,
    };
    let subject = match row.text_or_null("subject_id")? {
        Some(id) => Some(SubjectRef {
            label: row.text_or_null("label")?.unwrap_or_else(|| id.clone()),
            id,
        }),
        None => None,
    };
    Ok(LogRequest {
        id: row.uuid("id")?,
        log_type: row.word("log_type")?,
        service,
        subject,
        instance_id: row.count_or_null("instance")?,
        date_from: row.time_or_null("date_from")?,
        date_till: row.time_or_null("date_till")?,
        follow_until: row.time_or_null("follow_until")?,
        state: row.word("state")?,
        message: row.text_or_null("message")?,
        nodes: Vec::new(),
        bytes: row.count("bytes")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        finished_at,
        kept_until: finished_at.map(|at| at + KEEP_LOGS),
    })
}

/// Refuses what no Unit could answer.
fn check(new: &NewLogRequest, now: Timestamp) -> Result<(), DbError> {
    let invalid = |field, why: &str| Err(DbError::invalid(field, why));
    if new.nodes.len() > MOST_NODES {
        return Err(DbError::invalid(
            "nodes",
            format!("names more than {MOST_NODES} Nodes; leave it out for all"),
        ));
    }
    if let Some(node) = new
        .nodes
        .iter()
        .find(|node| aos_types::NodeId::new(*node).is_err())
    {
        let node: String = node.chars().take(64).collect();
        return Err(DbError::invalid(
            "nodes",
            format!("`{node}` is no id of a Node"),
        ));
    }
    let of_instance = new.service.is_some() || new.subject.is_some() || new.instance_id.is_some();
    if new.log_type == LogKind::System && of_instance {
        return invalid(
            "service",
            "the system's log is that of a Node: leave out service, subject and instance_id",
        );
    }
    if let (Some(from), Some(till)) = (new.date_from, new.date_till)
        && till <= from
    {
        return invalid("date_till", "must be after date_from");
    }
    if new.date_from.is_some_and(|from| from > now) {
        return invalid("date_from", "is in the future: there is no line yet");
    }
    if new.follow && new.date_till.is_some() {
        return invalid("follow", "has an end of its own: leave out date_till");
    }
    if new.follow && new.log_type == LogKind::Crash {
        return invalid("follow", "crash logs are asked for, they are not followed");
    }
    Ok(())
}

impl Db {
    /// Asks a Unit for logs. `unit` is an id or a system id.
    pub async fn request_log(
        &self,
        actor: &Actor,
        unit: &str,
        new: &NewLogRequest,
    ) -> Result<LogRequest, DbError> {
        check(new, self.now())?;
        let known = self.unit(actor, unit).await?;
        let online = known.online_status != OnlineStatus::Offline;
        if new.follow && !online {
            return Err(DbError::conflict(
                "the Unit is not connected, so no line can come as it is written",
                "ask for a log without follow: the request waits for the Unit",
            ));
        }
        let item = match &new.service {
            Some(text) => Some(self.service(actor, text).await?.id.to_string()),
            None => None,
        };
        let subject = match &new.subject {
            Some(text) => Some(self.subject_named(actor, text).await?.on_the_wire()),
            None => None,
        };
        let mut nodes = new.nodes.clone();
        if nodes.is_empty() {
            let all = self.unit_nodes(actor, &known.id.to_string()).await?;
            nodes = all.items.into_iter().map(|node| node.node_id).collect();
        }
        nodes.sort();
        nodes.dedup();
        let id = Uuid::new_v4();
        let mut tx = self.begin().await?;
        let now = tx.now;
        let open = sqlx::query(
            "SELECT COUNT(*) AS total FROM log_requests WHERE unit_id = $1 AND finished_at IS NULL",
        )
        .bind(known.id.to_string())
        .fetch_one(tx.on())
        .await
        .doing("count requests for logs")?
        .count("total")?;
        if open >= MOST_OPEN {
            return Err(DbError::conflict(
                format!("{open} requests for logs of this Unit are not over yet"),
                "wait for them, or remove those that are not needed",
            ));
        }
        let state = if online {
            LogState::Created
        } else {
            LogState::WaitingUnit
        };
        sqlx::query(
            "INSERT INTO log_requests (id, unit_id, log_type, item_id, subject_id, instance, date_from, date_till,
             follow_until, state, bytes, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12)",
        )
        .bind(id.to_string())
        .bind(known.id.to_string())
        .bind(to_word("log type", &new.log_type)?)
        .bind(item)
        .bind(subject)
        .bind(new.instance_id.map(big))
        .bind(new.date_from.map(Timestamp::as_micros))
        .bind(new.date_till.map(Timestamp::as_micros))
        .bind(new.follow.then(|| (now + FOLLOW).as_micros()))
        .bind(to_word("state", &state)?)
        .bind(actor.name().to_owned())
        .bind(now.as_micros())
        .execute(tx.on())
        .await
        .doing("store a request for logs")?;
        for node in &nodes {
            sqlx::query(
                "INSERT INTO log_nodes (request_id, node_id, state, parts_count) VALUES ($1, $2, 'waiting', 0)",
            )
            .bind(id.to_string())
            .bind(node.clone())
            .execute(tx.on())
            .await
            .doing("store a request for logs")?;
        }
        sqlx::query(
            "DELETE FROM log_requests WHERE unit_id = $1 AND finished_at IS NOT NULL AND created_at <= COALESCE(
             (SELECT created_at FROM log_requests WHERE unit_id = $1 ORDER BY created_at DESC LIMIT 1 OFFSET $2), 0)",
        )
        .bind(known.id.to_string())
        .bind(MOST_KEPT)
        .execute(tx.on())
        .await
        .doing("remove old logs")?;
        let detail = format!(
            "{}{} log {id}",
            if new.follow { "live " } else { "" },
            to_word("log type", &new.log_type)?
        );
        tx.audit(actor, "log.request", format!("unit:{}", known.id), detail)
            .await?;
        let tenant = actor.tenant();
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::LogAsked, known.id);
        tx.announce(tenant, ChangeTopic::Log, ChangeAction::Created, id);
        tx.commit().await?;
        self.log(actor, unit, id).await
    }

    /// The requests for logs of a Unit, the newest first.
    pub async fn logs(
        &self,
        actor: &Actor,
        unit: &str,
        query: &ListQuery,
    ) -> Result<Page<LogRequest>, DbError> {
        let unit = self.find_unit(actor, unit).await?;
        let total = sqlx::query("SELECT COUNT(*) AS total FROM log_requests WHERE unit_id = $1")
            .bind(unit.to_string())
            .fetch_one(self.readers())
            .await
            .doing("count requests for logs")?
            .count("total")?;
        let rows = sqlx::query(select!(
            "ORDER BY log_requests.created_at DESC, log_requests.id LIMIT $3 OFFSET $4"
        ))
        .bind(unit.to_string())
        .bind(actor.tenant_text())
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read requests for logs")?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut log = read(row)?;
            log.nodes = self.log_nodes(log.id).await?;
            items.push(log);
        }
        Ok(Page {
            items,
            total,
            offset: query.offset().into(),
        })
    }

    /// One request for logs.
    pub async fn log(&self, actor: &Actor, unit: &str, log: Uuid) -> Result<LogRequest, DbError> {
        let unit = self.find_unit(actor, unit).await?;
        let row = sqlx::query(select!("AND log_requests.id = $3"))
            .bind(unit.to_string())
            .bind(actor.tenant_text())
            .bind(log.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a request for logs")?
            .ok_or_else(|| DbError::not_found("log", log))?;
        let mut log = read(&row)?;
        log.nodes = self.log_nodes(log.id).await?;
        Ok(log)
    }

    async fn log_nodes(&self, log: Uuid) -> Result<Vec<NodeLog>, DbError> {
        sqlx::query(
            "SELECT log_nodes.node_id, log_nodes.state, log_nodes.parts_count, log_nodes.message,
             (SELECT COUNT(*) FROM log_parts WHERE log_parts.request_id = log_nodes.request_id
             AND log_parts.node_id = log_nodes.node_id) AS parts
             FROM log_nodes WHERE request_id = $1 ORDER BY node_id",
        )
        .bind(log.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read what Nodes said of logs")?
        .iter()
        .map(|row| {
            Ok(NodeLog {
                node_id: row.text("node_id")?,
                state: row.word("state")?,
                parts: row.count("parts")?,
                parts_count: row.count("parts_count")?,
                message: row.text_or_null("message")?,
            })
        })
        .collect()
    }

    /// What came of a log, in the order of its lines, from a place on (exclusive). At most `limit` parts.
    pub async fn log_parts(
        &self,
        actor: &Actor,
        unit: &str,
        log: Uuid,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<KeptPart>, DbError> {
        // Of a live log the order in which parts came is that of their lines; of another they may have overtaken each other.
        let live = self.log(actor, unit, log).await?.follow_until.is_some();
        let after = after.unwrap_or(-1);
        let (text, skip) = if live {
            (
                "SELECT seq, node_id, content FROM log_parts WHERE request_id = $1 AND seq > $2
                 ORDER BY seq LIMIT $3 OFFSET $4",
                0,
            )
        } else {
            (
                "SELECT seq, node_id, content FROM log_parts WHERE request_id = $1 AND seq > $2
                 ORDER BY node_id, part LIMIT $3 OFFSET $4",
                after.saturating_add(1).max(0),
            )
        };
        let rows = sqlx::query(text)
            .bind(log.to_string())
            .bind(if live { after } else { -1 })
            .bind(i64::from(limit))
            .bind(skip)
            .fetch_all(self.readers())
            .await
            .doing("read parts of a log")?;
        rows.iter()
            .zip(skip..)
            .map(|(row, place)| {
                Ok(KeptPart {
                    place: if live { row.int("seq")? } else { place },
                    node_id: row.text("node_id")?,
                    content: row.bytes("content")?,
                })
            })
            .collect()
    }

    /// Ends a live log now.
    pub async fn stop_log(
        &self,
        actor: &Actor,
        unit: &str,
        log: Uuid,
    ) -> Result<LogRequest, DbError> {
        let found = self.log(actor, unit, log).await?;
        if found.follow_until.is_none() {
            return Err(DbError::conflict(
                "this is no live log",
                "remove it if it is not needed",
            ));
        }
        if found.state.is_over() {
            return Ok(found);
        }
        let unit = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        sqlx::query(
            "UPDATE log_requests SET follow_until = $2, stopping = 1 WHERE id = $1 AND follow_until > $2",
        )
        .bind(log.to_string())
        .bind(now)
        .execute(tx.on())
        .await
        .doing("end a live log")?;
        let tenant = actor.tenant();
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::LogAsked, unit);
        tx.announce(tenant, ChangeTopic::Log, ChangeAction::Updated, log);
        tx.commit().await?;
        self.log(actor, &unit.to_string(), log).await
    }

    /// Removes a request for logs with all that came of it.
    pub async fn delete_log(&self, actor: &Actor, unit: &str, log: Uuid) -> Result<(), DbError> {
        let found = self.log(actor, unit, log).await?;
        let unit = self.find_unit(actor, unit).await?;
        if found.follow_until.is_some() && !found.state.is_over() {
            self.stop_log(actor, &unit.to_string(), log).await?;
        }
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM log_requests WHERE id = $1 AND unit_id = $2")
            .bind(log.to_string())
            .bind(unit.to_string())
            .execute(tx.on())
            .await
            .doing("remove a log")?;
        tx.audit(
            actor,
            "log.delete",
            format!("unit:{unit}"),
            format!("log {log}"),
        )
        .await?;
        tx.announce(actor.tenant(), ChangeTopic::Log, ChangeAction::Deleted, log);
        tx.commit().await
    }
}
