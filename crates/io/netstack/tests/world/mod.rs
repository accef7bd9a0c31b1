//! Machines for tests: each Node is a network namespace; all are plugged into one switch with the world outside.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aos_netstack::{
    AllowedFlow, Counted, Endpoint, EndpointId, KernelOptions, KernelStack, Network, NetworkStack,
    NodeLink, Wanted,
};
use aos_types::Protocol;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

pub struct World;

/// Runs a test in a world of its own, which ends with it.
pub fn run<F: Future<Output = ()>>(test: &str, work: impl FnOnce(World) -> F) {
    let skipped = |reason: &str| eprintln!("SKIPPED {test}: {reason}");
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    for tool in ["nft", "ip"] {
        if Command::new(tool).arg("-V").output().is_err() {
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
        "netns add outside",
        "link add out type veth peer name eth0 netns outside",
        "link set out master sw up",
        "-n outside addr add 192.0.2.2/24 dev eth0",
        "-n outside -6 addr add 2001:db8::2/64 dev eth0 nodad",
        "-n outside link set eth0 up",
        "-n outside link set lo up",
    ] {
        ip(line);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(World));
}

pub struct Node {
    /// Its own namespace.
    pub path: PathBuf,
    folder: PathBuf,
    stack: KernelStack,
}

impl World {
    /// A Node with the address 192.0.2.1<number>.
    pub fn node(&self, number: u8) -> Node {
        let name = format!("node{number}");
        for line in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("link set {name} master sw up"),
            format!("-n {name} addr add 192.0.2.1{number}/24 dev eth0"),
            format!("-n {name} -6 addr add 2001:db8::1{number}/64 dev eth0 nodad"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via 192.0.2.2"),
        ] {
            ip(&line);
        }
        Node::open(Path::new("/run/netns").join(name), number)
    }
}

impl World {
    /// A Node in the world's own namespace, where the test itself is too.
    pub fn host(&self) -> Node {
        for line in [
            "addr add 192.0.2.1/24 dev sw",
            "route add default via 192.0.2.2",
        ] {
            ip(line);
        }
        let here = Path::new("/run/netns/host");
        File::create(here).unwrap();
        let none: Option<&str> = None;
        mount(
            Some("/proc/thread-self/ns/net"),
            here,
            none,
            MsFlags::MS_BIND,
            none,
        )
        .unwrap();
        Node::open(here.to_path_buf(), 0)
    }
}

impl Node {
    fn open(path: PathBuf, number: u8) -> Self {
        let folder = PathBuf::from(format!("/run/netns/of-node{number}"));
        let options = KernelOptions {
            netns_dir: folder.clone(),
            ..KernelOptions::new("aos".parse().unwrap())
        };
        let here = tokio::runtime::Handle::current();
        let stack = inside(&path, move || {
            let _guard = here.enter();
            KernelStack::open(options).unwrap()
        });
        Self {
            path,
            folder,
            stack,
        }
    }

    /// The same Node with a new process that knows nothing.
    pub fn again(&self) -> Self {
        let number = self.path.to_string_lossy().chars().last().unwrap();
        let number = number.to_digit(10).unwrap_or_default();
        Self::open(self.path.clone(), number as u8)
    }

    pub fn netns(&self, id: &str) -> PathBuf {
        self.folder.join(format!("aos-{id}"))
    }

    pub async fn apply(&self, wanted: &Wanted) {
        let applied = self.within(|| self.stack.apply(wanted)).await.unwrap();
        assert!(applied.failed.is_empty(), "{applied:?}");
        assert!(applied.failed_networks.is_empty(), "{applied:?}");
        assert!(applied.alone.is_empty(), "{applied:?}");
    }

    pub async fn can_vlan(&self) -> bool {
        self.within(|| self.stack.can_vlan()).await
    }

    pub async fn clear(&self) {
        self.within(|| self.stack.clear()).await.unwrap();
    }

    pub async fn traffic(&self) -> BTreeMap<String, Counted> {
        let counted = self.within(|| self.stack.traffic()).await.unwrap();
        counted
            .into_iter()
            .map(|(id, counted)| (id.to_string(), counted))
            .collect()
    }

    /// `nft` and the kernel's settings are found by the namespace of the thread that asks.
    async fn within<T, F: Future<Output = T>>(&self, work: impl FnOnce() -> F) -> T {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        setns(File::open(&self.path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let result = work().await;
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

pub fn ip(line: &str) -> String {
    tool("ip", line)
}

pub fn nft(line: &str) -> String {
    tool("nft", line)
}

fn tool(name: &str, line: &str) -> String {
    let output = Command::new(name)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name} {line}: {}",
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

/// The owner's network on a Node: `red` is 172.31.0.0/16 and fd00:0:0:31::/64, `blue` the same with 30.
pub fn network(owner: &str, node: u8, link: NodeLink) -> Network {
    let number = if owner == "red" { 31 } else { 30 };
    Network {
        id: owner.parse().unwrap(),
        subnet: format!("172.{number}.0.0/16").parse().unwrap(),
        ip: Ipv4Addr::new(172, number, 0, node),
        vlan_id: number.into(),
        ip6: Some(format!("fd00:0:0:{number}::{node}").parse().unwrap()),
        link,
    }
}

pub fn endpoint(id: &str, owner: &str, host: u8) -> Endpoint {
    let number = if owner == "red" { 31 } else { 30 };
    let ip = Ipv4Addr::new(172, number, 0, host);
    let mut endpoint = Endpoint::new(
        id.parse::<EndpointId>().unwrap(),
        owner.parse().unwrap(),
        ip,
    );
    let ip6: Ipv6Addr = format!("fd00:0:0:{number}::{host}").parse().unwrap();
    endpoint.ip6 = Some(ip6);
    endpoint
}

pub fn flow(from: &str, to: &str, first_port: u16, last_port: u16) -> AllowedFlow {
    AllowedFlow {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        first_port,
        last_port,
        protocol: Protocol::Tcp,
    }
    .also_udp(first_port)
}

trait AlsoUdp {
    fn also_udp(self, port: u16) -> Self;
}

impl AlsoUdp for AllowedFlow {
    /// Port 7 is UDP in these tests.
    fn also_udp(mut self, port: u16) -> Self {
        if port == 7 {
            self.protocol = Protocol::Udp;
        }
        self
    }
}

/// Serves `text` and the caller's address on TCP, with both kinds of addresses.
pub fn serve(netns: &Path, port: u16, text: &'static str) {
    let listener = inside(netns, move || {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = write!(stream, "{text} for {peer}");
        }
    });
}

pub fn ask(netns: &Path, address: &str) -> Option<String> {
    ask_within(netns, address, Duration::from_millis(700))
}

/// Something is new, and the kernel takes a moment until it carries.
pub fn ask_patiently(netns: &Path, address: &str) -> Option<String> {
    ask_within(netns, address, Duration::from_secs(4))
}

fn ask_within(netns: &Path, address: &str, patience: Duration) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    inside(netns, move || {
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        let wait = Some(Duration::from_secs(2));
        stream.set_read_timeout(wait).unwrap();
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Ok(_) => Some(text),
            // It listens and says nothing.
            Err(_) => Some(String::new()),
        }
    })
}

/// Counts the bytes that come.
#[derive(Clone)]
pub struct Sink(Arc<AtomicU64>);

impl Sink {
    pub fn received(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn sink(netns: &Path, port: u16) -> Sink {
    let listener = inside(netns, move || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
    });
    let sink = Sink(Arc::default());
    let counted = sink.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let counted = counted.clone();
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

pub fn serve_udp(netns: &Path, port: u16) -> Sink {
    let socket = inside(netns, move || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
    });
    let sink = Sink(Arc::default());
    let counted = sink.clone();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok(count) = socket.recv(&mut buffer) {
            counted.0.fetch_add(count as u64, Ordering::SeqCst);
        }
    });
    sink
}

pub fn datagram(netns: &Path, from: &str, to: &str) {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    inside(netns, move || {
        let socket = UdpSocket::bind(from).unwrap();
        let _ = socket.send_to(b"x", to);
    });
}

pub fn connect(netns: &Path, address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    inside(netns, move || {
        TcpStream::connect_timeout(&address, Duration::from_secs(4)).unwrap()
    })
}

/// Writes what can be written within half a second.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    stream.write_all(bytes)
}

