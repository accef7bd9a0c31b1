//! Two Nodes with the real kernel: what goes from one to the other, who is kept out, and how much may flow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod world;

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use aos_netstack::{
    AllowedFlow, Bounds, Destination, Egress, Endpoint, Limit, NodeLink, Range, Traffic, Wanted,
    dns::{Asker, Host, Names, Zone},
};
use aos_types::Protocol;
use tokio_util::sync::CancellationToken;
use world::{
    Node, World, ask, ask_patiently, datagram, endpoint, flow, inside, ip, network, pour, run,
    serve, serve_udp,
};

/// One owner on both Nodes, another on the second only.
fn wanted(node: u8, endpoints: Vec<Endpoint>) -> Wanted {
    let other = 3 - node;
    let link = NodeLink::Vxlan([IpAddr::from([192, 0, 2, 10 + other])].into());
    Wanted {
        networks: ["red", "blue"]
            .into_iter()
            .map(|owner| network(owner, node, link.clone()))
            .collect(),
        endpoints,
        ..Wanted::default()
    }
}

fn two_nodes(world: &World) -> (Node, Node) {
    (world.node(1), world.node(2))
}

#[test]
fn one_owner_is_one_network_on_all_nodes() {
    run("one_owner_is_one_network_on_all_nodes", async |world| {
        let (one, two) = two_nodes(&world);
        let mut first = wanted(1, vec![endpoint("a", "red", 11)]);
        let second = wanted(2, vec![endpoint("b", "red", 12), endpoint("c", "blue", 12)]);
        one.apply(&first).await;
        two.apply(&second).await;
        serve(&two.netns("b"), 80, "b");
        serve(&two.netns("c"), 80, "c");

        // The own network, with both kinds of addresses; nobody stands between them.
        let a = one.netns("a");
        assert_eq!(
            ask_patiently(&a, "172.31.0.12:80").unwrap(),
            "b for 172.31.0.11"
        );
        assert_eq!(
            ask(&a, "[fd00:0:0:31::12]:80").unwrap(),
            "b for fd00:0:0:31::11"
        );
        // Another owner's, on another Node: no, then by a rule, then no more.
        assert_eq!(ask(&a, "172.30.0.12:80"), None);
        first.endpoints[0].allowed = vec![
            flow("172.31.0.11", "172.30.0.12", 80, 81),
            flow("fd00:0:0:31::11", "fd00:0:0:30::12", 80, 81),
        ];
        one.apply(&first).await;
        // The Node speaks for the one that asks.
        assert_eq!(
            ask_patiently(&a, "172.30.0.12:80").unwrap(),
            "c for 172.30.0.1"
        );
        assert_eq!(
            ask(&a, "[fd00:0:0:30::12]:80").unwrap(),
            "c for fd00:0:0:30::1"
        );
        serve(&two.netns("c"), 81, "c81");
        serve(&two.netns("c"), 82, "c82");
        assert!(
            ask(&a, "172.30.0.12:81").is_some(),
            "the range has two ports"
        );
        assert_eq!(ask(&a, "172.30.0.12:82"), None, "and no more");

        // A Node that is no peer is not heard, whatever it sends.
        let mut alone = second.clone();
        for network in &mut alone.networks {
            network.link = NodeLink::Vxlan(Default::default());
        }
        two.apply(&alone).await;
        assert_eq!(ask(&a, "172.31.0.12:80"), None);
        two.apply(&second).await;
        assert!(ask_patiently(&a, "172.31.0.12:80").is_some());

        // The target moves to the first Node and keeps its address.
        two.apply(&wanted(2, vec![endpoint("b", "red", 12)])).await;
        assert_eq!(ask(&a, "172.30.0.12:80"), None, "it is gone");
        first.endpoints.push(endpoint("c", "blue", 12));
        one.apply(&first).await;
        serve(&one.netns("c"), 80, "moved");
        assert_eq!(
            ask_patiently(&a, "172.30.0.12:80").unwrap(),
            "moved for 172.31.0.11"
        );

        // Taken back: nothing that was open goes on.
        first.endpoints[0].allowed.clear();
        one.apply(&first).await;
        assert_eq!(ask(&a, "172.30.0.12:80"), None);

        // Nothing is left.
        for node in [&one, &two] {
            node.clear().await;
            let left = inside(&node.path, || ip("-o link show"));
            assert!(!left.contains("aos"), "{left}");
            assert_eq!(inside(&node.path, || world::nft("list tables")), "");
        }
    });
}

