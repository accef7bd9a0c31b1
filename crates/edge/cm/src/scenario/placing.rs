//! Where instances run, seen from outside CM.

use std::time::Duration;

use aos_cloud_protocol::{
    Body, DesiredSubject, EnvVar, EnvVarsOverride, InstanceFilter, MonitoringData, NodeMonitoring,
    OverrideEnvVars, UnitStatus, Usage,
};
use aos_time::{Clock, SystemClock};
use aos_types::{
    AlertRule, AlertRules, InstanceState, ItemConfig, ItemId, NodeId, Quotas, RequestedResources,
    StoragePolicy, SubjectId, SubjectType,
};

use super::stage::{self, Stage, desired, states};
use crate::contract::NodeEvent;

const MOMENT: Duration = Duration::from_millis(700);

fn storing(policy: StoragePolicy) -> ItemConfig {
    ItemConfig {
        quotas: Quotas {
            storage_limit: Some(1000),
            ..Quotas::default()
        },
        storage_policy: policy,
        ..ItemConfig::default()
    }
}

/// The error of the only instance without a place.
fn nowhere(status: &UnitStatus) -> Option<String> {
    let groups = status.instances.iter().flatten();
    let mut without = groups
        .flat_map(|group| &group.instances)
        .filter(|one| one.node.is_none() && one.runtime.is_none());
    let one = without.next()?;
    assert_eq!(one.state, InstanceState::Failed);
    Some(one.error.clone()?.message)
}

#[tokio::test]
async fn gap_32_a_node_that_is_lost_while_cm_runs_blocks_nothing() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.node_lost_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    // It never measured anything, and now it is gone.
    stage.nodes.disconnect("second");
    stage
        .settle(desired(&[("web", "1", 2), ("db", "1", 1)]))
        .await;
    assert_eq!(
        stage.nodes.running("main"),
        ["db:s:0 1", "web:s:0 1", "web:s:1 1"]
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_33_missing_nodes_are_waited_for_up_to_a_deadline_of_its_own() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.node_lost_secs = 3600;
    stage.options.placing.nodes_wait_secs = 1;
    let second = stage.nodes.disconnect("second");
    stage.start().await;
    let begin = std::time::Instant::now();
    stage.settle(desired(&[("web", "1", 2)])).await;
    assert!(
        begin.elapsed() > Duration::from_millis(900),
        "it was waited for"
    );
    assert_eq!(stage.nodes.running("main").len(), 2);
    // When it comes at last, nothing moves: both run.
    stage.nodes.started();
    stage.nodes.connect("second", second);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.started(), Vec::<String>::new());
    stage.stop().await;
}

#[tokio::test]
async fn an_absent_node_keeps_what_it_runs_when_something_new_is_placed() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.nodes_wait_secs = 1;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.kill().await;
    let second = stage.nodes.disconnect("second");
    stage.start().await;
    stage.nodes.started();
    stage
        .cloud
        .desire(desired(&[("web", "1", 2), ("db", "1", 1)]))
        .await;
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["db:s:0 1", "web:s:0 1"])
        .await;
    stage.nodes.connect("second", second);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.started(), ["db:s:0 on main"]);
    assert_eq!(stage.nodes.running("second"), ["web:s:1 1"]);
    stage.stop().await;
}

fn overriding(item: &str, value: &str, ttl: Option<Duration>) -> Body {
    Body::OverrideEnvVars(OverrideEnvVars {
        items: Some(vec![EnvVarsOverride {
            filter: InstanceFilter {
                item: Some(ItemId::new(item).unwrap()),
                subject: None,
                instance: None,
            },
            variables: vec![EnvVar {
                name: "LEVEL".into(),
                value: value.into(),
                ttl: ttl.map(|ttl| SystemClock.now() + ttl),
            }],
        }]),
    })
}

