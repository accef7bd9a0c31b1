//! What waits for items on other Nodes.

use std::time::{Duration, Instant};

use aos_ipc::proto::aos::node::v1 as node_pb;
use aos_types::Condition;

use super::{needs, pid_of};
use crate::{
    pids,
    unit::{Unit, alive, cm::FakeCm, item, run, signal, until},
};

/// CM tells that the only instance of the item is so far, on another Node.
async fn tells(cm: &FakeCm, item: &str, progress: Option<node_pb::Progress>) {
    let peers = progress.map(|progress| node_pb::Peer {
        node_id: "n2".into(),
        version: "1.0.0".into(),
        ends: false,
        progress: progress.into(),
        reason: "its disk is full".into(),
    });
    cm.tell_elsewhere(vec![node_pb::ItemElsewhere {
        item_id: item.into(),
        peers: peers.into_iter().collect(),
    }])
    .await;
}

#[test]
fn what_waits_for_items_on_other_nodes_starts_when_cm_tells_that_they_are_ready() {
    let test = "what_waits_for_items_on_other_nodes_starts_when_cm_tells_that_they_are_ready";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], |item| {
            needs(item, "db", Condition::Healthy);
        });
        let orphan = item::publish(store, folder, &["orphan"], |item| {
            needs(item, "no-such-item", Condition::Started);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut list = vec![
            cm.instance("web", 0, "1.0.0", web),
            cm.instance("orphan", 0, "1.0.0", orphan),
        ];
        list[0].uid = 6_000;
        list[1].uid = 6_001;
        let begun = Instant::now();
        cm.list(list.clone()).await;
        cm.until("it says what it waits for", |seen| {
            seen.needs == ["db", "no-such-item"]
        })
        .await;
        // Wanted nowhere: known at once, and told with the reason.
        tells(cm, "no-such-item", None).await;
        cm.until_state("orphan", "1.0.0", "failed").await;
        let why = cm.error("orphan").unwrap();
        assert!(
            why.contains("no instance of it is wanted on this Unit"),
            "{why}"
        );

        for (progress, why) in [
            (
                node_pb::Progress::Started,
                "on Node n2 to be healthy, which is not healthy yet",
            ),
            (
                node_pb::Progress::Unspecified,
                "on Node n2 to be healthy, which cannot be asked",
            ),
        ] {
            tells(cm, "db", Some(progress)).await;
            cm.until_error("web", why).await;
            assert_eq!(cm.state("web").0, "activating");
        }
        tells(cm, "db", Some(node_pb::Progress::Failed)).await;
        cm.until_state("web", "1.0.0", "failed").await;
        assert!(cm.error("web").unwrap().contains("its disk is full"));
        // Longer than it waits when nobody tells anything.
        tokio::time::sleep_until((begun + Duration::from_secs(11)).into()).await;
        assert_eq!(pids(&unit), Vec::<u32>::new(), "what was told holds");
        tells(cm, "db", Some(node_pb::Progress::Healthy)).await;
        cm.until_state("web", "1.0.0", "active").await;
        let pid = pid_of(&unit, 6_000).await;
        cm.until("it waits for less", |seen| seen.needs == ["no-such-item"])
            .await;

        // A condition holds back the first start only: it is started again whatever the other does by then.
        tells(cm, "db", Some(node_pb::Progress::Failed)).await;
        signal(pid, "-KILL");
        until("it is started again", || {
            !alive(pid) && pids(&unit).len() == 1
        })
        .await;
        cm.until_state("web", "1.0.0", "active").await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_node_that_is_cut_off_does_not_wait_for_others_for_ever() {
    let test = "a_node_that_is_cut_off_does_not_wait_for_others_for_ever";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let web = item::publish(store, folder, &["web"], |item| {
            needs(item, "db", Condition::Healthy);
        });
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", web)]).await;
        tells(cm, "db", Some(node_pb::Progress::Starting)).await;
        cm.until_error("web", "Node n2").await;
        // What was told may be wrong by now.
        cm.down().await;
        let begun = Instant::now();
        until("it runs", || pids(&unit).len() == 1).await;
        assert!(
            begun.elapsed() >= Duration::from_secs(9),
            "it is patient for a while"
        );
        sm.end().await;
    });
}