#[test]
fn one_owner_is_one_network_by_vlan_too() {
    let test = "one_owner_is_one_network_by_vlan_too";
    run(test, async |world| {
        let (one, two) = two_nodes(&world);
        if !one.can_vlan().await {
            eprintln!("SKIPPED {test}: the kernel has no VLAN interfaces (8021q)");
            return;
        }
        let by_vlan = |node, endpoints| {
            let mut wanted = wanted(node, endpoints);
            for network in &mut wanted.networks {
                network.link = NodeLink::Vlan;
            }
            wanted
        };
        one.apply(&by_vlan(1, vec![endpoint("a", "red", 11)])).await;
        let others = vec![endpoint("b", "red", 12), endpoint("c", "blue", 12)];
        two.apply(&by_vlan(2, others)).await;
        serve(&two.netns("b"), 80, "b");
        serve(&two.netns("c"), 80, "c");
        let a = one.netns("a");
        assert_eq!(
            ask_patiently(&a, "172.31.0.12:80").unwrap(),
            "b for 172.31.0.11"
        );
        assert!(ask_patiently(&a, "[fd00:0:0:31::12]:80").is_some());
        assert_eq!(ask(&a, "172.30.0.12:80"), None, "another owner's");
        for node in [&one, &two] {
            node.clear().await;
            let left = inside(&node.path, || ip("-o link show"));
            assert!(!left.contains("aos"), "{left}");
        }
    });
}

#[test]
fn a_connection_ends_with_its_rule() {
    run("a_connection_ends_with_its_rule", async |world| {
        let one = world.node(1);
        let mut wanted = wanted(1, vec![endpoint("a", "red", 11), endpoint("c", "blue", 12)]);
        wanted.endpoints[0].allowed = vec![flow("172.31.0.11", "172.30.0.12", 80, 80)];
        one.apply(&wanted).await;
        let sink = world::sink(&one.netns("c"), 80);
        let mut open = world::connect(&one.netns("a"), "172.30.0.12:80");
        world::write(&mut open, b"one").unwrap();
        world::until(|| sink.received() == 3).await;
        wanted.endpoints[0].allowed.clear();
        one.apply(&wanted).await;
        let _ = world::write(&mut open, b"two");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(sink.received(), 3, "what was open goes on");
    });
}

#[test]
fn nobody_sends_as_somebody_else() {
    run("nobody_sends_as_somebody_else", async |world| {
        let one = world.node(1);
        let mut wanted = wanted(
            1,
            vec![
                endpoint("a", "red", 11),
                endpoint("thief", "red", 13),
                endpoint("c", "blue", 12),
            ],
        );
        wanted.endpoints[0].allowed = vec![flow("172.31.0.11", "172.30.0.12", 7, 7)];
        one.apply(&wanted).await;
        let heard = serve_udp(&one.netns("c"), 7);
        let thief = one.netns("thief");
        // With the address of one that may, also with its hardware address.
        inside(&thief, || ip("addr add 172.31.0.11/16 dev eth0"));
        datagram(&thief, "172.31.0.11:7000", "172.30.0.12:7");
        inside(&thief, || {
            ip("link set eth0 address 02:61:ac:1f:00:0b");
            ip("route replace default via 172.31.0.1 dev eth0");
        });
        datagram(&thief, "172.31.0.11:7000", "172.30.0.12:7");
        // In the name of somebody outside.
        inside(&thief, || ip("addr add 203.0.113.9/32 dev eth0"));
        datagram(&thief, "203.0.113.9:7000", "192.0.2.2:7");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(heard.received(), 0);
        // As itself again, and the other one was never disturbed.
        datagram(&one.netns("a"), "172.31.0.11:7000", "172.30.0.12:7");
        world::until(|| heard.received() > 0).await;
        let spoofed = inside(&one.path, || world::nft("list chain bridge aos prerouting"));
        assert!(
            !spoofed.contains("counter packets 0 bytes 0 drop\n\t}"),
            "{spoofed}"
        );
    });
}

