//! A Unit of two Nodes with real containers and real networks: who finds and reaches whom, and what is left after crashes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

#[path = "unit/item.rs"]
#[allow(dead_code, reason = "the other tests of SM use more of it")]
mod item;
#[path = "pair/mod.rs"]
mod pair;

use std::{
    net::{Ipv6Addr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use aos_types::{EgressRule, PublishedPort, Quotas};
use pair::{Pair, inside, run, until};

#[test]
fn services_find_and_reach_each_other_on_whatever_node_they_run() {
    run(
        "services_find_and_reach_each_other_on_whatever_node_they_run",
        async |pair: Pair| {
            let web = pair.publish(&["web"], |item| item.hostname = Some("web".into()));
            let db = pair.publish(&["db"], |_| ());
            let app = pair.publish(&["app"], |item| {
                item.allowed_connections = ["db/80:81", "db/8005:8020"]
                    .map(|text| text.parse().unwrap())
                    .into();
            });
            let (one, two) = (pair.start(0), pair.start(1));
            // The owner red on both Nodes, blue on the second only.
            pair.list(0, &[("app", 0, "red", app)]).await;
            pair.list(1, &[("web", 0, "red", web), ("db", 0, "blue", db)])
                .await;
            let app_at = pair.netns(0, "app", 0);

            // By name, on the other Node; by IPv6 too.
            until(|| pair.ask_by_name(&app_at, "web") == Some("web".into())).await;
            assert_eq!(
                pair.ask_by_name(&app_at, "subject.web.red"),
                Some("web".into())
            );
            assert!(!pair.resolve6(&app_at, "web").is_empty());
            // Another owner's: what is allowed has a name and is reached, in one direction only.
            until(|| pair.ask_by_name(&app_at, "subject.db") == Some("db".into())).await;
            let db_at = pair.netns(1, "db", 0);
            assert!(pair.resolve(&db_at, "subject.app").is_empty());
            assert!(pair.resolve(&db_at, "web").is_empty());
            let app_ip = pair.address(&app_at);
            assert_eq!(pair.ask(&db_at, &app_ip), None, "nobody allowed that");
            // Of ranges what both contain, with both kinds of addresses.
            let db_ip = pair.address(&db_at);
            let db_ip6 = pair.resolve6(&app_at, "subject.db");
            let db_ip6 = Ipv6Addr::from_octets(*db_ip6.first().unwrap());
            for port in [8_004, 8_005, 8_010, 8_011] {
                pair.listens(&db_at, port);
                let there = (8_005..=8_010).contains(&port);
                for address in [format!("{db_ip}:{port}"), format!("[{db_ip6}]:{port}")] {
                    assert_eq!(pair.connects(&app_at, &address), there, "{address}");
                }
            }
            // Its own network, over IPv6 to the other Node.
            let web_ip6 = pair.resolve6(&app_at, "web");
            let web_ip6 = Ipv6Addr::from_octets(*web_ip6.first().unwrap());
            pair.listens(&pair.netns(1, "web", 0), 9_000);
            assert!(pair.connects(&app_at, &format!("[{web_ip6}]:9000")));
            // And for who is not allowed it does not exist.
            let web_at = pair.netns(1, "web", 0);
            assert!(pair.resolve(&web_at, "subject.db").is_empty());
            assert_eq!(pair.ask(&web_at, &db_ip), None);

            // The target moves, is scaled, and goes.
            pair.list(1, &[("web", 0, "red", web)]).await;
            until(|| pair.resolve(&app_at, "subject.db").is_empty()).await;
            assert_eq!(pair.ask(&app_at, &db_ip), None);
            pair.list(0, &[("app", 0, "red", app), ("db", 0, "blue", db)])
                .await;
            until(|| pair.ask_by_name(&app_at, "subject.db") == Some("db".into())).await;
            pair.list(
                1,
                &[
                    ("web", 0, "red", web),
                    ("web", 1, "red", web),
                    ("db", 1, "blue", db),
                ],
            )
            .await;
            until(|| pair.ask_by_name(&app_at, "1.subject.db") == Some("db".into())).await;
            assert_eq!(
                pair.resolve(&app_at, "web").len(),
                2,
                "replicas share a host name"
            );
            pair.list(1, &[]).await;
            until(|| pair.resolve(&app_at, "web").is_empty()).await;
            until(|| pair.ask_by_name(&app_at, "subject.db") == Some("db".into())).await;
            pair.list(0, &[]).await;
            until(|| pair.left_over(0).is_empty() && pair.left_over(1).is_empty()).await;
            drop((one, two));
        },
    );
}

#[test]
fn gap_45_what_may_go_out_is_what_the_item_says() {
    run(
        "gap_45_what_may_go_out_is_what_the_item_says",
        async |pair: Pair| {
            let open = pair.publish(&["open"], |_| ());
            let shut = pair.publish(&["shut"], |item| item.egress = Some(Vec::new()));
            let some = pair.publish(&["some"], |item| {
                item.egress = Some(vec![EgressRule {
                    address: "192.0.2.2".parse().unwrap(),
                    length: 32,
                    ports: Some((aos_types::Protocol::Tcp, 80, 80)),
                }]);
            });
            let _one = pair.start(0);
            pair.list(
                0,
                &[
                    ("open", 0, "red", open),
                    ("shut", 0, "red", shut),
                    ("some", 0, "red", some),
                ],
            )
            .await;
            let at = |item: &str| pair.netns(0, item, 0);
            pair.world_listens(80);
            pair.world_listens(81);
            until(|| pair.connects(&at("open"), "192.0.2.2:81")).await;
            until(|| pair.connects(&at("some"), "192.0.2.2:80")).await;
            assert!(!pair.connects(&at("shut"), "192.0.2.2:80"));
            assert!(!pair.connects(&at("some"), "192.0.2.2:81"));
            // Its own network is not outside.
            until(|| pair.ask_by_name(&at("shut"), "subject.open") == Some("open".into())).await;
        },
    );
}

#[test]
fn gap_47_a_taken_dns_port_keeps_no_instance_from_running() {
    run(
        "gap_47_a_taken_dns_port_keeps_no_instance_from_running",
        async |pair: Pair| {
            let web = pair.publish(&["web"], |_| ());
            let node = Path::new("/run/netns/node0");
            let taken = inside(node, || UdpSocket::bind("0.0.0.0:53").unwrap());
            let _one = pair.start(0);
            pair.list(0, &[("web", 0, "red", web)]).await;
            let at = pair.netns(0, "web", 0);
            assert!(pair.resolve(&at, "subject.web").is_empty());
            drop(taken);
            until(|| pair.resolve(&at, "subject.web").len() == 1).await;
        },
    );
}

#[test]
fn rates_and_volumes_of_a_day_hold_also_for_another_sm() {
    run(
        "rates_and_volumes_of_a_day_hold_also_for_another_sm",
        async |pair: Pair| {
            let open = pair.publish(&["open"], |_| ());
            let slow = pair.publish(&["slow"], |item| {
                item.quotas = Quotas {
                    upload_speed: Some(8_000),
                    download_speed: Some(8_000),
                    upload_limit: Some(300_000),
                    ..Quotas::default()
                };
            });
            let one = pair.start(0);
            pair.list(0, &[("open", 0, "red", open), ("slow", 0, "red", slow)])
                .await;
            let at = |item: &str| pair.netns(0, item, 0);
            let sink = pair.world_listens(80);
            until(|| pair.connects(&at("open"), "192.0.2.2:80")).await;
            // What comes is held to 1 MB a second.
            pair.world_gives(81, 500_000);
            let took = pair.fetch(&at("slow"), "192.0.2.2:81", 500_000);
            assert!(took > Duration::from_millis(350), "{took:?}");
            let took = pair.fetch(&at("open"), "192.0.2.2:81", 500_000);
            assert!(took < Duration::from_millis(350), "{took:?}");
            // 300 kB a day at 1 MB a second, and then nothing; also for another SM, and after a crash.
            let before = sink.received();
            let began = Instant::now();
            pair.send(&at("slow"), "192.0.2.2:80", 600_000);
            tokio::time::sleep(Duration::from_millis(700)).await;
            let sent = sink.received() - before;
            assert!((100_000..300_000).contains(&sent), "{sent}");
            assert!(
                began.elapsed() > Duration::from_millis(sent / 1_000),
                "no faster than allowed"
            );
            one.kill();
            let two = pair.start(0);
            pair.until_whole(0).await;
            assert!(!pair.connects(&at("slow"), "192.0.2.2:80"));
            assert!(pair.connects(&at("open"), "192.0.2.2:80"));
            // The kernel has forgotten what it counted, as after a power cut; SM has noted it.
            two.stop();
            pair.on_node(0, "nft", "delete table inet aos_traffic");
            assert!(pair.connects(&at("slow"), "192.0.2.2:80"));
            let _three = pair.start(0);
            pair.until_whole(0).await;
            until(|| !pair.connects(&at("slow"), "192.0.2.2:80")).await;
            assert!(pair.connects(&at("open"), "192.0.2.2:80"));
        },
    );
}

#[test]
fn names_and_ports_that_collide_are_explained_and_hurt_nobody() {
    run(
        "names_and_ports_that_collide_are_explained_and_hurt_nobody",
        async |pair: Pair| {
            let publish = |name: &'static str| {
                pair.publish(&[name], |item| {
                    item.hostname = Some("same".into());
                    if name != "late" {
                        item.published_ports = vec![PublishedPort {
                            host_port: 8_080,
                            port: 80,
                            protocol: aos_types::Protocol::Tcp,
                        }];
                    }
                })
            };
            let (first, second, late) = (publish("first"), publish("second"), publish("late"));
            let _sms = (pair.start(0), pair.start(1));
            let world = Path::new("/run/netns/world");
            pair.list(0, &[("first", 0, "red", first)]).await;
            until(|| pair.ask_at(world, "192.0.2.10:8080") == Some("first".into())).await;
            // The port has an owner: who comes second says so and does not run.
            let both = [("first", 0, "red", first), ("second", 0, "red", second)];
            pair.send_list(0, &both).await;
            until(|| {
                pair.error_of(0, "second")
                    .contains("published by instance first:subject:0")
            })
            .await;
            until(|| pair.ask_at(world, "192.0.2.10:8080") == Some("first".into())).await;
            // The host name has one too: another Node's instance runs under its other names, and people are told.
            pair.list(1, &[("late", 0, "red", late)]).await;
            until(|| {
                pair.alerts(1)
                    .iter()
                    .any(|why| why.contains("used by item first"))
            })
            .await;
            let late_at = pair.netns(1, "late", 0);
            until(|| pair.ask_by_name(&late_at, "same") == Some("first".into())).await;
            let first_at = pair.netns(0, "first", 0);
            until(|| pair.ask_by_name(&first_at, "subject.late") == Some("late".into())).await;
            // The holder goes: the others get what they asked for.
            pair.list(0, &[("second", 0, "red", second)]).await;
            until(|| pair.ask_at(world, "192.0.2.10:8080") == Some("second".into())).await;
        },
    );
}

#[test]
fn nothing_is_left_and_nothing_missing_after_kills_at_random_moments() {
    run(
        "nothing_is_left_and_nothing_missing_after_kills_at_random_moments",
        async |pair: Pair| {
            let web = pair.publish(&["web"], |item| item.hostname = Some("web".into()));
            let app = pair.publish(&["app"], |item| {
                item.allowed_connections = vec!["db/80".parse().unwrap()];
            });
            let db = pair.publish(&["db"], |_| ());
            let mut sms = [Some(pair.start(0)), Some(pair.start(1))];
            // Others each time; shown if it fails.
            let mut random = 0x2545_f491 ^ std::process::id();
            eprintln!("random begins with {random:#x}");
            let mut next = move |below: u32| {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                random % below
            };
            pair.list(0, &[]).await;
            pair.list(1, &[]).await;
            for round in 0..9 {
                let lists: [&[_]; 2] = match round % 3 {
                    0 => [
                        &[("app", 0, "red", app), ("db", 0, "blue", db)],
                        &[("web", 0, "red", web)],
                    ],
                    1 => [
                        &[("app", 0, "red", app), ("web", 0, "red", web)],
                        &[("db", 0, "blue", db), ("web", 1, "red", web)],
                    ],
                    _ => [&[("app", 0, "red", app)], &[("db", 0, "blue", db)]],
                };
                for (node, list) in lists.iter().enumerate() {
                    pair.send_list(node, list).await;
                }
                // SM of one Node, or CM, in the middle of it.
                tokio::time::sleep(Duration::from_millis(next(400).into())).await;
                match next(3) {
                    2 => pair.restart_cm().await,
                    node => {
                        let node = node as usize;
                        sms[node].take().unwrap().kill();
                        tokio::time::sleep(Duration::from_millis(next(300).into())).await;
                        sms[node] = Some(pair.start(node));
                    }
                }
                for (node, list) in lists.iter().enumerate() {
                    pair.list(node, list).await;
                }
                let app_at = pair.netns(0, "app", 0);
                until(|| pair.ask_by_name(&app_at, "subject.db") == Some("db".into())).await;
                if round % 3 != 2 {
                    until(|| pair.ask_by_name(&app_at, "web") == Some("web".into())).await;
                }
                for (node, list) in lists.iter().enumerate() {
                    let wanted = list.len();
                    until(|| pair.cables(node) == wanted && pair.namespaces(node) == wanted).await;
                }
            }
            for node in 0..2 {
                pair.list(node, &[]).await;
                until(|| pair.left_over(node).is_empty()).await;
            }
        },
    );
}
