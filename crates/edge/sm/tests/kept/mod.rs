//! What instances keep, and what they cannot exceed.

use std::{fs, path::PathBuf, time::Duration};

use aos_ipc::proto::{
    aos::node::v1::{RemoveData, SetState, StateKept, node_order::Order},
    servicemanager::v5 as pb,
};
use aos_quota::Choice;
use aos_types::{Digest, ItemConfig, Quotas};

use crate::{
    bad, pids,
    unit::{Unit, alive, cm::FakeCm, item, run, until},
};

const MIB: u64 = 1 << 20;

fn storage(bytes: u64) -> impl FnOnce(&mut ItemConfig) {
    move |item| {
        item.quotas = Quotas {
            storage_limit: Some(bytes),
            tmp_limit: Some(MIB),
            ..Quotas::default()
        };
    }
}

fn stored(cm: &FakeCm, name: &str, version: &str, image: Digest) -> pb::InstanceInfo {
    let mut instance = cm.instance(name, 0, version, image);
    instance.storage_path = format!("{name}/subject/0");
    instance.uid = if name == "filler" { 5_001 } else { 5_002 };
    instance
}

fn alert(seen: &crate::unit::cm::Seen, text: &str) -> bool {
    seen.alerts.iter().any(|alert| alert.contains(text))
}

/// What the filler said of the end, by the number of the error.
fn why(unit: &Unit) -> Option<i32> {
    pids(unit).into_iter().find_map(|pid| {
        let said = fs::read_to_string(format!("/proc/{pid}/root/tmp/why")).ok()?;
        said.trim().parse().ok()
    })
}

