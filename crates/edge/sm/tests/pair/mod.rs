//! Two Nodes, each a network namespace with an SM of its own, on one switch with CM and the world. CM is played by the test
//! and gives addresses and rules as the real one does, by `aos-network`.

mod cm;
mod iam;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aos_image::BlobStore;
use aos_pki::{
    Authority, CertKind, CertProfile, CertSource, KeyAlgorithm, certificates_from_pem,
    certified_key,
};
use aos_runtime::InstanceId;
use aos_time::{Clock, SystemClock};
use aos_types::{Digest, InstanceIdent, ItemConfig, NodeId, SystemId};
use cm::Cm;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::item;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where CM, IAM and the blobs are: the test's own place on the switch.
pub const HERE: &str = "192.0.2.1";

/// An element of a list: item, index, owner, manifest.
pub type One = (&'static str, u64, &'static str, Digest);

pub struct Pair {
    folder: tempfile::TempDir,
    cm: Cm,
    images: BlobStore,
}

/// Runs a test in a world of its own.
pub fn run<F: Future<Output = ()>>(test: &str, work: impl FnOnce(Pair) -> F) {
    let skipped = |reason: &str| eprintln!("SKIPPED {test}: {reason}");
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    for tool in ["crun", "nft", "ip", "cc"] {
        if Command::new(tool).arg("--help").output().is_err() {
            return skipped(&format!("needs {tool}"));
        }
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    fs::create_dir_all("/run/netns").unwrap();
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run/netns", tmpfs, MsFlags::empty(), none).unwrap();
    for line in [
        "link set lo up",
        "link add sw type bridge",
        "link set sw up",
        "addr add 192.0.2.1/24 dev sw",
    ] {
        ip(line);
    }
    for (name, host) in [("world", 2), ("node0", 10), ("node1", 11)] {
        for line in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("link set {name} master sw up"),
            format!("-n {name} addr add 192.0.2.{host}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&line);
        }
    }
    for node in ["node0", "node1"] {
        ip(&format!("-n {node} route add default via 192.0.2.2"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pair = Pair::new().await;
        let folder = pair.folder.path().to_path_buf();
        let _cleanup = Cleanup(folder);
        work(pair).await;
    });
}

/// Ends what a test has started, also when it panics.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for node in 0..2 {
            let folder = self.0.join(format!("node{node}"));
            let mark = folder.to_string_lossy().into_owned();
            // The keeper first: it would see its instances end.
            for pid in processes(&mark) {
                kill(pid);
            }
            let root = folder.join("run/crun");
            for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
                let _ = Command::new("crun")
                    .arg("--root")
                    .arg(&root)
                    .args(["delete", "--force"])
                    .arg(entry.file_name())
                    .output();
            }
            for entry in fs::read_dir(folder.join("run/instances"))
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
                .arg(folder.join("sm/kept/mount"))
                .output();
            let name = cgroup(&self.0, node);
            for top in fs::read_dir("/sys/fs/cgroup")
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = top.path().join(name.trim_start_matches('/'));
                for child in fs::read_dir(&path).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(child.path());
                }
                let _ = fs::remove_dir(path);
            }
        }
    }
}

/// The processes in whose command line a text is.
fn processes(mark: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let ours = String::from_utf8_lossy(&line).contains(mark);
            (ours && pid != std::process::id()).then_some(pid)
        })
        .collect()
}

fn kill(pid: u32) {
    let _ = Command::new("kill")
        .arg("-KILL")
        .arg(pid.to_string())
        .status();
    let began = Instant::now();
    while Path::new(&format!("/proc/{pid}/exe")).exists() && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
}

fn cgroup(folder: &Path, node: usize) -> String {
    format!("/{}-{node}", folder.file_name().unwrap().to_string_lossy())
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    folder.join("examples").join(name)
}

/// SM of a Node, killed at the end if it was not before.
pub struct Sm(Child);

impl Sm {
    pub fn kill(self) {
        drop(self);
    }

    /// Lets it end by itself.
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.0.wait();
    }
}

