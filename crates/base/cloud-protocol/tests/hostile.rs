//! What cannot be read never panics, never removes, and says what is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use aos_cloud_protocol::{
    Body, Caps, Decoded, DesiredStatus, MessageType, Named, Reason, Unreadable, decode,
};
use aos_types::{ItemId, NodeId, Schedule, ScheduleRule, SubjectId};
use proptest::{collection, prelude::*};
use serde_json::{Map, Value, json};

fn frame(data: Value) -> Vec<u8> {
    json!({
        "header": {"version": 7, "systemId": "u", "createdAt": "2026-01-31T12:00:00Z", "txn": "t"},
        "data": data,
    })
    .to_string()
    .into_bytes()
}

fn desired(mut data: Value) -> (DesiredStatus, Vec<Unreadable>) {
    data["messageType"] = "desiredStatus".into();
    let Decoded {
        message,
        unreadable,
    } = decode(&frame(data), &Caps::default()).unwrap();
    let Body::DesiredStatus(desired) = message.body else {
        panic!("not a desired status")
    };
    (desired, unreadable)
}

#[test]
fn an_unreadable_element_is_named_and_the_others_are_kept() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let item = |id: &str, digest: &str| json!({"item": {"id": id, "type": "service"}, "version": "1", "owner": {"id": "o"}, "indexDigest": digest});
    let (desired, unreadable) = desired(json!({
        "items": [item("a", &digest), item("b", "sha256:../../etc/passwd"), {"version": "1"}, 5],
        "instances": [
            {"item": {"id": "a"}, "subject": {"id": "s"}, "numInstances": -1},
            {"item": {"id": "a"}, "subject": {"id": "../s"}},
        ],
        "nodes": [{"item": {"codename": "n"}, "state": "exploded"}],
        "subjects": [{"identity": {"id": "s"}, "type": "alien"}],
        "unitConfig": {"version": "1", "nodes": [{}]},
    }));
    assert_eq!(desired.items.unwrap().len(), 1);
    assert_eq!(desired.instances.unwrap(), []);
    assert_eq!(desired.unit_config, None);
    let id = |text| ItemId::new(text).unwrap();
    let found: Vec<_> = unreadable
        .iter()
        .map(|it| (it.list.as_str(), it.index, it.named.clone()))
        .collect();
    let instances = |subject: Option<&str>| {
        Some(Named::Instances {
            item: id("a"),
            subject: subject.map(|text| SubjectId::new(text).unwrap()),
        })
    };
    assert_eq!(
        found,
        [
            (
                "nodes",
                Some(0),
                Some(Named::Node(NodeId::new("n").unwrap()))
            ),
            ("unitConfig", None, None),
            ("items", Some(1), Some(Named::Item(id("b")))),
            ("items", Some(2), None),
            ("items", Some(3), None),
            ("instances", Some(0), instances(Some("s"))),
            ("instances", Some(1), instances(None)),
            (
                "subjects",
                Some(0),
                Some(Named::Subject(SubjectId::new("s").unwrap()))
            ),
        ]
    );
    let texts: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
    assert!(
        texts[2].starts_with("`items[1].indexDigest`: "),
        "{texts:?}"
    );
    assert!(
        texts[0].starts_with("`nodes[0].state`: `exploded`"),
        "{texts:?}"
    );
}

#[test]
fn absent_null_empty_and_unreadable_lists_are_told_apart() {
    let (absent, none) = desired(json!({ "items": null }));
    assert_eq!((absent.items, absent.instances, none), (None, None, vec![]));
    let (empty, none) = desired(json!({ "items": [] }));
    assert_eq!((empty.items, none), (Some(vec![]), vec![]));
    let (broken, whole) = desired(json!({ "items": {} }));
    assert_eq!(broken.items, None);
    assert_eq!((whole[0].list.as_str(), whole[0].index), ("items", None));
}

#[test]
fn a_list_over_the_cap_is_reported_not_cut() {
    let caps = Caps {
        list_elements: 2,
        ..Caps::default()
    };
    let data = json!({"messageType": "desiredStatus", "instances": [1, 2, 3]});
    let decoded = decode(&frame(data), &caps).unwrap();
    assert_eq!(decoded.unreadable.len(), 1);
    assert!(
        decoded.unreadable[0]
            .to_string()
            .contains("3 elements, more than the 2")
    );
}

#[test]
fn a_bad_instance_in_a_status_hurts_only_itself() {
    let data = json!({"messageType": "unitStatus", "instances": [{
        "item": {"id": "i", "type": "service"}, "subject": {"id": "s"}, "version": "1",
        "instances": [
            {"node": {"codename": "n"}, "runtime": {"codename": "r"}, "instance": 0, "state": "dreaming"},
            {"node": {"codename": "n"}, "runtime": {"codename": "r"}, "instance": 1, "state": "active"}]}]});
    let decoded = decode(&frame(data), &Caps::default()).unwrap();
    let Body::UnitStatus(status) = decoded.message.body else {
        panic!("not a unit status")
    };
    assert_eq!(status.instances.unwrap()[0].instances.len(), 1);
    assert_eq!(decoded.unreadable[0].list, "instances[0].instances");
    assert!(
        decoded.unreadable[0]
            .to_string()
            .starts_with("`instances[0].instances[0].state`")
    );
}

