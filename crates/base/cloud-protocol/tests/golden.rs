//! Every golden file: each spelling in `reads` and the one in `writes` are read as the same message, which is written as
//! `writes`. The table in `docs/protocol/unit-cloud.md` names a file for each row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{collections::BTreeSet, fs, path::Path};

use aos_cloud_protocol::{Caps, Message, MessageType, decode};
use serde_json::{Value, json};

fn read(name: &str, data: &Value) -> Message {
    let frame = json!({
        "header": {"version": 7, "systemId": "unit-1", "createdAt": "2026-01-31T12:00:00Z", "txn": "t-1"},
        "data": data,
    });
    let decoded = decode(frame.to_string().as_bytes(), &Caps::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(decoded.unreadable, [], "{name}");
    decoded.message
}

#[test]
fn every_spelling_is_read_and_one_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/protocol/unit-cloud.md");
    let docs = fs::read_to_string(docs).unwrap();
    let mut seen = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let golden: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let message = read(&name, &golden["writes"]);
        for other in golden["reads"].as_array().unwrap() {
            assert_eq!(read(&name, other), message, "{name}");
        }
        let written: Value = serde_json::from_slice(&message.encode()).unwrap();
        assert_eq!(written["data"], golden["writes"], "{name}");
        assert_eq!(
            written["header"],
            json!({"version": 7, "systemId": "unit-1", "createdAt": "2026-01-31T12:00:00Z", "txn": "t-1"})
        );
        let kind = message.body.message_type();
        let from = golden["from"].as_str().unwrap();
        assert_eq!(kind.is_from_unit(), from != "cloud", "{name}");
        assert_eq!(kind.is_from_cloud(), from != "unit", "{name}");
        if !golden["reads"].as_array().unwrap().is_empty() {
            assert!(
                docs.contains(&format!("`{name}`")),
                "docs/protocol/unit-cloud.md has no row for {name}"
            );
        }
        seen.insert(kind);
    }
    let all: BTreeSet<_> = MessageType::ALL.iter().copied().collect();
    assert_eq!(seen, all, "each of the 26 messages has a golden file");
}
