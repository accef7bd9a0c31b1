//! The real kernel: bridges, namespaces and rules in a network namespace of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aos_netstack::{
    AllowedFlow, Endpoint, EndpointId, KernelOptions, KernelStack, Network, NetworkStack, NodeLink,
    Traffic, Wanted,
};
use aos_types::{Protocol, PublishedPort};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// Takes the calling thread, and all threads it makes, into namespaces of their own that end with the test.
fn own_world(test: &str) -> bool {
    let skipped = |reason: &str| {
        eprintln!("SKIPPED {test}: {reason}");
        false
    };
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
    mount(
        Some("tmpfs"),
        "/run/netns",
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    // The outside world: a namespace of its own behind a cable.
    for line in [
        "link set lo up",
        "netns add outside",
        "link add up0 type veth peer name out0 netns outside",
        "addr add 192.0.2.1/24 dev up0",
        "link set up0 up",
        "route add default via 192.0.2.2",
        "-n outside addr add 192.0.2.2/24 dev out0",
        "-n outside link set out0 up",
        "-n outside link set lo up",
    ] {
        ip(line);
    }
    true
}

fn ip(line: &str) -> String {
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

fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).unwrap();
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// Serves `text` and the caller's address on TCP, as long as the test lives.
fn serve(netns: &Path, port: u16, text: &'static str) {
    let listener = inside(netns, move || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{text} for {peer}");
        }
    });
}

fn ask_here(address: &str) -> Option<String> {
    ask_within(address, Duration::from_millis(700))
}

fn ask_within(address: &str, patience: Duration) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn ask(netns: &Path, address: &'static str) -> Option<String> {
    inside(netns, move || ask_here(address))
}

/// For the first that is asked of a new bridge: the kernel takes a moment until it carries, and TCP repeats only after a second.
fn ask_patiently(netns: &Path, address: &'static str) -> Option<String> {
    inside(netns, move || ask_within(address, Duration::from_secs(4)))
}

fn stack(prefix: &str) -> KernelStack {
    KernelStack::open(KernelOptions::new(prefix.parse().unwrap())).unwrap()
}

fn network(owner: &str, subnet: &str, ip: &str) -> Network {
    Network {
        id: owner.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        ip: ip.parse().unwrap(),
        vlan_id: 0,
        ip6: None,
        link: NodeLink::None,
    }
}

fn endpoint(id: &str, owner: &str, ip: &str, host_port: u16) -> Endpoint {
    let published = PublishedPort {
        host_port,
        port: 80,
        protocol: Protocol::Tcp,
    };
    let mut endpoint = Endpoint::new(
        id.parse().unwrap(),
        owner.parse().unwrap(),
        ip.parse().unwrap(),
    );
    endpoint.published = (host_port != 0).then_some(published).into_iter().collect();
    endpoint
}

fn two_owners() -> Wanted {
    Wanted {
        networks: vec![
            network("red", "172.31.0.0/16", "172.31.0.1"),
            network("blue", "172.30.0.0/16", "172.30.0.1"),
        ],
        endpoints: vec![
            endpoint("red-1", "red", "172.31.0.2", 8080),
            endpoint("red-2", "red", "172.31.0.3", 0),
            endpoint("blue-1", "blue", "172.30.0.2", 0),
        ],
        ..Wanted::default()
    }
}

