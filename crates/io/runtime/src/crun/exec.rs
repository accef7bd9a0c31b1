//! Running a program inside an instance for a moment, and leaving nothing of it behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    mount::{self, MntFlags, MsFlags},
    sched::{self, CloneFlags},
};
use rustix::process::{self, Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    runtime::Handle,
    task, time,
};

use super::{
    Shared,
    command::{last_words, short},
};
use crate::{InstanceId, keeper::facts, probe::Unhealthy};

/// How long what was killed may take to be gone.
const DEATH: Duration = Duration::from_secs(2);
/// How long a parent has to notice the end of its children before it is killed itself.
const NOTICE: Duration = Duration::from_millis(100);
/// How long the end of the output may take after the program has ended: somebody else may hold it open.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// How much of the output is kept.
const MAX_OUTPUT: usize = 512;

impl Shared {
    /// Runs a program with the identity, limits and environment of the instance. Its exit code 0 is healthy.
    pub(super) async fn exec(
        &self,
        id: InstanceId,
        command: &[String],
        timeout: Duration,
    ) -> Result<(), Unhealthy> {
        let bundle = self.bundle(id);
        let place = Files::of(&bundle);
        place.prepare(command).map_err(Unhealthy::Untried)?;
        let mut started = self.runner.exec(&place, id);
        started
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/");
        let child = spawn(started, self.layout.hidden())
            .await
            .map_err(Unhealthy::Untried)?;
        let mut running = Running {
            child,
            pid_file: place.pid.clone(),
        };
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let mut said = (Vec::new(), Vec::new());
        let status = {
            let output = async {
                tokio::join!(gather(stdout, &mut said.0), gather(stderr, &mut said.1));
            };
            tokio::pin!(output);
            let ended = async {
                // Waiting is cancel-safe; the output may end sooner or later than the program.
                let status = tokio::select! {
                    status = running.child.wait() => status,
                    () = &mut output => return running.child.wait().await,
                };
                let _ = time::timeout(LAST_OUTPUT, &mut output).await;
                status
            };
            time::timeout(timeout, ended).await
        };
        let Ok(status) = status else {
            running.end().await;
            return Err(Unhealthy::Timeout(timeout));
        };
        let status = status.map_err(Unhealthy::Untried)?;
        said.0.extend_from_slice(&said.1);
        judge(status, &said.0, &place.log)
    }
}

fn judge(status: ExitStatus, output: &[u8], log: &Path) -> Result<(), Unhealthy> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => match last_words(log) {
            Some(refused) => Err(Unhealthy::Refused(refused)),
            None => Err(Unhealthy::ExitCode {
                code,
                output: short(output).unwrap_or_default(),
            }),
        },
        None => Err(Unhealthy::Killed),
    }
}

/// What belongs to the probes of one bundle.
pub(super) struct Files {
    config: PathBuf,
    /// The process in the words of the OCI runtime specification.
    pub(super) process: PathBuf,
    /// Where the OCI runtime writes which process it is.
    pub(super) pid: PathBuf,
    /// Where the OCI runtime says why it refuses.
    pub(super) log: PathBuf,
}

impl Files {
    fn of(bundle: &Path) -> Self {
        Self {
            config: bundle.join("config.json"),
            process: bundle.join("probe.json"),
            pid: bundle.join("probe.pid"),
            log: bundle.join("probe.log"),
        }
    }

    /// A bundle is made anew with each start, so what is there is of this run.
    fn prepare(&self, command: &[String]) -> io::Result<()> {
        for old in [&self.pid, &self.log] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.process.exists() {
            return Ok(());
        }
        let config: serde_json::Value = serde_json::from_slice(&fs::read(&self.config)?)?;
        let mut process = config.get("process").cloned().unwrap_or_default();
        if let Some(process) = process.as_object_mut() {
            process.insert("args".into(), command.into());
        }
        // Moved into place whole: it would be taken for good otherwise.
        let new = self.process.with_extension("new");
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt};
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(&process)?)?;
        fs::rename(&new, &self.process)
    }
}

/// Starts `command` without the mount points in `hide` (see [`Layout::hidden`](aos_cgroup::Layout::hidden)). A thread of
/// its own leaves the mount namespace: that needs no code between fork and exec.
async fn spawn(mut command: Command, hide: Vec<PathBuf>) -> io::Result<Child> {
    if hide.is_empty() {
        return command.spawn();
    }
    let handle = Handle::current();
    let thread = std::thread::Builder::new().name("aos-exec".into());
    let (give, child) = tokio::sync::oneshot::channel();
    thread.spawn(move || {
        let _runtime = handle.enter();
        let spawned = without(&hide).and_then(|()| command.spawn());
        // Whoever asked may have given up: then the child goes with its handle, and the runtime reaps it.
        if let Err(Ok(mut unwanted)) = give.send(spawned) {
            let _ = unwanted.start_kill();
        }
    })?;
    child
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread of a probe has failed")))
}

fn without(hide: &[PathBuf]) -> io::Result<()> {
    sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for path in hide {
        mount::umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

async fn gather(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut some = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut some).await {
        into.extend_from_slice(some.get(..count).unwrap_or_default());
        // The end is what tells.
        let surplus = into.len().saturating_sub(MAX_OUTPUT);
        into.drain(..surplus);
    }
}

/// A probe under way: the OCI runtime, and the program it started in the instance. Dropped, it takes both along.
struct Running {
    child: Child,
    pid_file: PathBuf,
}

impl Running {
    /// The program in the instance, once the OCI runtime has said which; only while it is its child.
    fn program(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(&self.pid_file)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let facts = facts(pid)?;
        (Some(facts.parent) == self.child.id()).then_some(pid)
    }

    /// Ends all of it. Children go before their parent, which then still takes note of them: the first process of an
    /// instance may not care for orphans.
    async fn end(&mut self) {
        if let Some(program) = self.program() {
            let gone = task::spawn_blocking(move || {
                let others = session(program);
                others.iter().for_each(|&pid| kill(pid));
                if !others.is_empty() {
                    std::thread::sleep(NOTICE);
                }
                session(program).into_iter().for_each(kill);
            });
            // A task that failed has killed less; the drop does the rest.
            let _ = gone.await;
            if self.program() == Some(program) {
                kill(program);
            }
        }
        if time::timeout(DEATH, self.child.wait()).await.is_err() {
            let _ = self.child.start_kill();
            let _ = time::timeout(DEATH, self.child.wait()).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.id().is_none() {
            return;
        }
        match self.program() {
            Some(program) => {
                session(program).into_iter().for_each(kill);
                kill(program);
            }
            None => {
                let _ = self.child.start_kill();
            }
        }
    }
}

/// The other processes of a program's session: the OCI runtime gives each program one of its own.
fn session(program: u32) -> Vec<u32> {
    let Some(own) = facts(program).map(|facts| facts.session) else {
        return Vec::new();
    };
    if own == 0 || facts(std::process::id()).is_none_or(|ours| ours.session == own) {
        return Vec::new();
    }
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != program && facts(pid).is_some_and(|facts| facts.session == own))
        .collect()
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: that is what is wanted.
        let _ = process::kill_process(pid, Signal::KILL);
    }
}