impl Drop for Sm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    async fn new() -> Self {
        aos_pki::install_provider();
        let folder = tempfile::Builder::new()
            .prefix("aos-pair-")
            .tempdir()
            .unwrap();
        let root = Authority::in_memory("root", SystemClock.now()).unwrap();
        fs::write(folder.path().join("ca.pem"), root.root_pem()).unwrap();
        let images = BlobStore::open(folder.path().join("cm-images")).unwrap();
        let cm = Cm::start(&root, images.clone()).await;
        for node in 0..2 {
            let own = folder.path().join(format!("node{node}"));
            fs::create_dir(&own).unwrap();
            let iam = iam::serve(&root, &own, node).await;
            let text = format!(
                "state_dir = '{0}/sm'\nruntime_dir = '{0}/run'\nca_cert = '{1}/ca.pem'\niam_public = '{iam}'\n\
                 iam_protected = '{iam}'\ncm = '{2}'\ncgroup_parent = '{3}'\nnetns_dir = '{0}/netns'\n\
                 keeper_program = '{4}'\nstop_grace_secs = 2\nreconnect_max_secs = 1\ndns_servers = ['192.0.2.2']\n",
                own.display(),
                folder.path().display(),
                cm.address(node),
                cgroup(folder.path(), node),
                example("sm-keeper").display(),
            );
            fs::write(own.join("sm.toml"), text).unwrap();
        }
        Self { folder, cm, images }
    }

    pub fn publish(&self, args: &[&str], change: impl FnOnce(&mut ItemConfig)) -> Digest {
        item::publish(&self.images, self.folder.path(), args, change)
    }

    pub fn start(&self, node: usize) -> Sm {
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/node{node}"))
            .arg(example("sm-process"))
            .arg(self.folder.path().join(format!("node{node}/sm.toml")))
            .spawn();
        Sm(child.unwrap())
    }

    /// Orders a list and waits until the Node runs just that.
    pub async fn list(&self, node: usize, wanted: &[One]) {
        let began = Instant::now();
        loop {
            self.send_list(node, wanted).await;
            if self.cm.runs(node, wanted, Duration::from_secs(8)).await {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{}", self.cm.told(node));
        }
    }

    pub async fn send_list(&self, node: usize, wanted: &[One]) {
        self.cm.order(node, wanted).await;
    }

    /// Waits until an SM that was started again has told what it runs.
    pub async fn until_whole(&self, node: usize) {
        self.cm.until_introduced(node).await;
    }

    /// Why an instance does not run, as its Node tells.
    pub fn error_of(&self, node: usize, item: &str) -> String {
        self.cm.error_of(node, item)
    }

    /// What a Node's alerts about instances say.
    pub fn alerts(&self, node: usize) -> Vec<String> {
        self.cm.alerts(node)
    }

    pub async fn restart_cm(&self) {
        self.cm.restart().await;
    }

    /// The network namespace of an instance.
    pub fn netns(&self, node: usize, item: &str, index: u64) -> PathBuf {
        let ident =
            InstanceIdent::service(item.parse().unwrap(), "subject".parse().unwrap(), index);
        let folder = self.folder.path().join(format!("node{node}/netns"));
        folder.join(format!("aos-{}", InstanceId::of(&ident)))
    }

    pub fn address(&self, netns: &Path) -> String {
        let text = inside(netns, || ip("-brief -4 addr show eth0"));
        let address = text.split_whitespace().nth(2).unwrap_or_default();
        address.split('/').next().unwrap_or_default().to_owned()
    }

    /// What port 80 of an address answers.
    pub fn ask(&self, netns: &Path, address: &str) -> Option<String> {
        self.ask_at(netns, &format!("{address}:80"))
    }

    /// What an address with its port answers.
    pub fn ask_at(&self, netns: &Path, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().ok()?;
        inside(netns, || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text.trim().to_owned())
        })
    }

    pub fn ask_by_name(&self, netns: &Path, name: &str) -> Option<String> {
        let address = self.resolve(netns, name).into_iter().next()?;
        self.ask(netns, &address)
    }

    /// The addresses of a name, asked as an instance would: at its gateway.
    pub fn resolve(&self, netns: &Path, name: &str) -> Vec<String> {
        look_up(netns, name, 1, 4)
            .into_iter()
            .map(|bytes: [u8; 4]| bytes.map(|byte| byte.to_string()).join("."))
            .collect()
    }

    pub fn resolve6(&self, netns: &Path, name: &str) -> Vec<[u8; 16]> {
        look_up(netns, name, 28, 16)
    }

    pub fn connects(&self, netns: &Path, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        inside(netns, || {
            TcpStream::connect_timeout(&address, Duration::from_millis(1_200)).is_ok()
        })
    }

    /// Sends as much as can be sent in two seconds.
    pub fn send(&self, netns: &Path, address: &str, bytes: usize) {
        let address: SocketAddr = address.parse().unwrap();
        inside(netns, || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            let _ = stream.write_all(&vec![7; bytes]);
        });
    }

    /// Somebody in the world listens, and counts what comes.
    pub fn world_listens(&self, port: u16) -> Sink {
        let world = Path::new("/run/netns/world");
        let listener = inside(world, || TcpListener::bind(("192.0.2.2", port)).unwrap());
        let sink = Sink(Arc::default());
        let counted = sink.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counted) = (stream.unwrap(), counted.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 65_536];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        counted.0.fetch_add(count as u64, Ordering::SeqCst);
                    }
                });
            }
        });
        sink
    }

    /// Somebody in the world gives so much to whoever asks.
    pub fn world_gives(&self, port: u16, bytes: usize) {
        let world = Path::new("/run/netns/world");
        let listener = inside(world, || TcpListener::bind(("192.0.2.2", port)).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(&vec![7; bytes]);
            }
        });
    }

    /// How long it takes to get that.
    pub fn fetch(&self, netns: &Path, address: &str, bytes: usize) -> Duration {
        let address: SocketAddr = address.parse().unwrap();
        let began = Instant::now();
        let got = inside(netns, || {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.len()
        });
        assert_eq!(got, bytes);
        began.elapsed()
    }

    /// Somebody in an instance listens, over IPv4 and IPv6.
    pub fn listens(&self, netns: &Path, port: u16) {
        let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
        thread::spawn(move || for _ in listener.incoming() {});
    }

    /// What a program says on a Node.
    pub fn on_node(&self, node: usize, program: &str, line: &str) -> String {
        let output = inside(Path::new(&format!("/run/netns/node{node}")), || {
            Command::new(program)
                .args(line.split_whitespace())
                .output()
                .unwrap()
        });
        assert!(output.status.success(), "{program} {line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many cables a Node has.
    pub fn cables(&self, node: usize) -> usize {
        self.links(node)
            .iter()
            .filter(|name| name.starts_with("aosve-"))
            .count()
    }

    pub fn namespaces(&self, node: usize) -> usize {
        let folder = self.folder.path().join(format!("node{node}/netns"));
        fs::read_dir(folder).into_iter().flatten().count()
    }

    /// Interfaces and namespaces of instances that a Node has.
    pub fn left_over(&self, node: usize) -> Vec<String> {
        let mut left = self.links(node);
        left.retain(|name| name.starts_with("aos"));
        left.extend((0..self.namespaces(node)).map(|n| format!("namespace {n}")));
        left
    }

    fn links(&self, node: usize) -> Vec<String> {
        let path = PathBuf::from(format!("/run/netns/node{node}"));
        let text = inside(&path, || ip("-brief link show"));
        let names = text
            .lines()
            .filter_map(|line| line.split(['@', ' ']).next());
        names.map(str::to_owned).collect()
    }
}

#[derive(Clone)]
pub struct Sink(Arc<AtomicU64>);

impl Sink {
    pub fn received(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One question to the gateway; the content of the answers of this length.
fn look_up<const N: usize>(netns: &Path, name: &str, kind: u16, length: u16) -> Vec<[u8; N]> {
    let gateway = inside(netns, || ip("-4 route show default"));
    let gateway = gateway
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    let mut query = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    let answer = inside(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket.connect((gateway.as_str(), 53)).ok()?;
        socket.send(&query).ok()?;
        let mut buffer = vec![0; 2_048];
        let read = socket.recv(&mut buffer).ok()?;
        buffer.truncate(read);
        Some(buffer)
    });
    let Some(answer) = answer else {
        return Vec::new();
    };
    // Each answer: a pointer to the name, type, class, time to live, length, content.
    let rest = answer.get(query.len()..).unwrap_or_default();
    rest.chunks_exact(12 + usize::from(length))
        .filter(|record| record[2..4] == kind.to_be_bytes())
        .filter_map(|record| record[12..].try_into().ok())
        .collect()
}

pub fn ip(line: &str) -> String {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns).unwrap();
    thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

pub async fn until(mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "never reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

fn certificate(root: &Authority, kind: CertKind, node: usize) -> (String, aos_pki::KeyPair) {
    let unit = SystemId::new("unit-1").unwrap();
    let node = NodeId::new(node_name(node)).unwrap();
    let profile = CertProfile::unit(kind, &unit, Some(&node));
    let pair = root
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    (pair.issued.chain_pem, pair.key)
}

fn source(root: &Authority, kind: CertKind, node: usize) -> CertSource {
    let (chain, key) = certificate(root, kind, node);
    let chain = certificates_from_pem(chain.as_bytes()).unwrap();
    CertSource::with(certified_key(chain, &key).unwrap())
}
