use aos_cloud_protocol::{Body, StateAcceptance, StateResult, UnitStatus, UpdateState};
use aos_types::{
    AosCode, ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemType, NodeId, SubjectId,
    state_checksum,
};

use super::stage::{Stage, desired, paused, states};
use crate::contract::NodeEvent;

fn ident() -> InstanceIdent {
    InstanceIdent {
        item: ItemId::new("stateful").unwrap(),
        subject: SubjectId::new("s").unwrap(),
        index: 0,
        item_type: ItemType::Service,
        preinstalled: false,
    }
}

async fn writes(stage: &Stage, node: &str, state: &str) {
    tells(stage, node, state, false).await;
}

async fn tells(stage: &Stage, node: &str, state: &str, first: bool) {
    let event = NodeEvent::State {
        node: NodeId::new(node).unwrap(),
        ident: ident(),
        content: state.as_bytes().to_vec(),
        first,
    };
    stage.node_tells(event).await;
}

async fn hears(stage: &mut Stage, state: &str) {
    stage
        .cloud
        .message(|message| match &message.body {
            Body::NewState(new) => {
                assert_eq!(new.checksum, state_checksum(new.state.as_bytes()));
                new.state == state
            }
            _ => false,
        })
        .await;
}

fn answer(state: &str, result: StateResult) -> Body {
    Body::StateAcceptance(StateAcceptance {
        instance: ident(),
        checksum: state_checksum(state.as_bytes()),
        result,
        reason: "it was asked to".into(),
    })
}

fn order(state: &str) -> Body {
    Body::UpdateState(UpdateState {
        instance: ident(),
        checksum: state_checksum(state.as_bytes()),
        state: state.into(),
    })
}

fn place_of(calls: &[String], call: &str) -> Option<usize> {
    calls.iter().rposition(|one| one == call)
}

#[tokio::test]
async fn people_learn_how_an_instance_ended_although_it_runs_again() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    stage
        .node_tells(NodeEvent::Exit {
            node: NodeId::new("main").unwrap(),
            ident: ident(),
            version: "1".into(),
            how: "ended with exit code 3".into(),
            at: aos_time::Timestamp::from_secs(1_000),
        })
        .await;
    let alert = stage
        .cloud
        .message(|message| matches!(message.body, Body::Alerts(_)))
        .await;
    let text = format!("{alert:?}");
    assert!(
        text.contains("ended with exit code 3") && text.contains("stateful"),
        "{text}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn gap_85_a_state_is_told_until_the_cloud_has_answered() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    writes(&stage, "main", "one").await;
    hears(&mut stage, "one").await;
    let kept = format!("kept on main stateful:s:0: {}", state_checksum(b"one"));
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&kept))
        .await;

    // The message arrived, the answer did not: the link broke, CM was killed.
    stage.cloud.drop_connection().await;
    hears(&mut stage, "one").await;
    stage.kill().await;
    stage.start().await;
    hears(&mut stage, "one").await;

    // Rejected: the cloud is asked for the last good one, and the Node is given it.
    stage.cloud.tell(answer("one", StateResult::Rejected)).await;
    stage
        .cloud
        .message(|message| matches!(&message.body, Body::StateRequest(asked) if !asked.default))
        .await;
    stage.cloud.tell(order("nought")).await;
    let given = "state on main stateful:s:0: nought".to_owned();
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&given))
        .await;

    // Accepted: nothing is told again.
    writes(&stage, "main", "two").await;
    hears(&mut stage, "two").await;
    stage.cloud.tell(answer("two", StateResult::Accepted)).await;
    writes(&stage, "main", "three").await;
    hears(&mut stage, "three").await;
    stage
        .cloud
        .tell(answer("three", StateResult::Accepted))
        .await;
    // An order that does not fit its own checksum changes nothing, and somebody is told.
    let Body::UpdateState(mut bad) = order("four") else {
        unreachable!()
    };
    bad.checksum = state_checksum(b"five");
    stage.cloud.tell(Body::UpdateState(bad)).await;
    stage
        .cloud
        .message(|message| matches!(message.body, Body::Alerts(_)))
        .await;
    stage.cloud.drop_connection().await;
    let next = stage
        .cloud
        .message(|message| match &message.body {
            Body::UnitStatus(status) => !status.is_delta,
            Body::NewState(_) => true,
            _ => false,
        })
        .await;
    assert!(matches!(next.body, Body::UnitStatus(_)), "{next:?}");
    stage.stop().await;
}

