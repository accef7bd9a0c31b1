//! How long a Node's network takes to make and to remove, and what passes through it.
//!
//! `networks [N ...]` prints one JSON object a line; with numbers, for so many instances only. `net.up.N` and `net.down.N`: seconds for N instances, beside the bare making and
//! removing of N network namespaces with a cable each. `net.throughput` and `net.latency`: one TCP connection between two
//! instances of one owner on one Node, beside two namespaces with nothing but a cable between them; `net.throughput.nodes` and
//! `net.latency.nodes`: on two Nodes, beside the cable between these. All is in namespaces of its own.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program that prints a measurement, or fails loudly"
)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aos_netstack::{
    AllowedFlow, Endpoint, KernelOptions, KernelStack, Network, NetworkStack, NodeLink, Wanted,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// Each is measured so many times; the best counts, as other load only takes away.
const TURNS: usize = 3;
/// How long bytes are sent.
const SEND: Duration = Duration::from_secs(1);

fn main() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED networks: needs root");
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    fs::create_dir_all("/run/netns").unwrap();
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run/netns", tmpfs, MsFlags::empty(), none).unwrap();
    ip("link set lo up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let counts: Vec<u16> = std::env::args()
            .skip(1)
            .map(|text| text.parse().expect("a number of instances"))
            .collect();
        if !counts.is_empty() {
            for count in counts {
                up_and_down(count).await;
            }
            return;
        }
        for count in [1, 50, 256] {
            up_and_down(count).await;
        }
        traffic().await;
        across().await;
    });
}

fn figure(name: &str, value: f64, unit: &str, floor: f64) {
    println!(
        "{{\"name\":\"{name}\",\"value\":{value:.4},\"unit\":\"{unit}\",\"floor\":{floor:.4},\"ratio\":{:.2}}}",
        value / floor
    );
}

fn stack() -> KernelStack {
    KernelStack::open(KernelOptions::new("nb".parse().unwrap())).unwrap()
}

/// Instances of two owners in turn; every tenth may connect to one of the other owner, and every fourth has a rate.
fn wanted(count: u16) -> Wanted {
    let owners = ["red", "blue"];
    let network = |owner: usize| Network {
        id: owners[owner].parse().unwrap(),
        subnet: format!("172.{}.0.0/16", 28 + owner).parse().unwrap(),
        ip: Ipv4Addr::new(172, 28 + owner as u8, 0, 1),
        vlan_id: 10 + owner as u64,
        ip6: Some(format!("fd00:{owner}::1").parse().unwrap()),
        link: NodeLink::None,
    };
    let ip = |n: u16| Ipv4Addr::new(172, 28 + (n % 2) as u8, 1 + (n >> 8) as u8, n as u8);
    let endpoints = (0..count).map(|n| {
        let owner = owners[usize::from(n % 2)];
        let id = format!("{n:032x}").parse().unwrap();
        let mut one = Endpoint::new(id, owner.parse().unwrap(), ip(n));
        one.ip6 = Some(format!("fd00:{}::{:x}", n % 2, n + 16).parse().unwrap());
        if n % 10 == 0 && n + 1 < count {
            one.allowed = vec![AllowedFlow {
                from: ip(n).into(),
                to: ip(n + 1).into(),
                first_port: 80,
                last_port: 81,
                protocol: aos_types::Protocol::Tcp,
            }];
        }
        if n % 4 == 0 {
            one.bounds.rate = Some(aos_netstack::Limit {
                down: Some(10_000_000),
                up: Some(10_000_000),
            });
        }
        one
    });
    Wanted {
        networks: vec![network(0), network(1)],
        endpoints: endpoints.collect(),
        ..Wanted::default()
    }
}

async fn up_and_down(count: u16) {
    let (mut up, mut down) = (f64::MAX, f64::MAX);
    let (mut bare_up, mut bare_down) = (f64::MAX, f64::MAX);
    for _ in 0..TURNS {
        let stack = stack();
        let wanted = wanted(count);
        let began = Instant::now();
        let applied = stack.apply(&wanted).await.unwrap();
        up = up.min(began.elapsed().as_secs_f64());
        assert!(applied.failed.is_empty(), "{:?}", applied.failed);
        let began = Instant::now();
        stack.apply(&Wanted::default()).await.unwrap();
        down = down.min(began.elapsed().as_secs_f64());
        stack.clear().await.unwrap();
        let (one, two) = bare(count);
        bare_up = bare_up.min(one);
        bare_down = bare_down.min(two);
    }
    figure(&format!("net.up.{count}"), up, "s", bare_up);
    figure(&format!("net.down.{count}"), down, "s", bare_down);
}

/// Namespaces with a cable to the Node's one each, by `ip -batch`.
fn bare(count: u16) -> (f64, f64) {
    let lines = |line: &dyn Fn(u16) -> String| (0..count).map(line).collect::<String>();
    let up = lines(&|n| {
        format!("netns add bare{n}\nlink add bare{n} up type veth peer name eth0 netns bare{n}\n")
    });
    let down = lines(&|n| format!("netns del bare{n}\n"));
    (batch(&up), batch(&down))
}

fn batch(script: &str) -> f64 {
    let file = std::env::temp_dir().join(format!("aos-networks-{}", std::process::id()));
    fs::write(&file, script).unwrap();
    let began = Instant::now();
    ip(&format!("-batch {}", file.display()));
    let took = began.elapsed().as_secs_f64();
    let _ = fs::remove_file(file);
    took
}

