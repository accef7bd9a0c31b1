//! Starts and stops in the order that items ask for, and instances that are meant to end.

mod elsewhere;

use std::fs;

use aos_types::{Condition, Dependency, HealthCheck, ItemConfig, Probe, RestartPolicy};

use crate::{
    pids,
    unit::{Unit, alive, item, run, until},
};

fn needs(item: &mut ItemConfig, on: &str, condition: Condition) {
    let on = Dependency::on(on.parse().unwrap(), condition);
    item.dependencies.push(on);
}

fn ends(item: &mut ItemConfig) {
    item.run_parameters.restart_policy = RestartPolicy::OnFailure;
}

/// The boot clock's time at which a process began, in ticks.
pub fn began(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// The first process of an instance that runs as this user, once it does.
async fn pid_of(unit: &Unit, uid: u32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    let owner = |pid: &u32| {
        fs::metadata(format!("/proc/{pid}"))
            .ok()
            .map(|facts| facts.uid())
    };
    let find = || pids(unit).into_iter().find(|pid| owner(pid) == Some(uid));
    let mut found = None;
    until("it runs as its user", || {
        found = find();
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[test]
fn instances_start_when_what_they_depend_on_is_ready_and_jobs_run_once() {
    let test = "instances_start_when_what_they_depend_on_is_ready_and_jobs_run_once";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let db = item::publish(store, folder, &["http", "700"], |item| {
            item.health_check = Some(HealthCheck::of(Probe::Tcp { port: 80 }));
        });
        let job = item::publish(store, folder, &["exit", "0", "300"], |item| {
            ends(item);
            needs(item, "db", Condition::Started);
        });
        let web = item::publish(store, folder, &["web"], |item| {
            needs(item, "db", Condition::Healthy);
            needs(item, "job", Condition::Completed);
        });
        let last = item::publish(store, folder, &["the last one"], |item| {
            needs(item, "web", Condition::Started);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut list = Vec::new();
        for (index, (name, image)) in [("last", last), ("web", web), ("job", job), ("db", db)]
            .into_iter()
            .enumerate()
        {
            let mut one = cm.instance(name, 0, "1.0.0", image);
            one.uid = 6_000 + u32::try_from(index).unwrap();
            one.priority = 10 - u64::try_from(index).unwrap();
            list.push(one);
        }
        // The list is answered at once: nothing waits for conditions but the instances themselves.
        cm.list(list.clone()).await;
        assert_eq!(cm.state("web").0, "activating");
        let why = cm.error("last").unwrap();
        assert!(
            why.starts_with("waits for web to be started; web waits for"),
            "{why}"
        );
        cm.until_state("job", "1.0.0", "inactive").await;
        assert_eq!(cm.error("job"), None, "it has completed");
        for name in ["db", "web", "last"] {
            cm.until_state(name, "1.0.0", "active").await;
            assert_eq!(cm.error(name), None);
        }
        let (last_pid, web_pid) = (pid_of(&unit, 6_000).await, pid_of(&unit, 6_001).await);
        let db_pid = pid_of(&unit, 6_003).await;
        assert!(began(db_pid) + 70 <= began(web_pid), "healthy after 700 ms");
        assert!(began(web_pid) <= began(last_pid));
        let running = pids(&unit);
        assert_eq!(running.len(), 3);

        // The same list again runs nothing again, and neither does a new SM.
        cm.list(list.clone()).await;
        assert_eq!(cm.state("job").0, "inactive");
        sm.end().await;
        let before = unit.cm.seen.lock().unwrap().complete;
        let sm = unit.start_sm();
        cm.until("introduced again", |seen| seen.complete > before)
            .await;
        cm.until_state("job", "1.0.0", "inactive").await;
        let ends = |unit: &Unit| unit.cm.seen.lock().unwrap().exits.len();
        assert_eq!((pids(&unit), ends(&unit)), (running.clone(), 1));

        // Another version runs.
        let again = list.iter_mut().find(|one| one.uid == 6_002).unwrap();
        again.version = "2.0.0".into();
        cm.list(list.clone()).await;
        cm.until_state("job", "2.0.0", "inactive").await;
        cm.until("its end is told", |seen| seen.exits.len() == 2)
            .await;
        assert_eq!(pids(&unit), running);
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_job_that_ends_while_nobody_looks_has_completed() {
    let test = "a_job_that_ends_while_nobody_looks_has_completed";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let job = item::publish(store, folder, &["exit", "0", "700"], ends);
        let once = item::publish(store, folder, &["exit", "3", "700"], |item| {
            item.run_parameters.restart_policy = RestartPolicy::Never;
        });
        let web = item::publish(store, folder, &["web"], |item| {
            needs(item, "job", Condition::Completed);
        });
        let sad = item::publish(store, folder, &["web"], |item| {
            needs(item, "once", Condition::Completed);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let images = [("job", job), ("once", once), ("web", web), ("sad", sad)];
        cm.list(
            images
                .map(|(name, image)| cm.instance(name, 0, "1.0.0", image))
                .into(),
        )
        .await;
        let running = pids(&unit);
        assert_eq!(running.len(), 2);
        sm.kill().await;
        until("they have ended", || !running.iter().any(|&pid| alive(pid))).await;
        cm.until("left", |seen| seen.orders_gone()).await;
        let sm = unit.start_sm();
        cm.until_state("job", "1.0.0", "inactive").await;
        cm.until_state("once", "1.0.0", "failed").await;
        cm.until_state("web", "1.0.0", "active").await;
        cm.until_state("sad", "1.0.0", "failed").await;
        assert_eq!(
            cm.error("sad").unwrap(),
            "needs once to be completed, but that has failed: it ended by itself with exit code 3"
        );
        cm.until("their ends are told", |seen| seen.exits.len() == 2)
            .await;
        assert_eq!(pids(&unit).len(), 1, "nothing ran twice");
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn what_can_never_be_is_told_at_once_and_comes_back_by_itself() {
    let test = "what_can_never_be_is_told_at_once_and_comes_back_by_itself";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let on = |name: &'static str, condition| {
            move |item: &mut ItemConfig| needs(item, name, condition)
        };
        let a = item::publish(store, folder, &["web"], on("b", Condition::Started));
        let b = item::publish(store, folder, &["web"], on("a", Condition::After));
        let c = item::publish(store, folder, &["web"], on("d", Condition::Completed));
        let d = item::publish(store, folder, &["web"], on("nobody", Condition::Before));
        let fails = item::publish_as(store, folder, "/nope", &["x"], &[], |_| {});
        let works = item::publish(store, folder, &["web"], |_| {});
        let e = item::publish(store, folder, &["web"], on("f", Condition::Healthy));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let images = [
            ("a", a),
            ("b", b),
            ("c", c),
            ("d", d),
            ("e", e),
            ("f", fails),
        ];
        let mut list = images
            .map(|(name, image)| cm.instance(name, 0, "1.0.0", image))
            .to_vec();
        cm.list(list.clone()).await;
        for (name, state, text) in [
            ("a", "failed", "depends on itself: a → b → a"),
            ("b", "failed", "depends on itself: b → a → b"),
            (
                "c",
                "failed",
                "needs d to be completed, but that never completes",
            ),
            (
                "e",
                "failed",
                "needs f to be healthy, but that has failed: ",
            ),
        ] {
            cm.until_error(name, text).await;
            cm.until_state(name, "1.0.0", state).await;
        }
        cm.until_state("d", "1.0.0", "active").await;
        // What it needs is mended: it starts without being told again.
        let f = list.last_mut().unwrap();
        f.manifest_digest = works.to_string();
        f.version = "1.0.1".into();
        cm.list(list).await;
        cm.until_state("f", "1.0.1", "active").await;
        cm.until_state("e", "1.0.0", "active").await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn what_depends_on_others_is_stopped_before_them() {
    let test = "what_depends_on_others_is_stopped_before_them";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let db = item::publish(store, folder, &["web"], |_| {});
        let web = item::publish(store, folder, &["stubborn"], |item| {
            needs(item, "db", Condition::Started);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut list = vec![
            cm.instance("db", 0, "1.0.0", db),
            cm.instance("web", 0, "1.0.0", web),
        ];
        list[1].uid = 6_001;
        cm.list(list).await;
        cm.until_state("web", "1.0.0", "active").await;
        let web_pid = pid_of(&unit, 6_001).await;
        let db_pid = pid_of(&unit, 5_000).await;
        // The one ends only when it is killed after its grace period; so long the other has to be there.
        cm.send_list(vec![]).await;
        until("it is stopped", || {
            let other = alive(db_pid);
            let gone = !alive(web_pid);
            assert!(other || gone, "stopped before what depends on it");
            gone
        })
        .await;
        cm.until("done", |seen| seen.instances.is_empty()).await;
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}
