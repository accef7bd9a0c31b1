//! The states of instances: noticed when they write them, told to CM, and replaced when CM has another one.
//!
//! ```text
//!   instance writes ──► inotify ── pause ──► differs from what CM has? ──► StateReport ──► StateKept: stored
//!   SetState ──► stop ── replace ── start again ──► StateSet
//! ```
//!
//! A service may write its state all the time: it is told at once after a quiet time and then once an interval, so the
//! newest one always gets through. What CM has is stored by its checksum, so nothing is told twice and nothing is lost
//! while CM is away, or SM.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_launch::Instance;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, state_checksum};
use tokio::time::Instant;

use crate::{alerts::Alerts, launcher::Launcher, places::Places, records::Kept};
use watch::Watch;

/// After the first change, so that a state that is written in pieces is read once.
const SETTLE: Duration = Duration::from_millis(300);
/// The longest state that is told or taken, in bytes.
const MOST: u64 = 1 << 20;

/// Stands for the checksum that CM has when it was told of a first state and has not answered.
const BEGUN: &str = "";

/// A state that CM does not have yet.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) ident: InstanceIdent,
    pub(crate) checksum: String,
    pub(crate) content: Vec<u8>,
    /// Nobody is known to have any state of it.
    pub(crate) first: bool,
}

/// The states of this Node.
pub(crate) struct States {
    launcher: Arc<Launcher>,
    places: Places,
    kept: Kept,
    alerts: Arc<Alerts>,
    interval: Duration,
    /// Whose state is longer than it may be: told once.
    too_long: Mutex<BTreeSet<InstanceIdent>>,
}

impl States {
    pub(crate) fn new(
        launcher: Arc<Launcher>,
        places: Places,
        kept: Kept,
        alerts: Arc<Alerts>,
        interval: Duration,
    ) -> Self {
        Self {
            launcher,
            places,
            kept,
            alerts,
            interval,
            too_long: Mutex::default(),
        }
    }

