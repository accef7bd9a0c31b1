//! Lists on their way to the Nodes, seen from outside CM.

use std::time::Duration;

use aos_types::{InstanceState, ItemState};

use super::stage::{self, Stage, desired, item_state, states};

#[tokio::test]
async fn what_was_launched_and_failed_is_given_to_no_node_once_more() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.update_attempts = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    // Of one Node CM hears nothing, the other one takes its time. Meanwhile CM sees how the first is doing.
    stage.nodes.lose_one_answer("main");
    stage.nodes.slow_down("second", Duration::from_secs(2));
    stage.cloud.desire(desired(&[("web", "2", 2)])).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Failed))
        .await;
    stage
        .nodes
        .until(|nodes| nodes.all_running() == ["web:s:0 1", "web:s:1 1"])
        .await;
    let given = stage.nodes.given("main");
    assert_eq!(given, [["web 1"], ["web 2"], ["web 1"]]);
    stage.stop().await;
}

#[tokio::test]
async fn nothing_is_stopped_for_what_cannot_start_elsewhere_whatever_happened_since_it_was_installed()
 {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.update_retry_secs = 1;
    stage.start().await;
    let on = |version: &str, node: &str| {
        let mut wish = desired(&[("web", version, 1)]);
        wish.unit_config = Some(stage::config("1.0.0", "main"));
        wish.instances.as_mut().unwrap()[0].labels = vec![node.into()];
        wish
    };
    stage.settle(on("1", "main")).await;
    stage.nodes.lose_disk_after_install("second");
    stage.cloud.desire(on("2", "second")).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Failed))
        .await;
    // The old one ran all the time.
    assert_eq!(stage.nodes.given("main"), [["web 1"]]);
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    // Tried again by itself.
    stage.nodes.mend_disk("second");
    stage
        .nodes
        .until(|nodes| nodes.all_running() == ["web:s:0 2"])
        .await;
    let active = |all: Vec<InstanceState>| all == [InstanceState::Active];
    stage
        .cloud
        .whole(|status| active(states(status, "web")))
        .await;
    stage.stop().await;
}
