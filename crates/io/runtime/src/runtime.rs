use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aos_time::Timestamp;
use aos_types::Probe;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{InstanceId, InstanceSpec, StopPolicy, Unhealthy, keeper};

/// Starts, stops and watches instances. What it runs outlives it: a new one made over the same folders adopts them.
///
/// Whoever makes a runtime gets a channel of [`Exit`]s with it: instances that ended without being asked to. Each is told
/// again after a restart until [`acknowledge`](Runtime::acknowledge)d.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Starts an instance, or says that it runs already. Leftovers of an earlier start are cleaned first.
    async fn start(&self, spec: &InstanceSpec) -> Result<Started, Error>;

    /// Asks an instance to end, kills it after the grace period and removes all that was made for it. An instance that
    /// is not there counts as stopped.
    async fn stop(&self, id: InstanceId, policy: StopPolicy) -> Result<(), Error>;

    /// Takes away what an instance that has ended left behind, so that its next start has less to do. One that runs is left
    /// alone. Starting and stopping do it too; a caller that has time does it before.
    async fn clear(&self, _id: InstanceId) -> Result<(), Error> {
        Ok(())
    }

    /// What is known of an instance.
    async fn status(&self, id: InstanceId) -> Result<Status, Error>;

    /// How full the part of its root is that an instance may write into; nothing if that is not known.
    fn root_use(&self, _id: InstanceId) -> Option<RootUse> {
        None
    }

    /// The instances of this Node that run, whoever started them.
    async fn running(&self) -> Result<Vec<Started>, Error>;

    /// Takes over what still runs of `known`, and ends and removes everything else that carries this Node's roots; `others` is
    /// how that is asked to end, all at once. Says which ones run; those that ended meanwhile come as [`Exit`]s.
    async fn adopt(&self, known: &[InstanceId], others: StopPolicy) -> Result<Vec<Started>, Error>;

    /// Looks once whether a running instance, known by its first process, is healthy. Dropped, it ends what runs for it in
    /// the instance.
    async fn probe(
        &self,
        id: InstanceId,
        pid: u32,
        probe: &Probe,
        timeout: Duration,
    ) -> Result<(), Unhealthy>;

    /// The cgroup of an instance, such as `/aos/x`, from which its usage can be read; nothing if it has none.
    fn cgroup(&self, _id: InstanceId) -> Option<String> {
        None
    }

    /// The exits that were not acknowledged yet, as far as a keeper saw them, whether they were told or not.
    async fn exits(&self) -> Result<Vec<Exit>, Error>;

    /// Says that an exit was stored or reported: it will not be told again.
    async fn acknowledge(&self, exit: &Exit) -> Result<(), Error>;
}

/// How full the part of a root is that its instance may write into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootUse {
    /// Bytes in use.
    pub used: u64,
    /// Bytes it may use.
    pub limit: u64,
    /// Files and folders there are.
    pub files: u64,
    /// Files and folders there may be.
    pub files_limit: u64,
}

/// An instance that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Which.
    pub id: InstanceId,
    /// Its first process, as the Node numbers it.
    pub pid: u32,
    /// Whether it ran before it was asked to start.
    pub already: bool,
}

/// What is known of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is nothing of it.
    Absent,
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It has ended and was not removed yet.
    Ended,
}

/// An instance ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Which.
    pub id: InstanceId,
    /// The keeper's number of this exit; 0 if no keeper saw it.
    pub seq: u64,
    /// Its first process.
    pub pid: u32,
    /// Why it ended.
    pub cause: ExitCause,
    /// Whether the kernel killed something of it because its memory limit was reached.
    pub oom: bool,
    /// When.
    pub at: Timestamp,
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// Nobody who could know was there.
    Unknown,
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// Why an operation on instances failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description of the instance cannot be carried out.
    #[error("instance {id} cannot be started: {field} {why}")]
    Spec {
        /// Which.
        id: InstanceId,
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file or folder of the bundle.
    #[error("cannot {what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A mount.
    #[error("cannot mount {what} at {path}")]
    Mount {
        /// What.
        what: String,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The OCI runtime refused.
    #[error("`{command}` failed: {message}")]
    Command {
        /// What was run, without its arguments' values.
        command: String,
        /// What it said.
        message: String,
    },
    /// The OCI runtime did not answer in time and was killed.
    #[error("`{command}` did not finish within {seconds} s and was ended")]
    Deadline {
        /// What was run.
        command: String,
        /// The deadline.
        seconds: u64,
    },
    /// The OCI runtime cannot be run at all.
    #[error("cannot run `{program}`; check that it is installed and in PATH")]
    Program {
        /// Its name.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The keeper cannot be reached or refused.
    #[error("the keeper of this Node cannot do it")]
    Keeper(#[from] keeper::Error),
    /// It did not end even when killed.
    #[error("instance {id} did not end although it was killed")]
    Unkillable {
        /// Which.
        id: InstanceId,
    },
    /// Too many instances.
    #[error(
        "the Node runs {limit} instances, its configured most; stop one or raise `runtime.max_instances`"
    )]
    Full {
        /// The limit.
        limit: u64,
    },
}

impl Error {
    /// Whether another attempt with the same image and specification cannot succeed.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Spec { .. } => true,
            Self::Command { message, .. } => cannot_start(message),
            _ => false,
        }
    }
}

/// Whether these words of an OCI runtime say that the program is not there or is none.
pub(crate) fn cannot_start(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        // crun
        "executable file",
        "open executable",
        "exec container process",
        // runc, youki
        "exec format error",
        "exec: \"",
        // the same, as runc writes it into a log file
        "exec: \\\"",
    ]
    .iter()
    .any(|known| words.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_run_is_told_from_a_node_in_trouble() {
        for (words, wanted) in [
            (
                "executable file `/nope` not found in $PATH: No such file or directory",
                true,
            ),
            ("exec container process `/bad`: Exec format error", true),
            (
                "exec container process (missing dynamic library?) `/x`: No such file or directory",
                true,
            ),
            ("open executable: Permission denied", true),
            (
                "runc create failed: unable to start container process: exec: \"/x\": permission denied",
                true,
            ),
            (
                r#"level=error msg="runc run failed: unable to start container process: exec: \"/x\": stat /x""#,
                true,
            ),
            (
                "writing file `/sys/fs/cgroup/x/cgroup.procs`: Device or resource busy",
                false,
            ),
            ("open `/run/netns/x`: No such file or directory", false),
        ] {
            assert_eq!(cannot_start(words), wanted, "{words}");
        }
    }
}