    /// Calls `tell` with every state that CM does not have, for as long as it succeeds. Begins with all of them.
    pub(crate) async fn follow<Told: Future<Output = Result<(), ()>>>(
        &self,
        tell: impl Fn(Changed) -> Told,
    ) {
        let mut watch = match Watch::new() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "changes of states cannot be noticed: they are told at each connection only");
                Watch::blind()
            }
        };
        let _telling = Telling::begin(&self.launcher);
        let mut snapshots = self.launcher.snapshots();
        // What was told in this session and not answered yet is not told again for its own sake.
        let mut told: BTreeMap<InstanceIdent, String> = BTreeMap::new();
        loop {
            snapshots.borrow_and_update();
            let files = self.files();
            watch.only(files.iter().filter_map(|file| file.path.parent()));
            told.retain(|ident, _| files.iter().any(|file| file.instance.ident == *ident));
            for changed in self.changed(files).await {
                if told.get(&changed.ident) == Some(&changed.checksum) {
                    continue;
                }
                told.insert(changed.ident.clone(), changed.checksum.clone());
                let begun =
                    (changed.first && !changed.content.is_empty()).then(|| changed.ident.clone());
                if tell(changed).await.is_err() {
                    return;
                }
                if let Some(ident) = begun {
                    // The next one follows from this one, also if CM's answer to it gets lost.
                    self.kept(&ident, BEGUN).await;
                }
            }
            let next = Instant::now() + self.interval;
            let pause = async {
                tokio::select! {
                    () = watch.changed() => {}
                    changed = snapshots.changed() => if changed.is_err() { return false },
                }
                tokio::time::sleep_until(next.max(Instant::now() + SETTLE)).await;
                true
            };
            // Waiting for a state and for readiness are both cancel-safe.
            tokio::select! {
                goes_on = pause => if !goes_on { return },
                // Written for the last time: there is nothing to wait for.
                () = self.launcher.last_states() => {}
            }
            watch.forget();
        }
    }

    /// CM has this state.
    pub(crate) async fn kept(&self, ident: &InstanceIdent, checksum: &str) {
        if let Err(error) = self
            .kept
            .states
            .put(&Kept::key(ident), &checksum.to_owned())
            .await
        {
            tracing::warn!(%ident, %error, "a state will be told again");
        }
        if self.launcher.is_parting(ident) {
            let files = self.files().into_iter();
            let mut own = files.filter(|file| file.instance.ident == *ident);
            let last = own.any(|file| {
                read(&file.path, file.most).is_ok_and(|now| state_checksum(&now) == checksum)
            });
            if last {
                self.launcher.last_state_is_kept(ident);
            }
        }
    }

    /// Gives an instance the state that CM has. It is started again if it ran with another one.
    pub(crate) async fn set(
        &self,
        ident: &InstanceIdent,
        state_path: &str,
        owner: (u32, u32),
        content: Vec<u8>,
    ) -> Result<(), ErrorInfo> {
        let invalid = |why: String| ErrorInfo::new(AosCode::InvalidArgument, why);
        let kept = self.launcher.kept().into_iter();
        let limit = kept
            .filter(|(instance, _)| instance.ident == *ident)
            .find_map(|(_, quotas)| quotas.state_limit.filter(|&limit| limit > 0));
        let most = limit.unwrap_or(MOST).min(MOST);
        if content.len() as u64 > most {
            return Err(invalid(format!(
                "a state of {} bytes is too long: at most {most} are taken",
                content.len()
            )));
        }
        let path = self
            .places
            .state(state_path)
            .map_err(invalid)?
            .ok_or_else(|| invalid("it has no state".into()))?;
        let checksum = state_checksum(&content);
        // Asked when its turn has come: CM orders it once more when an answer takes long.
        let asked = checksum.clone();
        let differs = move || !read(&path, MOST).is_ok_and(|now| state_checksum(&now) == asked);
        // Stored first: what is about to be on the disk is no news to CM.
        self.kept(ident, &checksum).await;
        let failed = |why: String| ErrorInfo::new(AosCode::Failed, why);
        let (places, name) = (self.places.clone(), state_path.to_owned());
        self.launcher
            .while_stopped(ident, differs, || async move {
                tokio::task::spawn_blocking(move || {
                    places.replace_state(&name, &content, owner, limit)
                })
                .await
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| failed(format!("its state cannot be replaced: {error}")))
            })
            .await
    }

    /// The state file of every instance that has one.
    fn files(&self) -> Vec<StateFile> {
        let instances = self.launcher.kept();
        let files = instances.into_iter().filter_map(|(instance, quotas)| {
            let path = self.places.state(&instance.state_path).ok()??;
            let limit = quotas.state_limit.filter(|&limit| limit > 0);
            Some(StateFile {
                instance,
                path,
                most: limit.unwrap_or(MOST).min(MOST),
            })
        });
        files.collect()
    }

    /// The states that CM does not have.
    async fn changed(&self, files: Vec<StateFile>) -> Vec<Changed> {
        let known: BTreeMap<String, String> = match self.kept.states.all().await {
            Ok(known) => known.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "what CM has of the states cannot be read");
                return Vec::new();
            }
        };
        let reading = tokio::task::spawn_blocking(move || {
            let all = files.into_iter().map(|file| {
                let content = read(&file.path, file.most);
                (file, content)
            });
            all.collect::<Vec<_>>()
        });
        let mut changed = Vec::new();
        for (StateFile { instance, most, .. }, content) in reading.await.unwrap_or_default() {
            self.note_length(&instance, most, &content);
            let ident = instance.ident;
            let content = match content {
                Ok(content) => content,
                Err(error) => {
                    match error.kind() {
                        // Not started yet, or taken away by itself; or told already.
                        io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge => {}
                        _ => tracing::warn!(%ident, %error, "the state cannot be read"),
                    }
                    self.launcher.last_state_is_kept(&ident);
                    continue;
                }
            };
            let checksum = state_checksum(&content);
            // One that never wrote is told too: the Node may have lost what it had.
            let before = known.get(&Kept::key(&ident));
            if before != Some(&checksum) {
                changed.push(Changed {
                    first: before.is_none(),
                    ident,
                    checksum,
                    content,
                });
            } else {
                self.launcher.last_state_is_kept(&ident);
            }
        }
        changed
    }

    /// Tells people once of a state that is longer than it may be.
    fn note_length(&self, instance: &Instance, most: u64, content: &io::Result<Vec<u8>>) {
        let mut too_long = self.too_long.lock().unwrap_or_else(PoisonError::into_inner);
        match content {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                if too_long.insert(instance.ident.clone()) {
                    self.alerts.instance(
                        &instance.ident,
                        &instance.version,
                        format!(
                            "its state is longer than {most} bytes and is kept on its Node only, where it may be lost: let \
                             it write less, or raise `quotas.stateLimit` (at most {MOST}) in its next version"
                        ),
                    );
                }
            }
            _ => {
                too_long.remove(&instance.ident);
            }
        }
    }
}

/// States are told for as long as this is there.
struct Telling<'a>(&'a Launcher);

impl<'a> Telling<'a> {
    fn begin(launcher: &'a Launcher) -> Self {
        launcher.tells_states(true);
        Self(launcher)
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.tells_states(false);
    }
}

/// The state of an instance on the disk.
struct StateFile {
    instance: Instance,
    path: PathBuf,
    /// The longest it may be.
    most: u64,
}

/// A whole state file; never through a link, never more than is taken.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// Folders, each once.
fn folders<'a>(all: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    all.map(Path::to_path_buf).collect()
}
