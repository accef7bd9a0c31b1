//! What other implementations of the same contract get wrong, seen from outside (`docs/protocol/known-defects.md`).

use std::{sync::Arc, time::Duration};

use aos_types::{InstanceState, ItemState, NodeState};
use tokio::time::Instant;

use super::{
    fakes::{FakeIam, FakeNodes},
    stage::{Stage, desired, item_state, paused, states},
};

fn independent(
    mut wish: aos_cloud_protocol::DesiredStatus,
    item: &str,
) -> aos_cloud_protocol::DesiredStatus {
    for one in wish.items.iter_mut().flatten() {
        one.independent = one.item.as_str() == item;
    }
    wish
}

#[tokio::test]
async fn gap_14_a_failed_download_neither_stops_nor_removes_the_old_version() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage
        .settle(desired(&[("db", "1", 1), ("web", "1", 1)]))
        .await;
    let calls = stage.nodes.calls().len();
    stage.images.refuse("web", "2");
    let wish = desired(&[("db", "2", 1), ("web", "2", 1)]);
    stage.cloud.desire(wish.clone()).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Failed))
        .await;
    assert_eq!(stage.nodes.calls().len(), calls, "all or nothing");
    assert_eq!(stage.images.committed(), ["db 1", "web 1"]);
    // Marked as independent it stays as it is, and the other one goes on.
    stage
        .cloud
        .desire(independent(
            desired(&[("db", "3", 1), ("web", "2", 1)]),
            "web",
        ))
        .await;
    let status = stage
        .cloud
        .whole(|status| item_state(status, "db", "3") == Some(ItemState::Installed))
        .await;
    assert_eq!(item_state(&status, "web", "1"), Some(ItemState::Installed));
    assert_eq!(item_state(&status, "web", "2"), Some(ItemState::Failed));
    assert_eq!(stage.nodes.running("main"), ["db:s:0 3", "web:s:0 1"]);
    let kept = || {
        let mut kept = stage.images.committed();
        kept.sort();
        kept
    };
    super::until(|| kept() == ["db 3", "web 1"]).await;
    stage.stop().await;
}

#[tokio::test]
async fn gap_15_a_version_that_does_not_come_up_is_rolled_back_on_all_nodes() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage
        .settle(desired(&[("db", "1", 1), ("web", "1", 2)]))
        .await;
    stage.nodes.break_version("2");
    let wish = desired(&[("db", "3", 1), ("web", "2", 2)]);
    stage.cloud.desire(wish).await;
    stage
        .cloud
        .whole(|status| {
            item_state(status, "web", "2") == Some(ItemState::Failed)
                && states(status, "web").contains(&InstanceState::Active)
        })
        .await;
    assert_eq!(
        stage.nodes.all_running(),
        ["db:s:0 1", "web:s:0 1", "web:s:1 1"],
        "also what came up is undone"
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_16_a_failed_phase_is_tried_again_without_the_cloud_also_after_a_restart() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.update_retry_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.break_version("2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    let failed = |status: &_| item_state(status, "web", "2") == Some(ItemState::Failed);
    stage.cloud.whole(failed).await;
    // Nothing is left half-way.
    stage.kill().await;
    stage.cloud.shut().await;
    stage.start().await;
    stage.nodes.mend_version("2");
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 2"])
        .await;
    let images = stage.images.clone();
    super::until(|| images.committed() == ["web 2"]).await;
    stage.stop().await;
}

#[tokio::test]
async fn gap_18_a_steady_stream_of_changes_does_not_hold_deltas_back() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.status_delay_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let nodes = stage.nodes.clone();
    let flipping = tokio::spawn(async move {
        for count in 0_u32.. {
            nodes.say("main", InstanceState::Activating, &count.to_string());
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    });
    let started = Instant::now();
    for _ in 0..3 {
        stage.cloud.status(|status| status.is_delta).await;
    }
    let three = started.elapsed();
    flipping.abort();
    assert!(three < Duration::from_secs(9), "{three:?}");
    stage.stop().await;
}

#[tokio::test]
async fn that_the_last_instance_is_up_is_told_without_delay() {
    let mut stage = Stage::new(&["main"]).await;
    // Far longer than anybody here waits.
    stage.options.status_delay_secs = 3_600;
    stage.start().await;
    stage.cloud.desire(desired(&[("web", "1", 2)])).await;
    let told = stage
        .cloud
        .status(|status| states(status, "web") == [InstanceState::Active; 2])
        .await;
    assert!(told.is_delta, "it was not part of a full status: {told:?}");
    stage.stop().await;
}

#[tokio::test]
async fn gap_19_what_cannot_be_told_of_one_node_silences_no_other() {
    let mut stage = Stage::new(&["main"]).await;
    // One that IAM does not know, and one that IAM knows and that never says anything.
    stage.nodes = Arc::new(FakeNodes::new(&["main", "stranger"]));
    stage.iam = Arc::new(FakeIam::new(&["main", "mute"]));
    stage.options.node_lost_secs = 1;
    stage.start().await;
    let full = stage.cloud.status(|_| true).await;
    assert!(!full.is_delta);
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.say("main", InstanceState::Activating, "slow");
    let delta = stage
        .cloud
        .status(|status| status.is_delta && status.instances.is_some())
        .await;
    assert_eq!(states(&delta, "web"), [InstanceState::Activating]);
    stage.stop().await;
}

#[tokio::test]
async fn an_older_unit_configuration_is_refused_and_stops_nothing() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.unit_config = Some(super::stage::config("2.0.0", "main"));
    stage.settle(wish.clone()).await;
    wish.unit_config = Some(super::stage::config("1.0.0", "main"));
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
    let configs = status.unit_config.clone().unwrap();
    assert_eq!(configs[0].version, "2.0.0");
    let why = configs[1].error.clone().unwrap().message;
    assert!(
        why.starts_with("version 1.0.0 is not greater than 2.0.0"),
        "{why}"
    );
    assert_eq!(stage.nodes.config("main"), Some("2.0.0".into()));
    let updates = |stage: &Stage| {
        let calls = stage.nodes.calls();
        calls
            .iter()
            .filter(|call| call.starts_with("update"))
            .count()
    };
    assert_eq!(updates(&stage), 1, "{:?}", stage.nodes.calls());
    stage.stop().await;
}

#[tokio::test]
async fn gap_21_a_node_that_is_as_desired_is_left_alone() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.nodes = Some(vec![paused("second")]);
    stage.settle(wish.clone()).await;
    assert_eq!(stage.iam.calls(), ["pause second"]);
    let mut next = desired(&[("web", "2", 1)]);
    next.nodes = wish.nodes;
    let status = stage.settle(next).await;
    assert_eq!(stage.iam.calls(), ["pause second"]);
    let mut nodes = status.nodes.into_iter().flatten();
    assert!(nodes.all(|node| node.info.error.is_none()));
    assert_eq!(stage.iam.state("second"), NodeState::Paused);
    stage.stop().await;
}
