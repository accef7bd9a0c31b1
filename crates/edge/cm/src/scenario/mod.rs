//! CM as a whole: the real database, session, engine, scheduler and status, against a cloud over real TLS and WebSocket and
//! fakes of the Nodes, the images and IAM.

mod bad_input;
mod cloud;
mod elsewhere;
mod fakes;
mod follow;
mod gaps;
mod gaps_placing;
mod gates;
mod handing_over;
mod idle;
mod logs;
mod monitoring;
mod placing;
mod secrets;
mod stage;
mod states;

use std::time::Duration;

use aos_cloud_protocol::{Body, DesiredStatus};
use aos_types::{InstanceState, ItemState, NodeState};

use fakes::FakeNodes;
use stage::{Stage, desired, item_state, states};

const SOON: Duration = Duration::from_secs(20);

/// Waits for something that nothing tells of.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap();
}

#[tokio::test]
async fn a_desired_state_is_downloaded_launched_committed_and_reported() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    let first = stage.cloud.status(|_| true).await;
    assert!(!first.is_delta, "a connection begins with a full status");
    assert_eq!(first.nodes.unwrap().len(), 2);

    stage.cloud.desire(desired(&[("web", "1", 3)])).await;
    let done = stage
        .cloud
        .whole(|status| {
            !status.is_delta
                && states(status, "web") == [InstanceState::Active; 3]
                && item_state(status, "web", "1") == Some(ItemState::Installed)
        })
        .await;
    let groups = done.instances.unwrap();
    let nodes: std::collections::BTreeSet<_> = groups[0]
        .instances
        .iter()
        .map(|one| one.node.clone().unwrap())
        .collect();
    assert_eq!(nodes.len(), 2, "replicas spread");
    assert_eq!(stage.images.committed(), ["web 1"]);
    let calls = stage.nodes.calls();
    let installs = calls.iter().position(|call| call.starts_with("update"));
    assert!(
        calls[..installs.unwrap()]
            .iter()
            .filter(|call| call.starts_with("install"))
            .count()
            == 2,
        "everything is installed before any list is sent: {calls:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn the_same_again_gives_a_full_status_and_touches_nothing() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let calls = stage.nodes.calls().len();
    stage.cloud.desire(desired(&[("web", "1", 1)])).await;
    let status = stage.cloud.status(|status| !status.is_delta).await;
    assert_eq!(states(&status, "web"), [InstanceState::Active]);
    assert_eq!(stage.nodes.calls().len(), calls);
    stage.stop().await;
}