/// How long it takes until so many bytes have arrived.
pub fn pour(from: &Path, to: &Path, address: &str, bytes: usize) -> Duration {
    let target: SocketAddr = address.parse().unwrap();
    let sink = sink(to, target.port());
    let mut stream = connect(from, address);
    let began = Instant::now();
    stream.write_all(&vec![7; bytes]).unwrap();
    while sink.received() < bytes as u64 {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

pub async fn until(mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

fn addresses(answer: &[u8]) -> Vec<String> {
    let message = Message::from_vec(answer).unwrap();
    assert_eq!(message.metadata.id, 77);
    let addresses = message
        .answers
        .iter()
        .filter_map(|record| match record.data {
            RData::A(address) => Some(address.to_string()),
            _ => None,
        });
    addresses.collect()
}

/// The addresses of a name as a server gives them; none also if it does not answer.
pub fn resolve(netns: &Path, server: &str, name: &str) -> Vec<String> {
    let answer = inside(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket.connect((server, 53)).unwrap();
        socket.send(&query(name)).ok()?;
        let mut buffer = vec![0; 4_096];
        let length = socket.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    });
    answer.map(|answer| addresses(&answer)).unwrap_or_default()
}

pub fn resolve_tcp(netns: &Path, server: &str, name: &str) -> Vec<String> {
    let mut stream = connect(netns, &format!("{server}:53"));
    let query = query(name);
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend(query);
    stream.write_all(&framed).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    addresses(&answer)
}

/// How many of so many questions, asked at once, are answered.
pub fn flood(netns: &Path, server: &str, questions: usize) -> usize {
    inside(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((server, 53)).unwrap();
        let query = query("name-b");
        let mut buffer = [0; 4_096];
        let mut answered = 0;
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        for n in 0..questions {
            let _ = socket.send(&query);
            if n % 10 == 0 && socket.recv(&mut buffer).is_ok() {
                answered += 1;
            }
        }
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while socket.recv(&mut buffer).is_ok() {
            answered += 1;
        }
        answered
    })
}

/// A name server of the world that knows one address for everything; counts its questions.
pub fn name_server(netns: &str, place: &str, address: &str) -> Sink {
    let path = Path::new("/run/netns").join(netns);
    let socket = inside(&path, || UdpSocket::bind((place, 53)).unwrap());
    let address: Ipv4Addr = address.parse().unwrap();
    let sink = Sink(Arc::default());
    let counted = sink.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counted.0.fetch_add(1, Ordering::SeqCst);
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.queries = asked.queries.clone();
            let name = asked.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A(address))));
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    sink
}
