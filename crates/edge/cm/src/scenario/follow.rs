//! What the Nodes are brought to outside of updates: their states and their parts of the unit configuration.

use std::collections::BTreeMap;

use aos_cloud_protocol::{UnitStatus, UpdateStage};
use aos_types::{InstanceState, ItemState, NodeState, UnitConfigState};

use super::{
    stage::{self, Stage, desired, item_state, states},
    until,
};

#[tokio::test]
async fn a_node_that_was_away_when_it_was_to_be_paused_is_paused_when_it_is_back() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 0;
    stage.options.placing.nodes_wait_secs = 1;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    stage.settle(wish.clone()).await;
    let away = stage.nodes.disconnect("second");
    stage.iam.reach("second", false);
    wish.nodes = Some(vec![stage::paused("second")]);
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            let nodes = status.nodes.iter().flatten();
            nodes
                .filter(|node| node.info.id.as_str() == "second")
                .any(|node| {
                    let error = node.info.error.as_ref();
                    error.is_some_and(|error| error.message.contains("it is to be paused"))
                })
        })
        .await;
    assert!(!status.is_delta || status.nodes.is_some());
    // The update itself is over; nobody sends anything anew.
    stage.iam.reach("second", true);
    stage.nodes.connect("second", away);
    until(|| stage.iam.state("second") == NodeState::Paused).await;
    stage
        .cloud
        .whole(|status| {
            let nodes = status.nodes.iter().flatten();
            nodes
                .filter(|node| node.info.id.as_str() == "second")
                .any(|node| node.info.state == NodeState::Paused && node.info.error.is_none())
        })
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn a_node_that_was_not_known_when_it_was_to_be_paused_is_paused_when_it_is_one() {
    let mut stage = Stage::new(&["main", "second"]).await;
    let info = stage.iam.forget("second");
    let second = stage.nodes.disconnect("second");
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.nodes = Some(vec![stage::paused("second")]);
    stage.settle(wish).await;
    stage.iam.know(info);
    stage.nodes.connect("second", second);
    until(|| stage.iam.state("second") == NodeState::Paused).await;
    // It stays so after a restart, and is resumed when the cloud says so.
    stage.kill().await;
    stage.iam.pause("second", false);
    stage.start().await;
    until(|| stage.iam.state("second") == NodeState::Paused).await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.nodes = Some(vec![stage::provisioned("second")]);
    stage.cloud.desire(wish).await;
    until(|| stage.iam.state("second") == NodeState::Provisioned).await;
    stage.stop().await;
}

#[tokio::test]
async fn other_content_under_the_same_version_is_refused_and_told_and_the_rest_goes_on() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    stage.settle(wish.clone()).await;
    let mut wish = desired(&[("web", "2", 1)]);
    let mut other = stage::config("1.0.0", "main");
    other.nodes[0].labels = vec!["other".into()];
    wish.unit_config = Some(other);
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            item_state(status, "web", "2") == Some(ItemState::Installed)
                && states(status, "web") == [InstanceState::Active]
        })
        .await;
    let configs = status.unit_config.unwrap();
    let failed = configs
        .iter()
        .find(|config| config.state == UnitConfigState::Failed)
        .unwrap();
    assert_eq!(failed.version, "1.0.0");
    let why = &failed.error.as_ref().unwrap().message;
    assert!(
        why.contains("another configuration of the same version"),
        "{why}"
    );
    assert_eq!(stage.nodes.config_labels("main"), ["main"]);
    // With a greater version it is taken, and nothing is complained of any more.
    let mut wish = desired(&[("web", "2", 1)]);
    let mut other = stage::config("1.0.1", "main");
    other.nodes[0].labels = vec!["other".into()];
    wish.unit_config = Some(other);
    stage.cloud.desire(wish).await;
    stage
        .cloud
        .whole(|status| {
            let configs = status.unit_config.as_deref().unwrap_or_default();
            configs.len() == 1
                && configs[0].version == "1.0.1"
                && configs[0].state == UnitConfigState::Installed
        })
        .await;
    // It is in force when it is committed; then the Nodes get it.
    until(|| stage.nodes.config_labels("main") == ["other"]).await;
    stage.stop().await;
}

