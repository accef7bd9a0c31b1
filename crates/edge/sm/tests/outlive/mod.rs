//! Instances outlive SM, and a Node that boots runs its set by itself.

use std::time::{Duration, Instant};

use aos_types::{Condition, Dependency, HealthCheck, Probe};

use crate::{
    ask, pids, published,
    unit::{Unit, alive, item, reboot, run, signal, until},
};

#[test]
fn fifty_instances_outlive_a_killed_sm_and_their_ends_are_told() {
    let test = "fifty_instances_outlive_a_killed_sm_and_their_ends_are_told";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], |item| {
            item.run_parameters.restart_interval = Duration::from_secs(100);
        });
        let sm = unit.start_sm_process();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let list = |count| {
            (0..count)
                .map(|index| cm.instance("web", index, "1.0.0", web))
                .collect()
        };
        cm.list(list(50)).await;
        let running = pids(&unit);
        assert_eq!(running.len(), 50);

        sm.kill();
        cm.until("left", |seen| seen.orders_gone()).await;
        assert!(running.iter().all(|&pid| alive(pid)), "they outlive SM");
        // Three end meanwhile, each in its way.
        signal(running[0], "-USR1");
        signal(running[1], "-TERM");
        signal(running[2], "-KILL");
        until("three are dead", || {
            !running[..3].iter().any(|&pid| alive(pid))
        })
        .await;

        let began = Instant::now();
        let sm = unit.start_sm_process();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        cm.until("the others are active", |seen| {
            seen.instances.len() == 50
                && seen
                    .instances
                    .values()
                    .filter(|one| one.state == "active")
                    .count()
                    >= 47
        })
        .await;
        eprintln!("50 instances adopted and told in {:?}", began.elapsed());
        assert!(
            running[3..].iter().all(|&pid| alive(pid)),
            "the same processes"
        );
        cm.until("ends while SM was away", |seen| seen.exits.len() >= 3)
            .await;
        // And one more, now that SM is here.
        signal(running[3], "-USR1");
        cm.until("a later end", |seen| seen.exits.len() >= 4).await;
        let mut ends: Vec<_> = cm
            .seen
            .lock()
            .unwrap()
            .exits
            .iter()
            .map(|exit| (exit.exit_code, exit.signal))
            .collect();
        ends.sort_unstable();
        assert_eq!(
            ends,
            [
                (None, Some(9)),
                (Some(0), None),
                (Some(7), None),
                (Some(7), None)
            ]
        );
        let now = pids(&unit);
        assert!(running[4..].iter().all(|pid| now.contains(pid)));
        cm.list(vec![]).await;
        assert_eq!(pids(&unit), Vec::<u32>::new());
        drop(sm);
    });
}

#[test]
fn what_was_stored_and_not_exchanged_is_exchanged_by_the_next_sm() {
    let test = "what_was_stored_and_not_exchanged_is_exchanged_by_the_next_sm";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let old = item::publish(store, folder, &["old"], published(8080));
        let new = item::publish(store, folder, &["new"], published(8081));
        let sm = unit.start_sm_process();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        // Both images are on the Node.
        let web = |version, image| cm.instance("web", 0, version, image);
        cm.list(vec![web("2.0.0", new)]).await;
        cm.list(vec![web("1.0.0", old)]).await;
        let ran = pids(&unit);
        sm.kill();
        cm.until("left", |seen| seen.orders_gone()).await;

        // As if SM had been killed in the moment after it stored the next list.
        let path = unit.options.state_dir.join("sm.db");
        let kept = aos_store::Store::open(path, &[aos_store::Records::<()>::SCHEMA]).unwrap();
        let instances: aos_store::Records<aos_launch::Instance> =
            aos_store::Records::new(kept.clone(), "instance");
        let (key, mut instance) = instances.all().await.unwrap().remove(0);
        instance.version = "2.0.0".into();
        instance.manifest = new;
        let replacing: aos_store::Records<aos_launch::Instance> =
            aos_store::Records::new(kept, "replacing");
        replacing.put(key.clone(), &instance).await.unwrap();
        instances.put(key, &instance).await.unwrap();
        drop((instances, replacing));

        let sm = unit.start_sm_process();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        cm.until_state("web", "2.0.0", "active").await;
        assert!(!ran.iter().any(|&pid| alive(pid)), "the old one is gone");
        // Active is before it listens.
        until("the new one answers", || {
            ask(8081).as_deref() == Some("new")
        })
        .await;
        cm.list(vec![]).await;
        drop(sm);
    });
}

#[test]
fn a_node_that_boots_alone_runs_its_set_in_order_within_two_seconds() {
    let test = "a_node_that_boots_alone_runs_its_set_in_order_within_two_seconds";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let db = item::publish(store, folder, &["http", "200"], |item| {
            item.health_check = Some(HealthCheck::of(Probe::Tcp { port: 80 }));
        });
        let web = item::publish(store, folder, &["web"], |item| {
            let db = Dependency::on("db".parse().unwrap(), Condition::Healthy);
            item.dependencies = vec![db];
            published(8080)(item);
        });
        let other = item::publish(store, folder, &["other"], published(8081));
        let mut unit = unit;
        unit.options.parallel = 1;
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut list = vec![
            cm.instance("other", 0, "1.0.0", other),
            cm.instance("web", 0, "1.0.0", web),
            cm.instance("db", 0, "1.0.0", db),
        ];
        // The most important waits for the least important, which so comes first.
        for (one, priority) in list.iter_mut().zip([5, 9, 0]) {
            one.priority = priority;
            one.uid = 7_000 + u32::try_from(priority).unwrap();
        }
        cm.list(list).await;
        cm.until_state("web", "1.0.0", "active").await;
        sm.end().await;
        cm.down().await;
        reboot(&unit, pids(&unit)).await;

        let began = Instant::now();
        let sm = unit.start_sm();
        until("all run by themselves", || {
            ask(8080).as_deref() == Some("web") && ask(8081).as_deref() == Some("other")
        })
        .await;
        let took = began.elapsed();
        eprintln!("three instances in order, without CM, {took:?} after the start");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let order: Vec<u32> = {
            use std::os::unix::fs::MetadataExt;
            let mut all: Vec<(u64, u32)> = pids(&unit)
                .into_iter()
                .map(|pid| {
                    let uid = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
                    (crate::order::began(pid), uid)
                })
                .collect();
            all.sort_unstable();
            all.into_iter().map(|(_, uid)| uid).collect()
        };
        assert_eq!(order, [7_000, 7_005, 7_009]);
        cm.up().await;
        cm.until_state("web", "1.0.0", "active").await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}
