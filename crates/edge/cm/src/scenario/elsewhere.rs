//! Nodes are told how instances on other Nodes are doing that their own wait for.

use aos_types::InstanceState;

use super::stage::{Stage, desired};
use crate::contract::SmNode;

/// How often a Node was told of an item.
fn told(stage: &Stage, of: &str) -> Vec<String> {
    let calls = stage.nodes.calls().into_iter();
    calls.filter(|call| call.starts_with(of)).collect()
}

async fn hears(stage: &Stage, text: &str) {
    stage
        .nodes
        .until(|nodes| nodes.calls().iter().any(|call| call == text))
        .await;
}

#[tokio::test]
async fn a_node_hears_of_the_items_its_own_wait_for_and_of_each_change_once() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage
        .settle(desired(&[("db", "1", 2), ("web", "1", 2)]))
        .await;
    // As a Node sees it that has not started its own.
    stage.nodes.need("second", &["db", "no-such-item"]);
    hears(&stage, "second hears of no-such-item: ").await;
    hears(
        &stage,
        "second hears of db: 1 on main is Healthy, 1 on second is Healthy",
    )
    .await;
    // What changes is told, what does not is not, and nobody hears of what he has not asked about.
    stage.nodes.say("main", InstanceState::Failed, "no disk");
    hears(
        &stage,
        "second hears of db: 1 on main is Failed(\"no disk\"), 1 on second is Healthy",
    )
    .await;
    assert_eq!(told(&stage, "second hears of no-such-item").len(), 1);
    assert_eq!(told(&stage, "main hears"), Vec::<String>::new());
    assert!(told(&stage, "second hears of web").is_empty());

    // One that is away cannot be asked.
    let gone: SmNode = stage.nodes.disconnect("main");
    hears(
        &stage,
        "second hears of db: 1 on main is Unknown, 1 on second is Healthy",
    )
    .await;
    stage.nodes.connect("main", gone);
    // Who does not wait any more is not told any more.
    stage.nodes.need("second", &[]);
    let before = told(&stage, "second hears").len();
    stage.nodes.say("main", InstanceState::Active, "");
    stage
        .nodes
        .until(|nodes| nodes.running("main").len() == 2)
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(told(&stage, "second hears").len(), before);
    stage.stop().await;
}

#[tokio::test]
async fn an_item_without_a_place_is_told_as_failed_with_the_reason() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.node_lost_secs = 1;
    stage.start().await;
    let mut wish = desired(&[("db", "1", 1), ("web", "1", 1)]);
    wish.unit_config = Some(super::stage::config("1.0.0", "main"));
    wish.instances.as_mut().unwrap()[0].labels = vec!["main".into()];
    stage.settle(wish).await;
    stage.nodes.need("second", &["db"]);
    // Nobody else may run it.
    stage.nodes.disconnect("main");
    stage
        .nodes
        .until(|nodes| {
            nodes
                .calls()
                .iter()
                .any(|call| call.starts_with("second hears of db: 1 on nowhere is Failed("))
        })
        .await;
    stage.stop().await;
}
