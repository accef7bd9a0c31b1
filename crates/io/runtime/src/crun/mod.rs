mod command;
mod exec;
mod link;
mod removal;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_cgroup::Layout;
use aos_time::{Clock, SystemClock};
use aos_types::Probe;
use async_trait::async_trait;
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    task,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Exit, ExitCause, InstanceId, InstanceSpec, Isolation, RootUse, Runtime, Started, Status,
    StopPolicy, Unhealthy,
    bundle::{self, Place},
    keeper::{Answer, Kept, LogPolicy, Order, StartOrder, Starter, notices, start_time},
    probe, program, rootfs, userns,
};
use command::Runner;
use link::Link;

/// How long a killed instance may take to be gone.
const DEATH: Duration = Duration::from_secs(10);
/// What the keeper's answer may take longer than the OCI runtime.
const MARGIN: Duration = Duration::from_secs(5);

/// Where a [`CrunRuntime`] works. Two Nodes on one machine differ in every path and in the cgroup.
#[derive(Debug, Clone)]
pub struct CrunOptions {
    /// How much of the Node instances do not see.
    pub isolation: Isolation,
    /// The OCI runtime: `crun`, `runc` or another with their command line.
    pub program: PathBuf,
    /// Its `--root`.
    pub root: PathBuf,
    /// Folder of the bundles; best on a tmpfs, so that a reboot empties it.
    pub runtime_dir: PathBuf,
    /// Folder of the places where the writable parts of roots are mounted for a moment.
    pub writable_dir: PathBuf,
    /// Most bytes an instance may write into its root, which are memory of the Node.
    pub root_limit: u64,
    /// Cgroup under which instances have theirs, such as `/aos`.
    pub cgroup_parent: String,
    /// Whether system calls of instances are filtered; the kernel must be able to.
    pub seccomp: bool,
    /// How to reach the keeper.
    pub keeper: Starter,
    /// How long one run of the OCI runtime may take.
    pub deadline: Duration,
    /// Most instances; 0 is without limit.
    pub max_instances: u64,
    /// How much output of an instance is kept.
    pub log: LogPolicy,
}

/// Instances as containers of an OCI runtime, watched by the keeper.
pub struct CrunRuntime {
    shared: Arc<Shared>,
    stop: CancellationToken,
    link: Mutex<Option<task::JoinHandle<()>>>,
}

/// What the runtime and the task at the keeper's end share.
struct Shared {
    options: CrunOptions,
    runner: Runner,
    layout: Layout,
    link: Link,
    state: Mutex<State>,
    /// Held while the lowest layer is written.
    bases: Mutex<()>,
    exits: mpsc::Sender<Exit>,
}

#[derive(Default)]
struct State {
    /// Instances that run, as far as we know.
    running: HashMap<InstanceId, Kept>,
    /// Who waits for the end of an instance.
    stopping: HashMap<InstanceId, mpsc::UnboundedSender<u64>>,
    /// One turn an instance: its starts and stops never overlap.
    turns: HashMap<InstanceId, Arc<tokio::sync::Mutex<()>>>,
    /// Exits told and not acknowledged, so that a new connection to the keeper does not tell them again.
    told: std::collections::HashSet<u64>,
}

impl CrunRuntime {
    /// Prepares the folders, connects to the keeper and starts it if it is not there. Exits come through the channel.
    /// Ends its background task when `stop` is cancelled; instances and keeper go on.
    pub async fn open(
        options: CrunOptions,
        stop: CancellationToken,
    ) -> Result<(Self, mpsc::Receiver<Exit>), Error> {
        let layout = Layout::find();
        let runner = Runner::new(&options);
        let (exits, receiver) = mpsc::channel(256);
        let shared = Arc::new(Shared {
            runner,
            layout,
            link: Link::default(),
            state: Mutex::default(),
            bases: Mutex::default(),
            exits,
            options,
        });
        let folders = shared.clone();
        blocking(move || folders.make_folders()).await?;
        let connected = shared.options.keeper.connect().await?;
        let stop = stop.child_token();
        let task = tokio::spawn(link::tend(shared.clone(), connected, stop.clone()));
        let runtime = Self {
            shared,
            stop,
            link: Mutex::new(Some(task)),
        };
        Ok((runtime, receiver))
    }