fn netns(stack: &KernelStack, id: &str) -> PathBuf {
    stack.netns(&id.parse::<EndpointId>().unwrap())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

async fn apply(stack: &KernelStack, wanted: &Wanted) {
    let applied = stack.apply(wanted).await.unwrap();
    assert!(applied.failed.is_empty(), "{applied:?}");
    assert!(applied.failed_networks.is_empty(), "{applied:?}");
}

/// Whether bridged packets pass the `inet` hooks too depends on the machine; the answers must not.
fn bridged_packets_pass_the_hooks(pass: bool) {
    let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if let Err(error) = fs::write(setting, if pass { "1" } else { "0" }) {
        eprintln!("bridge-nf-call-iptables cannot be set here: {error}");
    }
}

#[test]
fn who_may_reach_whom() {
    if !own_world("who_may_reach_whom") {
        return;
    }
    bridged_packets_pass_the_hooks(false);
    reach();
}

#[test]
fn who_may_reach_whom_with_br_netfilter() {
    if !own_world("who_may_reach_whom_with_br_netfilter") {
        return;
    }
    bridged_packets_pass_the_hooks(true);
    reach();
}

fn reach() {
    run(async {
        let stack = stack("aos");
        let began = Instant::now();
        apply(&stack, &two_owners()).await;
        eprintln!("applied in {:?}", began.elapsed());
        let [red1, red2, blue] = ["red-1", "red-2", "blue-1"].map(|id| netns(&stack, id));
        let outside = PathBuf::from("/run/netns/outside");
        serve(&red1, 80, "red");
        serve(&blue, 80, "blue");
        serve(&outside, 80, "world");

        // The published port: from the Node itself by any of its addresses, from outside, and back from within.
        let here = ask_within("127.0.0.1:8080", Duration::from_secs(4));
        assert_eq!(here.unwrap(), "red for 172.31.0.1");
        assert!(ask_here("192.0.2.1:8080").is_some());
        assert!(ask_here("172.31.0.1:8080").is_some());
        assert_eq!(
            ask_patiently(&outside, "192.0.2.1:8080").unwrap(),
            "red for 192.0.2.2"
        );
        assert!(
            ask_patiently(&red2, "192.0.2.1:8080").is_some(),
            "by the Node's address"
        );
        assert!(
            ask_patiently(&red1, "192.0.2.1:8080").is_some(),
            "its own port"
        );
        assert!(
            ask_patiently(&blue, "192.0.2.1:8080").is_some(),
            "published is for all"
        );

        // Directly: the own network yes, another owner's no, from outside no.
        assert_eq!(ask(&red2, "172.31.0.2:80").unwrap(), "red for 172.31.0.3");
        assert_eq!(ask(&red2, "172.30.0.2:80"), None);
        assert_eq!(ask(&blue, "172.31.0.2:80"), None);
        inside(&outside, || ip("route add 172.31.0.0/16 via 192.0.2.1"));
        assert_eq!(ask(&outside, "172.31.0.2:80"), None);

        // Out: with the Node's address.
        assert_eq!(ask(&red2, "192.0.2.2:80").unwrap(), "world for 192.0.2.1");

        // What went out and came in is counted, for whom it was.
        let counted = stack.traffic().await.unwrap();
        assert_eq!(counted.len(), 3);
        let of = |id: &str| counted[&id.parse::<EndpointId>().unwrap()].all;
        assert!(
            of("red-2").down > 200 && of("red-2").up > 200,
            "{counted:?}"
        );
        assert_eq!(of("blue-1"), Traffic::default());

        // An allowed connection opens just that door.
        let mut wanted = two_owners();
        wanted.endpoints[1].allowed = vec![AllowedFlow {
            from: "172.31.0.3".parse().unwrap(),
            to: "172.30.0.2".parse().unwrap(),
            first_port: 80,
            last_port: 81,
            protocol: Protocol::Tcp,
        }];
        apply(&stack, &wanted).await;
        assert_eq!(ask(&red2, "172.30.0.2:80").unwrap(), "blue for 172.31.0.3");
        assert_eq!(ask(&red1, "172.30.0.2:80"), None);

        // Nobody reaches the Node's loopback by a forged way.
        serve(Path::new("/proc/thread-self/ns/net"), 9_999, "secret");
        inside(&red2, || {
            ip("route add 127.0.0.9/32 via 172.31.0.1 dev eth0")
        });
        fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        assert_eq!(ask(&red2, "127.0.0.9:9999"), None);
        stack.clear().await.unwrap();
    });
}

#[test]
fn what_is_right_is_not_touched() {
    if !own_world("what_is_right_is_not_touched") {
        return;
    }
    run(async {
        let first = stack("aos");
        apply(&first, &two_owners()).await;
        let red1 = netns(&first, "red-1");
        serve(&red1, 80, "red");
        let links = ip("-o link show");
        let inode = fs::metadata(&red1).unwrap().ino();
        let table = nft("list table inet aos");
        let began = Instant::now();
        apply(&first, &two_owners()).await;
        eprintln!("applied again in {:?}", began.elapsed());
        drop(first);

        // After a restart of the caller.
        let second = stack("aos");
        apply(&second, &two_owners()).await;
        assert_eq!(names(&ip("-o link show")), names(&links));
        assert_eq!(fs::metadata(&red1).unwrap().ino(), inode);
        assert_eq!(nft("list table inet aos"), table);
        assert!(ask_here("127.0.0.1:8080").is_some());

        // What somebody broke is mended, and who lives in the namespace stays.
        let bridge = ip("-o link show type bridge")
            .lines()
            .find_map(|line| line.split(": ").nth(1).map(str::to_owned))
            .unwrap();
        ip(&format!("link del {bridge}"));
        nft("delete table inet aos");
        let third = stack("aos");
        apply(&third, &two_owners()).await;
        assert_eq!(fs::metadata(&red1).unwrap().ino(), inode);
        // The kernel takes a moment until a new bridge carries; whoever is too early is repeated by TCP.
        assert!(ask_within("127.0.0.1:8080", Duration::from_secs(3)).is_some());

        // A changed address is a new endpoint; others stay.
        let mut wanted = two_owners();
        wanted.endpoints[1].ip = "172.31.0.9".parse().unwrap();
        apply(&third, &wanted).await;
        let addresses = inside(&netns(&third, "red-2"), || ip("-o -4 addr show eth0"));
        assert!(addresses.contains("172.31.0.9/16"), "{addresses}");
        assert_eq!(fs::metadata(&red1).unwrap().ino(), inode);
        third.clear().await.unwrap();
    });
}

#[test]
fn only_what_carries_the_own_prefix_is_removed() {
    if !own_world("only_what_carries_the_own_prefix_is_removed") {
        return;
    }
    run(async {
        // Two Nodes with the same owner and so the same subnet on one machine.
        let (one, two) = (stack("aos"), stack("aos1"));
        let wanted = |ip: &str, id: &str, address: &str, port| Wanted {
            networks: vec![network("red", "172.31.0.0/16", ip)],
            endpoints: vec![endpoint(id, "red", address, port)],
            ..Wanted::default()
        };
        apply(&one, &wanted("172.31.0.1", "a", "172.31.0.2", 8081)).await;
        apply(&two, &wanted("172.31.0.3", "b", "172.31.0.4", 8082)).await;
        serve(&netns(&one, "a"), 80, "a");
        serve(&netns(&two, "b"), 80, "b");
        assert!(ask_here("127.0.0.1:8081").unwrap().starts_with("a for"));
        assert!(ask_here("127.0.0.1:8082").unwrap().starts_with("b for"));

        one.clear().await.unwrap();
        assert!(ask_here("127.0.0.1:8082").unwrap().starts_with("b for"));
        assert!(!netns(&one, "a").exists());
        let left = ip("-o link show");
        assert!(
            !left.contains(" aosbr-") && !left.contains(" aosve-"),
            "{left}"
        );
        assert!(left.contains(" aos1br-") && left.contains("up0"), "{left}");

        // Removing the last endpoint removes all but the table's frame.
        apply(&two, &Wanted::default()).await;
        let left = ip("-o link show");
        assert!(!left.contains("aos1"), "{left}");
        assert!(Path::new("/run/netns/outside").exists());
        two.clear().await.unwrap();
        assert_eq!(nft("list tables"), "");
    });
}

#[test]
fn a_bad_endpoint_does_not_hurt_the_others() {
    if !own_world("a_bad_endpoint_does_not_hurt_the_others") {
        return;
    }
    run(async {
        let stack = stack("aos");
        let mut wanted = two_owners();
        wanted
            .endpoints
            .push(endpoint("stranger", "green", "172.29.0.2", 0));
        wanted
            .endpoints
            .push(endpoint("outlier", "red", "10.0.0.1", 0));
        let applied = stack.apply(&wanted).await.unwrap();
        let failed: Vec<String> = applied.failed.keys().map(ToString::to_string).collect();
        assert_eq!(failed, ["outlier", "stranger"]);
        let socket = inside(&netns(&stack, "red-1"), || {
            UdpSocket::bind("172.31.0.2:5000").map(drop)
        });
        assert!(socket.is_ok());

        // Fifty endpoints in one go.
        wanted.endpoints = (2..52)
            .map(|n| {
                endpoint(
                    &format!("n-{n}"),
                    "red",
                    &format!("172.31.0.{n}"),
                    9_000 + n,
                )
            })
            .collect();
        let began = Instant::now();
        apply(&stack, &wanted).await;
        eprintln!("50 endpoints in {:?}", began.elapsed());
        let began = Instant::now();
        stack.clear().await.unwrap();
        eprintln!("and away in {:?}", began.elapsed());
    });
}

fn nft(line: &str) -> String {
    let output = Command::new("nft")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "nft {line}");
    String::from_utf8(output.stdout).unwrap()
}

/// Names and numbers of interfaces, without their counters.
fn names(links: &str) -> Vec<String> {
    links
        .lines()
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
