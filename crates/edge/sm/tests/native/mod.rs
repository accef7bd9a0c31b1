//! The runtime `native`: a service that shares processes and network with the Node.

use std::{fs, time::Duration};

use aos_types::ItemConfig;

use crate::{
    ask, pids, published,
    unit::{Unit, alive, item, run, signal, until},
};

fn native(unit: &Unit) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_dir(unit.path("run/native/instances"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("pid")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .filter(|&pid| alive(pid))
        .collect();
    found.sort_unstable();
    found
}

fn namespace(pid: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

#[test]
fn a_native_service_has_its_own_root_and_user_and_the_nodes_network() {
    let test = "a_native_service_has_its_own_root_and_user_and_the_nodes_network";
    run(test, async |mut unit: Unit| {
        unit.options.native.enabled = true;
        let (store, folder) = (&unit.images, unit.folder.path());
        let one = item::publish(store, folder, &["native"], |item: &mut ItemConfig| {
            item.run_parameters.restart_interval = Duration::from_millis(50);
            item.quotas.ram_limit = Some(64 << 20);
        });
        let web = item::publish(store, folder, &["web"], published(8080));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let runtimes = cm.seen.lock().unwrap().info.clone().unwrap().runtimes;
        let types: Vec<&str> = runtimes.iter().map(|one| &*one.r#type).collect();
        assert_eq!(types, ["crun", "native"]);
        let mut wanted = cm.instance("own", 0, "1.0.0", one);
        wanted.runtime_id = runtimes[1].runtime_id.clone();
        let list = vec![wanted, cm.instance("web", 0, "1.0.0", web)];
        cm.list(list.clone()).await;
        cm.until_state("own", "1.0.0", "active").await;
        cm.until_state("web", "1.0.0", "active").await;
        // In the Node's network, under its own user, in a root and a cgroup of its own.
        until("it answers", || ask(80).as_deref() == Some("native")).await;
        until("the container too", || ask(8080).as_deref() == Some("web")).await;
        let running = native(&unit);
        let [pid] = running[..] else {
            panic!("{running:?}")
        };
        let text = pid.to_string();
        let own = format!("self/task/{}", nix::unistd::gettid());
        for kind in ["net", "pid", "ipc", "uts"] {
            assert_eq!(namespace(&text, kind), namespace(&own, kind), "{kind}");
        }
        assert_ne!(namespace(&text, "mnt"), namespace(&own, "mnt"));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Uid:\t5000\t5000"), "{status}");
        assert!(fs::metadata(format!("/proc/{pid}/root/program")).is_ok());
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = format!("{}-native/", unit.options.cgroup_parent);
        assert!(cgroup.contains(&group), "{cgroup}");
        // No address was asked for it.
        let addresses = cm.seen.lock().unwrap().addresses.clone();
        assert_eq!(addresses.keys().collect::<Vec<_>>(), ["web:0"]);

        // It outlives SM, and its end is known with its code.
        sm.kill().await;
        cm.until("left", |seen| seen.orders_gone()).await;
        let sm = unit.start_sm();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        cm.until_state("own", "1.0.0", "active").await;
        assert_eq!(native(&unit), [pid]);
        signal(pid, "-USR1");
        cm.until("its end is told", |seen| {
            seen.exits.iter().any(|exit| exit.exit_code == Some(7))
        })
        .await;
        until("it runs again", || {
            let now = native(&unit);
            now.len() == 1 && now != [pid]
        })
        .await;
        cm.list(vec![]).await;
        assert_eq!((native(&unit), pids(&unit)), (vec![], vec![]));
        assert_eq!(ask(80), None);

        // What it cannot have it is told, instead of going without.
        let mut asks = cm.instance("asks", 0, "1.0.0", web);
        asks.runtime_id = runtimes[1].runtime_id.clone();
        cm.list(vec![asks]).await;
        cm.until("refused", |seen| {
            let told = seen.instances.get(&("asks".into(), 0));
            let error = told.and_then(|told| told.error.as_ref());
            error.is_some_and(|error| error.message.contains("its own with `publishedPorts`"))
        })
        .await;
        cm.until_state("asks", "1.0.0", "failed").await;

        // Switched off it is not offered, and what it ran ends.
        cm.list(list).await;
        cm.until_state("own", "1.0.0", "active").await;
        sm.end().await;
        let left = native(&unit);
        assert_eq!(left.len(), 1);
        unit.options.native.enabled = false;
        let sm = unit.start_sm();
        until("it has ended", || !alive(left[0])).await;
        let cm = &unit.cm;
        cm.until("introduced once more", |seen| seen.complete > 0)
            .await;
        assert_eq!(
            cm.seen
                .lock()
                .unwrap()
                .info
                .as_ref()
                .unwrap()
                .runtimes
                .len(),
            1
        );
        cm.list(vec![]).await;
        sm.end().await;
    });
}