#[test]
fn what_may_go_out_is_what_the_item_says() {
    run("what_may_go_out_is_what_the_item_says", async |world| {
        let one = world.node(1);
        let mut wanted = wanted(
            1,
            vec![
                endpoint("open", "red", 11),
                endpoint("none", "red", 12),
                endpoint("some", "red", 13),
            ],
        );
        let to = |address: &str, length, ports| Destination {
            range: Range {
                address: address.parse().unwrap(),
                length,
            },
            ports,
        };
        wanted.endpoints[1].egress = Egress::Only(Vec::new());
        wanted.endpoints[2].egress = Egress::Only(vec![
            to("192.0.2.0", 24, Some((Protocol::Tcp, 80, 81))),
            // They overlap; that is nobody's mistake.
            to("192.0.2.2", 32, Some((Protocol::Tcp, 81, 82))),
            to("2001:db8::", 64, Some((Protocol::Tcp, 80, 80))),
        ]);
        one.apply(&wanted).await;
        let outside = Path::new("/run/netns/outside");
        for (port, text) in [(80, "80"), (82, "82"), (83, "83")] {
            serve(outside, port, text);
        }
        let can = |id: &str, address: &'static str| ask(&one.netns(id), address).is_some();
        let open = one.netns("open");
        for address in ["192.0.2.2:80", "192.0.2.2:83", "[2001:db8::2]:83"] {
            assert!(ask_patiently(&open, address).is_some(), "{address}");
        }
        assert!(!can("none", "192.0.2.2:80") && !can("none", "[2001:db8::2]:80"));
        let some = one.netns("some");
        for address in ["192.0.2.2:80", "192.0.2.2:82", "[2001:db8::2]:80"] {
            assert!(ask_patiently(&some, address).is_some(), "{address}");
        }
        assert!(!can("some", "192.0.2.2:83"));
        assert!(!can("some", "[2001:db8::2]:83"));
        // Within the own network all stay reachable, and an answer says so at once.
        serve(&one.netns("open"), 80, "inside");
        assert!(can("none", "172.31.0.11:80"));
        let began = Instant::now();
        assert!(!can("none", "192.0.2.2:80"));
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "refused, not dropped"
        );
        // What the Node closes is closed for all.
        wanted.closed = vec![Range {
            address: "192.0.2.2".parse().unwrap(),
            length: 32,
        }];
        one.apply(&wanted).await;
        assert!(!can("open", "192.0.2.2:80") && !can("some", "192.0.2.2:80"));
        assert!(can("open", "[2001:db8::2]:80"));
    });
}

#[test]
fn rates_hold_in_both_directions() {
    run("rates_hold_in_both_directions", async |world| {
        let one = world.node(1);
        let mut wanted = wanted(1, vec![endpoint("a", "red", 11), endpoint("b", "red", 12)]);
        // 2 MB a second down, 1 MB a second up.
        let rate = Limit {
            down: Some(2_000_000),
            up: Some(1_000_000),
        };
        wanted.endpoints[0].bounds.rate = Some(rate);
        one.apply(&wanted).await;
        let up = pour(
            &one.netns("a"),
            &one.netns("b"),
            "172.31.0.12:5001",
            2_000_000,
        );
        let down = pour(
            &one.netns("b"),
            &one.netns("a"),
            "172.31.0.11:5002",
            4_000_000,
        );
        eprintln!("2 MB up in {up:?}, 4 MB down in {down:?}");
        for took in [up, down] {
            assert!((1.4..3.5).contains(&took.as_secs_f64()), "{took:?}");
        }
        // Another rate on the same cable; then none.
        wanted.endpoints[0].bounds.rate = Some(Limit {
            up: Some(4_000_000),
            ..rate
        });
        one.apply(&wanted).await;
        let up = pour(
            &one.netns("a"),
            &one.netns("b"),
            "172.31.0.12:5003",
            4_000_000,
        );
        assert!((0.6..2.5).contains(&up.as_secs_f64()), "{up:?}");
        wanted.endpoints[0].bounds.rate = None;
        one.apply(&wanted).await;
        let up = pour(
            &one.netns("a"),
            &one.netns("b"),
            "172.31.0.12:5004",
            4_000_000,
        );
        assert!(up.as_secs_f64() < 0.5, "{up:?}");
    });
}