    /// Removes the log files of an instance that will not come back.
    pub async fn forget(&self, id: InstanceId) -> Result<(), Error> {
        let order = Order::Forget {
            id: id.to_string(),
            logs: true,
        };
        self.shared.link.client().await?.tell(order).await?;
        Ok(())
    }

    async fn turn(&self, id: InstanceId) -> OwnedMutexGuard<()> {
        let turn = self.shared.state().turns.entry(id).or_default().clone();
        turn.lock_owned().await
    }
}

impl Drop for CrunRuntime {
    fn drop(&mut self) {
        self.stop.cancel();
        let task = self
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

#[async_trait]
impl Runtime for CrunRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Started, Error> {
        bundle::check(spec, self.shared.options.isolation)?;
        let _turn = self.turn(spec.id).await;
        let shared = &self.shared;
        if let Some(kept) = shared.kept(spec.id).await? {
            shared.state().running.insert(spec.id, kept.clone());
            return Ok(started(spec.id, &kept, true));
        }
        let limit = shared.options.max_instances;
        let count = u64::try_from(shared.state().running.len()).unwrap_or(u64::MAX);
        if limit > 0 && count >= limit {
            return Err(Error::Full { limit });
        }
        shared.remove(spec.id).await?;
        let result = shared.launch(spec).await;
        if result.is_err() {
            // What failed is told; what is left of it is taken away at the latest by the next start.
            if let Err(error) = shared.remove(spec.id).await {
                tracing::warn!(id = %spec.id, %error, "leftovers of a failed start stay for now");
            }
        }
        let kept = result?;
        Ok(started(spec.id, &kept, false))
    }

    async fn stop(&self, id: InstanceId, policy: StopPolicy) -> Result<(), Error> {
        let _turn = self.turn(id).await;
        self.shared.end(id, policy).await?;
        self.shared.remove(id).await
    }

    async fn clear(&self, id: InstanceId) -> Result<(), Error> {
        let _turn = self.turn(id).await;
        match self.shared.kept(id).await? {
            Some(_) => Ok(()),
            None => self.shared.remove(id).await,
        }
    }

    async fn status(&self, id: InstanceId) -> Result<Status, Error> {
        if let Some(kept) = self.shared.kept(id).await? {
            return Ok(Status::Running { pid: kept.pid });
        }
        if self.shared.bundle(id).exists() {
            Ok(Status::Ended)
        } else {
            Ok(Status::Absent)
        }
    }

    fn root_use(&self, id: InstanceId) -> Option<RootUse> {
        rootfs::root_use(
            &self.shared.bundle(id).join("rootfs"),
            self.shared.options.root_limit,
        )
    }

    async fn running(&self) -> Result<Vec<Started>, Error> {
        let kept = self.shared.all_kept().await?;
        Ok(kept
            .iter()
            .filter_map(|kept| Some(started(kept.id.parse().ok()?, kept, true)))
            .collect())
    }

    async fn adopt(&self, known: &[InstanceId], others: StopPolicy) -> Result<Vec<Started>, Error> {
        let shared = &self.shared;
        let kept: HashMap<InstanceId, Kept> = shared
            .all_kept()
            .await?
            .into_iter()
            .filter_map(|kept| Some((kept.id.parse().ok()?, kept)))
            .collect();
        let listed = shared.runner.list().await?;
        let mut adopted = Vec::new();
        for &id in known {
            let _turn = self.turn(id).await;
            let kept = match kept.get(&id) {
                Some(kept) => Some(kept.clone()),
                None => match listed.iter().find(|found| found.id == id.to_string()) {
                    Some(found) if found.running() => shared.take_over(id, found.pid).await?,
                    _ => None,
                },
            };
            match kept {
                Some(kept) => {
                    adopted.push(started(id, &kept, true));
                    shared.state().running.insert(id, kept);
                }
                None => shared.tell_unseen_end(id).await,
            }
        }
        shared.remove_unknown(known, &listed, others).await?;
        Ok(adopted)
    }

    async fn probe(
        &self,
        id: InstanceId,
        pid: u32,
        probe: &Probe,
        timeout: Duration,
    ) -> Result<(), Unhealthy> {
        match probe {
            Probe::Exec(command) => self.shared.exec(id, command, timeout).await,
            Probe::Http { port, path } => probe::http(pid, *port, path, timeout).await,
            Probe::Tcp { port } => probe::tcp(pid, *port, timeout).await,
        }
    }

    async fn exits(&self) -> Result<Vec<Exit>, Error> {
        let client = self.shared.link.client().await?;
        let Answer::Exits { exits } = client.tell(Order::Exits { since: 0 }).await? else {
            return Err(unexpected("exits"));
        };
        let read = |exit| link::read(&self.shared, exit);
        Ok(exits.into_iter().filter_map(read).collect())
    }

    fn cgroup(&self, id: InstanceId) -> Option<String> {
        Some(self.shared.cgroup(id))
    }

    async fn acknowledge(&self, exit: &Exit) -> Result<(), Error> {
        if exit.seq == 0 {
            return Ok(());
        }
        self.shared.acknowledge(exit.seq).await
    }
}

fn started(id: InstanceId, kept: &Kept, already: bool) -> Started {
    Started {
        id,
        pid: kept.pid,
        already,
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundles(&self) -> PathBuf {
        self.options.runtime_dir.join("instances")
    }

    fn bundle(&self, id: InstanceId) -> PathBuf {
        self.bundles().join(id.to_string())
    }

    fn writable(&self, id: InstanceId) -> PathBuf {
        self.options.writable_dir.join(id.to_string())
    }

    fn base(&self, host: bool) -> PathBuf {
        self.options
            .runtime_dir
            .join(if host { "base-host" } else { "base" })
    }

    fn cgroup(&self, id: InstanceId) -> String {
        format!("{}/{id}", self.options.cgroup_parent.trim_end_matches('/'))
    }

    fn make_folders(&self) -> Result<(), Error> {
        for folder in [
            &self.options.runtime_dir,
            &self.options.writable_dir,
            &self.options.root,
            &self.bundles(),
        ] {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| rootfs::file("make", folder, source))?;
        }
        // Instances with a user namespace come through here as nobody in particular.
        for folder in [&self.options.runtime_dir, &self.bundles()] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
                .map_err(|source| rootfs::file("let instances through", folder, source))?;
        }
        rootfs::write_base(&self.base(false), &[])
    }