#[tokio::test]
async fn a_state_is_there_before_its_instance_starts_on_another_node() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 0;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    let on_main = !stage.nodes.running("main").is_empty();
    let (first, other) = if on_main {
        ("main", "second")
    } else {
        ("second", "main")
    };
    writes(&stage, first, "one").await;
    hears(&mut stage, "one").await;

    let mut wish = desired(&[("stateful", "1", 1)]);
    wish.nodes = Some(vec![paused(first)]);
    stage.cloud.desire(wish).await;
    let given = format!("state on {other} stateful:s:0: one");
    let started = format!("update {other} +1 -0");
    stage
        .nodes
        .until(|nodes| place_of(&nodes.calls(), &started).is_some())
        .await;
    let calls = stage.nodes.calls();
    let (given, started) = (place_of(&calls, &given), place_of(&calls, &started));
    assert!(given.is_some() && given < started, "{calls:?}");

    // Who was apart has no say, and does not tell it for ever.
    writes(&stage, first, "stale").await;
    let kept = format!("kept on {first} stateful:s:0: {}", state_checksum(b"stale"));
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&kept))
        .await;
    stage
        .cloud
        .message(|message| match &message.body {
            Body::NewState(new) => panic!("{} was taken over", new.state),
            Body::Alerts(_) => true,
            _ => false,
        })
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn gap_86_a_state_of_a_megabyte_reaches_the_cloud_and_is_asked_for_whenever_it_is_missing() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    let asked = |body: &Body| matches!(body, Body::StateRequest(asked) if !asked.default);
    // Asked at the first start; and again, because nobody answered, when the link and CM are back.
    stage.cloud.drop_connection().await;
    stage.cloud.message(|message| asked(&message.body)).await;
    stage.kill().await;
    stage.start().await;
    stage.cloud.message(|message| asked(&message.body)).await;

    // Every character of it is longer in JSON.
    let large = "\"\n".repeat(1 << 19);
    writes(&stage, "main", &large).await;
    hears(&mut stage, &large).await;
    stage
        .cloud
        .tell(answer(&large, StateResult::Accepted))
        .await;
    let back = "\u{1}\\".repeat(1 << 19);
    stage.cloud.tell(order(&back)).await;
    let given = format!("state on main stateful:s:0: {back}");
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&given))
        .await;
    // One byte more is refused, and people are told.
    writes(&stage, "main", &"x".repeat((1 << 20) + 1)).await;
    stage
        .cloud
        .message(|message| match &message.body {
            Body::NewState(_) => panic!("it was told"),
            Body::Alerts(_) => true,
            _ => false,
        })
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn a_node_that_has_lost_a_state_is_given_it_again() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    // New everywhere: it is no state yet, and then the first one.
    tells(&stage, "main", "", true).await;
    tells(&stage, "main", "one", true).await;
    hears(&mut stage, "one").await;
    stage.cloud.tell(answer("one", StateResult::Accepted)).await;
    // The disk of the Node is another one; what the instance wrote since began from nothing.
    let given = "state on main stateful:s:0: one";
    for (lost, times) in [("", 1), ("begun anew", 2)] {
        tells(&stage, "main", lost, true).await;
        let enough =
            |calls: Vec<String>| calls.iter().filter(|call| *call == given).count() >= times;
        stage.nodes.until(|nodes| enough(nodes.calls())).await;
    }
    stage
        .cloud
        .message(|message| match &message.body {
            Body::NewState(new) => panic!("{} was taken over", new.state),
            Body::Alerts(_) => true,
            _ => false,
        })
        .await;
    stage.stop().await;
}

/// An instance with a state, and one without on each Node, are left by the paused one; gives where they go.
async fn moves(stage: &mut Stage) -> &'static str {
    stage.options.placing.pause_grace_secs = 0;
    stage.start().await;
    let all = desired(&[("stateful", "1", 1), ("web", "1", 2)]);
    stage.settle(all.clone()).await;
    let stateful = "stateful:s:0 1".to_owned();
    let (first, other) = match stage.nodes.running("main").contains(&stateful) {
        true => ("main", "second"),
        false => ("second", "main"),
    };
    writes(stage, first, "one").await;
    hears(stage, "one").await;
    stage.cloud.tell(answer("one", StateResult::Accepted)).await;
    let mut wish = all;
    wish.nodes = Some(vec![paused(first)]);
    stage.cloud.desire(wish).await;
    // The others are not held up.
    stage
        .nodes
        .until(|nodes| nodes.running(other) == ["web:s:0 1", "web:s:1 1"])
        .await;
    other
}