async fn traffic() {
    let stack = stack();
    let mut wanted = wanted(4);
    wanted
        .endpoints
        .iter_mut()
        .for_each(|one| one.bounds.rate = None);
    stack.apply(&wanted).await.unwrap();
    let place = |n: usize| stack.netns(&wanted.endpoints[n].id);
    for line in [
        "netns add one",
        "netns add two",
        "link add eth0 netns one type veth peer name eth0 netns two",
        "-n one addr add 192.0.2.1/24 dev eth0",
        "-n two addr add 192.0.2.2/24 dev eth0",
        "-n one link set eth0 mtu 1450 up",
        "-n two link set eth0 mtu 1450 up",
    ] {
        ip(line);
    }
    let ours = [place(0), place(2)];
    let bare = ["one", "two"].map(|name| Path::new("/run/netns").join(name));
    let to = |ip: String| -> SocketAddr { format!("{ip}:9000").parse().unwrap() };
    let (here, there) = (
        to(wanted.endpoints[2].ip.to_string()),
        to("192.0.2.2".into()),
    );
    let (mut value, mut floor) = (Figures::default(), Figures::default());
    for _ in 0..TURNS {
        value.take(measure(&ours, here));
        floor.take(measure(&bare, there));
    }
    figure("net.throughput", value.rate, "MB/s", floor.rate);
    figure("net.latency", value.latency, "us", floor.latency);
    stack.clear().await.unwrap();
}

/// Two instances of one owner on two Nodes, joined by VXLAN over the cable between these; the floor is the cable itself.
async fn across() {
    for line in [
        "netns add far",
        "link add cable type veth peer name cable netns far",
        "addr add 192.0.2.11/24 dev cable",
        "-n far addr add 192.0.2.12/24 dev cable",
        "link set cable up",
        "-n far link set cable up",
        "-n far link set lo up",
        "route add default via 192.0.2.12",
        "-n far route add default via 192.0.2.11",
    ] {
        ip(line);
    }
    let far_namespace = Path::new("/run/netns/far");
    let of_node = |here: bool| {
        let mut all = wanted(4);
        all.endpoints.retain(|one| one.network.as_str() == "red");
        let (mine, peer) = if here { (0, 12) } else { (1, 11) };
        all.endpoints = vec![all.endpoints.swap_remove(mine)];
        all.endpoints[0].bounds.rate = None;
        all.networks.truncate(1);
        // The Node's own address differs, as it is one network.
        let own = 10 + mine as u8;
        all.networks[0].ip = Ipv4Addr::new(172, 28, 0, own);
        all.networks[0].ip6 = Some(format!("fd00:0::{own:x}").parse().unwrap());
        all.networks[0].link = NodeLink::Vxlan([Ipv4Addr::new(192, 0, 2, peer).into()].into());
        all
    };
    let near = stack();
    near.apply(&of_node(true)).await.unwrap();
    // What the kernel is told is about the namespace of the thread that tells it.
    let home = File::open("/proc/thread-self/ns/net").unwrap();
    setns(File::open(far_namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let far = KernelStack::open(KernelOptions {
        netns_dir: PathBuf::from("/run/netns/of-far"),
        ..KernelOptions::new("nb".parse().unwrap())
    })
    .unwrap();
    let applied = far.apply(&of_node(false)).await.unwrap();
    assert!(applied.failed.is_empty() && applied.alone.is_empty());
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    let to = |ip: Ipv4Addr| SocketAddr::from((ip, 9000));
    let (one, two) = (&of_node(true).endpoints[0], &of_node(false).endpoints[0]);
    let ours = [near.netns(&one.id), far.netns(&two.id)];
    let bare = [
        PathBuf::from("/proc/self/ns/net"),
        far_namespace.to_path_buf(),
    ];
    let (mut value, mut floor) = (Figures::default(), Figures::default());
    for _ in 0..TURNS {
        value.take(measure(&ours, to(two.ip)));
        floor.take(measure(&bare, to(Ipv4Addr::new(192, 0, 2, 12))));
    }
    figure("net.throughput.nodes", value.rate, "MB/s", floor.rate);
    figure("net.latency.nodes", value.latency, "us", floor.latency);
}

struct Figures {
    rate: f64,
    latency: f64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            rate: 0.0,
            latency: f64::MAX,
        }
    }
}

impl Figures {
    fn take(&mut self, (rate, latency): (f64, f64)) {
        self.rate = self.rate.max(rate);
        self.latency = self.latency.min(latency);
    }
}

/// Megabytes a second of one connection, and microseconds from a byte to its answer.
fn measure([from, to]: &[PathBuf; 2], address: SocketAddr) -> (f64, f64) {
    let listener = inside(to, move || TcpListener::bind(address).unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && byte[0] == 1 {
            stream.write_all(&byte).unwrap();
        }
        let mut buffer = vec![0; 1 << 18];
        let mut all = 0_u64;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            all += count as u64;
        }
        all
    });
    let (latency, began) = inside(from, move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [1];
        const TIMES: u32 = 2_000;
        let began = Instant::now();
        for _ in 0..TIMES {
            stream.write_all(&byte).unwrap();
            stream.read_exact(&mut byte).unwrap();
        }
        let latency = began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
        stream.write_all(&[0]).unwrap();
        let chunk = vec![7; 1 << 18];
        let began = Instant::now();
        while began.elapsed() < SEND {
            stream.write_all(&chunk).unwrap();
        }
        (latency, began)
    });
    let all = server.join().unwrap() as f64;
    (all / began.elapsed().as_secs_f64() / 1e6, latency)
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_whitespace()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}

fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).unwrap();
    let worker = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    worker.join().unwrap()
}