#[tokio::test]
async fn gap_35_a_variable_restarts_only_the_instances_it_touches() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage
        .settle(desired(&[("web", "1", 2), ("db", "1", 1)]))
        .await;
    stage.nodes.started();
    stage
        .cloud
        .say(overriding("db", "debug", Some(Duration::from_secs(3))))
        .await;
    let answer = stage
        .cloud
        .message(|message| matches!(message.body, Body::OverrideEnvVarsStatus(_)))
        .await;
    let Body::OverrideEnvVarsStatus(status) = answer.body else {
        unreachable!()
    };
    assert_eq!(status.statuses.len(), 1);
    assert_eq!(status.statuses[0].name, "LEVEL");
    assert_eq!(status.statuses[0].error, None);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.started(), ["db:s:0 on main LEVEL=debug"]);
    // At its time it ends by itself.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(stage.nodes.started(), ["db:s:0 on main"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_variable_ends_at_its_time_also_if_cm_was_not_there() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage
        .cloud
        .say(overriding("web", "debug", Some(Duration::from_secs(2))))
        .await;
    stage
        .cloud
        .message(|message| matches!(message.body, Body::OverrideEnvVarsStatus(_)))
        .await;
    tokio::time::sleep(MOMENT).await;
    stage.kill().await;
    stage.nodes.started();
    // Before its time a restart of CM changes nothing.
    stage.start().await;
    tokio::time::sleep(MOMENT / 2).await;
    stage.kill().await;
    assert_eq!(stage.nodes.started(), Vec::<String>::new());
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.start().await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.started(), ["web:s:0 on main"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_variable_ends_at_its_time_also_if_nobody_heard_that_it_was_set() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.nodes.started();
    stage.nodes.lose_answers(true);
    stage
        .cloud
        .say(overriding("web", "debug", Some(Duration::from_secs(2))))
        .await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.started(), ["web:s:0 on main LEVEL=debug"]);
    tokio::time::sleep(Duration::from_secs(2) + MOMENT).await;
    assert_eq!(stage.nodes.started(), ["web:s:0 on main"]);
    stage.stop().await;
}

#[tokio::test]
async fn gap_36_a_paused_node_stops_its_instances_and_after_a_while_they_run_elsewhere() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 2;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    // A short pause: stopped, and back where it was.
    stage.iam.pause("second", true);
    stage
        .nodes
        .until(|nodes| nodes.running("second").is_empty())
        .await;
    let status = stage
        .cloud
        .whole(|status| states(status, "web").contains(&InstanceState::Inactive))
        .await;
    assert_eq!(nowhere(&status), None, "its Node is named");
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.iam.pause("second", false);
    stage
        .nodes
        .until(|nodes| nodes.running("second") == ["web:s:1 1"])
        .await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    // A long one: stopped there first, then started elsewhere.
    stage.iam.pause("second", true);
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 1", "web:s:1 1"])
        .await;
    assert_eq!(stage.nodes.running("second"), Vec::<String>::new());
    stage.stop().await;
}