#[test]
fn what_cannot_be_used_still_says_whom_to_answer() {
    let error = decode(&frame(json!({"messageType": "teleport"})), &Caps::default()).unwrap_err();
    assert_eq!(error.txn.as_deref(), Some("t"));
    assert_eq!(error.system_id.as_ref().unwrap().as_str(), "u");
    assert!(
        error
            .to_string()
            .starts_with("the message `teleport` cannot be used: its field `data.messageType`: "),
        "{error}"
    );

    let other = json!({"header": {"version": 6, "systemId": "u", "txn": "t"}, "data": {}});
    let error = decode(other.to_string().as_bytes(), &Caps::default()).unwrap_err();
    assert!(matches!(error.reason, Reason::Version { found: 6 }));
    assert_eq!(error.txn.as_deref(), Some("t"));

    for bad in [&b""[..], b"{", b"[]", b"{}", b"\xff\xfe", b"null"] {
        let error = decode(bad, &Caps::default()).unwrap_err();
        assert_eq!(error.txn, None);
        assert!(
            error
                .to_string()
                .starts_with("the message cannot be used: it"),
            "{error}"
        );
    }
    let caps = Caps {
        message_bytes: 10,
        ..Caps::default()
    };
    let error = decode(&[b' '; 11], &caps).unwrap_err();
    assert!(error.to_string().contains("11 bytes, more than the 10"));
}

#[test]
fn secrets_are_not_shown() {
    let data = json!({"messageType": "renewCertificatesNotification", "certificates": [],
        "unitSecrets": {"nodes": [{"node": {"codename": "n"}, "secret": "hunter2"}]}});
    let decoded = decode(&frame(data), &Caps::default()).unwrap();
    assert!(!format!("{decoded:?}").contains("hunter2"));
}

/// Any JSON, with keys and words of the protocol more often than chance would.
fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "items",
        "item",
        "id",
        "codename",
        "type",
        "service",
        "component",
        "instances",
        "instance",
        "subject",
        "subjects",
        "nodes",
        "node",
        "state",
        "active",
        "installed",
        "version",
        "indexDigest",
        "unitConfig",
        "labels",
        "priority",
        "numInstances",
        "certificates",
        "fingerprint",
        "urls",
        "sha256",
        "digest",
        "filter",
        "nodeIds",
        "tag",
        "systemAlert",
        "timestamp",
        "2026-01-31T12:00:00Z",
        "errorInfo",
        "message",
        "owner",
        "identity",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            collection::vec((words.clone(), inner), 0..6).prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_panics_and_what_is_read_is_written_the_same_again(
        kind in 0..MessageType::ALL.len(),
        data in any_json(),
    ) {
        let mut data = match data {
            Value::Object(map) => Value::Object(map),
            other => json!({ "items": other }),
        };
        data["messageType"] = MessageType::ALL[kind].as_str().into();
        if let Ok(decoded) = decode(&frame(data), &Caps::default()) {
            let bytes = decoded.message.encode();
            let again = decode(&bytes, &Caps::default()).unwrap();
            prop_assert_eq!(again.unreadable, vec![]);
            prop_assert_eq!(again.message.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &Caps::default());
    }
}

#[test]
fn an_unreadable_schedule_is_reported_and_opens_nothing() {
    let (desired, unreadable) = desired(json!({
        "sotaSchedule": "now",
        "fotaSchedule": {"type": "timetable", "timetable": [
            {"dayOfWeek": 8, "timeSlots": []},
            {"dayOfWeek": 5, "timeSlots": [{"start": "03:00", "end": "02:00"}, {"start": "04:00", "end": "05:00"}]},
        ]},
    }));
    assert_eq!(desired.sota_schedule, Some(Schedule::closed(None)));
    let Some(Schedule {
        rule: ScheduleRule::Timetable(timetable),
        ..
    }) = desired.fota_schedule
    else {
        panic!("not a timetable");
    };
    assert_eq!(timetable.of_day(5).len(), 1, "what can be read counts");
    let found: Vec<_> = unreadable.iter().map(|it| it.list.as_str()).collect();
    assert_eq!(found, ["sotaSchedule", "fotaSchedule", "fotaSchedule"]);
    assert_eq!(
        unreadable[1].to_string(),
        "`fotaSchedule.timetable[0].dayOfWeek`: 8 is no day; 1 is Monday, 7 is Sunday"
    );
}
