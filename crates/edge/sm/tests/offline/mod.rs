//! What an item's `offlineTTL` does.

use std::time::Duration;

use crate::{
    pids,
    unit::{Unit, item, run, until},
};

#[test]
fn gap_55_what_was_stopped_offline_is_started_by_itself_when_the_link_is_back() {
    let test = "gap_55_what_was_stopped_offline_is_started_by_itself_when_the_link_is_back";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let short = item::publish(store, folder, &["short"], |item| {
            item.offline_ttl = Some(Duration::from_secs(1));
        });
        let loops = item::publish(store, folder, &["exit", "3"], |item| {
            item.offline_ttl = Some(Duration::from_secs(1));
        });
        let web = item::publish(store, folder, &["web"], |_| {});
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.tell_cloud(true).await;
        let images = [("short", short), ("loops", loops), ("web", web)];
        let list = images.map(|(name, image)| cm.instance(name, 0, "1.0.0", image));
        cm.list(list.to_vec()).await;
        cm.until_state("short", "1.0.0", "active").await;

        // The cloud goes; CM is there.
        cm.tell_cloud(false).await;
        for name in ["short", "loops"] {
            cm.until_state(name, "1.0.0", "inactive").await;
            let why = cm.error(name).unwrap();
            assert!(why.contains("offlineTTL"), "{why}");
        }
        assert_eq!(pids(&unit).len(), 1, "one without a limit runs on");
        // The same list does not start them.
        cm.list(list.to_vec()).await;
        assert_eq!(cm.state("short").0, "inactive");

        // The time counts over a restart: they are not started only to be stopped.
        sm.end().await;
        cm.down().await;
        let sm = unit.start_sm();
        until("the set is there", || pids(&unit).len() == 1).await;
        cm.up().await;
        cm.until_state("web", "1.0.0", "active").await;
        cm.until_state("short", "1.0.0", "inactive").await;
        assert_eq!(pids(&unit).len(), 1);

        // The link is back, and nobody sends a list.
        cm.tell_cloud(true).await;
        cm.until_state("short", "1.0.0", "active").await;
        cm.until("it tries again", |seen| {
            let one = seen.instances.get(&("loops".into(), 0));
            one.is_some_and(|one| one.state != "inactive")
        })
        .await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}
