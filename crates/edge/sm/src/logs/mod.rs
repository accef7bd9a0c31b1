//! The logs of this Node: kept, and told when CM asks.
//!
//! ```text
//!   keeper's files ──► `keeping`: archive, age, size        ends of instances ──► `crashes`
//!   requests of CM ──► `answers`: one after the other, in parts, always an answer
//!   live logs      ──► `follow`: a task each, as much as its budget allows
//! ```
//!
//! Names of instances live on here after they are gone (`index`), so that a crash log is found of one that was removed.

mod answers;
mod crashes;
mod follow;
mod index;
mod keeping;
mod selection;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use aos_log::Keep;
use aos_logs::{InstanceLogs, SystemLog, SystemOptions};
use aos_store::Records;
use serde::Deserialize;

pub(crate) use answers::{Ask, What, busy, queue_of_asks};
pub(crate) use follow::{Follows, Order as FollowOrder, too_many};
pub(crate) use index::KnownLog;
pub(crate) use selection::Selection;

use index::Index;

/// How logs are kept: the table `[sm.logs]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// Bytes of the file that an instance's output goes to; a full one is put aside and compressed.
    pub file_bytes: u64,
    /// Such files of one instance, as long as SM is away and does not take them.
    pub files: u32,
    /// Compressed bytes kept of one instance.
    pub instance_bytes: u64,
    /// Compressed bytes kept of all instances.
    pub bytes: u64,
    /// What is older is not kept, in seconds.
    pub age_secs: u64,
    /// How long the logs of an instance that was removed are kept, in seconds.
    pub gone_secs: u64,
    /// A folder of journals to read as the system's log; by default that of journald, if it runs here.
    pub journal_folder: Option<PathBuf>,
    /// The file of our own log, `<state_dir>/aos.log` by default: part of the system's log where journald does not run.
    pub own: Option<PathBuf>,
}

impl Default for LogOptions {
    fn default() -> Self {
        const DAY: u64 = 24 * 3_600;
        Self {
            file_bytes: 1 << 20,
            files: 3,
            instance_bytes: 8 << 20,
            bytes: 256 << 20,
            age_secs: 30 * DAY,
            gone_secs: 7 * DAY,
            journal_folder: None,
            own: None,
        }
    }
}

/// The logs of this Node.
#[derive(Debug)]
pub(crate) struct Logs {
    store: Arc<InstanceLogs>,
    system: SystemLog,
    index: Index,
    keep: Keep,
    gone: Duration,
    /// Where answers are put together.
    scratch: PathBuf,
}

impl Logs {
    /// Over the state folders of keepers; the archive is in `folder`.
    pub(crate) async fn open(
        options: &crate::Options,
        keepers: Vec<PathBuf>,
        folder: PathBuf,
        records: Records<KnownLog>,
    ) -> Result<Self, crate::Error> {
        let own = options.own_log();
        let options = &options.logs;
        let place = folder.clone();
        let wrap = |source: io::Error| crate::Error::Logs {
            path: place,
            source,
        };
        let folders = keepers
            .into_iter()
            .map(|keeper| keeper.join("logs"))
            .collect();
        let store = InstanceLogs::open(folders, folder.clone()).map_err(wrap)?;
        let system = SystemLog::open(SystemOptions {
            journal_folder: options.journal_folder.clone(),
            own: Some(own),
        });
        tracing::info!(source = system.name(), "the system's log");
        Ok(Self {
            store: Arc::new(store),
            system,
            index: Index::open(records).await?,
            keep: Keep {
                age: Duration::from_secs(options.age_secs),
                instance_bytes: options.instance_bytes,
                bytes: options.bytes,
            },
            gone: Duration::from_secs(options.gone_secs),
            scratch: folder,
        })
    }
}
