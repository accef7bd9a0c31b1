use aos_api::{ChangeAction, ChangeTopic, LogKind, LogState, NodeLogState};
use aos_time::Timestamp;
use uuid::Uuid;

use crate::{
    Db, DbError, LinkWrite, NodeReport,
    columns::{Columns, big, to_word},
    error::Doing,
    store::Tx,
};

/// Longest part that is kept, compressed.
const MOST_PART: usize = 4 << 20;
/// Most compressed bytes of one request; of a live log the oldest parts go, another one ends.
const MOST_BYTES: u64 = 64 << 20;
const MOST_LIVE: u64 = 8 << 20;
/// Longest reason that is kept, in characters.
const MOST_MESSAGE: usize = 1_000;

/// A request that is to go to a Unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOrder {
    /// Its id, which the answers carry.
    pub id: Uuid,
    /// Which log.
    pub log_type: LogKind,
    /// Of these Nodes.
    pub nodes: Vec<String>,
    /// Of this item, as the Unit knows it.
    pub item_id: Option<String>,
    /// For this subject, as the Unit knows it.
    pub subject_id: Option<String>,
    /// Of this instance.
    pub instance: Option<u64>,
    /// From this moment on.
    pub date_from: Option<Timestamp>,
    /// Before this moment.
    pub date_till: Option<Timestamp>,
    /// Have lines come as they are written, until this moment; one that is over ends it.
    pub follow_until: Option<Timestamp>,
}

/// A part that a Unit sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The id of the request.
    pub request: Uuid,
    /// Of which Node.
    pub node_id: String,
    /// Which part.
    pub part: u64,
    /// How many there are; 0 while lines come as they are written.
    pub parts_count: u64,
    /// A gzip stream of its own.
    pub content: Vec<u8>,
    /// What the Node says; `Waiting` is none of its words.
    pub state: NodeLogState,
    /// Why there is nothing.
    pub message: Option<String>,
}

