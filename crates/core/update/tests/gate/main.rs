//! The rules of the update gates: slots in local time, verdicts, parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

mod parts;
mod properties;
mod slots;
mod stands;

use aos_time::{Timestamp, Zone};
use aos_types::{Schedule, ScheduleRule, Timetable, tolerant::FromJson};
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn berlin() -> Zone {
    Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

/// Slots as `(day, start, end)`.
fn schedule(slots: &[(u8, &str, &str)]) -> Schedule {
    let entries: Vec<Value> = slots
        .iter()
        .map(|(day, start, end)| json!({ "dayOfWeek": day, "timeSlots": [{ "start": start, "end": end }] }))
        .collect();
    Schedule::from_json(&json!({ "type": "timetable", "timetable": entries })).unwrap()
}

fn timetable(slots: &[(u8, &str, &str)]) -> Timetable {
    match schedule(slots).rule {
        ScheduleRule::Timetable(timetable) => timetable,
        other => panic!("{other:?}"),
    }
}
