//! Files of installed images that change, and instances that run from them meanwhile.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::PathBuf,
};

use crate::{
    pids,
    unit::{Unit, alive, item, run, signal, until},
};

/// The folders of unpacked layers whose names begin so.
fn layers(unit: &Unit, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(unit.path("sm/images/layers/sha256")).unwrap();
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            match prefix {
                "" => !name.starts_with('.'),
                prefix => name.starts_with(prefix),
            }
        })
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn gap_57_a_layer_is_not_taken_from_under_what_runs_from_it() {
    let test = "gap_57_a_layer_is_not_taken_from_under_what_runs_from_it";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let ballast = vec![7; 100_000];
        let one = item::publish_with(store, folder, &["one"], &ballast, |_| {});
        let two = item::publish_with(store, folder, &["two"], &ballast, |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let one = cm.instance("one", 0, "1.0.0", one);
        let mut two = cm.instance("two", 0, "1.0.0", two);
        two.uid = 6_000;
        cm.list(vec![one.clone()]).await;
        let first = pids(&unit)[0];
        let place = layers(&unit, "");
        assert_eq!(place.len(), 1, "both images have the same layer");
        sm.end().await;

        // Somebody has changed the mode of a file. The next image with that layer brings it anew.
        let file = place[0].join("layer/ballast");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        let sm = unit.start_sm();
        cm.until("introduced again", |seen| seen.complete > 0).await;
        cm.list(vec![one.clone(), two.clone()]).await;
        cm.until_state("two", "1.0.0", "active").await;
        assert!(alive(first), "it runs on");
        let root = PathBuf::from(format!("/proc/{first}/root"));
        assert_eq!(fs::read(root.join("ballast")).unwrap(), ballast);
        assert_eq!(
            fs::read(root.join("program")).unwrap(),
            fs::read(item::program(folder)).unwrap(),
            "its files are still there"
        );
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_ne!(mode & 0o777, 0o604, "the new one has a whole layer");
        assert_eq!(layers(&unit, ".aside-").len(), 1);
        cm.until("somebody is told", |seen| {
            let told = |alert: &String| alert.contains("have changed on this Node");
            seen.alerts.iter().any(told)
        })
        .await;

        // Also a new SM leaves it where it is, and nobody keeps it for longer than it is of use.
        sm.end().await;
        let sm = unit.start_sm();
        cm.until("introduced once more", |seen| seen.complete > 0)
            .await;
        cm.list(vec![one.clone(), two.clone()]).await;
        assert_eq!(fs::read(root.join("ballast")).unwrap(), ballast);
        cm.list(vec![two]).await;
        until("what is of no use goes", || {
            layers(&unit, ".aside-").is_empty()
        })
        .await;
        assert_eq!(pids(&unit).len(), 1);
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn content_that_changes_silently_is_found_told_and_fetched_again() {
    let test = "content_that_changes_silently_is_found_told_and_fetched_again";
    run(test, async |mut unit: Unit| {
        unit.options.check_images_secs = 1;
        let (store, folder) = (&unit.images, unit.folder.path());
        let ballast = vec![7; 100_000];
        let web = item::publish_with(store, folder, &["web"], &ballast, |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
        let first = pids(&unit)[0];

        // One bit of the disk; neither size nor time tell of it.
        let file = layers(&unit, "")[0].join("layer/ballast");
        let facts = fs::metadata(&file).unwrap();
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.write_all_at(&[6], 50_000).unwrap();
        open.set_modified(facts.modified().unwrap()).unwrap();
        drop(open);
        let told = |alert: &&String| alert.contains("files of its image");
        cm.until("it is told", |seen| {
            seen.alerts.iter().any(|alert| told(&alert))
        })
        .await;
        assert!(alive(first), "it runs on");
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        let times = cm.seen.lock().unwrap().alerts.iter().filter(told).count();
        assert_eq!(times, 1, "once");

        // Its next start is from whole files.
        signal(first, "-KILL");
        until("it is started again", || {
            pids(&unit).first().is_some_and(|&pid| pid != first)
        })
        .await;
        assert_eq!(fs::read(&file).unwrap(), ballast);
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn what_a_node_cannot_run_at_all_is_told_as_failed_with_the_reason() {
    let test = "what_a_node_cannot_run_at_all_is_told_as_failed_with_the_reason";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let image = item::publish(store, folder, &["web"], |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let web = cm.instance("web", 0, "1.0.0", image);
        let mut other = cm.instance("other", 0, "1.0.0", image);
        other.runtime_id = "no-such-runtime".into();
        other.uid = 6_000;
        cm.list(vec![web.clone(), other.clone()]).await;
        assert_eq!(cm.state("web").0, "active", "others are not held up");
        assert_eq!(cm.state("other"), ("failed".into(), "1.0.0".into()));
        let why = cm.error("other").unwrap();
        assert!(
            why.contains("no such runtime") && why.contains("no-such-runtime"),
            "{why}"
        );
        cm.until("nobody waits for it", |seen| {
            seen.runs.get("other").is_some_and(|run| run.unrecoverable)
        })
        .await;

        // What runs is not stopped for what cannot.
        let first = pids(&unit);
        let mut next = web.clone();
        next.version = "2.0.0".into();
        next.runtime_id = "no-such-runtime".into();
        cm.list(vec![next]).await;
        assert_eq!(cm.state("web"), ("failed".into(), "2.0.0".into()));
        assert!(cm.error("web").unwrap().contains("version 1.0.0 runs on"));
        assert_eq!(pids(&unit), first);
        assert_eq!(
            cm.state("other"),
            Default::default(),
            "it is not wanted any more"
        );
        cm.list(vec![web]).await;
        assert_eq!(cm.state("web"), ("active".into(), "1.0.0".into()));
        assert_eq!(pids(&unit), first);
        cm.list(vec![]).await;
        sm.end().await;
    });
}