#[tokio::test]
async fn an_instance_that_fails_brings_the_old_version_back_and_says_why() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.break_version("2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    let status = stage
        .cloud
        .whole(|status| {
            item_state(status, "web", "2") == Some(ItemState::Failed)
                && states(status, "web").contains(&InstanceState::Active)
        })
        .await;
    let failed = status
        .items
        .unwrap()
        .into_iter()
        .find(|item| item.version == "2")
        .unwrap();
    let why = failed.error.unwrap().message;
    assert!(
        why.starts_with("instance 0: version 2 is broken (attempt 1, tried again at "),
        "{why}"
    );
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    assert_eq!(stage.images.committed(), ["web 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_version_that_ends_over_and_over_is_never_committed_and_the_old_one_comes_back() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.settle_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.loop_version("2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    // Whoever looks sees it as it is, up and down; settling holds no status up.
    stage
        .cloud
        .whole(|status| states(status, "web") == [InstanceState::Activating])
        .await;
    let status = stage
        .cloud
        .whole(|status| {
            item_state(status, "web", "2") == Some(ItemState::Failed)
                && states(status, "web").contains(&InstanceState::Active)
        })
        .await;
    let failed = status
        .items
        .unwrap()
        .into_iter()
        .find(|item| item.version == "2")
        .unwrap();
    let why = failed.error.unwrap().message;
    assert!(
        why.starts_with("instance 0: it ended by itself with exit code 7"),
        "{why}"
    );
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    assert_eq!(stage.images.committed(), ["web 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_newer_state_does_not_wait_for_a_node_that_hangs_in_a_launch() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.nodes.stick_at_version("2");
    stage.cloud.desire(desired(&[("web", "2", 2)])).await;
    let both = |nodes: &FakeNodes| {
        let calls = nodes.calls();
        let updates = calls.iter().filter(|call| call.starts_with("update"));
        updates.count() >= 4
    };
    stage.nodes.until(both).await;
    // Far sooner than the Nodes may take for a list (10 min).
    stage.settle(desired(&[("web", "3", 2)])).await;
    assert_eq!(stage.nodes.all_running(), ["web:s:0 3", "web:s:1 3"]);
    assert_eq!(stage.images.committed(), ["web 3"]);
    stage.stop().await;
}

#[tokio::test]
async fn back_to_what_is_committed_does_not_wait_for_a_node_that_hangs_either() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.nodes.stick_at_version("2");
    stage.cloud.desire(desired(&[("web", "2", 2)])).await;
    let begun = |nodes: &FakeNodes| {
        let calls = nodes.calls();
        let updates = calls.iter().filter(|call| call.starts_with("update"));
        updates.count() >= 4
    };
    stage.nodes.until(begun).await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    // Whatever the Nodes had begun, they were given their old lists again.
    let updates = |nodes: &FakeNodes| {
        let calls = nodes.calls();
        let updates = calls.iter().filter(|call| call.starts_with("update"));
        updates.count() >= 6
    };
    stage.nodes.until(updates).await;
    assert_eq!(stage.images.committed(), ["web 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_failed_download_stops_nothing() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let calls = stage.nodes.calls().len();
    stage.images.refuse("web", "2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Failed))
        .await;
    assert_eq!(stage.nodes.calls().len(), calls);
    stage.stop().await;
}

#[tokio::test]
async fn killed_at_any_moment_it_goes_on_where_it_was() {
    for millis in [0, 5, 15, 30, 60, 120, 250, 400] {
        let mut stage = Stage::new(&["main", "second"]).await;
        stage.start().await;
        stage.settle(desired(&[("web", "1", 2)])).await;
        let wish = desired(&[("web", "2", 2), ("db", "1", 1)]);
        stage.cloud.desire(wish).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        stage.kill().await;
        assert!(
            stage
                .nodes
                .all_running()
                .iter()
                .any(|one| one.starts_with("web")),
            "services run on"
        );
        stage.start().await;
        let done = stage
            .cloud
            .whole(|status| {
                item_state(status, "web", "2") == Some(ItemState::Installed)
                    && item_state(status, "db", "1") == Some(ItemState::Installed)
            })
            .await;
        assert_eq!(states(&done, "web"), [InstanceState::Active; 2], "{millis}");
        assert_eq!(
            stage.nodes.all_running(),
            ["db:s:0 1", "web:s:0 2", "web:s:1 2"]
        );
        stage.stop().await;
    }
}

#[tokio::test]
async fn after_a_reboot_without_a_cloud_the_nodes_get_the_last_committed_set() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.kill().await;
    stage.cloud.shut().await;
    stage.nodes.reboot();
    assert_eq!(stage.nodes.all_running(), Vec::<String>::new());
    stage.start().await;
    stage
        .nodes
        .until(|nodes| nodes.all_running() == ["web:s:0 1", "web:s:1 1"])
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn a_restart_of_cm_alone_sends_nothing_to_nodes_that_run_what_they_shall() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.kill().await;
    let updates = |stage: &Stage| {
        let calls = stage.nodes.calls();
        calls
            .iter()
            .filter(|call| call.starts_with("update"))
            .count()
    };
    let before = updates(&stage);
    stage.start().await;
    stage
        .cloud
        .whole(|status| states(status, "web") == [InstanceState::Active; 2])
        .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(updates(&stage), before);
    stage.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_cm_a_node_that_comes_late_keeps_what_it_runs() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.kill().await;
    let calls = stage.nodes.calls().len();
    let second = stage.nodes.disconnect("second");
    stage.start().await;
    stage.cloud.status(|_| true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.nodes.connect("second", second);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.nodes.calls()[calls..], Vec::<String>::new());
    assert_eq!(stage.nodes.running("second"), ["web:s:1 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn what_a_lost_node_ran_is_placed_elsewhere() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.node_lost_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.nodes.disconnect("second");
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 1", "web:s:1 1"])
        .await;
    let status = stage
        .cloud
        .whole(|status| {
            status
                .nodes
                .iter()
                .flatten()
                .any(|node| node.info.state == NodeState::Error)
        })
        .await;
    assert!(status.nodes.is_some());
    stage.stop().await;
}

#[tokio::test]
async fn a_paused_node_gives_its_instances_away() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 0;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 2)]);
    stage.settle(wish.clone()).await;
    wish.nodes = Some(vec![stage::paused("second")]);
    stage.cloud.desire(wish).await;
    stage
        .cloud
        .whole(|status| {
            let groups = status.instances.iter().flatten();
            let mut places = groups.flat_map(|group| &group.instances);
            states(status, "web") == [InstanceState::Active; 2]
                && places.all(|one| {
                    one.node
                        .as_ref()
                        .is_some_and(|node| node.as_str() == "main")
                })
        })
        .await;
    assert_eq!(
        stage.nodes.running("second"),
        Vec::<String>::new(),
        "{:?}",
        stage.nodes.calls()
    );
    assert_eq!(stage.nodes.running("main").len(), 2);
    assert_eq!(stage.iam.state("second"), NodeState::Paused);
    stage.stop().await;
}

#[tokio::test]
async fn a_unit_configuration_reaches_all_nodes_and_one_that_is_refused_changes_nothing() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    wish.instances.as_mut().unwrap()[0].labels = vec!["second".into()];
    let status = stage.settle(wish.clone()).await;
    assert_eq!(status.unit_config.unwrap()[0].version, "1.0.0");
    assert_eq!(stage.nodes.running("second"), ["web:s:0 1"]);
    assert_eq!(stage.nodes.config("main"), Some("1.0.0".into()));

    stage.nodes.refuse_config("2.0.0");
    wish.unit_config = Some(stage::config("2.0.0", "main"));
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            status
                .unit_config
                .as_ref()
                .is_some_and(|all| all.len() == 2)
        })
        .await;
    let failed = &status.unit_config.unwrap()[1];
    assert_eq!(failed.version, "2.0.0");
    assert!(
        failed
            .error
            .as_ref()
            .unwrap()
            .message
            .contains("refuses it"),
        "{failed:?}"
    );
    assert_eq!(stage.nodes.config("main"), Some("1.0.0".into()));
    stage.stop().await;
}

