//! SM on one Node with the real `crun`, `nft` and keeper, and a CM that the test plays over real TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod bad;
mod conformance;
mod health;
mod integrity;
mod kept;
mod logs;
mod native;
mod offline;
mod order;
mod outlive;
mod rights;
mod senses;
mod slow;
mod unit;

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use aos_ipc::proto::{
    aos::node::v1::{SetState, StateKept, node_order::Order},
    servicemanager::v5::{self as pb, sm_incoming_messages::SmIncomingMessage},
};
use aos_types::{ItemConfig, Protocol, PublishedPort, Quotas};
use unit::{Unit, alive, item, keeper_pid, reboot, run, run_with_plain_v5, signal, until};

/// What a published port answers.
fn ask(port: u16) -> Option<String> {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

fn published(port: u16) -> impl FnOnce(&mut ItemConfig) {
    move |item| {
        item.published_ports = vec![PublishedPort {
            host_port: port,
            port: 80,
            protocol: Protocol::Tcp,
        }];
        item.quotas = Quotas {
            ram_limit: Some(64 << 20),
            pids_limit: Some(16),
            cpu_dmips_limit: Some(5_000),
            ..Quotas::default()
        };
    }
}

/// The first process of the only instance, as `crun` knows it.
fn pids(unit: &Unit) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_dir(unit.path("run/instances"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("pid")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .filter(|&pid| alive(pid))
        .collect();
    pids.sort_unstable();
    pids
}

#[test]
fn an_instance_is_installed_started_updated_and_removed() {
    run(
        "an_instance_is_installed_started_updated_and_removed",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let one = item::publish(store, folder, &["one"], published(8080));
            let two = item::publish(store, folder, &["two"], published(8080));
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            {
                let seen = cm.seen.lock().unwrap();
                let info = seen.info.as_ref().unwrap();
                assert_eq!(
                    (info.node_id.as_str(), info.runtimes[0].r#type.as_str()),
                    ("node-1", "crun")
                );
            }
            let mut wanted = cm.instance("web", 0, "1.0.0", one);
            wanted.storage_path = "web/subject/0".into();
            wanted.state_path = "web/subject/0/state.dat".into();
            let began = Instant::now();
            cm.list(vec![wanted.clone()]).await;
            eprintln!("first start, with download: {:?}", began.elapsed());
            assert_eq!(cm.state("web"), ("active".into(), "1.0.0".into()));
            until("it answers", || ask(8080).as_deref() == Some("one")).await;
            use std::os::unix::fs::MetadataExt;
            let storage = fs::metadata(unit.storage("web/subject/0")).unwrap();
            assert_eq!((storage.uid(), storage.mode() & 0o777), (5_000, 0o700));
            assert!(unit.state("web/subject/0").is_file());
            let first = pids(&unit);

            // The same list again changes nothing and is answered.
            cm.list(vec![wanted.clone()]).await;
            assert_eq!(pids(&unit), first);

            // An image that cannot be had does not stop what runs.
            let mut broken = wanted.clone();
            broken.version = "1.5.0".into();
            broken.manifest_digest = format!("sha256:{}", "5".repeat(64));
            cm.list(vec![broken.clone()]).await;
            assert_eq!(cm.state("web"), ("failed".into(), "1.5.0".into()));
            assert_eq!(pids(&unit), first, "the old version runs on");
            cm.install("i1", vec![broken]).await;
            cm.until("told", |seen| seen.installs.contains_key("i1"))
                .await;
            let error = cm.seen.lock().unwrap().installs["i1"][0]
                .error
                .clone()
                .unwrap();
            assert!(error.message.contains("555555"), "{}", error.message);

            // The update: everything is there before the old one is stopped.
            let mut next = wanted.clone();
            next.version = "2.0.0".into();
            next.manifest_digest = two.to_string();
            cm.install("i2", vec![next.clone()]).await;
            cm.until("installed", |seen| seen.installs.contains_key("i2"))
                .await;
            assert_eq!(cm.seen.lock().unwrap().installs["i2"][0].error, None);
            assert_eq!(
                ask(8080).as_deref(),
                Some("one"),
                "installing starts nothing"
            );
            let began = Instant::now();
            cm.list(vec![next]).await;
            eprintln!("update, installed before: {:?}", began.elapsed());
            assert_eq!(cm.state("web"), ("active".into(), "2.0.0".into()));
            until("it answers", || ask(8080).as_deref() == Some("two")).await;

            cm.list(vec![]).await;
            assert_eq!(cm.seen.lock().unwrap().instances.len(), 0);
            assert_eq!(pids(&unit), Vec::<u32>::new());
            assert_eq!(ask(8080), None);
            cm.until("released", |seen| seen.released.contains(&"web".to_owned()))
                .await;
            assert!(
                unit.storage("web/subject/0").is_dir(),
                "storage outlives the instance"
            );
            sm.end().await;
        },
    );
}

#[test]
fn instances_outlive_sm_and_their_ends_are_told() {
    run(
        "instances_outlive_sm_and_their_ends_are_told",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let web = item::publish(store, folder, &["web"], published(8080));
            let job = item::publish(store, folder, &["exit", "7"], |item| {
                item.run_parameters.restart_interval = Duration::from_secs(100);
                item.run_parameters.start_burst = 1;
            });
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
            let before = pids(&unit);
            let keeper = keeper_pid(folder).unwrap();

            // Killed, as by SIGKILL, and back: the same process goes on.
            sm.kill().await;
            assert!(alive(before[0]));
            assert_eq!(ask(8080).as_deref(), Some("web"));
            cm.until("left", |seen| seen.orders_gone()).await;
            let sm = unit.start_sm();
            cm.until("introduced again", |seen| seen.complete > 0).await;
            cm.until_state("web", "1.0.0", "active").await;
            assert_eq!(
                (pids(&unit), keeper_pid(folder)),
                (before.clone(), Some(keeper))
            );

            // An instance that ends by itself: state, code, and later a new start.
            let list = vec![
                cm.instance("web", 0, "1.0.0", web),
                cm.instance("job", 0, "1.0.0", job),
            ];
            cm.list(list.clone()).await;
            cm.until_state("job", "1.0.0", "failed").await;
            cm.until("told", |seen| !seen.exits.is_empty()).await;
            {
                let seen = cm.seen.lock().unwrap();
                assert_eq!(
                    (seen.exits[0].exit_code, seen.exits[0].signal),
                    (Some(7), None)
                );
                let error = seen.instances[&("job".into(), 0)].error.clone().unwrap();
                assert!(error.message.contains("exit code 7"), "{}", error.message);
            }

            // It dies while SM is away: told afterwards, with the signal, and started again.
            sm.end().await;
            signal(before[0], "-KILL");
            until("it is dead", || !alive(before[0])).await;
            let sm = unit.start_sm();
            cm.until("the end is told", |seen| {
                seen.exits.iter().any(|exit| exit.signal == Some(9))
            })
            .await;
            cm.until_state("web", "1.0.0", "active").await;
            until("it answers", || ask(8080).as_deref() == Some("web")).await;
            assert_ne!(pids(&unit), before);

            // The keeper dies: nobody notices but its successor.
            until("the job has ended once more", || pids(&unit).len() == 1).await;
            let web_pid = pids(&unit);
            signal(keeper, "-KILL");
            until("there is a new keeper", || {
                keeper_pid(folder).is_some_and(|pid| pid != keeper)
            })
            .await;
            assert_eq!(pids(&unit), web_pid);
            cm.list(vec![]).await;
            assert_eq!(pids(&unit), Vec::<u32>::new());
            sm.end().await;
        },
    );
}

#[test]
fn a_node_starts_its_set_without_cm() {
    run("a_node_starts_its_set_without_cm", async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], published(8080));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
        sm.end().await;

        // A reboot without network: containers, namespaces, the runtime folder and CM are gone.
        cm.down().await;
        reboot(&unit, pids(&unit)).await;

        let sm = unit.start_sm();
        until("it runs by itself", || ask(8080).as_deref() == Some("web")).await;
        cm.up().await;
        cm.until_state("web", "1.0.0", "active").await;
        let running = pids(&unit);
        cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
        assert_eq!(pids(&unit), running);
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn gap_49_a_list_during_a_launch_takes_its_place() {
    run(
        "gap_49_a_list_during_a_launch_takes_its_place",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let one = item::publish(store, folder, &["one"], published(8080));
            let two = item::publish(store, folder, &["two"], published(8080));
            let three = item::publish(store, folder, &["three"], published(8080));
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            cm.list(vec![cm.instance("web", 0, "1.0.0", one)]).await;
            let running = pids(&unit);
            // Version 2 hangs in its download; version 3 is ordered meanwhile and is the one that runs.
            cm.hold_blobs();
            let before = cm.seen.lock().unwrap().complete;
            cm.send_list(vec![cm.instance("web", 0, "2.0.0", two)])
                .await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(
                pids(&unit),
                running,
                "nothing is stopped before its replacement is here"
            );
            cm.send_list(vec![cm.instance("web", 0, "3.0.0", three)])
                .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            cm.release_blobs();
            cm.until("carried out", |seen| seen.complete > before).await;
            cm.until_state("web", "3.0.0", "active").await;
            until("it answers", || ask(8080).as_deref() == Some("three")).await;

            cm.hold_blobs();
            let four = item::publish(store, folder, &["four"], published(8080));
            cm.send_list(vec![cm.instance("web", 0, "4.0.0", four)])
                .await;
            // The cloud changes its mind: back to what runs.
            let running = pids(&unit);
            let before = cm.seen.lock().unwrap().complete;
            cm.send_list(vec![cm.instance("web", 0, "3.0.0", three)])
                .await;
            cm.release_blobs();
            cm.until("carried out", |seen| seen.complete > before).await;
            assert_eq!(cm.state("web"), ("active".into(), "3.0.0".into()));
            assert_eq!(pids(&unit), running);
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}

#[test]
fn images_that_share_a_layer_are_installed_side_by_side() {
    run(
        "images_that_share_a_layer_are_installed_side_by_side",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            let ballast = noise(3_000_000, 1);
            let images: Vec<_> = (0..8)
                .map(|index| {
                    let index = index.to_string();
                    let image = item::publish_with(store, folder, &[&index], &ballast, |_| {});
                    cm.instance(&index, 0, "1.0.0", image)
                })
                .collect();
            cm.install("all", images).await;
            cm.until("installed", |seen| seen.installs.contains_key("all"))
                .await;
            let installed = cm.seen.lock().unwrap().installs["all"].clone();
            assert_eq!(installed.len(), 8);
            for one in installed {
                assert_eq!(one.error, None);
            }
            sm.end().await;
        },
    );
}

#[test]
fn gap_59_no_question_that_is_not_answered_holds_anything_up() {
    run(
        "gap_59_no_question_that_is_not_answered_holds_anything_up",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let web = item::publish(store, folder, &["web"], published(8080));
            let more = item::publish(store, folder, &["more"], published(8081));
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            let mut list = vec![cm.instance("web", 0, "1.0.0", web)];
            cm.list(list.clone()).await;
            let running = pids(&unit);
            // CM hangs over the address of a new instance.
            cm.seen.lock().unwrap().silent = true;
            let before = cm.seen.lock().unwrap().complete;
            list.push(cm.instance("more", 0, "1.0.0", more));
            cm.send_list(list).await;
            cm.until_state("more", "1.0.0", "activating").await;
            // Meanwhile what runs is looked after.
            signal(running[0], "-KILL");
            until("it runs again", || {
                ask(8080).as_deref() == Some("web") && pids(&unit) != running
            })
            .await;
            assert_eq!(cm.seen.lock().unwrap().complete, before, "it still hangs");
            // And it is given up in time.
            cm.until("the list is answered", |seen| seen.complete > before)
                .await;
            assert_eq!(cm.state("more").0, "failed");
            let why = cm.error("more").unwrap();
            assert!(why.contains("CM"), "{why}");
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}

#[test]
fn gap_60_a_node_configuration_that_cannot_be_read_is_answered_at_any_time() {
    run(
        "gap_60_a_node_configuration_that_cannot_be_read_is_answered_at_any_time",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            // Questions about the configuration and logs are always answered, also while a list hangs.
            cm.hold_blobs();
            let four = item::publish(store, folder, &["four"], published(8080));
            cm.send_list(vec![cm.instance("web", 0, "4.0.0", four)])
                .await;
            cm.order(SmIncomingMessage::SetNodeConfig(pb::SetNodeConfig {
                node_config: "not json".into(),
                version: "2.0.0".into(),
            }))
            .await;
            cm.order(SmIncomingMessage::InstanceLogRequest(
                pb::InstanceLogRequest {
                    correlation_id: "log-1".into(),
                    ..Default::default()
                },
            ))
            .await;
            cm.until("answered", |seen| {
                !seen.config.is_empty() && !seen.logs.is_empty()
            })
            .await;
            {
                let seen = cm.seen.lock().unwrap();
                assert_eq!(seen.config[0].state, "failed");
                assert_eq!(seen.config[0].version, "2.0.0");
                assert_eq!(seen.logs[0].correlation_id, "log-1");
            }
            let why = cm.seen.lock().unwrap().config[0].error.clone().unwrap();
            assert!(!why.message.is_empty());
            cm.release_blobs();
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}

#[test]
fn a_cm_of_plain_v5_is_served_too() {
    let test = "a_cm_of_plain_v5_is_served_too";
    run_with_plain_v5(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let one = item::publish(store, folder, &["one"], published(8080));
        let crash = item::publish(store, folder, &["exit", "3"], |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let list = vec![
            cm.instance("web", 0, "1.0.0", one),
            cm.instance("crash", 0, "1.0.0", crash),
        ];
        cm.list(list).await;
        cm.until_state("web", "1.0.0", "active").await;
        // Without the second stream the status says how it ended, and it is started again and again.
        for _ in 0..2 {
            cm.until_state("crash", "1.0.0", "failed").await;
            cm.until_state("crash", "1.0.0", "active").await;
        }
        cm.until("why", |seen| {
            seen.instances
                .get(&("crash".into(), 0))
                .and_then(|status| status.error.as_ref())
                .is_some_and(|error| error.message.contains("exit code 3"))
        })
        .await;
        assert_eq!(cm.seen.lock().unwrap().connections, 1);
        // An element that cannot be read never means that something is removed.
        let mut nameless = cm.instance("web", 0, "1.0.0", one);
        nameless.instance = None;
        let running = pids(&unit);
        cm.list(vec![nameless]).await;
        assert!(running.iter().any(|pid| alive(*pid)));
        until("it answers", || ask(8080).as_deref() == Some("one")).await;
        cm.list(vec![]).await;
        assert_eq!(ask(8080), None);
        sm.end().await;
    });
}

#[test]
fn fifty_instances_start_and_stop() {
    run("fifty_instances_start_and_stop", async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let list = (0..50)
            .map(|index| cm.instance("web", index, "1.0.0", web))
            .collect();
        cm.install("all", vec![cm.instance("web", 0, "1.0.0", web)])
            .await;
        cm.until("installed", |seen| seen.installs.contains_key("all"))
            .await;
        let began = Instant::now();
        cm.list(list).await;
        eprintln!("50 instances active in {:?}", began.elapsed());
        {
            let seen = cm.seen.lock().unwrap();
            assert_eq!(seen.instances.len(), 50);
            assert!(seen.instances.values().all(|one| one.state == "active"));
        }
        assert_eq!(pids(&unit).len(), 50);
        let began = Instant::now();
        cm.list(vec![]).await;
        eprintln!("and gone in {:?}", began.elapsed());
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}

#[test]
fn gap_84_a_state_is_told_however_it_was_written_and_replaced_without_being_mixed() {
    run(
        "gap_84_a_state_is_told_however_it_was_written_and_replaced_without_being_mixed",
        async |mut unit: Unit| {
            unit.options.state_report_secs = 1;
            let (store, folder) = (&unit.images, unit.folder.path());
            let web = item::publish(store, folder, &["web"], |_| {});
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            let mut wanted = cm.instance("web", 0, "1.0.0", web);
            wanted.state_path = "web/subject/0/state.dat".into();
            let ident = wanted.instance.clone();
            cm.list(vec![wanted]).await;
            let state = unit.state("web/subject/0");
            cm.until(
                "told that it wrote nothing yet",
                |seen| matches!(&seen.states[..], [one] if one.first && one.content.is_empty()),
            )
            .await;

            // In place, as through the mount of a container.
            fs::write(&state, "one").unwrap();
            let told = cm.until_told("one").await;
            assert_eq!(told.checksum, aos_types::state_checksum(b"one"));
            // Replaced by another file of its name.
            fs::write(state.with_extension("new"), "two").unwrap();
            fs::rename(state.with_extension("new"), &state).unwrap();
            let told = cm.until_told("two").await;

            // As long as CM has not said that it has it, it is told again: here by the next SM.
            sm.end().await;
            let sm = unit.start_sm();
            cm.until_told("two").await;
            let kept = StateKept {
                instance: ident.clone(),
                checksum: told.checksum,
            };
            cm.node_order(Order::StateKept(kept)).await;

            // CM has a newer one: the instance starts again with it, and it is no news to CM.
            let before = pids(&unit);
            let set = SetState {
                request_id: "s1".into(),
                instance: ident.clone(),
                state_path: "web/subject/0/state.dat".into(),
                uid: 5_000,
                gid: 5_000,
                content: b"three".to_vec(),
            };
            cm.node_order(Order::SetState(set.clone())).await;
            cm.until("set", |seen| seen.sets.contains_key("s1")).await;
            assert_eq!(cm.seen.lock().unwrap().sets["s1"], None);
            until("it runs again", || pids(&unit).len() == 1).await;
            let after = pids(&unit);
            assert_ne!(before, after);
            until("it has its state", || {
                let inside = format!("/proc/{}/root/state.dat", pids(&unit)[0]);
                fs::read_to_string(inside).is_ok_and(|text| text == "three")
            })
            .await;
            cm.until_state("web", "1.0.0", "active").await;
            // The same once more disturbs nobody.
            let again = SetState {
                request_id: "s2".into(),
                ..set.clone()
            };
            cm.node_order(Order::SetState(again)).await;
            cm.until("set", |seen| seen.sets.contains_key("s2")).await;
            assert_eq!(pids(&unit), after);
            // A path that leads elsewhere is refused.
            let bad = SetState {
                request_id: "s3".into(),
                state_path: "../../stolen".into(),
                ..set
            };
            cm.node_order(Order::SetState(bad)).await;
            cm.until("refused", |seen| {
                seen.sets.get("s3").is_some_and(Option::is_some)
            })
            .await;
            fs::write(&state, "four").unwrap();
            cm.until_told("four").await;
            let left = cm.seen.lock().unwrap().states.clone();
            assert!(left.iter().all(|one| one.content != b"three"), "{left:?}");
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        })
        .collect()
}

#[test]
fn on_a_full_disk_the_image_that_was_unused_for_longest_goes() {
    run(
        "on_a_full_disk_the_image_that_was_unused_for_longest_goes",
        async |unit: Unit| {
            let disk = unit.path("sm");
            fs::create_dir_all(&disk).unwrap();
            nix::mount::mount(
                Some("none"),
                &disk,
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                Some("size=22m"),
            )
            .unwrap();
            let (store, folder) = (&unit.images, unit.folder.path());
            let images: Vec<_> = (1..4)
                .map(|seed| {
                    let ballast = noise(6_000_000, seed);
                    item::publish_with(store, folder, &["web"], &ballast, published(8080))
                })
                .collect();
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            for (image, version) in images.iter().zip(["1.0.0", "2.0.0"]) {
                cm.list(vec![cm.instance("web", 0, version, *image)]).await;
                cm.until_state("web", version, "active").await;
            }
            // What was asked for of late stays: that is forgotten by a restart.
            sm.end().await;
            cm.until("left", |seen| seen.orders_gone()).await;
            let sm = unit.start_sm();
            cm.until("introduced again", |seen| seen.complete > 0).await;
            cm.until_state("web", "2.0.0", "active").await;
            // The unpacked 1 and 2 and the packed and unpacked 3 do not fit together.
            cm.list(vec![cm.instance("web", 0, "3.0.0", images[2])])
                .await;
            cm.until_state("web", "3.0.0", "active").await;
            until("it answers", || ask(8080).as_deref() == Some("web")).await;
            // The one before is still there to go back to, the first is not.
            let layers = fs::read_dir(disk.join("images/layers/sha256")).unwrap();
            assert_eq!(layers.count(), 2);
            cm.list(vec![]).await;
            sm.end().await;
            let _ = nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH);
        },
    );
}

#[test]
fn an_instance_that_ends_at_once_is_never_taken_for_running() {
    run(
        "an_instance_that_ends_at_once_is_never_taken_for_running",
        async |unit: Unit| {
            let (store, folder) = (&unit.images, unit.folder.path());
            let die = item::publish(store, folder, &["die"], |item| {
                item.run_parameters.start_burst = 40;
                item.run_parameters.restart_interval = Duration::from_millis(10);
            });
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            cm.list(vec![cm.instance("die", 0, "1.0.0", die)]).await;
            // Its end may be told before its start: if one is missed the instance stays as it is, and no more ends come.
            cm.until("ended forty times", |seen| seen.exits.len() >= 40)
                .await;
            cm.until_state("die", "1.0.0", "failed").await;
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}
