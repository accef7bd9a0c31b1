//! What our messages do that the original's do not (`docs/protocol/known-defects.md`, 11 to 13).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use aos_cloud_protocol::{
    Alert, AlertEvent, Alerts, Body, Caps, Certificate, DesiredStatus, Header, LogStatus, Message,
    PushLog, QuotaState, decode,
};
use aos_time::Timestamp;
use aos_types::{InstanceIdent, ItemId, ItemType, NodeId, SubjectId, SystemId};
use serde_json::{Value, json};

fn message(body: Body) -> Message {
    Message {
        header: Header {
            system_id: SystemId::new("unit").unwrap(),
            created_at: Timestamp::from_secs(1_800_000_000),
            txn: "t".into(),
        },
        correlation_id: None,
        body,
    }
}

fn read(data: &Value) -> Message {
    let header =
        json!({"version": 7, "systemId": "unit", "createdAt": "2027-01-15T08:00:00Z", "txn": "t"});
    let frame = json!({"header": header, "data": data}).to_string();
    let decoded = decode(frame.as_bytes(), &Caps::default()).unwrap();
    assert_eq!(decoded.unreadable, [], "{data}");
    decoded.message
}

fn written(message: &Message) -> Value {
    let mut frame: Value = serde_json::from_slice(&message.encode()).unwrap();
    frame["data"].take()
}

/// The texts of a JSON value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn gap_11_base64_is_written_without_line_breaks_and_read_with_them() {
    let bytes: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
    let log = message(Body::PushLog(PushLog {
        node: NodeId::new("main").unwrap(),
        part: 1,
        parts_count: 1,
        content: bytes.clone(),
        status: LogStatus::Ok,
        error: None,
    }));
    let certificate = message(Body::DesiredStatus(DesiredStatus {
        certificates: Some(vec![Certificate {
            der: bytes.clone(),
            fingerprint: "AB".into(),
        }]),
        ..DesiredStatus::default()
    }));
    for message in [log, certificate] {
        let data = written(&message);
        for text in texts(&data) {
            assert!(!text.contains(char::is_whitespace), "{text}");
        }
        assert_eq!(read(&data), message);
        // As the original writes it.
        let broken = |text: &str| {
            let lines: Vec<&str> = text
                .as_bytes()
                .chunks(72)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            json!(lines.join("\r\n"))
        };
        let mut other = data.clone();
        let field = match &message.body {
            Body::PushLog(_) => &mut other["content"],
            _ => &mut other["certificates"][0]["certificate"],
        };
        *field = broken(field.as_str().unwrap());
        assert_eq!(read(&other), message);
    }
}

#[test]
fn gap_12_both_spellings_are_read_and_the_one_the_reader_knows_is_written() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let instance = || json!({"item": {"id": "i", "type": "service"}, "instance": 0});
    let with = |mut object: Value, key: &str, value: Value| {
        object[key] = value;
        object
    };
    let subject = json!({"id": "s"});
    let alert = |tag: &str, subject_key: &str| {
        let alert = with(instance(), "tag", json!(tag));
        let alert = with(alert, "timestamp", json!("2027-01-15T08:00:00Z"));
        let alert = with(alert, "message", json!("m"));
        let alert = with(alert, "node", json!({"codename": "n"}));
        let alert = with(alert, "deviceId", json!("d"));
        json!({"messageType": "alerts", "items": [with(alert, subject_key, subject.clone())]})
    };
    let blob = |hash: &str| {
        let item = json!({"digest": digest, "urls": ["https://x"], "sha256": hash, "size": 1});
        json!({"messageType": "blobUrls", "items": [item]})
    };
    let env = |key: &str| {
        let status = with(instance(), "name", json!("A"));
        json!({"messageType": "overrideEnvVarsStatus", "statuses": [with(status, key, subject.clone())]})
    };
    let states = |key: &str| {
        let state = json!({"timestamp": "2027-01-15T08:00:00Z", "state": "provisioned", key: true});
        let node = json!({"node": {"codename": "n"}, "nodeStates": [state], "items": []});
        json!({"messageType": "monitoringData", "nodes": [node]})
    };
    let log = |status: &str| json!({"messageType": "pushLog", "node": {"codename": "n"}, "status": status});
    let secrets = |nodes: Value| {
        let secrets = json!({"version": "2.0.0", "nodes": nodes});
        json!({"messageType": "renewCertificatesNotification", "certificates": [], "unitSecrets": secrets})
    };
    let secret = json!({"node": {"codename": "n"}, "secret": "p"});
    // What we write, then the other spelling.
    let pairs = [
        (
            blob(&"00".repeat(32)),
            blob("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ),
        (
            alert("deviceAllocateAlert", "subject"),
            alert("resourceAllocateAlert", "subject"),
        ),
        (
            alert("updateItemInstanceAlert", "subjectId"),
            alert("updateItemInstanceAlert", "subject"),
        ),
        (env("subjectId"), env("subject")),
        (states("connected"), states("isConnected")),
        (log("failed"), log("error")),
        (secrets(json!([secret])), secrets(secret)),
    ];
    for (ours, other) in pairs {
        let message = read(&ours);
        assert_eq!(read(&other), message, "{other}");
        let text = written(&message).to_string();
        for (key, word) in [
            ("sha256", &ours["items"][0]["sha256"]),
            ("tag", &ours["items"][0]["tag"]),
            ("status", &ours["status"]),
        ] {
            if let Some(word) = word.as_str() {
                assert!(text.contains(&format!("\"{key}\":\"{word}\"")), "{text}");
            }
        }
        for key in ["subjectId", "connected", "isConnected", "\"nodes\":["] {
            assert_eq!(
                text.contains(key),
                ours.to_string().contains(key),
                "{key}: {text}"
            );
        }
    }
}

#[test]
fn gap_13_the_beginning_and_the_end_of_a_quota_alert_are_told() {
    let instance = InstanceIdent {
        item: ItemId::new("i").unwrap(),
        subject: SubjectId::new("s").unwrap(),
        index: 0,
        item_type: ItemType::Service,
        preinstalled: false,
    };
    let states = [
        Some((QuotaState::Raise, "raise")),
        Some((QuotaState::Continue, "continue")),
        Some((QuotaState::Fall, "fall")),
        None,
    ];
    for state in states {
        let (state, word) = (state.map(|(state, _)| state), state.map(|(_, word)| word));
        let events = [
            AlertEvent::SystemQuota {
                node: NodeId::new("n").unwrap(),
                parameter: "ram".into(),
                value: 5,
                state,
            },
            AlertEvent::InstanceQuota {
                instance: instance.clone(),
                parameter: "cpu".into(),
                value: 5,
                state,
            },
        ];
        let items = events.map(|event| Alert {
            timestamp: Timestamp::from_secs(1_800_000_000),
            event,
        });
        let message = message(Body::Alerts(Alerts {
            items: items.into(),
        }));
        let data = written(&message);
        for item in data["items"].as_array().unwrap() {
            assert_eq!(item.get("state").and_then(Value::as_str), word);
        }
        assert_eq!(read(&data), message);
    }
    // A word from elsewhere costs the state, not the alert.
    let strange = json!({"messageType": "alerts", "items": [{
        "timestamp": "2027-01-15T08:00:00Z", "tag": "systemQuotaAlert", "node": {"codename": "n"},
        "parameter": "ram", "value": 5, "state": "sideways"}]});
    let Body::Alerts(alerts) = read(&strange).body else {
        panic!("no alerts")
    };
    assert!(matches!(
        alerts.items[0].event,
        AlertEvent::SystemQuota { state: None, .. }
    ));
}
