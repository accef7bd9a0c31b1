use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, Transaction};
use tokio::sync::{Semaphore, oneshot};

/// How many calls may wait for the writer before further callers wait outside.
const QUEUE: usize = 64;
/// How long the writer is idle before it folds the write-ahead log back.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(2);

/// Why a durable operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its folder cannot be used.
    #[error("cannot open the database {path}; check that its folder exists and is writable")]
    File {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite could not open it or bring its schema up to date.
    #[error("cannot prepare the database {path}")]
    Prepare {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer program.
    #[error(
        "the database {path} has schema {found}, this program knows {known}: use the newer program or restore a backup"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Scripts the file has seen.
        found: usize,
        /// Scripts this program has.
        known: usize,
    },
    /// A statement failed; nothing of its transaction was kept.
    #[error("a database operation failed; nothing of it was kept")]
    Sql(#[from] rusqlite::Error),
    /// A value could not be turned into what is stored or back.
    #[error("a stored record of `{table}` cannot be read or written")]
    Record {
        /// Which kind of record.
        table: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The writer has ended.
    #[error("the database writer has ended")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A component's database. Clones share the file and its writer; the writer ends with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: Sender<Job>,
    /// Bounds how many calls are in the writer's queue.
    places: Arc<Semaphore>,
}

impl Store {
    /// Opens or creates the file (mode 0600) and applies the scripts it has not seen, each in a transaction.
    ///
    /// `schema` only ever grows at its end: script `n` turns version `n` into version `n + 1`.
    pub fn open(path: impl AsRef<Path>, schema: &[&str]) -> Result<Self, Error> {
        let path = path.as_ref().to_path_buf();
        create_private(&path).map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        let mut connection = prepare(&path)?;
        migrate(&path, &mut connection, schema)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("store".into())
            .stack_size(256 * 1024)
            .spawn(move || write_until_closed(connection, &queue))
            .map_err(|source| Error::File { path, source })?;
        Ok(Self {
            jobs,
            places: Arc::new(Semaphore::new(QUEUE)),
        })
    }

    /// Runs `work` in one transaction: all of it is durable when this returns, or none of it happened.
    pub async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Runs a query.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.run(move |connection| work(connection)).await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        let job: Job = Box::new(move |connection| {
            // The caller may have gone; the work is done all the same.
            let _ = answer.send(work(connection));
            drop(place);
        });
        self.jobs.send(job).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

fn create_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

fn prepare(path: &Path) -> Result<Connection, Error> {
    let failed = |source| Error::Prepare {
        path: path.to_path_buf(),
        source,
    };
    let connection = Connection::open(path).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;
             PRAGMA wal_autocheckpoint=0; PRAGMA busy_timeout=5000; PRAGMA cache_size=-256;",
        )
        .map_err(failed)?;
    Ok(connection)
}

fn migrate(path: &Path, connection: &mut Connection, schema: &[&str]) -> Result<(), Error> {
    let failed = |source| Error::Prepare {
        path: path.to_path_buf(),
        source,
    };
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > schema.len() {
        return Err(Error::Newer {
            path: path.to_path_buf(),
            found,
            known: schema.len(),
        });
    }
    for (version, script) in schema.iter().enumerate().skip(found) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(script).map_err(failed)?;
        transaction
            .execute_batch(&format!("PRAGMA user_version={}", version + 1))
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

fn write_until_closed(mut connection: Connection, queue: &mpsc::Receiver<Job>) {
    let mut dirty = false;
    loop {
        let next = if dirty {
            queue.recv_timeout(CHECKPOINT_AFTER)
        } else {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(job) => {
                job(&mut connection);
                dirty = true;
            }
            Err(ended) => {
                // A failed checkpoint loses nothing: the log stays and is folded back later or at the next open.
                let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                dirty = false;
                if ended == RecvTimeoutError::Disconnected {
                    return;
                }
            }
        }
    }
}
