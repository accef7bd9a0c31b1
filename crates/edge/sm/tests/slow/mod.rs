//! An instance that takes long to end keeps nobody waiting but its own successor.

use std::{
    fs,
    time::{Duration, Instant},
};

use aos_ipc::proto::aos::node::v1::{SetState, node_order::Order};
use aos_types::Digest;

use crate::{
    ask,
    bad::script,
    pids, published,
    unit::{Unit, alive, item, run, signal, until},
};

/// How long it takes to end. All that is looked at meanwhile must be over sooner.
const GRACE: Duration = Duration::from_secs(16);

/// One that hears that it shall end, and goes on until it is killed.
fn slow(unit: &Unit, name: &str) -> Digest {
    let text =
        format!("trap 'echo {name} hears > /storage/heard' TERM; while :; do sleep 0.05; done");
    script(unit, &text, |item| {
        item.stop_grace_period = Some(GRACE);
        item.quotas.state_limit = Some(100);
    })
}

fn traps(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.unwrap_or(0) & (1 << 14) != 0
}

#[test]
fn one_that_takes_long_to_end_holds_up_nobody_else() {
    let test = "one_that_takes_long_to_end_holds_up_nobody_else";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], |_| {});
        let (first, second) = (slow(&unit, "first"), slow(&unit, "second"));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let slow = |version: &str, image: Digest| {
            let mut one = cm.instance("slow", 0, version, image);
            one.storage_path = "slow/subject/0".into();
            one.state_path = "slow/subject/0/state.dat".into();
            one.uid = 6_000;
            one
        };
        let quick = |name: &str| cm.instance(name, 0, "1.0.0", web);
        cm.list(vec![slow("1.0.0", first)]).await;
        let old = pids(&unit)[0];
        until("it hears signals", || traps(old)).await;
        let lists = || cm.seen.lock().unwrap().complete;

        // Its next version, and another one that is started at once.
        let (before, began) = (lists(), Instant::now());
        cm.send_list(vec![slow("2.0.0", second), quick("web")])
            .await;
        cm.until_state("web", "1.0.0", "active").await;
        assert!(alive(old) && began.elapsed() < GRACE / 2);
        cm.until_error("slow", "has ended").await;
        assert_eq!(cm.state("slow"), ("activating".into(), "2.0.0".into()));
        assert_eq!(lists(), before, "the list is not carried out yet");

        // A neighbour that dies is started again meanwhile.
        let pid = pids(&unit).into_iter().find(|&pid| pid != old).unwrap();
        signal(pid, "-KILL");
        until("it runs again", || {
            pids(&unit)
                .iter()
                .any(|&new| new != pid && new != old && alive(new))
        })
        .await;
        // So are those of a newer list, which does not wait either.
        cm.send_list(vec![slow("2.0.0", second), quick("web"), quick("more")])
            .await;
        cm.until_state("more", "1.0.0", "active").await;
        assert!(
            alive(old) && began.elapsed() < GRACE,
            "{:?}",
            began.elapsed()
        );
        assert_eq!(lists(), before);

        // Killed at its time, not before; then its successor runs, and only then the list is carried out.
        until("it is killed", || !alive(old)).await;
        assert!(began.elapsed() >= GRACE, "{:?}", began.elapsed());
        cm.until("carried out", |seen| seen.complete > before).await;
        cm.until_state("slow", "2.0.0", "active").await;
        assert_eq!(pids(&unit).len(), 3);

        // A state that comes for it holds up nobody, and once more is not once more.
        let new = pids(&unit).into_iter().find(|&pid| traps(pid));
        let new = match new {
            Some(pid) => pid,
            None => {
                until("it hears signals", || {
                    pids(&unit).iter().any(|&pid| traps(pid))
                })
                .await;
                pids(&unit).into_iter().find(|&pid| traps(pid)).unwrap()
            }
        };
        let began = Instant::now();
        for id in ["s1", "s2"] {
            cm.node_order(Order::SetState(SetState {
                request_id: id.into(),
                instance: slow("2.0.0", second).instance,
                state_path: "slow/subject/0/state.dat".into(),
                uid: 6_000,
                gid: 5_000,
                content: b"from the cloud".to_vec(),
            }))
            .await;
        }
        let before = lists();
        cm.list(vec![slow("2.0.0", second), quick("web")]).await;
        assert!(lists() > before && alive(new) && began.elapsed() < GRACE / 2);
        cm.until_for(GRACE * 2, "set", |seen| {
            ["s1", "s2"]
                .iter()
                .all(|id| seen.sets.get(*id) == Some(&None))
        })
        .await;
        let took = began.elapsed();
        assert!(
            took >= GRACE && took + Duration::from_secs(1) < GRACE * 2,
            "stopped once: {took:?}"
        );
        let state = fs::read(unit.state("slow/subject/0")).unwrap();
        assert_eq!(state, b"from the cloud");
        until("it runs again", || pids(&unit).len() == 2).await;
        for pid in pids(&unit) {
            signal(pid, "-KILL");
        }
        sm.end().await;
    });
}

#[test]
fn one_whose_successor_gets_no_place_in_the_network_runs_on() {
    let test = "one_whose_successor_gets_no_place_in_the_network_runs_on";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let old = item::publish(store, folder, &["old"], published(8081));
        let new = item::publish(store, folder, &["new"], published(8082));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", old)]).await;
        until("it answers", || ask(8081).as_deref() == Some("old")).await;
        let before = pids(&unit);
        // CM gives an address that cannot be one.
        let address = |ip: &str| {
            let mut seen = cm.seen.lock().unwrap();
            seen.addresses.insert("web:0".into(), ip.into()).unwrap()
        };
        let right = address("10.200.0.1");
        cm.list(vec![cm.instance("web", 0, "2.0.0", new)]).await;
        cm.until_error("web", "runs on in its place").await;
        assert_eq!(pids(&unit), before, "it was never stopped");
        assert_eq!(ask(8081).as_deref(), Some("old"));
        assert_eq!(ask(8082), None);
        // It stays where it is when SM comes anew, and is replaced when that can be had.
        sm.end().await;
        let sm = unit.start_sm();
        cm.until_state("web", "1.0.0", "active").await;
        assert_eq!((pids(&unit), ask(8081).as_deref()), (before, Some("old")));
        address(&right);
        cm.list(vec![cm.instance("web", 0, "2.0.0", new)]).await;
        until("it answers", || ask(8082).as_deref() == Some("new")).await;
        assert_eq!(ask(8081), None);
        cm.list(vec![]).await;
        sm.end().await;
    });
}
