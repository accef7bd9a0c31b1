use std::path::PathBuf;

use aos_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ExitCause;

/// The version of this protocol. A keeper answers `hello` with its own; it may be older than its caller, because it lives
/// through upgrades. Fields are only ever added.
pub const VERSION: u32 = 1;

/// One order to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the caller; the answer repeats it.
    pub re: u64,
    /// What to do.
    #[serde(flatten)]
    pub order: Order,
}

/// What the keeper can be told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// First on every connection. From then on exits are pushed, beginning with all that are not acknowledged.
    Hello {
        /// The caller's version.
        version: u32,
    },
    /// Start a container.
    Start(StartOrder),
    /// Take over a container that runs already.
    Adopt {
        /// Its id.
        id: String,
        /// Its first process.
        pid: u32,
        /// When that process started, in clock ticks since boot (`/proc/<pid>/stat`), so that a reused number is noticed.
        started: u64,
        /// The folder with its FIFOs.
        bundle: PathBuf,
        /// How its output is kept.
        log: LogPolicy,
    },
    /// Send a signal to the first process of a container.
    Signal {
        /// Which container.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Tell which containers are kept.
    List,
    /// Tell the exits after a number that nobody acknowledged.
    Exits {
        /// 0 for all.
        since: u64,
    },
    /// These exits need not be remembered.
    Ack {
        /// Their numbers.
        seqs: Vec<u64>,
    },
    /// Forget the exits of a container that is gone, and its logs if told so.
    Forget {
        /// Which.
        id: String,
        /// Also remove its log files.
        logs: bool,
    },
    /// End the keeper. The containers run on.
    StopKeeper,
}

/// How to start one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// Its id.
    pub id: String,
    /// Its bundle folder; the FIFOs `stdout` and `stderr` are made in it.
    pub bundle: PathBuf,
    /// Program and arguments of the OCI runtime. It must start the container and return.
    pub argv: Vec<String>,
    /// The file in which the OCI runtime leaves the number of the first process.
    pub pid_file: PathBuf,
    /// Mount points that the OCI runtime must not see: it gets a mount namespace of its own without them. Empty: it
    /// shares the keeper's.
    pub hide: Vec<PathBuf>,
    /// How long the OCI runtime may take.
    pub deadline_ms: u64,
    /// How the output is kept.
    pub log: LogPolicy,
}

/// How much output of a container is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogPolicy {
    /// Bytes of one file; a full one is put aside.
    pub max_bytes: u64,
    /// Files, the one being written included.
    pub files: u32,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            files: 3,
        }
    }
}

/// What the keeper sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// The answer to one order.
    Answer {
        /// The order's number.
        re: u64,
        /// What came of it.
        answer: Answer,
    },
    /// A container ended.
    Exit(ExitRecord),
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `hello`.
    Hello {
        /// The keeper's version.
        version: u32,
        /// The keeper's own process.
        pid: u32,
    },
    /// To `start` and `adopt`: it runs.
    Running {
        /// The container.
        kept: Kept,
        /// It was kept before this order.
        already: bool,
    },
    /// To `list`.
    List {
        /// All that are kept.
        kept: Vec<Kept>,
    },
    /// To `exits`.
    Exits {
        /// By number.
        exits: Vec<ExitRecord>,
    },
    /// Done.
    Done,
    /// The OCI runtime returned an error.
    Failed {
        /// How it ended.
        cause: ExitCause,
    },
    /// The OCI runtime took too long and was killed.
    TooLate,
    /// There is no such container or process.
    Gone,
    /// The order cannot be carried out.
    Refused {
        /// Why.
        why: String,
    },
}

/// A container that the keeper watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// When that started, in clock ticks since boot.
    pub started: u64,
    /// Whether it is a child of the keeper, so that its exit status will be known.
    pub child: bool,
}

/// The end of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Grows with every exit of this Node, across keepers.
    pub seq: u64,
    /// The container.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// Why it ended.
    pub cause: ExitCause,
    /// When.
    pub at: Timestamp,
}