#[tokio::test]
async fn gap_40_a_peak_moves_nobody_and_a_steady_load_does() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.usage_window_secs = 60;
    stage.images.configure(ItemConfig {
        requested_resources: Some(RequestedResources {
            cpu: Some(300),
            ..RequestedResources::default()
        }),
        ..ItemConfig::default()
    });
    let mut wish = desired(&[("web", "1", 2)]);
    let mut config = stage::config("1.0.0", "main");
    config.nodes[0].alert_rules = Some(AlertRules {
        cpu: Some(AlertRule {
            min_timeout: Duration::ZERO,
            min_threshold: 50.0,
            max_threshold: 80.0,
        }),
        ..AlertRules::default()
    });
    wish.unit_config = Some(config);
    stage.start().await;
    stage.settle(wish).await;
    assert_eq!(stage.nodes.running("main").len(), 2, "it is preferred");
    let measured = |ago: u64, cpu: u64| {
        NodeEvent::Monitoring(MonitoringData {
            nodes: vec![NodeMonitoring {
                node: NodeId::new("main").unwrap(),
                states: Vec::new(),
                items: vec![Usage {
                    timestamp: SystemClock.now() - Duration::from_secs(ago),
                    ram: 0,
                    cpu,
                    download: None,
                    upload: None,
                    partitions: Vec::new(),
                }],
            }],
            instances: Vec::new(),
        })
    };
    for ago in [50, 40, 30] {
        stage.node_tells(measured(ago, 100)).await;
    }
    stage.node_tells(measured(20, 1000)).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.running("main").len(), 2, "a peak");
    // From now on it is always so.
    for _ in 0..40 {
        stage.node_tells(measured(0, 1000)).await;
    }
    stage
        .nodes
        .until(|nodes| nodes.running("second") == ["web:s:1 1"])
        .await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn what_cannot_be_placed_is_reported_without_a_node_and_with_the_reason() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let mut wish = desired(&[("web", "1", 1), ("db", "1", 1)]);
    wish.instances.as_mut().unwrap()[1].labels = vec!["gpu".into()];
    stage.cloud.desire(wish).await;
    let status = stage.cloud.whole(|status| nowhere(status).is_some()).await;
    let why = nowhere(&status).unwrap();
    assert!(
        why.contains("no nodes with instance labels")
            && why.contains("main: has no label `gpu`")
            && why.contains("second: has no label `gpu`"),
        "{why}"
    );
    // On the Unit itself the same is known in full, instance by instance.
    let answer = stage.local.why();
    let chain = |item: &str| {
        let of_item = |chain: &&aos_ipc::proto::aos::unit::v1::Chain| {
            chain
                .instance
                .as_ref()
                .is_some_and(|one| one.item_id == item)
        };
        answer.chains.iter().find(of_item)
    };
    assert!(chain("web").is_some_and(|web| web.as_desired), "{answer:?}");
    let text = format!("{:?}", answer.unit);
    assert!(
        text.contains("no label `gpu`"),
        "why the update failed: {text}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn storage_holds_an_instance_on_its_node_unless_its_loss_is_accepted() {
    for policy in [StoragePolicy::Pinned, StoragePolicy::Expendable] {
        let mut stage = Stage::new(&["main", "second"]).await;
        stage.options.node_lost_secs = 1;
        stage.images.configure(storing(policy));
        stage.start().await;
        stage.settle(desired(&[("web", "1", 2)])).await;
        let second = stage.nodes.disconnect("second");
        if policy == StoragePolicy::Pinned {
            let status = stage.cloud.whole(|status| nowhere(status).is_some()).await;
            let why = nowhere(&status).unwrap();
            assert!(why.contains("its storage or state is on second"), "{why}");
            assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
            stage.nodes.connect("second", second);
            stage
                .cloud
                .whole(|status| states(status, "web") == [InstanceState::Active; 2])
                .await;
            assert_eq!(stage.nodes.running("second"), ["web:s:1 1"]);
        } else {
            stage
                .nodes
                .until(|nodes| nodes.running("main").len() == 2)
                .await;
            let alert = stage
                .cloud
                .message(|message| matches!(message.body, Body::Alerts(_)))
                .await;
            let text = format!("{alert:?}");
            assert!(text.contains("left on node second"), "{text}");
            // When that Node is back, what was left there is removed.
            let mut second = second;
            second.instances = Some(Default::default());
            stage.nodes.connect("second", second);
            tokio::time::sleep(MOMENT).await;
            let calls = stage.nodes.calls();
            assert!(
                calls.contains(&"remove web:s:1 on second".to_owned()),
                "{calls:?}"
            );
        }
        stage.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_kept_for_its_time_and_then_removed() {
    let mut stage = Stage::new(&["main"]).await;
    stage.images.configure(storing(StoragePolicy::Pinned));
    stage.options.placing.keep_instances_secs = 3600;
    stage.start().await;
    stage
        .settle(desired(&[("web", "1", 1), ("db", "1", 1)]))
        .await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    tokio::time::sleep(MOMENT).await;
    let removed = |stage: &Stage| {
        let calls = stage.nodes.calls();
        calls.contains(&"remove db:s:0 on main".to_owned())
    };
    assert!(!removed(&stage), "it is cached");
    stage.kill().await;
    stage.options.placing.keep_instances_secs = 0;
    stage.start().await;
    tokio::time::sleep(MOMENT).await;
    assert!(removed(&stage), "{:?}", stage.nodes.calls());
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_subject_that_the_unit_does_not_report_disables_its_instances() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 1)]);
    wish.subjects = Some(vec![DesiredSubject {
        subject: SubjectId::new("s").unwrap(),
        subject_type: SubjectType::User,
        is_reported_from_unit: true,
    }]);
    stage.cloud.desire(wish.clone()).await;
    stage
        .cloud
        .whole(|status| {
            stage::item_state(status, "web", "1") == Some(aos_types::ItemState::Installed)
        })
        .await;
    assert_eq!(stage.nodes.all_running(), Vec::<String>::new());
    stage.iam.report(&["s"]);
    stage
        .nodes
        .until(|nodes| nodes.all_running() == ["web:s:0 1"])
        .await;
    stage.iam.report(&[]);
    stage
        .nodes
        .until(|nodes| nodes.all_running().is_empty())
        .await;
    // It is as desired: the same again begins no update.
    let calls = stage.nodes.calls().len();
    stage.cloud.desire(wish).await;
    stage.cloud.status(|status| !status.is_delta).await;
    assert_eq!(stage.nodes.calls().len(), calls);
    stage.stop().await;
}

