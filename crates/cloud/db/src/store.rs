use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aos_api::{ChangeAction, ChangeTopic};
use aos_time::{Clock, Timestamp};
use sha2::{Digest as _, Sha256};
use sqlx::{Any, AnyConnection, AnyPool, Transaction, any::AnyPoolOptions};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    Actor, Change, DbError,
    columns::{Columns, big, to_word},
    error::Doing,
    timeline::{Happening, KEPT_PER_UNIT},
};

/// Changes a slow listener may fall behind before it is told to read everything again.
const BUS_LENGTH: usize = 4096;
/// Readers beside the one writer.
const READERS: u32 = 4;

/// The store of the cloud. Clones share the same file, writer and bus.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    writer: AnyPool,
    readers: AnyPool,
    clock: Arc<dyn Clock>,
    bus: broadcast::Sender<Change>,
    last_id: AtomicI64,
}

/// One change of the store: all of it or nothing, with its audit rows, then its announcements.
pub(crate) struct Tx {
    inner: Transaction<'static, Any>,
    db: Db,
    pub(crate) now: Timestamp,
    changes: Vec<Change>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens (and makes, with mode 0600) the SQLite file at `path` and brings its tables to this version.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, DbError> {
        sqlx::any::install_default_drivers();
        make_private(path)?;
        let url = format!("sqlite://{}?mode=rwc", encode(path));
        let options = || {
            AnyPoolOptions::new()
                .acquire_timeout(Duration::from_secs(30))
                .idle_timeout(None)
                .max_lifetime(None)
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        for pragma in [
                            "PRAGMA journal_mode = WAL",
                            "PRAGMA synchronous = FULL",
                            "PRAGMA foreign_keys = ON",
                            "PRAGMA busy_timeout = 10000",
                        ] {
                            sqlx::query(pragma).execute(&mut *connection).await?;
                        }
                        Ok(())
                    })
                })
        };
        let writer = options()
            .max_connections(1)
            .connect(&url)
            .await
            .doing("open the database")?;
        sqlx::migrate!("./migrations")
            .run(&writer)
            .await
            .map_err(DbError::Migrate)?;
        let readers = options()
            .max_connections(READERS)
            .connect(&url)
            .await
            .doing("open the database")?;
        let newest = sqlx::query(
            "SELECT COALESCE(MAX(id), 0) AS newest FROM
             (SELECT MAX(id) AS id FROM timeline UNION ALL SELECT MAX(id) AS id FROM audit
             UNION ALL SELECT MAX(id) AS id FROM alerts
             UNION ALL SELECT MAX(seq) AS id FROM log_parts) AS ids",
        )
        .fetch_one(&writer)
        .await
        .doing("read the newest event")?
        .int("newest")?;
        let (bus, _) = broadcast::channel(BUS_LENGTH);
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                readers,
                clock,
                bus,
                last_id: AtomicI64::new(newest),
            }),
        })
    }

    /// Listens to committed changes. A listener that is told it lagged must read everything again.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.bus.subscribe()
    }

    /// The clock the store writes by.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Closes the file after the last running query.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    pub(crate) fn readers(&self) -> &AnyPool {
        &self.inner.readers
    }

    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>, DbError> {
        self.inner.readers.begin().await.doing("begin a reading")
    }

    pub(crate) async fn begin(&self) -> Result<Tx, DbError> {
        Ok(Tx {
            inner: self.inner.writer.begin().await.doing("begin a change")?,
            db: self.clone(),
            now: self.now(),
            changes: Vec::new(),
        })
    }

    /// A number that grows with time and is never given twice.
    fn next_id(&self) -> i64 {
        let now = self.now().as_micros();
        let before = self
            .inner
            .last_id
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                Some(now.max(last.saturating_add(1)))
            })
            .unwrap_or(now);
        now.max(before.saturating_add(1))
    }
}

impl Tx {
    /// The connection to run statements on.
    pub(crate) fn on(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    pub(crate) fn announce(
        &mut self,
        tenant: Uuid,
        topic: ChangeTopic,
        action: ChangeAction,
        id: Uuid,
    ) {
        let change = Change {
            tenant,
            topic,
            action,
            id,
            at: self.now,
        };
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    pub(crate) async fn audit(
        &mut self,
        actor: &Actor,
        action: &'static str,
        target: String,
        detail: impl Into<String>,
    ) -> Result<(), DbError> {
        let id = self.db.next_id();
        sqlx::query(
            "INSERT INTO audit (id, tenant_id, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(actor.tenant_text())
        .bind(self.now.as_micros())
        .bind(actor.name().to_owned())
        .bind(action)
        .bind(target)
        .bind(detail.into())
        .execute(self.on())
        .await
        .doing("write the audit")?;
        Ok(())
    }

    pub(crate) fn next_id(&self) -> i64 {
        self.db.next_id()
    }

    /// Adds to the timeline of a Unit and drops what is older than its newest [`KEPT_PER_UNIT`].
    pub(crate) async fn happened(
        &mut self,
        unit: Uuid,
        events: &[Happening],
    ) -> Result<(), DbError> {
        for event in events {
            let id = self.db.next_id();
            sqlx::query(
                "INSERT INTO timeline (id, unit_id, at, kind, severity, body, node_id, item_id, subject_id, instance, version)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            )
            .bind(id)
            .bind(unit.to_string())
            .bind(self.now.as_micros())
            .bind(to_word("timeline kind", &event.kind)?)
            .bind(to_word("timeline severity", &event.severity)?)
            .bind(event.text.clone())
            .bind(event.node_id.clone())
            .bind(event.item_id.clone())
            .bind(event.subject_id.clone())
            .bind(event.instance.map(big))
            .bind(event.version.clone())
            .execute(self.on())
            .await
            .doing("write the timeline")?;
        }
        if !events.is_empty() {
            sqlx::query(
                "DELETE FROM timeline WHERE unit_id = $1 AND id <= COALESCE(
                 (SELECT id FROM timeline WHERE unit_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2), 0)",
            )
            .bind(unit.to_string())
            .bind(KEPT_PER_UNIT)
            .execute(self.on())
            .await
            .doing("trim the timeline")?;
        }
        Ok(())
    }

    /// Makes it durable, then tells the listeners. Once begun it goes on to the end even if the caller goes away: a change
    /// that nobody is told of would not be acted on.
    pub(crate) async fn commit(self) -> Result<(), DbError> {
        let Self {
            inner, db, changes, ..
        } = self;
        let committed = tokio::spawn(async move {
            inner.commit().await?;
            for change in changes {
                // No listener is no fault.
                let _ = db.inner.bus.send(change);
            }
            Ok(())
        });
        match committed.await {
            Ok(committed) => committed.doing("commit a change"),
            Err(_) => Err(sqlx::Error::WorkerCrashed).doing("commit a change"),
        }
    }
}

/// The form in which secrets (session tokens, claim codes, owner tokens) are stored: SHA-256 in hex. They are random and
/// long, so a slow hash would add nothing.
pub fn hash_secret(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn make_private(path: &Path) -> Result<(), DbError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| DbError::File {
            path: path.display().to_string(),
            source,
        })
}

/// A path as part of a URL.
fn encode(path: &Path) -> String {
    path.to_string_lossy()
        .bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