#[tokio::test]
async fn content_that_replaces_one_of_the_same_version_in_mid_update_reaches_the_nodes() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.stick_at_version("2");
    let mut wish = desired(&[("web", "2", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    stage.cloud.desire(wish).await;
    until(|| stage.nodes.config_labels("main") == ["main"]).await;
    until(|| stage.nodes.running("main").len() + stage.nodes.running("second").len() > 0).await;
    // Nothing of it was committed, so its version is free.
    let mut wish = desired(&[("web", "3", 1)]);
    let mut other = stage::config("1.0.0", "second");
    other.nodes[0].labels = vec!["other".into()];
    wish.unit_config = Some(other);
    stage.settle(wish).await;
    assert_eq!(stage.nodes.config_labels("main"), ["other"]);
    stage.stop().await;
}

#[tokio::test]
async fn the_first_unit_configuration_goes_from_the_nodes_when_its_update_fails() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.break_version("2");
    let mut wish = desired(&[("web", "2", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            item_state(status, "web", "2") == Some(ItemState::Failed)
                && states(status, "web").contains(&InstanceState::Active)
        })
        .await;
    assert_eq!(
        status.unit_config.unwrap()[0].state,
        UnitConfigState::Absent
    );
    assert_eq!(stage.nodes.config("main"), None);
    assert_eq!(stage.nodes.config("second"), None);
    stage.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_take_its_configuration_when_it_connects_is_reported() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.nodes_wait_secs = 1;
    stage.start().await;
    let second = stage.nodes.disconnect("second");
    let mut wish = desired(&[("web", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "main"));
    stage.settle(wish).await;
    stage.nodes.take_no_config("second");
    stage.nodes.connect("second", second);
    let status = stage
        .cloud
        .whole(|status| {
            let configs = status.unit_config.as_deref().unwrap_or_default();
            configs
                .iter()
                .any(|config| config.state == UnitConfigState::Failed)
        })
        .await;
    let config = &status.unit_config.unwrap()[0];
    let why = &config.error.as_ref().unwrap().message;
    assert!(
        why.contains("node `second` did not take it") && why.contains("its disk is full"),
        "{why}"
    );
    let nodes = status.nodes.unwrap();
    let second = nodes.iter().find(|node| node.info.id.as_str() == "second");
    let why = &second.unwrap().info.error.as_ref().unwrap().message;
    assert!(why.contains("did not take its configuration"), "{why}");
    stage.stop().await;
}

#[tokio::test]
async fn a_node_that_hangs_holds_up_no_other_whose_instances_are_placed_anew() {
    let mut stage = Stage::new(&["main", "hangs", "goes"]).await;
    stage.options.node_lost_secs = 1;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1), ("db", "1", 1)]);
    let mut config = stage::config("1.0.0", "goes");
    let labels: BTreeMap<&str, &str> = [("main", "web"), ("goes", "web"), ("hangs", "db")].into();
    config.nodes = labels
        .into_iter()
        .map(|(name, label)| {
            let mut node = config.nodes[0].clone();
            node.node = Some(aos_types::NodeId::new(name).unwrap());
            node.node_type = format!("{name}-type");
            node.labels = vec![label.into()];
            node.priority = i64::from(name == "goes");
            node
        })
        .collect();
    wish.unit_config = Some(config);
    for entry in wish.instances.iter_mut().flatten() {
        entry.labels = vec![entry.item.to_string()];
    }
    stage.settle(wish).await;
    assert_eq!(stage.nodes.running("goes"), ["web:s:0 1"]);
    assert_eq!(stage.nodes.running("hangs"), ["db:s:0 1"]);
    // One Node comes back empty, is given its list and does not answer for as long as it may (10 min).
    stage.nodes.hang("hangs");
    let mut hangs = stage.nodes.disconnect("hangs");
    hangs.instances = Some(BTreeMap::new());
    let before = stage.nodes.calls().len();
    stage.nodes.connect("hangs", hangs);
    stage
        .nodes
        .until(|nodes| nodes.calls()[before..].contains(&"update hangs +1 -0".to_owned()))
        .await;
    stage.nodes.disconnect("goes");
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 1"])
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn an_update_that_changes_no_version_is_told_while_it_waits_and_when_it_fails() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.placing.nodes_wait_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    // One instance more, to be started by somebody.
    let mut wish = desired(&[("web", "1", 2)]);
    let trigger = serde_json::json!({"type": "trigger"});
    wish.sota_schedule = aos_types::tolerant::FromJson::from_json(&trigger).ok();
    stage.cloud.desire(wish).await;
    let told = stage
        .cloud
        .whole(|status| {
            status
                .update
                .as_ref()
                .is_some_and(|told| !told.waits.is_empty())
        })
        .await
        .update
        .unwrap();
    assert_eq!(told.stage, UpdateStage::Pending);
    assert!(told.waits[0].reason.contains("start it"), "{told:?}");
    assert!(told.waits[0].until.is_some());
    // Something newer that fits nowhere: it fails, and is tried again.
    let mut wish = desired(&[("web", "1", 2)]);
    wish.instances.as_mut().unwrap()[0].labels = vec!["nowhere".into()];
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            let told = status.update.as_ref();
            told.is_some_and(|told| told.failure.is_some() && told.stage == UpdateStage::None)
        })
        .await;
    let told = status.update.unwrap();
    assert_eq!(told.waits, []);
    let failure = told.failure.unwrap();
    assert_eq!(failure.attempts, 1);
    assert!(failure.next_try.is_some());
    assert!(
        failure
            .error
            .unwrap()
            .message
            .contains("no nodes with instance labels"),
    );
    // It is true no longer when something succeeds.
    let mut told = stage.settle(desired(&[("web", "1", 1)])).await;
    let fails = |status: &UnitStatus| {
        let told = status.update.as_ref();
        told.is_none_or(|told| told.failure.is_some())
    };
    if fails(&told) {
        told = stage.cloud.whole(|status| !fails(status)).await;
    }
    assert_eq!(told.update.unwrap().stage, UpdateStage::None);
    stage.stop().await;
}

