//! When an update may be carried out: the v6 shape of `sotaSchedule` and `fotaSchedule`
//! (`docs/protocol/unit-cloud.md`, schedules).

mod timetable;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

pub use timetable::{MAX_SLOTS, TimeOfDay, TimeSlot, Timetable, TimetableEntry};

use crate::tolerant::{FieldError, Fields, FromJson};

/// What opens an update gate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ScheduleRule {
    /// It is open.
    #[default]
    Force,
    /// Somebody on the Unit starts the update.
    Trigger,
    /// A slot in local time.
    Timetable(Timetable),
}

impl ScheduleRule {
    /// The word in messages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Trigger => "trigger",
            Self::Timetable(_) => "timetable",
        }
    }
}

/// When an update may be carried out, and how long it may wait for that.
///
/// A schedule that cannot be read never means "force": its rule is then [`ScheduleRule::Trigger`], so that somebody on
/// the Unit decides. Of a timetable the slots that can be read count; if none is left, it is a trigger too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Schedule {
    /// How long the update may wait before it has failed; `None`: as long as the Unit is configured to wait.
    pub ttl: Option<Duration>,
    /// What opens the gate.
    pub rule: ScheduleRule,
}

impl Schedule {
    /// Reads what a peer wrote. What is wrong with it comes beside it, by field; it always errs on the closed side.
    pub fn read(value: &Value) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let fields = match Fields::of(value) {
            Ok(fields) => fields,
            Err(error) => return (Self::closed(None), vec![error]),
        };
        // A whole number of seconds; 0 is how Go writes "not set".
        let ttl = fields.opt::<u64>("ttl").unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let ttl = ttl.filter(|ttl| *ttl > 0).map(Duration::from_secs);
        let word = fields.opt::<String>("type").unwrap_or_else(|error| {
            errors.push(error);
            Some("trigger".into())
        });
        let rule = match word.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "force" => ScheduleRule::Force,
            "trigger" => ScheduleRule::Trigger,
            "timetable" => {
                let (timetable, refused) = match fields.get("timetable") {
                    Some(value) => Timetable::read(value),
                    None => (None, vec![FieldError::new("is missing")]),
                };
                errors.extend(refused.into_iter().map(|error| error.at("timetable")));
                timetable.map_or(ScheduleRule::Trigger, ScheduleRule::Timetable)
            }
            other => {
                let other: String = other.chars().take(64).collect();
                errors.push(
                    FieldError::new(format!(
                        "`{other}` is not a schedule type; known are force, trigger, timetable"
                    ))
                    .at("type"),
                );
                ScheduleRule::Trigger
            }
        };
        (Self { ttl, rule }, errors)
    }

    /// The schedule of something that could not be read.
    pub const fn closed(ttl: Option<Duration>) -> Self {
        Self {
            ttl,
            rule: ScheduleRule::Trigger,
        }
    }

    /// As it is written everywhere.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        if let Some(ttl) = self.ttl {
            out.insert("ttl".into(), json!(ttl.as_secs()));
        }
        out.insert("type".into(), json!(self.rule.as_str()));
        if let ScheduleRule::Timetable(timetable) = &self.rule {
            out.insert("timetable".into(), timetable.to_json());
        }
        Value::Object(out)
    }
}

/// Strict: for a person's input and our own records, where an error is better than a gate that stays shut.
impl FromJson for Schedule {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let (schedule, errors) = Self::read(value);
        errors.into_iter().next().map_or(Ok(schedule), Err)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn absent_words_mean_force_and_unreadable_ones_never_do() {
        for (value, rule) in [
            (json!({}), ScheduleRule::Force),
            (
                json!({ "type": "", "ttl": 0, "timetable": null }),
                ScheduleRule::Force,
            ),
            (json!({ "TYPE": "Trigger" }), ScheduleRule::Trigger),
        ] {
            assert_eq!(
                Schedule::read(&value),
                (Schedule { ttl: None, rule }, vec![]),
                "{value}"
            );
        }
        for (value, error) in [
            (json!("force"), "expected an object, found a text"),
            (
                json!({ "type": "whenever" }),
                "`type`: `whenever` is not a schedule type; known are force, trigger, timetable",
            ),
            (
                json!({ "type": 1 }),
                "`type`: expected a text, found a number",
            ),
            (json!({ "type": "timetable" }), "`timetable`: is missing"),
            (
                json!({ "type": "timetable", "timetable": {} }),
                "`timetable`: expected a list, found an object",
            ),
            (
                json!({ "type": "timetable", "timetable": [] }),
                "`timetable`: holds no slot that can be used",
            ),
        ] {
            let (schedule, errors) = Schedule::read(&value);
            assert_eq!(schedule.rule, ScheduleRule::Trigger, "{value}");
            assert_eq!(texts(&errors), [error], "{value}");
        }
    }