    async fn all_kept(&self) -> Result<Vec<Kept>, Error> {
        match self.link.client().await?.tell(Order::List).await? {
            Answer::List { kept } => Ok(kept),
            _ => Err(unexpected("list")),
        }
    }

    async fn kept(&self, id: InstanceId) -> Result<Option<Kept>, Error> {
        let name = id.to_string();
        Ok(self
            .all_kept()
            .await?
            .into_iter()
            .find(|kept| kept.id == name))
    }

    /// Writes the bundle, mounts the root, starts the container.
    async fn launch(self: &Arc<Self>, spec: &InstanceSpec) -> Result<Kept, Error> {
        let bundle = self.bundle(spec.id);
        let prepared = (self.clone(), spec.clone(), bundle.clone());
        blocking(move || {
            let (shared, spec, bundle) = prepared;
            let base = shared.base(!spec.host_base.is_empty());
            if !spec.host_base.is_empty() {
                let _one_at_a_time = shared.bases.lock();
                rootfs::write_base(&base, &spec.host_base)?;
            }
            let place = Place {
                cgroup_parent: shared.options.cgroup_parent.clone(),
                unified: shared.layout.unified(),
                bounds_swap: shared.layout.bounds_swap(),
                seccomp: shared.options.seccomp,
                isolation: shared.options.isolation,
            };
            bundle::make(&bundle, spec.inside.is_some())?;
            let (root, writable) = (bundle.join("rootfs"), shared.writable(spec.id));
            let bytes = rootfs::root_limit(&spec, shared.options.root_limit);
            let ids = if spec.inside.is_some() {
                let parts = userns::Parts {
                    base: &base,
                    root: &root,
                    writable: &writable,
                    bytes,
                    program: &shared.options.keeper.program,
                };
                Some(userns::mount_root(&spec, &parts)?)
            } else {
                rootfs::mount_root(&spec, &base, &root, &writable, bytes)?;
                None
            };
            bundle::write(&spec, &place, ids.as_ref(), &bundle)?;
            program::check(&spec, &bundle.join("rootfs"))
        })
        .await?;
        let log = bundle.join("runtime.log");
        let pid_file = bundle.join("pid");
        let argv = self.runner.start(&bundle, &pid_file, &log, spec.id);
        let order = StartOrder {
            id: spec.id.to_string(),
            bundle,
            argv,
            pid_file,
            hide: self.layout.hidden(),
            deadline_ms: u64::try_from(self.options.deadline.as_millis()).unwrap_or(u64::MAX),
            log: self.options.log,
        };
        let patience = self.options.deadline + MARGIN;
        let client = self.link.client().await?;
        match client.call(Order::Start(order), patience).await? {
            Answer::Running { kept, .. } => {
                self.state().running.insert(spec.id, kept.clone());
                Ok(kept)
            }
            Answer::Failed { cause } => Err(Error::Command {
                command: self.runner.name("run"),
                message: command::last_words(&log).unwrap_or_else(|| cause.to_string()),
            }),
            Answer::TooLate => Err(Error::Deadline {
                command: self.runner.name("run"),
                seconds: self.options.deadline.as_secs(),
            }),
            _ => Err(unexpected("start")),
        }
    }