/// What is told of the instance with a state.
fn told(status: &UnitStatus) -> Option<(InstanceState, String)> {
    let mut groups = status.instances.iter().flatten();
    let group = groups.find(|group| group.item.item.as_str() == "stateful")?;
    let one = group.instances.first()?;
    Some((one.state, one.error.clone()?.message))
}

#[tokio::test]
async fn an_instance_is_not_started_before_its_state_is_there_and_holds_up_nobody() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage
        .nodes
        .refuse_states(Some(ErrorInfo::new(AosCode::Failed, "its disk is full")));
    let other = moves(&mut stage).await;
    let waits =
        |state, why: &str| state == InstanceState::Activating && why.contains("disk is full");
    stage
        .cloud
        .whole(|status| told(status).is_some_and(|(state, why)| waits(state, &why)))
        .await;
    assert_eq!(stage.nodes.running(other), ["web:s:0 1", "web:s:1 1"]);
    // Tried again by itself.
    stage.nodes.refuse_states(None);
    stage
        .nodes
        .until(|nodes| nodes.running(other).contains(&"stateful:s:0 1".to_owned()))
        .await;
    let calls = stage.nodes.calls();
    let given = place_of(&calls, &format!("state on {other} stateful:s:0: one"));
    let started = place_of(&calls, &format!("update {other} +3 -0"));
    assert!(given.is_some() && given < started, "{calls:?}");
    stage
        .cloud
        .whole(|status| states(status, "stateful") == [InstanceState::Active])
        .await;
    stage.stop().await;
}

#[tokio::test]
async fn a_state_that_a_node_never_takes_is_told_as_a_failure_and_tried_on() {
    for (code, patience) in [(AosCode::Failed, 1), (AosCode::InvalidArgument, 3600)] {
        let mut stage = Stage::new(&["main", "second"]).await;
        stage.options.placing.state_wait_secs = patience;
        stage
            .nodes
            .refuse_states(Some(ErrorInfo::new(code, "it is too long")));
        let other = moves(&mut stage).await;
        stage
            .cloud
            .whole(|status| {
                told(status).is_some_and(|(state, why)| {
                    state == InstanceState::Failed && why.contains("it is too long")
                })
            })
            .await;
        stage.nodes.refuse_states(None);
        stage
            .nodes
            .until(|nodes| nodes.running(other).contains(&"stateful:s:0 1".to_owned()))
            .await;
        stage.stop().await;
    }
}

#[tokio::test]
async fn a_state_is_not_given_to_the_next_node_while_the_last_one_still_writes_it() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.placing.pause_grace_secs = 0;
    stage.start().await;
    stage.settle(desired(&[("stateful", "1", 1)])).await;
    let (first, other) = match stage.nodes.running("main").is_empty() {
        false => ("main", "second"),
        true => ("second", "main"),
    };
    writes(&stage, first, "one").await;
    hears(&mut stage, "one").await;
    // It takes its time to stop, and writes once more.
    stage.nodes.hold(true);
    let mut wish = desired(&[("stateful", "1", 1)]);
    wish.nodes = Some(vec![paused(first)]);
    stage.cloud.desire(wish).await;
    let parts = format!("update {first} +0 -1");
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&parts))
        .await;
    writes(&stage, first, "last words").await;
    hears(&mut stage, "last words").await;
    stage.nodes.hold(false);
    let started = format!("update {other} +1 -0");
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&started))
        .await;
    let calls = stage.nodes.calls();
    let given = place_of(
        &calls,
        &format!("state on {other} stateful:s:0: last words"),
    );
    assert!(
        given.is_some() && given < place_of(&calls, &started),
        "{calls:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_status_names_the_checksum_of_the_state_that_is_on_the_node() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage
        .settle(desired(&[("stateful", "1", 1), ("web", "1", 1)]))
        .await;
    writes(&stage, "main", "one").await;
    hears(&mut stage, "one").await;
    stage.cloud.drop_connection().await;
    let status = stage.cloud.status(|status| !status.is_delta).await;
    let of = |item: &str| -> Vec<Option<String>> {
        let groups = status.instances.iter().flatten();
        let groups = groups.filter(|group| group.item.item.as_str() == item);
        let instances = groups.flat_map(|group| &group.instances);
        instances.map(|one| one.state_checksum.clone()).collect()
    };
    assert_eq!(of("stateful"), [Some(state_checksum(b"one"))]);
    assert_eq!(of("web"), [None]);
    stage.stop().await;
}