    #[test]
    fn impossible_slots_are_refused_one_by_one() {
        let (schedule, errors) = Schedule::read(&json!({
            "ttl": 3600,
            "type": "timetable",
            "timetable": [
                { "dayOfWeek": 9, "timeSlots": [{ "start": "01:00", "end": "02:00" }] },
                { "dayOfWeek": 1, "timeSlots": [
                    { "start": "22:00", "end": "24:00" },
                    { "start": "23:00:00", "end": "01:00" },
                    { "start": "23:30", "end": "23:45" },
                    { "start": "7:00", "end": "08:00" },
                    { "start": "07:00", "end": "25:00" },
                    { "start": "07:00" },
                    { "start": "07:00", "finish": "08:30:10" },
                ] },
                { "dayOfWeek": 1, "timeSlots": [{ "start": "08:00", "end": "09:00" }] },
                { "dayOfWeek": 2, "timeSlots": [] },
            ],
        }));
        assert_eq!(
            texts(&errors),
            [
                "`timetable[0].dayOfWeek`: 9 is no day; 1 is Monday, 7 is Sunday",
                "`timetable[1].timeSlots[1]`: ends at 01:00:00, not after its start at 23:00:00; write a slot that goes on \
                 past midnight as two, one for each day",
                "`timetable[1].timeSlots[2]`: overlaps the slot from 22:00:00 to 24:00:00 of the same day",
                "`timetable[1].timeSlots[3].start`: `7:00` is not a time of day such as 07:30 or 07:30:15",
                "`timetable[1].timeSlots[4].end`: `25:00` is not a time of day such as 07:30 or 07:30:15",
                "`timetable[1].timeSlots[5].end`: is missing",
                "`timetable[2].timeSlots[0]`: overlaps the slot from 07:00:00 to 08:30:10 of the same day",
            ]
        );
        assert_eq!(
            schedule.to_json(),
            json!({
                "ttl": 3600,
                "type": "timetable",
                "timetable": [{ "dayOfWeek": 1, "timeSlots": [
                    { "start": "07:00:00", "end": "08:30:10" },
                    { "start": "22:00:00", "end": "24:00:00" },
                ] }],
            })
        );
        assert!(Schedule::from_json(&json!({ "type": "whenever" })).is_err());
        let again: Schedule = serde_json::from_value(schedule.to_json()).unwrap();
        assert_eq!(again, schedule);
    }

    #[test]
    fn a_ttl_that_cannot_be_read_is_reported_and_forces_nothing() {
        for ttl in [json!(-1), json!(1.5), json!("soon")] {
            let (schedule, errors) = Schedule::read(&json!({ "type": "trigger", "ttl": ttl }));
            assert_eq!(schedule, Schedule::closed(None));
            assert_eq!(errors.len(), 1);
        }
    }

    #[test]
    fn a_hostile_timetable_is_bounded() {
        let slots: Vec<Value> = (0..2000)
            .map(|i| json!({ "start": time(i * 40), "end": time(i * 40 + 20) }))
            .collect();
        let (schedule, errors) = Schedule::read(
            &json!({ "type": "timetable", "timetable": [{ "dayOfWeek": 3, "timeSlots": slots }] }),
        );
        let ScheduleRule::Timetable(timetable) = schedule.rule else {
            panic!("{schedule:?}");
        };
        assert_eq!(timetable.of_day(3).len(), MAX_SLOTS);
        assert_eq!(
            texts(&errors),
            ["`timetable`: holds more than 1000 slots; those after them are left out"]
        );
    }

    fn time(second: u32) -> String {
        format!(
            "{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}
