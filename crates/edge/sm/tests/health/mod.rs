//! What an instance is told to be while it starts, fails, recovers: by its process and by its probes.

use std::{fs, path::PathBuf, time::Duration};

use aos_ipc::proto::servicemanager::v5 as pb;
use aos_types::{Digest, HealthCheck, ItemConfig, Probe, Quotas};

use crate::{
    pids,
    unit::{Unit, alive, cm::FakeCm, item, run, until},
};

/// A probe that decides soon.
fn check(probe: Probe) -> HealthCheck {
    HealthCheck {
        start_period: Duration::from_secs(4),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(400),
        retries: 2,
        ..HealthCheck::of(probe)
    }
}

fn checked(check: HealthCheck) -> impl FnOnce(&mut ItemConfig) {
    move |item| {
        item.health_check = Some(check);
        item.quotas = Quotas {
            storage_limit: Some(1 << 20),
            ..Quotas::default()
        };
    }
}

/// An instance whose storage the test can write to: it obeys files there.
fn stored(cm: &FakeCm, image: Digest) -> pb::InstanceInfo {
    let mut instance = cm.instance("web", 0, "1.0.0", image);
    instance.storage_path = "web/subject/0".into();
    instance
}

fn file(unit: &Unit, name: &str) -> PathBuf {
    unit.storage("web/subject/0").join(name)
}

async fn until_error(cm: &FakeCm, text: &str) {
    cm.until(text, |seen| {
        let status = seen.instances.get(&("web".into(), 0));
        let error = status.and_then(|status| status.error.as_ref());
        error.is_some_and(|error| error.message.contains(text))
    })
    .await;
}

#[test]
fn an_http_probe_decides_when_it_is_active_and_when_it_is_started_again() {
    let test = "an_http_probe_decides_when_it_is_active_and_when_it_is_started_again";
    run(test, async |unit: Unit| {
        let probe = Probe::Http {
            port: 80,
            path: "/up".into(),
        };
        // It listens late, and its start period gives it the time.
        let image = item::publish(
            &unit.images,
            unit.folder.path(),
            &["http", "1500"],
            checked(check(probe)),
        );
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![stored(cm, image)]).await;
        assert_eq!(cm.state("web").0, "activating");
        until_error(cm, "health check http :80/up: port 80: Connection refused").await;
        cm.until_state("web", "1.0.0", "active").await;
        let first = pids(&unit);
        {
            let seen = cm.seen.lock().unwrap();
            assert_eq!(seen.history["web"], ["activating", "active"]);
            assert_eq!(
                seen.instances[&("web".into(), 0)]
                    .error
                    .clone()
                    .unwrap_or_default()
                    .message,
                ""
            );
        }
        // It goes bad: started again, and not active before it is good.
        fs::write(file(&unit, "bad"), "").unwrap();
        until_error(cm, "HTTP status 503 (2 times in a row)").await;
        until("ended", || !alive(first[0])).await;
        until("again", || pids(&unit).len() == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cm.state("web").0, "activating");
        fs::remove_file(file(&unit, "bad")).unwrap();
        cm.until_state("web", "1.0.0", "active").await;
        assert_eq!(cm.seen.lock().unwrap().runs["web"].restarts, 1);
        // It hangs.
        fs::write(file(&unit, "hang"), "").unwrap();
        until_error(cm, "no answer within 400ms (2 times in a row)").await;
        fs::remove_file(file(&unit, "hang")).unwrap();
        cm.until_state("web", "1.0.0", "active").await;
        assert!(!cm.seen.lock().unwrap().runs["web"].unrecoverable);
        cm.list(vec![]).await;
        assert_eq!(pids(&unit), Vec::<u32>::new());
        sm.end().await;
    });
}