#[test]
fn a_volume_lasts_a_day_and_outlives_restarts() {
    run(
        "a_volume_lasts_a_day_and_outlives_restarts",
        async |world| {
            let one = world.node(1);
            let mut wanted = wanted(1, vec![endpoint("a", "red", 11), endpoint("b", "red", 12)]);
            wanted.day = 7;
            wanted.endpoints[0].bounds = Bounds {
                volume: Some(Limit {
                    down: None,
                    up: Some(100_000),
                }),
                ..Bounds::default()
            };
            one.apply(&wanted).await;
            let outside = Path::new("/run/netns/outside");
            let sink = world::sink(outside, 80);
            let a = one.netns("a");
            let mut open = world::connect(&a, "192.0.2.2:80");
            let _ = world::write(&mut open, &[1; 300_000]);
            tokio::time::sleep(Duration::from_millis(600)).await;
            let received = sink.received();
            assert!((30_000..100_000).contains(&received), "{received}");
            let counted = one.traffic().await;
            let today = counted["a"].today.unwrap();
            assert!(today.up >= 100_000 && today.down == 0, "{today:?}");
            assert!(counted["b"].today.is_none());
            // Others go on; the own network does not count.
            assert!(ask_patiently(&one.netns("b"), "192.0.2.2:80").is_some());
            serve(&one.netns("b"), 80, "inside");
            assert!(ask(&a, "172.31.0.12:80").is_some());
            assert_eq!(ask(&a, "192.0.2.2:80"), None);

            // Another SM finds it as it was.
            let again = one.again();
            again.apply(&wanted).await;
            assert_eq!(ask(&a, "192.0.2.2:80"), None);
            assert!(again.traffic().await["a"].all.up >= 30_000);
            // Another day.
            wanted.day = 8;
            again.apply(&wanted).await;
            assert!(ask_patiently(&a, "192.0.2.2:80").is_some());
            // After a reboot the kernel begins with what was noted.
            again.clear().await;
            wanted.endpoints[0].bounds.used = Traffic {
                down: 0,
                up: 200_000,
            };
            again.apply(&wanted).await;
            assert_eq!(ask(&again.netns("a"), "192.0.2.2:80"), None);
        },
    );
}

#[test]
fn a_flood_hurts_nobody_else() {
    run("a_flood_hurts_nobody_else", async |world| {
        let one = world.node(1);
        let wanted = wanted(1, vec![endpoint("a", "red", 11), endpoint("b", "red", 12)]);
        one.apply(&wanted).await;
        let outside = Path::new("/run/netns/outside");
        serve(outside, 80, "world");
        let a = one.netns("a");
        // 20,000 new connections as fast as they can be made.
        inside(&a, || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for n in 0..20_000_u32 {
                let port = 1_024 + (n % 60_000) as u16;
                let _ = socket.send_to(b"x", ("192.0.2.2", port));
            }
        });
        let held = inside(&one.path, || {
            std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap()
        });
        let held: u32 = held.trim().parse().unwrap();
        assert!(held < 5_000, "{held} connections in the kernel's table");
        assert!(ask(&one.netns("b"), "192.0.2.2:80").is_some());
    });
}

#[test]
fn a_rule_speaks_for_its_own_endpoint_only() {
    run("a_rule_speaks_for_its_own_endpoint_only", async |world| {
        let one = world.node(1);
        let mut wanted = wanted(1, vec![endpoint("a", "red", 11), endpoint("c", "blue", 12)]);
        // Somebody else's address as the source: nonsense that opens nothing.
        let foreign: AllowedFlow = flow("172.31.0.99", "172.30.0.12", 80, 80);
        wanted.endpoints[0].allowed = vec![foreign];
        one.apply(&wanted).await;
        let rules = inside(&one.path, || world::nft("list set inet aos allowed4"));
        assert!(!rules.contains("172.31.0.99"), "{rules}");
    });
}

