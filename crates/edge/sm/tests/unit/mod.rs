//! A Unit around one SM: IAM, CM and the blobs are played by the test over real TLS; containers, networks and the keeper
//! are real. All of it lives in network and mount namespaces of the test's own.

pub mod cm;
pub mod iam;
pub mod item;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use aos_image::BlobStore;
use aos_pki::{
    Authority, CertKind, CertProfile, CertSource, KeyAlgorithm, certificates_from_pem,
    certified_key,
};
use aos_sm::Options;
use aos_time::{Clock, SystemClock};
use aos_types::{NodeId, SystemId};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NODE: &str = "node-1";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Takes the calling thread into namespaces of its own, or says why not.
fn own_world(test: &str) -> bool {
    let skipped = |reason: String| {
        eprintln!("SKIPPED {test}: {reason}");
        false
    };
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root".into());
    }
    for tool in ["crun", "nft", "ip", "cc"] {
        if Command::new(tool).arg("--help").output().is_err() {
            return skipped(format!("needs {tool}"));
        }
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    true
}

/// Runs a test in its own world.
pub fn run<F: Future<Output = ()>>(test: &str, work: impl FnOnce(Unit) -> F) {
    run_beside(test, true, work);
}

/// Runs a test whose CM does not know `aos.node.v1`.
pub fn run_with_plain_v5<F: Future<Output = ()>>(test: &str, work: impl FnOnce(Unit) -> F) {
    run_beside(test, false, work);
}

fn run_beside<F: Future<Output = ()>>(test: &str, modern: bool, work: impl FnOnce(Unit) -> F) {
    if !own_world(test) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let unit = Unit::new(modern).await;
        let folder = unit.folder.path().to_path_buf();
        let cgroup = unit.options.cgroup_parent.clone();
        let _cleanup = Cleanup { folder, cgroup };
        work(unit).await;
    });
}

/// Ends what a test has started, also when it panics.
struct Cleanup {
    folder: PathBuf,
    cgroup: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // SM was told to end; until it has, it would start another keeper.
            std::thread::sleep(Duration::from_millis(500));
        }
        while let Some(pid) = keeper_pid_in(&self.folder.join("sm/keeper-native")) {
            signal(pid, "-KILL");
            while alive(pid) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if let Some(pid) = keeper_pid(&self.folder) {
            signal(pid, "-KILL");
            while alive(pid) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let root = self.folder.join("run/crun");
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let _ = Command::new("crun")
                .arg("--root")
                .arg(&root)
                .args(["delete", "--force"])
                .arg(entry.file_name())
                .output();
        }
        for entry in fs::read_dir(self.folder.join("run/instances"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(entry.path().join("rootfs"))
                .output();
        }
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.join("sm/kept/mount"))
            .output();
        let tops = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for top in tops {
            let path = top.path().join(self.cgroup.trim_start_matches('/'));
            for child in fs::read_dir(&path).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(path);
        }
    }
}

pub struct Unit {
    pub folder: tempfile::TempDir,
    pub cm: cm::FakeCm,
    pub iam: iam::FakeIam,
    pub options: Options,
    pub images: BlobStore,
}

impl Unit {
    async fn new(modern: bool) -> Self {
        aos_pki::install_provider();
        let folder = tempfile::Builder::new()
            .prefix("aos-sm-")
            .tempdir()
            .unwrap();
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let root = Authority::in_memory("root", SystemClock.now()).unwrap();
        fs::write(folder.path().join("ca.pem"), root.root_pem()).unwrap();
        let images = BlobStore::open(folder.path().join("cm-images")).unwrap();
        let iam = iam::serve(&root, folder.path()).await;
        let cm = cm::FakeCm::start(&root, images.clone(), modern).await;
        let text = format!(
            "state_dir = '{0}/sm'\nruntime_dir = '{0}/run'\nca_cert = '{0}/ca.pem'\niam_public = '{at}'\n\
             iam_protected = '{at}'\ncm = '{1}'\ncgroup_parent = '/{name}'\nnetns_dir = '{0}/netns'\n\
             keeper_program = '{2}'\nstop_grace_secs = 3\nreconnect_max_secs = 1\n",
            folder.path().display(),
            cm.address,
            keeper_program().display(),
            at = iam.address,
        );
        fs::write(folder.path().join("sm.toml"), &text).unwrap();
        let options = toml::from_str(&text).unwrap();
        Self {
            folder,
            cm,
            iam,
            options,
            images,
        }
    }

    pub fn start_sm(&self) -> RunningSm {
        self.cm.expects_another();
        let stop = CancellationToken::new();
        let task = tokio::spawn(aos_sm::run(self.options.clone(), stop.clone()));
        RunningSm { stop, task }
    }

    /// The storage of an instance, wherever this machine keeps it.
    pub fn storage(&self, name: &str) -> PathBuf {
        self.kept("storages", name)
    }