#[tokio::test]
async fn a_way_back_that_fails_is_told_with_its_next_time() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.break_version("1");
    stage.nodes.break_version("2");
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    let status = stage
        .cloud
        .whole(|status| {
            status
                .update
                .as_ref()
                .is_some_and(|told| told.rollback.is_some())
        })
        .await;
    let rollback = status.update.unwrap().rollback.unwrap();
    assert!(
        rollback
            .error
            .unwrap()
            .message
            .contains("version 1 is broken")
    );
    assert!(rollback.next_try.is_some() && rollback.attempts == 1);
    let mut status = stage.settle(desired(&[("web", "3", 1)])).await;
    // It may be told in the same status already.
    let told = |status: &UnitStatus| {
        let update = status.update.as_ref();
        update.is_some_and(|told| told.rollback.is_none())
    };
    if !told(&status) {
        status = stage.cloud.whole(told).await;
    }
    assert_eq!(status.update.unwrap().failure, None);
    stage.stop().await;
}

#[tokio::test]
async fn the_schedulers_own_reasons_are_told_for_what_waits_and_for_what_is_elsewhere() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.node_lost_secs = 1;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    stage.settle(wish).await;
    let second = stage.nodes.disconnect("second");
    let status = stage
        .cloud
        .whole(|status| {
            let told = status.placements.as_deref().unwrap_or_default();
            told.iter().any(|one| {
                one.node
                    .as_ref()
                    .is_some_and(|node| node.as_str() == "main")
            })
        })
        .await;
    let told = &status.placements.unwrap()[0];
    assert_eq!(told.item.item.as_str(), "web");
    assert_eq!(told.excluded[0].node.as_str(), "second");
    assert_eq!(told.excluded[0].rule, "state");
    assert!(told.excluded[0].text.contains("has not been connected"));
    // It stays there, and so does the reason.
    stage.nodes.connect("second", second);
    let mut wish = desired(&[("web", "1", 1), ("big", "1", 1)]);
    wish.unit_config = Some(stage::config("1.0.0", "second"));
    wish.instances.as_mut().unwrap()[1].labels = vec!["nowhere".into()];
    stage.cloud.desire(wish).await;
    let status = stage
        .cloud
        .whole(|status| {
            let told = status.update.as_ref();
            told.is_some_and(|told| told.failure.is_some())
        })
        .await;
    let told = status.placements.unwrap();
    assert!(
        told.iter().any(|one| one.item.item.as_str() == "web"),
        "{told:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn instances_get_ids_of_the_range_that_is_configured() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.placing = toml::from_str("ids = { first = 20000, last = 20001 }").unwrap();
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    assert_eq!(stage.nodes.uids(), [20000, 20001]);
    stage.cloud.desire(desired(&[("web", "1", 3)])).await;
    let status = stage
        .cloud
        .whole(|status| {
            let told = status.update.as_ref();
            told.is_some_and(|told| told.failure.is_some())
        })
        .await;
    let failure = status.update.unwrap().failure.unwrap();
    let why = failure.error.unwrap().message;
    assert!(
        why.contains("no free user id from 20000 to 20001") && why.contains("`placing.ids`"),
        "{why}"
    );
    for bad in [
        "ids = { first = 100, last = 9999 }",
        "ids = { first = 6000, last = 5000 }",
        "ids = { first = 5000, last = 4294967295 }",
    ] {
        let refused = toml::from_str::<crate::PlacingOptions>(bad).unwrap_err();
        assert!(refused.to_string().contains("placing.ids"), "{refused}");
    }
    stage.stop().await;
}