impl Db {
    /// The requests that a Unit was not told of, and the ends of live logs that it was not told of.
    pub async fn logs_to_send(&self, unit: Uuid) -> Result<Vec<LogOrder>, DbError> {
        let follows = self.tells_live(unit).await?;
        let rows = sqlx::query(
            "SELECT id, log_type, item_id, subject_id, instance, date_from, date_till, follow_until FROM log_requests
             WHERE unit_id = $1 AND finished_at IS NULL AND (sent_at IS NULL OR stopping = 1) ORDER BY created_at, id",
        )
        .bind(unit.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read requests for logs")?;
        let mut orders = Vec::new();
        for row in &rows {
            let id = row.uuid("id")?;
            let nodes =
                sqlx::query("SELECT node_id FROM log_nodes WHERE request_id = $1 ORDER BY node_id")
                    .bind(id.to_string())
                    .fetch_all(self.readers())
                    .await
                    .doing("read the Nodes of a request for logs")?;
            orders.push(LogOrder {
                id,
                log_type: row.word("log_type")?,
                nodes: nodes
                    .iter()
                    .map(|row| row.text("node_id"))
                    .collect::<Result<_, _>>()?,
                item_id: row.text_or_null("item_id")?,
                subject_id: row.text_or_null("subject_id")?,
                instance: row.count_or_null("instance")?,
                date_from: row.time_or_null("date_from")?,
                date_till: row.time_or_null("date_till")?,
                follow_until: row.time_or_null("follow_until")?.filter(|_| follows),
            });
        }
        Ok(orders)
    }

    /// Whether the Unit can tell lines as they come: our CM marks its Nodes, and others refuse a message that asks for it.
    async fn tells_live(&self, unit: Uuid) -> Result<bool, DbError> {
        let rows = sqlx::query("SELECT document FROM unit_nodes WHERE unit_id = $1")
            .bind(unit.to_string())
            .fetch_all(self.readers())
            .await
            .doing("read the Nodes of a Unit")?;
        for row in &rows {
            let node: NodeReport = row.json("document")?;
            if node.info.attrs.contains_key("AosGuarantee") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// These went to the Unit, with what the link has to store.
    pub async fn logs_sent(
        &self,
        unit: Uuid,
        orders: &[LogOrder],
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let now = tx.now.as_micros();
        for order in orders {
            sqlx::query(
                "UPDATE log_requests SET sent_at = COALESCE(sent_at, $2), stopping = 0,
                 state = CASE WHEN state IN ('created', 'waiting unit') THEN $3 ELSE state END WHERE id = $1",
            )
            .bind(order.id.to_string())
            .bind(now)
            .bind(to_word("state", &LogState::Sent)?)
            .execute(tx.on())
            .await
            .doing("note that a request for logs was sent")?;
            if order.follow_until.is_none() {
                sqlx::query(
                    "UPDATE log_requests SET follow_until = NULL, message = $2
                     WHERE id = $1 AND follow_until IS NOT NULL",
                )
                .bind(order.id.to_string())
                .bind("this Unit cannot tell lines as they come: these are those until now")
                .execute(tx.on())
                .await
                .doing("note that a log is not live")?;
            }
            tx.announce(tenant, ChangeTopic::Log, ChangeAction::Updated, order.id);
        }
        tx.commit().await
    }

    /// Takes a part that a Unit sent, with what the link has to store. One of a request that is over, or that is not this
    /// Unit's, is passed over.
    pub async fn take_log_part(
        &self,
        unit: Uuid,
        part: &LogPart,
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let found = sqlx::query(
            "SELECT follow_until, bytes FROM log_requests WHERE id = $1 AND unit_id = $2 AND finished_at IS NULL",
        )
        .bind(part.request.to_string())
        .bind(unit.to_string())
        .fetch_optional(tx.on())
        .await
        .doing("look up a request for logs")?;
        if let Some(row) = found {
            let live = row.int_or_null("follow_until")?.is_some();
            let bytes = row.count("bytes")?;
            tx.log_part(part, live, bytes).await?;
            tx.finish_log(part.request).await?;
            tx.announce(
                tenant,
                ChangeTopic::Log,
                ChangeAction::Updated,
                part.request,
            );
        }
        tx.commit().await
    }
}

impl Tx {
    async fn log_part(&mut self, part: &LogPart, live: bool, before: u64) -> Result<(), DbError> {
        let id = part.request.to_string();
        let mut state = part.state;
        let mut message = part.message.clone();
        let length = u64::try_from(part.content.len()).unwrap_or(u64::MAX);
        let mut bytes = before;
        if state == NodeLogState::Ok && !part.content.is_empty() {
            let most = if live { MOST_LIVE } else { MOST_BYTES };
            if part.content.len() > MOST_PART || (!live && before + length > most) {
                state = NodeLogState::Failed;
                message = Some(format!(
                    "more came than is kept of one request, {} MiB: ask for a shorter time",
                    most >> 20
                ));
            } else {
                let seq = self.next_id();
                let stored = sqlx::query(
                    "INSERT INTO log_parts (seq, request_id, node_id, part, content) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (request_id, node_id, part) DO NOTHING",
                )
                .bind(seq)
                .bind(id.clone())
                .bind(part.node_id.clone())
                .bind(big(part.part))
                .bind(part.content.clone())
                .execute(self.on())
                .await
                .doing("store a part of a log")?;
                if stored.rows_affected() > 0 {
                    bytes += length;
                }
                while live && bytes > most {
                    let Some(gone) = self.oldest_part_goes(&id).await? else {
                        break;
                    };
                    bytes = bytes.saturating_sub(gone);
                }
            }
        }
        let have = sqlx::query(
            "SELECT COUNT(*) AS total FROM log_parts WHERE request_id = $1 AND node_id = $2",
        )
        .bind(id.clone())
        .bind(part.node_id.clone())
        .fetch_one(self.on())
        .await
        .doing("count parts of a log")?
        .count("total")?;
        let all = part.parts_count > 0 && have >= part.parts_count;
        let state = match state {
            NodeLogState::Ok if all => NodeLogState::Ok,
            NodeLogState::Ok => NodeLogState::Waiting,
            // The last word of a live log.
            NodeLogState::Empty if live && have > 0 => NodeLogState::Ok,
            other => other,
        };
        // A Node that nobody named may answer all the same, but not for ever new ones.
        sqlx::query(
            "INSERT INTO log_nodes (request_id, node_id, state, parts_count, message)
             SELECT $1, $2, $3, $4, $5 WHERE (SELECT COUNT(*) FROM log_nodes WHERE request_id = $1) < 128
             OR EXISTS (SELECT 1 FROM log_nodes WHERE request_id = $1 AND node_id = $2)
             ON CONFLICT (request_id, node_id) DO UPDATE SET state = excluded.state,
             parts_count = excluded.parts_count, message = excluded.message
             WHERE log_nodes.state = 'waiting'",
        )
        .bind(id.clone())
        .bind(part.node_id.clone())
        .bind(to_word("state", &state)?)
        .bind(big(part.parts_count))
        .bind(message.map(|text| text.chars().take(MOST_MESSAGE).collect::<String>()))
        .execute(self.on())
        .await
        .doing("note what a Node said of its log")?;
        sqlx::query("UPDATE log_requests SET state = $2, bytes = $3 WHERE id = $1")
            .bind(id)
            .bind(to_word("state", &LogState::Receiving)?)
            .bind(big(bytes))
            .execute(self.on())
            .await
            .doing("note that a log comes")?;
        Ok(())
    }

    async fn oldest_part_goes(&mut self, id: &str) -> Result<Option<u64>, DbError> {
        let oldest = sqlx::query(
            "SELECT seq, LENGTH(content) AS bytes FROM log_parts WHERE request_id = $1 ORDER BY seq LIMIT 1",
        )
        .bind(id.to_owned())
        .fetch_optional(self.on())
        .await
        .doing("look for the oldest part of a log")?;
        let Some(row) = oldest else {
            return Ok(None);
        };
        sqlx::query("DELETE FROM log_parts WHERE seq = $1")
            .bind(row.int("seq")?)
            .execute(self.on())
            .await
            .doing("remove the oldest part of a log")?;
        Ok(Some(row.count("bytes")?))
    }

    /// It is over when every Node has said all.
    async fn finish_log(&mut self, log: Uuid) -> Result<(), DbError> {
        let rows = sqlx::query("SELECT state, message FROM log_nodes WHERE request_id = $1")
            .bind(log.to_string())
            .fetch_all(self.on())
            .await
            .doing("read what Nodes said of logs")?;
        let mut said = Vec::new();
        for row in &rows {
            said.push((
                row.word::<NodeLogState>("state")?,
                row.text_or_null("message")?,
            ));
        }
        if said
            .iter()
            .any(|(state, _)| *state == NodeLogState::Waiting)
        {
            return Ok(());
        }
        let is = |wanted| said.iter().any(|(state, _)| *state == wanted);
        let state = if is(NodeLogState::Ok) {
            LogState::Done
        } else if is(NodeLogState::Empty) {
            LogState::Empty
        } else {
            LogState::Error
        };
        // Of Nodes without such an instance nobody needs to hear when another one has it.
        let about = match state {
            LogState::Error => None,
            _ => Some(NodeLogState::Failed),
        };
        let message = said
            .into_iter()
            .filter(|(state, _)| about.is_none_or(|about| about == *state))
            .find_map(|(_, message)| message);
        self.end_log(log, state, message).await
    }

    pub(super) async fn end_log(
        &mut self,
        log: Uuid,
        state: LogState,
        message: Option<String>,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query(
            "UPDATE log_requests SET state = $2, message = COALESCE($3, message), finished_at = $4, stopping = 0
             WHERE id = $1",
        )
        .bind(log.to_string())
        .bind(to_word("state", &state)?)
        .bind(message)
        .bind(now)
        .execute(self.on())
        .await
        .doing("end a request for logs")?;
        Ok(())
    }
}