#[tokio::test]
async fn why_names_the_nodes_that_were_left_out_and_what_is_waited_for() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 3600;
    stage.start().await;
    let mut wish = desired(&[("web", "1", 2)]);
    wish.unit_config = Some(stage::config("1.0.0", "main"));
    wish.instances.as_mut().unwrap()[0].labels = vec!["second".into()];
    stage.settle(wish).await;
    let texts = |stage: &Stage| -> Vec<(bool, String)> {
        let answer = stage.local.why();
        assert_eq!(answer.chains.len(), 2);
        let first = &answer.chains[0];
        first
            .reasons
            .iter()
            .map(|reason| (reason.holds, format!("{}: {}", reason.stage, reason.text)))
            .collect()
    };
    let before = texts(&stage);
    assert!(before.iter().all(|(holds, _)| *holds), "{before:?}");
    stage.iam.pause("second", true);
    stage
        .nodes
        .until(|nodes| nodes.running("second").is_empty())
        .await;
    tokio::time::sleep(MOMENT).await;
    let paused = texts(&stage);
    assert!(
        paused.contains(&(
            false,
            "placement: it waits for node second, which is paused, to be resumed".into()
        )),
        "{paused:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn nodes_that_exchange_instances_part_with_them_first() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    let sides = |web: &str, db: &str| {
        let mut wish = desired(&[("web", "1", 1), ("db", "1", 1)]);
        wish.unit_config = Some(stage::config("1.0.0", "main"));
        let instances = wish.instances.as_mut().unwrap();
        instances[0].labels = vec![web.into()];
        instances[1].labels = vec![db.into()];
        wish
    };
    stage.settle(sides("main", "second")).await;
    let before = stage.nodes.calls().len();
    stage.cloud.desire(sides("second", "main")).await;
    stage
        .nodes
        .until(|nodes| {
            nodes.running("main") == ["db:s:0 1"] && nodes.running("second") == ["web:s:0 1"]
        })
        .await;
    // Neither is given what the other one still runs.
    let calls = stage.nodes.calls().split_off(before);
    let mut updates: Vec<&str> = calls
        .iter()
        .map(String::as_str)
        .filter(|call| call.starts_with("update "))
        .take(4)
        .collect();
    updates[..2].sort_unstable();
    updates[2..].sort_unstable();
    assert_eq!(
        updates,
        [
            "update main +0 -1",
            "update second +0 -1",
            "update main +1 -0",
            "update second +1 -0"
        ]
    );
    stage.stop().await;
}

/// A Node runs web and db, has a list with web alone in hand and does not begin with it. Gives how many calls there were.
async fn a_list_without_db_is_in_hand(stage: &mut Stage) -> usize {
    stage
        .settle(desired(&[("web", "1", 1), ("db", "1", 1)]))
        .await;
    let mut both = stage.nodes.disconnect("main");
    stage.nodes.connect("main", both.clone());
    stage.settle(desired(&[("web", "1", 1)])).await;
    let before = stage.nodes.calls().len();
    stage.nodes.hold(true);
    // As it was before its last list: it was restored so.
    both.connection = stage.nodes.disconnect("main").connection;
    stage.nodes.connect("main", both);
    stage
        .nodes
        .until(|nodes| nodes.calls()[before..].contains(&"update main +1 -1".into()))
        .await;
    stage.nodes.calls().len()
}

#[tokio::test]
async fn a_node_is_not_adopted_while_it_may_have_an_older_list_in_hand() {
    // Seed 700244 of the simulator.
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    let before = a_list_without_db_is_in_hand(&mut stage).await;
    // What it runs fits again; what it will run does not.
    stage
        .cloud
        .desire(desired(&[("web", "1", 1), ("db", "1", 1)]))
        .await;
    stage
        .nodes
        .until(|nodes| nodes.calls()[before..].contains(&"update main +2 -0".into()))
        .await;
    stage.nodes.hold(false);
    stage
        .settle(desired(&[("web", "1", 1), ("db", "1", 1)]))
        .await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.running("main"), ["db:s:0 1", "web:s:0 1"]);
    stage.stop().await;
}

#[tokio::test]
async fn an_adopted_node_that_carries_out_a_list_of_an_earlier_cm_is_given_its_own() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    stage.nodes.hold(true);
    stage.iam.pause("main", true);
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&"update main +0 -2".into()))
        .await;
    stage.kill().await;
    stage.iam.pause("main", false);
    let before = stage.nodes.calls().len();
    // This one knows nothing of that list, and the Node runs what it shall.
    stage.start().await;
    stage.settle(desired(&[("web", "1", 2)])).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(stage.nodes.calls().len(), before, "it is adopted");
    stage.nodes.hold(false);
    stage
        .nodes
        .until(|nodes| nodes.running("main").is_empty())
        .await;
    stage
        .nodes
        .until(|nodes| nodes.running("main") == ["web:s:0 1", "web:s:1 1"])
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn an_instance_whose_images_cannot_be_read_takes_as_much_as_before() {
    let mut stage = Stage::new(&["main"]).await;
    stage.images.configure(ItemConfig {
        requested_resources: Some(RequestedResources {
            cpu: Some(600),
            ..RequestedResources::default()
        }),
        ..ItemConfig::default()
    });
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.images.spoil("web", "1");
    stage.kill().await;
    stage.start().await;
    // The Node has 1000: there is no room for both.
    stage
        .cloud
        .desire(desired(&[("web", "1", 1), ("db", "1", 1)]))
        .await;
    let status = stage.cloud.whole(|status| nowhere(status).is_some()).await;
    let why = nowhere(&status).unwrap();
    assert!(why.contains("CPU"), "{why}");
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.stop().await;
}