    /// Asks an instance to end and waits until it has; kills it after its grace period.
    async fn end(&self, id: InstanceId, policy: StopPolicy) -> Result<(), Error> {
        let (sender, mut ended) = mpsc::unbounded_channel();
        self.state().stopping.insert(id, sender);
        let result = async {
            let Some(kept) = self.kept(id).await? else {
                return Ok(());
            };
            let asks = !policy.grace.is_zero() && notices(kept.pid, policy.signal);
            for (signal, patience) in [(policy.signal, policy.grace), (9, DEATH)] {
                if signal != 9 && !asks {
                    continue;
                }
                let order = Order::Signal {
                    id: id.to_string(),
                    signal,
                };
                if self.link.client().await?.tell(order).await? == Answer::Gone {
                    // It has just ended; its exit is on the way or was told before.
                    return Ok(());
                }
                if let Ok(seq) = tokio::time::timeout(patience, ended.recv()).await {
                    if let Some(seq) = seq {
                        self.acknowledge(seq).await?;
                    }
                    return Ok(());
                }
            }
            Err(Error::Unkillable { id })
        }
        .await;
        let mut state = self.state();
        state.stopping.remove(&id);
        if result.is_ok() {
            state.running.remove(&id);
        }
        result
    }

    async fn acknowledge(&self, seq: u64) -> Result<(), Error> {
        let order = Order::Ack { seqs: vec![seq] };
        self.link.client().await?.tell(order).await?;
        self.state().told.remove(&seq);
        Ok(())
    }

    /// Hands a container that runs to the keeper; nothing if it has just ended.
    async fn take_over(&self, id: InstanceId, pid: u32) -> Result<Option<Kept>, Error> {
        let Some(started) = start_time(pid) else {
            return Ok(None);
        };
        let order = Order::Adopt {
            id: id.to_string(),
            pid,
            started,
            bundle: self.bundle(id),
            log: self.options.log,
        };
        match self.link.client().await?.tell(order).await? {
            Answer::Running { kept, .. } => Ok(Some(kept)),
            Answer::Gone => Ok(None),
            _ => Err(unexpected("adopt")),
        }
    }

    /// An instance that was started and is not there, although no keeper recorded its end.
    async fn tell_unseen_end(&self, id: InstanceId) {
        let Ok(pid) = fs::read_to_string(self.bundle(id).join("pid")) else {
            // No bundle: the machine was restarted, or it never ran.
            return;
        };
        let pid = pid.trim().parse().unwrap_or(0);
        let recorded = match self.link.client().await {
            Ok(client) => match client.tell(Order::Exits { since: 0 }).await {
                Ok(Answer::Exits { exits }) => exits
                    .iter()
                    .any(|exit| exit.id == id.to_string() && exit.pid == pid),
                _ => false,
            },
            Err(_) => false,
        };
        if !recorded {
            self.tell(Exit {
                id,
                seq: 0,
                pid,
                cause: ExitCause::Unknown,
                oom: self.layout.oom_kills(&self.cgroup(id)) > 0,
                at: SystemClock.now(),
            })
            .await;
        }
    }

    async fn tell(&self, exit: Exit) {
        if self.exits.send(exit).await.is_err() {
            tracing::debug!("an exit came and nobody listens any more");
        }
    }
}

fn unexpected(order: &'static str) -> Error {
    Error::Keeper(crate::keeper::Error::Unexpected { order })
}

/// File and mount work off the async threads.
async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::File {
            what: "finish work on",
            path: Path::new("the bundle").to_path_buf(),
            source: std::io::Error::other(error),
        })
    })
}