#[tokio::test]
async fn absent_lists_leave_everything_and_empty_ones_remove() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.cloud.desire(DesiredStatus::default()).await;
    stage.cloud.status(|status| !status.is_delta).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage
        .cloud
        .desire(DesiredStatus {
            items: Some(vec![]),
            instances: Some(vec![]),
            ..DesiredStatus::default()
        })
        .await;
    stage
        .cloud
        .whole(|status| status.items.as_ref().is_some_and(Vec::is_empty))
        .await;
    assert_eq!(stage.nodes.running("main"), Vec::<String>::new());
    stage.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_used_is_nacked_and_an_alert_says_why() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    stage
        .cloud
        .raw(r#"{"header":{"version":7,"systemId":"unit","createdAt":"2026-01-01T00:00:00Z","txn":"bad"},"data":{"messageType":"nonsense"}}"#)
        .await;
    let nack = stage
        .cloud
        .message(|message| matches!(message.body, Body::Nack(_)))
        .await;
    assert_eq!(nack.header.txn, "bad");
    let alert = stage
        .cloud
        .message(|message| matches!(message.body, Body::Alerts(_)))
        .await;
    assert!(format!("{alert:?}").contains("nonsense"), "{alert:?}");
    // Another Unit's message is not ours.
    stage
        .cloud
        .raw(r#"{"header":{"version":7,"systemId":"other","createdAt":"2026-01-01T00:00:00Z","txn":"theirs"},"data":{"messageType":"desiredStatus","items":[]}}"#)
        .await;
    let nack = stage
        .cloud
        .message(|message| matches!(message.body, Body::Nack(_)))
        .await;
    assert_eq!(nack.header.txn, "theirs");
    stage.stop().await;
}

#[tokio::test]
async fn a_dropped_connection_comes_back_with_a_full_status() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    stage.cloud.drop_connection().await;
    let status = stage.cloud.status(|status| !status.is_delta).await;
    assert!(status.nodes.is_some());
    stage.stop().await;
}

#[tokio::test]
async fn a_newer_desired_state_supersedes_a_download_that_hangs() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.images.hang("web", "2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Downloading))
        .await;
    stage.settle(desired(&[("web", "3", 1)])).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 3"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_node_served_by_plain_http_shows_it_in_its_status() {
    let mut stage = Stage::new(&["main", "old"]).await;
    stage.options.images.legacy_blobs = vec![aos_types::NodeId::new("old").unwrap()];
    stage.start().await;
    let status = stage.cloud.status(|_| true).await;
    for node in status.nodes.unwrap() {
        let shown = node.info.attrs.get("AosBlobTransfer").map(String::as_str);
        let expected = (node.info.id.as_str() == "old").then_some("plain-http");
        assert_eq!(shown, expected, "{}", node.info.id);
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_thousand_services_are_updated_without_a_quadratic_pause() {
    let mut stage = Stage::new(&["main", "second"]).await;
    // The Nodes here are small: so many fit only if they take nothing.
    stage.options.placing.default_cpu_dmips = 0;
    stage.options.placing.default_ram_bytes = 0;
    stage.start().await;
    let names: Vec<String> = (0..1000).map(|number| format!("item-{number}")).collect();
    let all = |version| {
        let services: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), version, 1))
            .collect();
        desired(&services)
    };
    stage.settle(all("1")).await;
    let started = std::time::Instant::now();
    stage.settle(all("2")).await;
    let took = started.elapsed();
    // One to two seconds unoptimised; twenty when each downloaded item was told by itself.
    assert!(took < Duration::from_secs(12), "{took:?}");
    stage.stop().await;
}

#[tokio::test]
async fn a_committed_set_that_does_not_come_back_is_told_and_something_newer_is_taken() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.break_version("1");
    stage.nodes.break_version("2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    let alert = stage
        .cloud
        .message(|message| {
            matches!(message.body, Body::Alerts(_))
                && format!("{message:?}").contains("could not be brought back")
        })
        .await;
    assert!(
        format!("{alert:?}").contains("version 1 is broken"),
        "{alert:?}"
    );
    stage.settle(desired(&[("web", "3", 1)])).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 3"]);
    stage.stop().await;
}
