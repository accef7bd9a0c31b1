//! What services of bad will or bad luck can do to their Node: nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use aos_image::{
    BlobStore, ImageConfig, Platform,
    build::{self, BuiltLayer, Image},
    graph::{Descriptor, load_index, media_type},
};
use aos_types::{Digest, ItemConfig};

use super::{ask, pids, published};
use crate::unit::{Unit, alive, item, run, signal, until};

/// An item that runs a script in the Node's own shell.
pub fn script(unit: &Unit, text: &str, change: impl FnOnce(&mut ItemConfig)) -> Digest {
    let (store, folder) = (&unit.images, unit.folder.path());
    item::publish_as(
        store,
        folder,
        "/bin/sh",
        &["-c", text],
        text.as_bytes(),
        |item| {
            item.base_layer_is_node_rootfs = true;
            change(item);
        },
    )
}

#[test]
fn gap_50_an_instance_is_asked_to_end_and_has_the_time_its_item_gives_it() {
    let test = "gap_50_an_instance_is_asked_to_end_and_has_the_time_its_item_gives_it";
    run(test, async |unit: Unit| {
        let text =
            "trap 'sleep 0.3; echo bye > /storage/bye; exit 0' TERM; while :; do sleep 0.05; done";
        let polite = script(&unit, text, |_| {});
        let text = "trap '' TERM; while :; do sleep 0.05; done";
        let stubborn = script(&unit, text, |item| {
            item.stop_grace_period = Some(Duration::from_millis(600));
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("polite", 0, "1.0.0", polite);
        wanted.storage_path = "polite/subject/0".into();
        cm.list(vec![wanted]).await;
        assert_eq!(cm.state("polite").0, "active");
        let handles = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let of = |name| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|mask: &str| u64::from_str_radix(mask.trim(), 16).ok())
            };
            (of("SigCgt:").unwrap_or(0) | of("SigIgn:").unwrap_or(0)) & (1 << 14) != 0
        };
        until("it handles the signal", || {
            pids(&unit).first().is_some_and(|&pid| handles(pid))
        })
        .await;
        cm.list(vec![]).await;
        let bye = unit.storage("polite/subject/0").join("bye");
        assert_eq!(fs::read_to_string(bye).unwrap(), "bye\n");

        cm.list(vec![cm.instance("stubborn", 0, "1.0.0", stubborn)])
            .await;
        until("it handles the signal", || {
            pids(&unit).first().is_some_and(|&pid| handles(pid))
        })
        .await;
        let began = Instant::now();
        cm.list(vec![]).await;
        // What ignores a signal cannot notice it and is not waited for; the Node's own time would be 3 s.
        assert!(
            began.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}

/// An item whose only layer is this tar.
fn with_layer(store: &BlobStore, tar: &[u8]) -> Digest {
    let stored = store.insert_bytes(tar).unwrap();
    let layer = BuiltLayer {
        descriptor: Descriptor {
            media_type: media_type::LAYER_TAR.into(),
            digest: stored.digest,
            size: stored.size,
        },
        tree: stored.digest,
        tar: stored.digest,
        bytes: 0,
    };
    let image = Image {
        config: ImageConfig {
            platform: Platform {
                architecture: "amd64".into(),
                os: "linux".into(),
                ..Platform::default()
            },
            entrypoint: vec!["/program".into()],
            ..ImageConfig::default()
        },
        item_config: Some(ItemConfig::default()),
        layers: vec![layer],
    };
    let built = build::item(store, &[image]).unwrap();
    let index = load_index(store, &built.index.digest, &Default::default()).unwrap();
    index.manifests[0].descriptor.digest
}

#[test]
fn gap_56_why_an_image_cannot_be_installed_is_told() {
    let test = "gap_56_why_an_image_cannot_be_installed_is_told";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], published(8080));
        // A path that leaves the folder, as no writer of archives makes it.
        let mut header = [0_u8; 1024];
        header[..9].copy_from_slice(b"../escape");
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(b"00000000000");
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
        let hostile = with_layer(store, &header);
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![
            cm.instance("web", 0, "1.0.0", web),
            cm.instance("evil", 0, "1.0.0", hostile),
        ])
        .await;
        cm.until_state("evil", "1.0.0", "failed").await;
        {
            let seen = cm.seen.lock().unwrap();
            let error = seen.instances[&("evil".into(), 0)].error.clone().unwrap();
            assert!(error.message.contains("../escape"), "{}", error.message);
            assert!(
                error.message.contains("leaves the folder"),
                "{}",
                error.message
            );
        }
        assert_eq!(cm.state("web").0, "active");
        until("it answers", || ask(8080).as_deref() == Some("web")).await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn gap_57_a_damaged_layer_is_fetched_again_by_itself() {
    let test = "gap_57_a_damaged_layer_is_fetched_again_by_itself";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], published(8080));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
        until("it answers", || ask(8080).as_deref() == Some("web")).await;
        sm.end().await;
        // While nobody looks the program loses its rights, and the instance dies.
        let layers = fs::read_dir(unit.path("sm/images/layers/sha256")).unwrap();
        for layer in layers {
            let program = layer.unwrap().path().join("layer/program");
            fs::set_permissions(program, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let pid = pids(&unit)[0];
        signal(pid, "-KILL");
        until("it is dead", || !alive(pid)).await;
        let sm = unit.start_sm();
        until("it runs again", || {
            pids(&unit).iter().any(|&new| new != pid)
        })
        .await;
        until("it answers", || ask(8080).as_deref() == Some("web")).await;
        cm.until_state("web", "1.0.0", "active").await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn bad_services_are_contained_and_explained_and_their_neighbour_runs_on() {
    let test = "bad_services_are_contained_and_explained_and_their_neighbour_runs_on";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], published(8080));
        let limited = |item: &mut ItemConfig| {
            item.quotas.ram_limit = Some(32 << 20);
            item.quotas.pids_limit = Some(20);
            item.quotas.cpu_dmips_limit = Some(1_000);
            item.run_parameters.restart_interval = Duration::from_millis(100);
        };
        let bad = [
            (
                "bomb",
                "exec perl -e 'while (1) { fork; select(undef, undef, undef, 0.01) }'",
            ),
            ("hog", "exec tail /dev/zero"),
            (
                "flood",
                "while :; do echo 0123456789012345678901234567890123456789; done",
            ),
            ("crash", "exit 3"),
        ]
        .map(|(name, text)| (name, script(&unit, text, limited)));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let neighbour = cm.instance("web", 0, "1.0.0", web);
        cm.list(vec![neighbour.clone()]).await;
        let running = pids(&unit);
        let mut list = vec![neighbour.clone()];
        for (number, (name, manifest)) in (6_000..).zip(&bad) {
            let mut one = cm.instance(name, 0, "1.0.0", *manifest);
            one.uid = number;
            list.push(one);
        }
        cm.list(list).await;
        // Each is told as what it is.
        cm.until_state("crash", "1.0.0", "failed").await;
        cm.until_state("hog", "1.0.0", "failed").await;
        cm.until_state("bomb", "1.0.0", "active").await;
        cm.until_state("flood", "1.0.0", "active").await;
        // They are started again and again, and while they run there is nothing to explain.
        cm.until_error("crash", "exit code 3").await;
        cm.until_error("hog", "memory").await;
        // None of them takes more than it may have.
        let bomb = aos_runtime::InstanceId::of(&aos_types::InstanceIdent::service(
            "bomb".parse().unwrap(),
            "subject".parse().unwrap(),
            0,
        ));
        let bomb_pid = fs::read_to_string(unit.path(&format!("run/instances/{bomb}/pid"))).unwrap();
        let space = |pid: &str| fs::read_link(format!("/proc/{}/ns/pid", pid.trim())).ok();
        let own = space(&bomb_pid);
        let count = || {
            fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter(|entry| own.is_some() && space(&entry.file_name().to_string_lossy()) == own)
                .count()
        };
        until("the bomb is at its limit", || count() >= 10).await;
        assert!(count() <= 20, "{}", count());
        let logs = || -> u64 {
            let entries = fs::read_dir(unit.path("sm/keeper/logs")).unwrap();
            entries
                .flatten()
                .filter_map(|entry| Some(entry.metadata().ok()?.len()))
                .sum()
        };
        until("the flood is logged", || logs() > 100_000).await;
        let most = aos_runtime::keeper::LogPolicy::default();
        assert!(logs() <= most.max_bytes * u64::from(most.files) * 5);
        // The neighbour did not notice.
        assert!(running.iter().all(|&pid| alive(pid)));
        until("it answers", || ask(8080).as_deref() == Some("web")).await;
        assert_eq!(cm.state("web").0, "active");
        cm.list(vec![]).await;
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}