fn ticks(file: &PathBuf) -> u64 {
    fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_disk_filler_is_contained_and_explained_while_its_neighbour_writes_on() {
    let test = "a_disk_filler_is_contained_and_explained_while_its_neighbour_writes_on";
    run(test, async |mut unit: Unit| {
        unit.options.quota.watch_secs = 1;
        if !unit.enforces(test) {
            return;
        }
        let (store, folder) = (&unit.images, unit.folder.path());
        let fill = item::publish(store, folder, &["fill"], storage(16 * MIB));
        let more = item::publish(store, folder, &["fill"], storage(64 * MIB));
        let tick = item::publish(store, folder, &["tick"], storage(4 * MIB));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let neighbour = stored(cm, "neighbour", "1.0.0", tick);
        cm.list(vec![neighbour.clone(), stored(cm, "filler", "1.0.0", fill)])
            .await;
        cm.until_state("filler", "1.0.0", "active").await;
        let running = pids(&unit);
        assert_eq!(running.len(), 2);

        // It sees the end, goes on trying, and people are told whose fault it is and what to do.
        until("it cannot write", || why(&unit).is_some()).await;
        let error = why(&unit).unwrap();
        assert!(
            [nix::libc::EDQUOT, nix::libc::ENOSPC].contains(&error),
            "{error}"
        );
        cm.until("told", |seen| alert(seen, "filler: its storage is full"))
            .await;
        cm.until("explained", |seen| alert(seen, "quotas.storageLimit"))
            .await;
        let big = fs::metadata(unit.storage("filler/subject/0").join("big"))
            .unwrap()
            .len();
        assert!((15 * MIB..=17 * MIB).contains(&big), "{big}");

        // The neighbour does not notice, and both are the processes they were.
        let file = unit.storage("neighbour/subject/0").join("tick");
        let before = ticks(&file);
        until("the neighbour writes on", || ticks(&file) > before + 20).await;
        assert_eq!(pids(&unit), running);
        assert!(
            !cm.seen
                .lock()
                .unwrap()
                .alerts
                .iter()
                .any(|one| one.contains("neighbour"))
        );

        // The next version may keep more, and keeps what is there.
        cm.list(vec![neighbour, stored(cm, "filler", "2.0.0", more)])
            .await;
        cm.until("told again", |seen| {
            seen.alerts
                .iter()
                .filter(|one| one.contains("of 64.0 MiB"))
                .count()
                == 1
        })
        .await;
        let big = fs::metadata(unit.storage("filler/subject/0").join("big"))
            .unwrap()
            .len();
        assert!((63 * MIB..=65 * MIB).contains(&big), "{big}");

        // Its removal frees all of it.
        cm.list(vec![]).await;
        let (ident, free) = (
            stored(cm, "filler", "2.0.0", more).instance.unwrap(),
            unit.free(),
        );
        cm.node_order(Order::RemoveData(RemoveData {
            request_id: "r1".into(),
            instances: vec![ident],
        }))
        .await;
        until("the room is free", || unit.free() >= free + 60 * MIB).await;
        assert!(running.iter().all(|&pid| !alive(pid)));
        sm.end().await;
    });
}

#[test]
fn who_fills_the_root_takes_no_disk_of_the_node_and_is_named() {
    let test = "who_fills_the_root_takes_no_disk_of_the_node_and_is_named";
    run(test, async |mut unit: Unit| {
        unit.options.quota.watch_secs = 1;
        unit.options.runtime.root_limit = 16 * MIB;
        // Neither a storage nor a `/tmp` of its own: there is the root alone. The last one may have less memory than that.
        let filler = |inside: bool, ram: Option<u64>, text: &str| {
            bad::script(&unit, text, |item| {
                item.user_namespace = Some(inside);
                item.quotas.ram_limit = ram;
            })
        };
        let bytes = "cat /dev/zero > /tmp/big; while :; do sleep 0.2; done";
        // No builtin that ends the shell when its output cannot be opened.
        let files = "i=0; while :; do i=$((i+1)); true > /tmp/$i || sleep 0.2; done";
        let all = [
            ("bytes", filler(false, None, bytes)),
            ("inside", filler(true, None, bytes)),
            ("little", filler(false, Some(24 * MIB), bytes)),
            ("files", filler(false, None, files)),
        ];
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let list = all.iter().zip(5_001..).map(|((name, image), uid)| {
            let mut one = cm.instance(name, 0, "1.0.0", *image);
            one.uid = uid;
            one
        });
        cm.list(list.collect()).await;
        for (name, _) in all {
            cm.until_state(name, "1.0.0", "active").await;
            cm.until("told", |seen| {
                alert(
                    seen,
                    &format!("{name}: the writable part of its root is full"),
                )
            })
            .await;
        }
        cm.until("explained", |seen| alert(seen, "runtime.root_limit"))
            .await;
        // They see a full disk and run on; the disk of the Node has nothing of it.
        assert_eq!(pids(&unit).len(), all.len());
        let mut sizes: Vec<u64> = pids(&unit)
            .into_iter()
            .filter_map(|pid| fs::metadata(format!("/proc/{pid}/root/tmp/big")).ok())
            .map(|facts| facts.len() / MIB)
            .collect();
        sizes.sort_unstable();
        assert!(
            matches!(sizes[..], [11..=12, 15..=16, 15..=16]),
            "MiB in the roots: {sizes:?}"
        );
        for place in fs::read_dir(unit.path("sm/instances")).unwrap().flatten() {
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{place:?}");
        }
        cm.list(vec![]).await;
        assert!(
            fs::read_dir(unit.path("sm/instances"))
                .unwrap()
                .next()
                .is_none()
        );
        sm.end().await;
    });
}

#[test]
fn without_enforcement_people_are_told_so() {
    let test = "without_enforcement_people_are_told_so";
    run(test, async |mut unit: Unit| {
        unit.options.quota.backend = Choice::Accounting;
        unit.options.quota.watch_secs = 1;
        let image = item::publish(&unit.images, unit.folder.path(), &["tick"], storage(MIB));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("declared", |seen| alert(seen, "not enforced on this Node"))
            .await;
        cm.list(vec![stored(cm, "neighbour", "1.0.0", image)]).await;
        let folder = unit.path("sm/storages/neighbour/subject/0");
        until("it writes", || folder.join("tick").exists()).await;
        fs::write(folder.join("big"), vec![1; 2 << 20]).unwrap();
        cm.until("measured", |seen| {
            alert(seen, "at the expense of the others")
        })
        .await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_state_longer_than_its_limit_is_reported_and_refused() {
    let test = "a_state_longer_than_its_limit_is_reported_and_refused";
    run(test, async |mut unit: Unit| {
        unit.options.state_report_secs = 1;
        let image = item::publish(&unit.images, unit.folder.path(), &["web"], |item| {
            item.quotas.state_limit = Some(8);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", image);
        wanted.state_path = "web/subject/0/state.dat".into();
        cm.list(vec![wanted.clone()]).await;
        let state = unit.state("web/subject/0");
        fs::write(&state, "too long for it").unwrap();
        cm.until("reported", |seen| alert(seen, "longer than 8 bytes"))
            .await;
        fs::write(&state, "it fits").unwrap();
        cm.until_told("it fits").await;
        let other = cm.seen.lock().unwrap().states.clone();
        assert!(
            other.iter().all(|one| one.content.is_empty()),
            "only what fits was told"
        );

        let set = |id: &str, content: &[u8]| {
            Order::SetState(SetState {
                request_id: id.into(),
                instance: wanted.instance.clone(),
                state_path: "web/subject/0/state.dat".into(),
                uid: 5_000,
                gid: 5_000,
                content: content.to_vec(),
            })
        };
        cm.node_order(set("s1", b"too long for it")).await;
        cm.until("refused", |seen| {
            let error = seen.sets.get("s1").and_then(Option::as_ref);
            error.is_some_and(|error| error.message.contains("at most 8"))
        })
        .await;
        assert_eq!(fs::read(&state).unwrap(), b"it fits");
        cm.node_order(set("s2", b"12345678")).await;
        cm.until("taken", |seen| seen.sets.get("s2") == Some(&None))
            .await;
        assert_eq!(fs::read(unit.state("web/subject/0")).unwrap(), b"12345678");
        tokio::time::timeout(
            Duration::from_secs(10),
            cm.until_state("web", "1.0.0", "active"),
        )
        .await
        .unwrap();
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn gap_86_a_large_state_travels_whole_and_one_that_was_lost_is_asked_for() {
    let test = "gap_86_a_large_state_travels_whole_and_one_that_was_lost_is_asked_for";
    run(test, async |mut unit: Unit| {
        unit.options.state_report_secs = 1;
        let image = item::publish(&unit.images, unit.folder.path(), &["web"], |item| {
            item.quotas.state_limit = Some(MIB);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", image);
        wanted.state_path = "web/subject/0/state.dat".into();
        cm.list(vec![wanted.clone()]).await;
        // The most that travels, there and back.
        let large = "x".repeat(MIB as usize);
        fs::write(unit.state("web/subject/0"), &large).unwrap();
        let told = cm.until_told(&large).await;
        let kept = |checksum: String| {
            Order::StateKept(StateKept {
                instance: wanted.instance.clone(),
                checksum,
            })
        };
        cm.node_order(kept(told.checksum)).await;
        let next = "y".repeat(MIB as usize);
        cm.node_order(Order::SetState(SetState {
            request_id: "s1".into(),
            instance: wanted.instance.clone(),
            state_path: "web/subject/0/state.dat".into(),
            uid: 5_000,
            gid: 5_000,
            content: next.clone().into_bytes(),
        }))
        .await;
        cm.until("taken", |seen| seen.sets.get("s1") == Some(&None))
            .await;
        assert_eq!(
            fs::read_to_string(unit.state("web/subject/0")).unwrap(),
            next
        );

        // The Node loses everything, and says so: CM can give the state again.
        cm.list(vec![]).await;
        sm.end().await;
        cm.until("left", |seen| seen.orders_gone()).await;
        unit.lose_everything();
        cm.seen.lock().unwrap().states.clear();
        let sm = unit.start_sm();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        cm.list(vec![wanted]).await;
        cm.until(
            "told that there is nothing",
            |seen| matches!(&seen.states[..], [one] if one.first && one.content.is_empty()),
        )
        .await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_service_writes_its_state_in_place_and_cannot_put_another_file_there() {
    let test = "a_service_writes_its_state_in_place_and_cannot_put_another_file_there";
    run(test, async |mut unit: Unit| {
        unit.options.state_report_secs = 1;
        let text = "echo new > /state.new; mv /state.new /state.dat 2> /dev/null; \
            perl -e 'rename(\"/state.new\", \"/state.dat\") or print $!+0' > /storage/rename; \
            printf 'in place' > /state.dat; while :; do sleep 1; done";
        // Root in its own eyes: nothing but the mount hinders it.
        let image = bad::script(&unit, text, |item| {
            item.user_namespace = Some(true);
            item.quotas.state_limit = Some(100);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", image);
        wanted.state_path = "web/subject/0/state.dat".into();
        wanted.storage_path = "web/subject/0".into();
        cm.list(vec![wanted]).await;
        cm.until_told("in place").await;
        let refused = unit.storage("web/subject/0").join("rename");
        let refused: i32 = fs::read_to_string(refused).unwrap().parse().unwrap();
        assert_eq!(refused, nix::libc::EBUSY);
        assert_eq!(fs::read(unit.state("web/subject/0")).unwrap(), b"in place");
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn gap_87_a_state_is_exchanged_while_its_instance_is_stopped() {
    let test = "gap_87_a_state_is_exchanged_while_its_instance_is_stopped";
    run(test, async |unit: Unit| {
        let image = item::publish(&unit.images, unit.folder.path(), &["last"], |item| {
            item.quotas.state_limit = Some(100);
            item.quotas.tmp_limit = Some(MIB);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", image);
        wanted.state_path = "web/subject/0/state.dat".into();
        cm.list(vec![wanted.clone()]).await;
        let before = pids(&unit);
        cm.node_order(Order::SetState(SetState {
            request_id: "s1".into(),
            instance: wanted.instance.clone(),
            state_path: "web/subject/0/state.dat".into(),
            uid: 5_000,
            gid: 5_000,
            content: b"from the cloud".to_vec(),
        }))
        .await;
        cm.until("set", |seen| seen.sets.get("s1") == Some(&None))
            .await;
        // It was told to end and wrote its last word, which is not mixed with what came; then it read that.
        until("it read what came", || {
            pids(&unit).into_iter().any(|pid| {
                fs::read_to_string(format!("/proc/{pid}/root/tmp/read"))
                    .is_ok_and(|text| text == "from the cloud")
            })
        })
        .await;
        assert!(
            before.iter().all(|&pid| !alive(pid)),
            "it is another process"
        );
        assert_eq!(
            fs::read(unit.state("web/subject/0")).unwrap(),
            b"from the cloud"
        );
        cm.until_state("web", "1.0.0", "active").await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_disk_that_runs_out_below_the_storages_is_told_before_it_is_full() {
    let test = "a_disk_that_runs_out_below_the_storages_is_told_before_it_is_full";
    run(test, async |mut unit: Unit| {
        let disk = unit.path("disk");
        std::fs::create_dir_all(&disk).unwrap();
        nix::mount::mount(
            Some("none"),
            &disk,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=500m"),
        )
        .unwrap();
        unit.options.quota.image_dir = Some(disk.join("kept"));
        unit.options.quota.backend = aos_quota::Choice::Btrfs;
        unit.options.quota.watch_secs = 1;
        if !unit.enforces(test) {
            return;
        }
        let web = item::publish(&unit.images, unit.folder.path(), &["web"], |item| {
            item.quotas.storage_limit = Some(1 << 20);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut one = cm.instance("web", 0, "1.0.0", web);
        one.storage_path = "web/subject/0".into();
        cm.list(vec![one]).await;
        // Somebody else fills the disk; what the file has taken is little.
        let facts = rustix::fs::statvfs(&disk).unwrap();
        let free = facts.f_bavail * facts.f_frsize;
        std::fs::write(disk.join("big"), vec![1; (free - (20 << 20)) as usize]).unwrap();
        let told = |text: &'static str| move |alert: &String| alert.contains(text);
        cm.until("it is told", |seen| {
            seen.alerts.iter().any(told("MiB left, and the storages"))
        })
        .await;
        std::fs::remove_file(disk.join("big")).unwrap();
        cm.until("that it is over too", |seen| {
            seen.alerts.iter().any(told("has room again for storages"))
        })
        .await;
        cm.list(vec![]).await;
        sm.end().await;
        for mount in [disk.join("kept/mount"), disk] {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    });
}

#[test]
fn the_last_state_of_an_instance_that_leaves_is_told_before_its_end() {
    let test = "the_last_state_of_an_instance_that_leaves_is_told_before_its_end";
    run(test, async |unit: Unit| {
        let image = item::publish(&unit.images, unit.folder.path(), &["last"], |item| {
            item.quotas.state_limit = Some(100);
            item.quotas.tmp_limit = Some(MIB);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", image);
        wanted.state_path = "web/subject/0/state.dat".into();
        cm.list(vec![wanted.clone()]).await;
        let before = cm.seen.lock().unwrap().complete;
        cm.send_list(vec![]).await;
        // It was asked to end and wrote once more.
        let last = cm.until_told("a last word, longer than what comes").await;
        assert_eq!(
            cm.seen.lock().unwrap().complete,
            before,
            "its end is not told yet"
        );
        let asked = std::time::Instant::now();
        cm.node_order(Order::StateKept(StateKept {
            instance: wanted.instance.clone(),
            checksum: last.checksum,
        }))
        .await;
        cm.until("told", |seen| seen.complete > before).await;
        assert!(
            asked.elapsed() < Duration::from_secs(4),
            "not only when its time is over"
        );

        // A CM that never answers holds nothing up for long.
        cm.list(vec![wanted]).await;
        cm.list(vec![]).await;
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}