    /// The state file of an instance, wherever this machine keeps it.
    pub fn state(&self, name: &str) -> PathBuf {
        self.kept("states", name).join("state.dat")
    }

    fn kept(&self, kind: &str, name: &str) -> PathBuf {
        let image = self.path("sm/kept/mount").join(kind).join(name);
        if image.exists() {
            image
        } else {
            self.path("sm").join(kind).join(name)
        }
    }

    /// The disk of the Node is another one. SM does not run.
    pub fn lose_everything(&self) {
        let _ = nix::mount::umount2(
            &self.path("sm/kept/mount"),
            nix::mount::MntFlags::MNT_DETACH,
        );
        for name in [
            "kept",
            "kept.made",
            "states",
            "storages",
            "sm.db",
            "sm.db-wal",
            "sm.db-shm",
        ] {
            let path = self.path("sm").join(name);
            let _ = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }

    /// What is free for storages, in bytes.
    pub fn free(&self) -> u64 {
        let image = self.path("sm/kept/mount");
        let place = if image.exists() {
            image
        } else {
            self.path("sm")
        };
        let facts = rustix::fs::statvfs(&place).unwrap();
        facts.f_bavail * facts.f_frsize
    }

    /// Whether this machine can enforce limits of storages; says why not.
    pub fn enforces(&self, test: &str) -> bool {
        let setup = aos_quota::Setup {
            storages: self.path("probe/storages"),
            states: self.path("probe/states"),
            image_dir: self.path("probe/kept"),
            image_max: None,
            choice: aos_quota::Choice::Auto,
        };
        let chosen = aos_quota::open(&setup).unwrap();
        let enforces = chosen.quota.backend() != aos_quota::Backend::Accounting;
        if !enforces {
            eprintln!("SKIPPED {test}: {}", chosen.passed_over.join("; "));
        }
        enforces
    }

    /// SM as a process of its own.
    pub fn start_sm_process(&self) -> SmProcess {
        let program = example("sm-process");
        let child = Command::new(program).arg(self.path("sm.toml")).spawn();
        SmProcess(child.unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub struct RunningSm {
    stop: CancellationToken,
    task: JoinHandle<Result<(), aos_sm::Error>>,
}

impl Drop for RunningSm {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

impl RunningSm {
    /// An orderly end.
    pub async fn end(mut self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, &mut self.task)
            .await
            .expect("SM ends in time")
            .unwrap()
            .unwrap();
    }

    /// As if the process had been killed: no task gets another turn.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.stop.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// SM as a process, killed at the end if it was not before.
pub struct SmProcess(std::process::Child);

impl SmProcess {
    /// `SIGKILL`.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for SmProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    folder.join("examples").join(name)
}

fn keeper_program() -> PathBuf {
    example("sm-keeper")
}

/// What a reboot leaves: containers, namespaces, mounts and the runtime folder are gone, the disk stays.
pub async fn reboot(unit: &Unit, running: Vec<u32>) {
    if let Some(keeper) = keeper_pid(unit.folder.path()) {
        signal(keeper, "-KILL");
        until("no keeper", || !alive(keeper)).await;
    }
    for &pid in &running {
        signal(pid, "-KILL");
    }
    until("all dead", || !running.iter().any(|&pid| alive(pid))).await;
    for entry in fs::read_dir(unit.path("run/instances")).unwrap().flatten() {
        let root = entry.path().join("rootfs");
        nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    fs::remove_dir_all(unit.path("run")).unwrap();
    for entry in fs::read_dir(unit.path("netns")).unwrap().flatten() {
        nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    fs::remove_dir_all(unit.path("netns")).unwrap();
}

pub fn keeper_pid(folder: &Path) -> Option<u32> {
    keeper_pid_in(&folder.join("sm/keeper"))
}

fn keeper_pid_in(state_dir: &Path) -> Option<u32> {
    let wanted = state_dir.to_string_lossy().into_owned();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        (words.contains(&wanted.as_bytes()) && words.contains(&b"--foreground".as_slice()))
            .then_some(pid)
    })
}

/// A certificate of this Unit.
pub fn source(root: &Authority, kind: CertKind) -> CertSource {
    let (chain, key) = certificate(root, kind);
    let chain = certificates_from_pem(chain.as_bytes()).unwrap();
    CertSource::with(certified_key(chain, &key).unwrap())
}

pub fn certificate(root: &Authority, kind: CertKind) -> (String, aos_pki::KeyPair) {
    let unit = SystemId::new("unit-1").unwrap();
    let node = NodeId::new(NODE).unwrap();
    let profile = CertProfile::unit(kind, &unit, Some(&node));
    let pair = root
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    (pair.issued.chain_pem, pair.key)
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(name).arg(pid.to_string()).status();
}

pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

pub async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
