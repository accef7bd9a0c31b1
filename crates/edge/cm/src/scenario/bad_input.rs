//! Desired states that are wrong or too large, over the real link: each is refused or bounded by element, the reason is told,
//! nothing that runs is stopped for it, and the next good one is taken at once.

use std::time::{Duration, Instant};

use aos_types::{InstanceState, ItemState};
use serde_json::{Value, json};

use super::stage::{Stage, desired, item_state, states};

fn frame(data: &Value, txn: &str) -> String {
    let mut data = data.clone();
    data["messageType"] = "desiredStatus".into();
    let header = json!({
        "version": 7, "systemId": "unit", "createdAt": "2026-01-01T00:00:00Z", "txn": txn,
    });
    json!({ "header": header, "data": data }).to_string()
}

/// What is wrong, and what the Unit must say of it.
fn cases() -> Vec<(&'static str, Value, &'static str)> {
    let good = desired(&[("web", "1", 1)]).to_json();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut data = good.clone();
        change(&mut data);
        data
    };
    let entry = |item: &str| json!({"item": {"id": item}, "subject": {"id": "s"}, "priority": 0, "numInstances": 1});
    vec![
        (
            "an unknown item",
            with(&|data| {
                data["instances"]
                    .as_array_mut()
                    .unwrap()
                    .push(entry("ghost"))
            }),
            "instances of `ghost` are asked for, but the item is not among the items",
        ),
        (
            "an unknown subject",
            with(&|data| {
                data["subjects"] = json!([{"identity": {"id": "other"}, "type": "group"}])
            }),
            "`s` is used and not among the subjects",
        ),
        (
            "an unknown Node",
            with(&|data| {
                data["nodes"] = json!([{"item": {"codename": "ghost-node"}, "state": "paused"}])
            }),
            "node `ghost-node` is not part of this Unit",
        ),
        (
            "100,000 instances",
            with(&|data| data["instances"][0]["numInstances"] = 100_000.into()),
            "it asks for 100000 instances, more than the 1000 CM is configured to take",
        ),
        (
            "no instance of a service",
            with(&|data| data["instances"][0]["numInstances"] = 0.into()),
            "asks for no instances, which only a component may",
        ),
        (
            "10 MB of labels",
            with(&|data| data["instances"][0]["labels"] = json!(["x".repeat(10_000_000)])),
            "holds a label of 10000000 bytes",
        ),
        (
            "a million labels",
            with(&|data| data["instances"][0]["labels"] = vec!["x"; 1_000_000].into()),
            "holds 1000000 labels",
        ),
        (
            "an item twice",
            with(&|data| {
                let item = data["items"][0].clone();
                data["items"].as_array_mut().unwrap().push(item);
            }),
            "`web` is listed twice",
        ),
        (
            "instances twice",
            with(&|data| {
                data["instances"].as_array_mut().unwrap().push(entry("web"));
            }),
            "is listed twice",
        ),
        (
            "a digest with the characters of a path",
            with(&|data| data["items"][0]["indexDigest"] = "sha256:../../../etc/passwd".into()),
            "indexDigest",
        ),
        (
            "an id with the characters of a path",
            with(&|data| data["items"][0]["item"]["id"] = "../web".into()),
            "items[0]",
        ),
        (
            "impossible slots",
            with(&|data| {
                data["sotaSchedule"] = json!({"type": "timetable", "timetable": [
                    {"dayOfWeek": 1, "timeSlots": [{"start": "25:00", "end": "07:99"}]},
                ]});
            }),
            "sotaSchedule",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_told_and_stops_nothing() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let calls = stage.nodes.calls();
    for (place, (what, data, said)) in cases().into_iter().enumerate() {
        let began = Instant::now();
        let text = frame(&data, &format!("bad-{place}"));
        stage.cloud.raw(&text).await;
        // A message may say it with quotes of its own.
        let told = |message: &aos_cloud_protocol::Message| {
            format!("{message:?}").replace("\\\"", "\"").contains(said)
        };
        stage.cloud.message(told).await;
        assert_eq!(stage.nodes.running("main"), ["web:s:0 1"], "{what}");
        assert_eq!(stage.nodes.calls(), calls, "{what}: the Node is left alone");
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
    }
    // Nothing of it stays behind: the next good one is carried out.
    let status = stage
        .settle(desired(&[("web", "2", 1), ("db", "1", 1)]))
        .await;
    assert_eq!(states(&status, "web"), [InstanceState::Active]);
    assert_eq!(item_state(&status, "db", "1"), Some(ItemState::Installed));
    stage.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_entries_are_bounded_and_cm_stays_responsive() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let mut data = desired(&[("web", "1", 1)]).to_json();
    let one = data["instances"][0].clone();
    let entries = (0..100_000).map(|number| {
        let mut entry = one.clone();
        entry["subject"]["id"] = format!("s{number}").into();
        entry
    });
    data["instances"] = entries.collect::<Vec<_>>().into();
    stage.cloud.raw(&frame(&data, "large")).await;
    let said = |message: &aos_cloud_protocol::Message| format!("{message:?}").contains("100000");
    stage.cloud.message(said).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.settle(desired(&[("web", "2", 1)])).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 2"]);
    stage.stop().await;
}
