use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::{process::Command, time};

use super::CrunOptions;
use crate::{Error, InstanceId};

/// Most bytes of the OCI runtime's own log put into an error.
const LAST_WORDS: u64 = 1_024;

/// Runs the OCI runtime, always with a deadline.
pub(super) struct Runner {
    program: PathBuf,
    root: PathBuf,
    deadline: Duration,
}

/// A container as the OCI runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    pub(super) pid: u32,
    #[serde(default)]
    status: String,
}

impl Listed {
    pub(super) fn running(&self) -> bool {
        self.pid != 0 && matches!(self.status.as_str(), "running" | "created" | "paused")
    }
}

impl Runner {
    pub(super) fn new(options: &CrunOptions) -> Self {
        Self {
            program: options.program.clone(),
            root: options.root.clone(),
            deadline: options.deadline,
        }
    }

    /// `crun run`, for messages.
    pub(super) fn name(&self, command: &str) -> String {
        format!("{} {command}", self.program.display())
    }

    /// The command line that starts a container and returns.
    pub(super) fn start(
        &self,
        bundle: &Path,
        pid_file: &Path,
        log: &Path,
        id: InstanceId,
    ) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            text(&self.program),
            "--root".into(),
            text(&self.root),
            "--log".into(),
            text(log),
            "run".into(),
            "--detach".into(),
            "--pid-file".into(),
            text(pid_file),
            "--bundle".into(),
            text(bundle),
            id.to_string(),
        ]
        .into()
    }

    /// The command that runs a probe in a container and ends with it.
    pub(super) fn exec(&self, files: &super::exec::Files, id: InstanceId) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(&files.log)
            .arg("exec")
            .arg("--pid-file")
            .arg(&files.pid)
            .arg("--process")
            .arg(&files.process)
            .arg(id.to_string());
        command
    }

    /// All containers under our root.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Error> {
        let output = self.run("list", &["--format", "json"]).await?;
        // An empty list is `null` with some runtimes.
        let listed: Option<Vec<Listed>> =
            serde_json::from_slice(&output.stdout).map_err(|error| Error::Command {
                command: self.name("list"),
                message: format!("its answer is not a list of containers: {error}"),
            })?;
        Ok(listed.unwrap_or_default())
    }

    /// Kills and removes a container; one that is not there is fine.
    pub(super) async fn delete(&self, id: &str) -> Result<(), Error> {
        match self.run("delete", &["--force", id]).await {
            Ok(_) => Ok(()),
            Err(Error::Command { .. }) if !self.root.join(id).exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the OCI runtime knows the container, without asking it.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.root.join(id).exists()
    }

    async fn run(&self, command: &str, args: &[&str]) -> Result<Output, Error> {
        let output = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .arg(command)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = time::timeout(self.deadline, output)
            .await
            .map_err(|_| Error::Deadline {
                command: self.name(command),
                seconds: self.deadline.as_secs(),
            })?
            .map_err(|source| Error::Program {
                program: self.program.display().to_string(),
                source,
            })?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(Error::Command {
                command: self.name(command),
                message: short(&output.stderr).unwrap_or_else(|| output.status.to_string()),
            })
        }
    }
}

/// The end of the OCI runtime's log: why it refused.
pub(super) fn last_words(log: &Path) -> Option<String> {
    short(&tail(log).ok()?)
}

fn tail(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn short(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = text.len().saturating_sub(512);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at))?;
    text.get(start..).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_crun_and_runc_are_read() {
        let text = r#"[{"id":"a","pid":7,"status":"running","bundle":"/b"},{"id":"b","pid":0,"status":"stopped"}]"#;
        let listed: Vec<Listed> = serde_json::from_str(text).unwrap();
        assert!(listed[0].running() && !listed[1].running());
        let none: Option<Vec<Listed>> = serde_json::from_str("null").unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn last_words_are_short() {
        assert_eq!(short(b"  one\n two "), Some("one two".into()));
        assert_eq!(short(b"\n"), None);
        assert!(short("ä".repeat(2_000).as_bytes()).unwrap().len() <= 512);
    }
}