#[test]
fn one_that_is_never_healthy_fails_for_good_and_may_still_come_up() {
    let test = "one_that_is_never_healthy_fails_for_good_and_may_still_come_up";
    run(test, async |unit: Unit| {
        let probe = Probe::Exec(vec!["/program".into(), "check".into()]);
        let never = HealthCheck {
            start_period: Duration::ZERO,
            retries: 1,
            ..check(probe)
        };
        let image = item::publish(&unit.images, unit.folder.path(), &["web"], |item| {
            checked(never)(item);
            item.run_parameters.start_burst = 2;
        });
        fs::create_dir_all(file(&unit, "")).unwrap();
        fs::write(file(&unit, "bad"), "").unwrap();
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![stored(cm, image)]).await;
        cm.until_state("web", "1.0.0", "failed").await;
        until_error(cm, "health check exec /program: exit code 3").await;
        cm.until("given up", |seen| {
            seen.runs.get("web").is_some_and(|run| run.unrecoverable)
        })
        .await;
        {
            let seen = cm.seen.lock().unwrap();
            assert_eq!(
                seen.history["web"],
                ["activating", "failed"],
                "never active"
            );
            assert_eq!(seen.runs["web"].restarts, 2);
        }
        // What it waited for has come.
        fs::remove_file(file(&unit, "bad")).unwrap();
        cm.until_state("web", "1.0.0", "active").await;
        cm.until("hope", |seen| {
            seen.runs.get("web").is_some_and(|run| !run.unrecoverable)
        })
        .await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_crash_loop_is_activating_and_then_failed() {
    run(
        "a_crash_loop_is_activating_and_then_failed",
        async |unit: Unit| {
            let image = item::publish(&unit.images, unit.folder.path(), &["exit", "7"], |_| {});
            let sm = unit.start_sm();
            let cm = &unit.cm;
            cm.until("introduced", |seen| seen.complete > 0).await;
            cm.list(vec![cm.instance("web", 0, "1.0.0", image)]).await;
            until_error(cm, "it ended by itself with exit code 7").await;
            // Three starts, as runParameters say by default; each is active for a moment.
            cm.until_state("web", "1.0.0", "failed").await;
            cm.until("given up", |seen| {
                seen.runs.get("web").is_some_and(|run| run.unrecoverable)
            })
            .await;
            {
                let seen = cm.seen.lock().unwrap();
                let run = &seen.runs["web"];
                assert_eq!(run.restarts, 3);
                assert_eq!(run.last_exit.as_ref().unwrap().exit_code, Some(7));
                let states = &seen.history["web"];
                assert_eq!(
                    states.iter().filter(|state| *state == "failed").count(),
                    1,
                    "{states:?}"
                );
                assert!(
                    states.iter().filter(|state| *state == "activating").count() >= 2,
                    "{states:?}"
                );
            }
            cm.list(vec![]).await;
            sm.end().await;
        },
    );
}

#[test]
fn a_missing_program_fails_at_once() {
    run("a_missing_program_fails_at_once", async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let image = item::publish_as(store, folder, "/nope", &[], &[], |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", image)]).await;
        assert_eq!(cm.state("web").0, "failed");
        until_error(cm, "/nope").await;
        cm.until("given up", |seen| {
            seen.runs.get("web").is_some_and(|run| run.unrecoverable)
        })
        .await;
        let states = cm.seen.lock().unwrap().history["web"].clone();
        assert!(!states.contains(&"active".into()), "{states:?}");
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn adopted_instances_are_looked_after() {
    run("adopted_instances_are_looked_after", async |unit: Unit| {
        let image = item::publish(
            &unit.images,
            unit.folder.path(),
            &["http", "0"],
            checked(check(Probe::Http {
                port: 80,
                path: "/".into(),
            })),
        );
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![stored(cm, image)]).await;
        cm.until_state("web", "1.0.0", "active").await;
        let before = pids(&unit);
        sm.kill().await;
        cm.until("left", |seen| seen.orders_gone()).await;
        cm.seen.lock().unwrap().history.clear();
        let sm = unit.start_sm();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        // It was healthy, and an SM that restarts does not change that.
        assert_eq!(cm.seen.lock().unwrap().history["web"], ["active"]);
        assert_eq!(pids(&unit), before);
        fs::write(file(&unit, "bad"), "").unwrap();
        until_error(cm, "HTTP status 503 (2 times in a row)").await;
        fs::remove_file(file(&unit, "bad")).unwrap();
        cm.until_state("web", "1.0.0", "active").await;
        assert_ne!(pids(&unit), before);
        cm.list(vec![]).await;
        sm.end().await;
    });
}
