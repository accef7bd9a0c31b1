//! Where other implementations put instances, and what they tell of it, seen from outside (`docs/protocol/known-defects.md`).

use std::time::Duration;

use aos_schedule::Space;
use aos_types::{InstanceState, ItemConfig, ItemState, Quotas, RequestedResources};

use super::stage::{self, Stage, desired, item_state};

/// The reasons of what has no place.
fn reasons(status: &aos_cloud_protocol::UnitStatus) -> Vec<String> {
    let groups = status.instances.iter().flatten();
    let without = groups.flat_map(|group| &group.instances);
    let without = without.filter(|one| one.node.is_none());
    without
        .filter_map(|one| Some(one.error.clone()?.message))
        .collect()
}

#[tokio::test]
async fn gap_17_an_instance_that_never_settles_keeps_no_update_open() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.wait_active_secs = 2;
    stage.options.settle_secs = 1;
    stage.options.update_retry_secs = 3_600;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    // The new version tells something every moment, and is up for no longer than that.
    let nodes = stage.nodes.clone();
    let flipping = tokio::spawn(async move {
        for count in 0_u32.. {
            if nodes.running("main") == ["web:s:0 2"] {
                nodes.say("main", InstanceState::Activating, &count.to_string());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    let status = stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Failed))
        .await;
    flipping.abort();
    assert!(item_state(&status, "web", "1").is_some());
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 1"])
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn gap_20_what_deltas_add_up_to_is_the_whole_status() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    // Items come and go at the beginning, in the middle and at the end.
    let mut told = None;
    for items in [
        &["b", "d", "f"][..],
        &["a", "b", "c", "d", "e", "f", "g"],
        &["c", "e"],
        &["a", "b", "c", "d", "e", "f", "g", "h"],
        &["a", "h"],
    ] {
        let items: Vec<_> = items.iter().map(|item| (*item, "1", 1)).collect();
        told = Some(stage.settle(desired(&items)).await);
    }
    let listed = |status: &aos_cloud_protocol::UnitStatus| {
        let mut items: Vec<_> = status
            .items
            .iter()
            .flatten()
            .map(|item| (item.item.item.to_string(), item.version.clone(), item.state))
            .collect();
        items.sort_by(|one, other| one.0.cmp(&other.0));
        items.retain(|(_, _, state)| *state != ItemState::Removed);
        items
    };
    let told = listed(&told.unwrap());
    // On a new connection the Unit tells everything.
    stage.cloud.drop_connection().await;
    let whole = stage.cloud.status(|status| !status.is_delta).await;
    assert_eq!(listed(&whole), told);
    assert_eq!(told.len(), 2);
    stage.stop().await;
}

#[tokio::test]
async fn gap_34_what_runs_stays_where_it_is_and_replicas_are_apart() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    let places = |stage: &Stage| ["main", "second"].map(|node| stage.nodes.running(node));
    let before = places(&stage);
    assert_eq!(before.clone().map(|runs| runs.len()), [1, 1], "{before:?}");
    // Another Node is preferred, and another item comes and goes: nothing is started anew.
    stage.nodes.started();
    let mut wish = desired(&[("web", "1", 2), ("db", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    stage.settle(wish).await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    assert_eq!(places(&stage), before);
    let started = stage.nodes.started();
    assert!(
        started.iter().all(|one| one.starts_with("db:")),
        "{started:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_37_an_instance_is_placed_where_its_storage_is_free() {
    let mut stage = Stage::new(&["main", "second"]).await;
    for (node, free) in [("main", 500), ("second", 1_400)] {
        let mut told = stage.nodes.disconnect(node);
        told.space = Some(Space {
            storage: Some(free),
            ..Space::default()
        });
        stage.nodes.connect(node, told);
    }
    stage.images.configure(ItemConfig {
        quotas: Quotas {
            storage_limit: Some(600),
            ..Quotas::default()
        },
        requested_resources: Some(RequestedResources {
            storage: Some(600),
            ..RequestedResources::default()
        }),
        ..ItemConfig::default()
    });
    stage.start().await;
    // Of two equal Nodes the first by name has it, if it has the room.
    stage.settle(desired(&[("web", "1", 1)])).await;
    assert_eq!(stage.nodes.running("second"), ["web:s:0 1"]);
    stage.cloud.desire(desired(&[("web", "1", 3)])).await;
    let status = stage
        .cloud
        .whole(|status| !reasons(status).is_empty())
        .await;
    let why = reasons(&status);
    assert!(
        why[0].contains("main: 600 bytes of storage are asked for, 500 are left"),
        "{why:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_39_the_limit_that_was_reached_is_the_one_that_is_named() {
    let mut stage = Stage::new(&["main", "second"]).await;
    for node in ["main", "second"] {
        let mut told = stage.nodes.disconnect(node);
        told.runtimes[0].max_instances = 1;
        stage.nodes.connect(node, told);
    }
    stage.start().await;
    stage.settle(desired(&[("a", "1", 1), ("b", "1", 1)])).await;
    assert_eq!(stage.nodes.running("main"), ["a:s:0 1"]);
    assert_eq!(stage.nodes.running("second"), ["b:s:0 1"]);
    let wish = desired(&[("a", "1", 1), ("b", "1", 1), ("c", "1", 1)]);
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| !reasons(status).is_empty())
        .await;
    assert_eq!(
        reasons(&status),
        [
            "no runtimes with a free place for an instance (main: all 1 places are taken; \
          second: all 1 places are taken)"
        ]
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_41_who_asks_for_nothing_fills_a_node_all_the_same() {
    let mut stage = Stage::new(&["main"]).await;
    let mut info = stage.iam.forget("main");
    info.total_ram = 64 << 20;
    stage.iam.know(info);
    stage.images.configure(ItemConfig {
        requested_resources: Some(RequestedResources::default()),
        ..ItemConfig::default()
    });
    stage.start().await;
    stage.cloud.desire(desired(&[("web", "1", 10)])).await;
    let status = stage.cloud.whole(|status| reasons(status).len() == 6).await;
    let why = reasons(&status);
    assert!(why[0].contains("no runtimes with requested RAM"), "{why:?}");
    stage.settle(desired(&[("web", "1", 4)])).await;
    stage.stop().await;
}