/// Two owners with names; `a` of red may reach `c` of blue.
fn names() -> (Wanted, Zone) {
    let mut wanted = wanted(
        1,
        vec![
            endpoint("a", "red", 11),
            endpoint("b", "red", 12),
            endpoint("c", "blue", 12),
        ],
    );
    let mut zone = Zone::default();
    for (n, one) in wanted.endpoints.iter_mut().enumerate() {
        let reaches = (n == 0).then(|| "172.30.0.12".parse().unwrap());
        zone.add_asker(Asker {
            addresses: vec![one.ip.into()],
            network: one.network.clone(),
            reaches: reaches.into_iter().collect(),
            upstream: vec!["192.0.2.2".parse().unwrap()],
        });
        let host = Host {
            network: one.network.clone(),
            ip: one.ip,
            ip6: one.ip6,
        };
        zone.add_host(&host, [format!("name-{}", one.id), format!("x.{}", one.id)]);
    }
    (wanted, zone)
}

#[test]
fn names_are_served_to_those_who_may_know_them() {
    run(
        "names_are_served_to_those_who_may_know_them",
        async |world| {
            let one = world.host();
            let (wanted, zone) = names();
            one.apply(&wanted).await;
            let served = Names::default();
            let gateways = ["172.31.0.1", "172.30.0.1"].map(|ip| ip.parse().unwrap());
            served.set(zone.clone(), gateways.into());
            let stop = CancellationToken::new();
            let (serving, until) = (served.clone(), stop.clone());
            let task = tokio::spawn(async move { serving.serve(until).await });
            let [a, b, c] = ["a", "b", "c"].map(|id| one.netns(id));
            let look = |who: &Path, name: &str| world::resolve(who, "172.31.0.1", name);
            world::until(|| look(&a, "name-b") == ["172.31.0.12"]).await;
            assert_eq!(look(&a, "name-c"), ["172.30.0.12"], "it may connect there");
            assert!(look(&b, "name-c").is_empty(), "it may not");
            assert!(world::resolve(&c, "172.30.0.1", "name-a").is_empty());
            assert_eq!(
                world::resolve_tcp(&a, "172.31.0.1", "NAME-B"),
                ["172.31.0.12"]
            );

            // The world is asked for what is not ours, and for nothing else.
            let asked = world::name_server("outside", "192.0.2.2", "198.51.100.7");
            assert_eq!(look(&a, "www.example.org"), ["198.51.100.7"]);
            assert_eq!(asked.received(), 1);
            look(&b, "x.c");
            look(&b, "word");
            assert_eq!(asked.received(), 1, "names of the Unit stay there");

            // One who asks without end is not answered any more; the others are.
            let answered = world::flood(&a, "172.31.0.1", 3_000);
            assert!(answered < 1_500, "{answered} answers");
            assert_eq!(look(&b, "name-a"), ["172.31.0.11"]);

            // It has moved: the next question has the new address.
            let mut zone = Zone::default();
            zone.add_asker(Asker {
                addresses: vec!["172.31.0.12".parse().unwrap()],
                network: "red".parse().unwrap(),
                reaches: Default::default(),
                upstream: Vec::new(),
            });
            let moved = Host {
                network: "red".parse().unwrap(),
                ip: "172.31.0.77".parse().unwrap(),
                ip6: None,
            };
            zone.add_host(&moved, ["name-a".to_owned()]);
            served.set(zone, gateways.into());
            assert_eq!(look(&b, "name-a"), ["172.31.0.77"]);
            assert!(
                look(&b, "www.example.org").is_empty(),
                "it may not ask the world"
            );
            stop.cancel();
            tokio::time::timeout(Duration::from_secs(3), task)
                .await
                .unwrap()
                .unwrap();
        },
    );
}

#[test]
fn a_taken_dns_port_keeps_no_instance_from_running() {
    run(
        "a_taken_dns_port_keeps_no_instance_from_running",
        async |world| {
            let one = world.host();
            let taken = std::net::UdpSocket::bind("0.0.0.0:53").unwrap();
            let (wanted, zone) = names();
            let served = Names::default();
            served.set(zone, ["172.31.0.1".parse().unwrap()].into());
            let stop = CancellationToken::new();
            let (serving, until) = (served.clone(), stop.clone());
            let task = tokio::spawn(async move { serving.serve(until).await });
            one.apply(&wanted).await;
            serve(&one.netns("b"), 80, "b");
            assert!(ask_patiently(&one.netns("a"), "172.31.0.12:80").is_some());
            drop(taken);
            let a = one.netns("a");
            world::until(|| !world::resolve(&a, "172.31.0.1", "name-b").is_empty()).await;
            stop.cancel();
            task.await.unwrap();
        },
    );
}
