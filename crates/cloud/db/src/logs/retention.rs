use std::time::Duration;

use aos_api::{ChangeAction, ChangeTopic, LogState};
use uuid::Uuid;

use crate::{Db, DbError, columns::Columns, error::Doing};

/// How long a log is kept after it is over.
pub const KEEP_LOGS: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long a request waits for a Unit that is not connected.
const WAIT_UNIT: Duration = Duration::from_secs(3_600);
/// How long a Unit may take to answer.
const ANSWER: Duration = Duration::from_secs(15 * 60);
/// How long after its end the last word of a live log is waited for.
const FAREWELL: Duration = Duration::from_secs(60);
/// Compressed bytes of all logs that are kept; the oldest go.
const MOST_BYTES: u64 = 4 << 30;

/// What retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogsKept {
    /// Requests that were ended because no answer came in time.
    pub ended: u64,
    /// Requests that were removed, with their logs.
    pub removed: u64,
}

impl Db {
    /// Ends requests that are not answered in time, and removes old logs.
    pub async fn retain_logs(&self) -> Result<LogsKept, DbError> {
        let mut done = LogsKept::default();
        let mut tx = self.begin().await?;
        let now = tx.now;
        let before = |span: Duration| (now - span).as_micros();
        let late = sqlx::query(
            "SELECT log_requests.id, log_requests.sent_at, log_requests.follow_until, log_requests.bytes,
             units.tenant_id FROM log_requests JOIN units ON units.id = log_requests.unit_id
             WHERE finished_at IS NULL AND (
                 (sent_at IS NULL AND log_requests.created_at < $1)
                 OR (sent_at < $2 AND follow_until IS NULL)
                 OR (sent_at IS NOT NULL AND follow_until < $3))",
        )
        .bind(before(WAIT_UNIT))
        .bind(before(ANSWER))
        .bind(before(FAREWELL))
        .fetch_all(tx.on())
        .await
        .doing("look for requests for logs that are late")?;
        for row in &late {
            let id = row.uuid("id")?;
            let some = row.count("bytes")? > 0;
            let live = row.int_or_null("follow_until")?.is_some();
            let why = if row.int_or_null("sent_at")?.is_none() {
                "the Unit was not connected within an hour: ask again when it is"
            } else if live {
                "the Unit did not say that the live log has ended"
            } else {
                "the Unit did not tell all within 15 minutes: look whether it is connected, and ask again"
            };
            let state = if some {
                LogState::Done
            } else {
                LogState::Error
            };
            tx.end_log(id, state, Some(why.to_owned())).await?;
            tx.announce(
                row.uuid("tenant_id")?,
                ChangeTopic::Log,
                ChangeAction::Updated,
                id,
            );
            done.ended += 1;
        }
        let over = sqlx::query(
            "SELECT log_requests.id, log_requests.bytes, log_requests.finished_at, units.tenant_id FROM log_requests
             JOIN units ON units.id = log_requests.unit_id WHERE finished_at IS NOT NULL ORDER BY finished_at DESC",
        )
        .fetch_all(tx.on())
        .await
        .doing("look for old logs")?;
        let mut bytes = 0_u64;
        let mut gone: Vec<(Uuid, Uuid)> = Vec::new();
        for row in &over {
            bytes = bytes.saturating_add(row.count("bytes")?);
            if row.int("finished_at")? < before(KEEP_LOGS) || bytes > MOST_BYTES {
                gone.push((row.uuid("tenant_id")?, row.uuid("id")?));
            }
        }
        for (tenant, id) in gone {
            sqlx::query("DELETE FROM log_requests WHERE id = $1")
                .bind(id.to_string())
                .execute(tx.on())
                .await
                .doing("remove an old log")?;
            tx.announce(tenant, ChangeTopic::Log, ChangeAction::Deleted, id);
            done.removed += 1;
        }
        tx.commit().await?;
        Ok(done)
    }
}
