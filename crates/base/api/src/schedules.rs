use std::{ops::RangeInclusive, time::Duration};

use aos_types::{
    Schedule, ScheduleRule, TimeOfDay, Timetable, TimetableEntry, tolerant::FieldError,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Shortest and longest life of an update that waits, in seconds.
const TTL: RangeInclusive<u64> = 60..=31_536_000;

/// When an update that is ready may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleType {
    /// At once.
    Force,
    /// When somebody on the Unit says so.
    Trigger,
    /// In the slots of a timetable.
    Timetable,
}

/// When one part of a Unit (software or firmware) may be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSchedule {
    /// How it is decided.
    #[serde(rename = "type")]
    pub schedule_type: ScheduleType,
    /// Seconds after which an update that still waits is given up: 60 to 31536000; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The slots, for `timetable` and only for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timetable: Vec<TimetableDay>,
}

/// The slots of one day of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimetableDay {
    /// 1 (Monday) to 7, by the Unit's local time.
    pub day_of_week: u64,
    /// The slots, not overlapping.
    pub time_slots: Vec<TimeSlot>,
}

/// A part of a day, by the Unit's local time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeSlot {
    /// `HH:MM` or `HH:MM:SS`.
    pub start: String,
    /// After `start`; `24:00` is the end of the day.
    pub end: String,
}

/// The update schedules of a Unit or a unit model; an absent one says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSchedules {
    /// For software: services and layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sota: Option<UpdateSchedule>,
    /// For firmware: components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fota: Option<UpdateSchedule>,
}

/// The update schedules of a Unit and where they come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitUpdateSchedules {
    /// What is said for this Unit.
    pub own: UpdateSchedules,
    /// What is said for its model; counts where the Unit's own says nothing.
    pub of_model: UpdateSchedules,
    /// What is sent to the Unit; an absent one means at once.
    pub in_force: UpdateSchedules,
}

impl UpdateSchedules {
    /// Checks both; the error names the field.
    pub fn check(&self) -> Result<(), FieldError> {
        for (part, schedule) in [("sota", &self.sota), ("fota", &self.fota)] {
            if let Some(schedule) = schedule {
                schedule.to_wire().map_err(|error| error.at(part))?;
            }
        }
        Ok(())
    }
}

impl UpdateSchedule {
    /// As it is sent to Units; the error names the field.
    pub fn to_wire(&self) -> Result<Schedule, FieldError> {
        if let Some(ttl) = self.ttl
            && !TTL.contains(&ttl)
        {
            let why = format!("must be {} to {} seconds", TTL.start(), TTL.end());
            return Err(FieldError::new(why).at("ttl"));
        }
        let timetable = || self.slots().map_err(|error| error.at("timetable"));
        let rule = match self.schedule_type {
            ScheduleType::Timetable => ScheduleRule::Timetable(timetable()?),
            _ if !self.timetable.is_empty() => {
                let error = FieldError::new("is only for the type `timetable`");
                return Err(error.at("timetable"));
            }
            ScheduleType::Force => ScheduleRule::Force,
            ScheduleType::Trigger => ScheduleRule::Trigger,
        };
        Ok(Schedule {
            ttl: self.ttl.map(Duration::from_secs),
            rule,
        })
    }

    fn slots(&self) -> Result<Timetable, FieldError> {
        let mut entries = Vec::new();
        for (place, day) in self.timetable.iter().enumerate() {
            let at = |error: FieldError| error.at_index(place);
            if day.time_slots.is_empty() {
                return Err(at(
                    FieldError::new("must hold at least one slot").at("time_slots")
                ));
            }
            let day_of_week = u8::try_from(day.day_of_week).unwrap_or(u8::MAX);
            let mut time_slots = Vec::new();
            for (index, slot) in day.time_slots.iter().enumerate() {
                let read = |key: &str, text: &str| {
                    text.parse::<TimeOfDay>()
                        .map_err(|error| at(error.at(key).at_index(index).at("time_slots")))
                };
                time_slots.push(aos_types::TimeSlot {
                    start: read("start", &slot.start)?,
                    end: read("end", &slot.end)?,
                });
            }
            entries.push(TimetableEntry {
                day_of_week,
                time_slots,
            });
        }
        let (timetable, errors) = Timetable::new(entries);
        if let Some(error) = errors.into_iter().next() {
            return Err(in_our_names(error));
        }
        timetable.ok_or_else(|| FieldError::new("must hold at least one slot"))
    }
}

/// The keys of the wire are in camel case.
fn in_our_names(error: FieldError) -> FieldError {
    let path = error
        .path()
        .replace("timeSlots", "time_slots")
        .replace("dayOfWeek", "day_of_week");
    let text = error.to_string();
    let why = text
        .split_once("`: ")
        .map_or(text.as_str(), |(_, why)| why)
        .to_owned();
    FieldError::new(why).at(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn impossible_schedules_are_refused_by_the_field() {
        let slot = |start: &str, end: &str| json!({"start": start, "end": end});
        let table = |day: u64, slots: serde_json::Value| json!({"sota": {"type": "timetable", "timetable": [{"day_of_week": day, "time_slots": slots}]}});
        let fine = [
            json!({}),
            json!({"sota": {"type": "force"}, "fota": {"type": "trigger", "ttl": 3600}}),
            table(
                7,
                json!([slot("22:00", "24:00"), slot("00:00:00", "05:30:15")]),
            ),
        ];
        for schedules in fine {
            let read: UpdateSchedules = serde_json::from_value(schedules.clone()).unwrap();
            assert_eq!(read.check(), Ok(()), "{schedules}");
            assert_eq!(serde_json::to_value(read).unwrap(), schedules);
        }
        let bad = [
            (json!({"fota": {"type": "force", "ttl": 59}}), "fota.ttl"),
            (json!({"sota": {"type": "timetable"}}), "sota.timetable"),
            (
                json!({"sota": {"type": "force", "timetable": [{"day_of_week": 1, "time_slots": []}]}}),
                "sota.timetable",
            ),
            (
                table(0, json!([slot("01:00", "02:00")])),
                "sota.timetable[0].day_of_week",
            ),
            (
                table(8, json!([slot("01:00", "02:00")])),
                "sota.timetable[0].day_of_week",
            ),
            (table(1, json!([])), "sota.timetable[0].time_slots"),
            (
                table(1, json!([slot("25:00", "26:00")])),
                "sota.timetable[0].time_slots[0].start",
            ),
            (
                table(1, json!([slot("1:00", "02:00")])),
                "sota.timetable[0].time_slots[0].start",
            ),
            (
                table(1, json!([slot("01:00", "24:01")])),
                "sota.timetable[0].time_slots[0].end",
            ),
            (
                table(1, json!([slot("01:00", "02:00:00:00")])),
                "sota.timetable[0].time_slots[0].end",
            ),
            (
                table(1, json!([slot("22:00", "02:00")])),
                "sota.timetable[0].time_slots[0]",
            ),
            (
                table(1, json!([slot("01:00", "03:00"), slot("02:00", "04:00")])),
                "sota.timetable[0].time_slots[1]",
            ),
        ];
        for (schedules, field) in bad {
            let read: UpdateSchedules = serde_json::from_value(schedules.clone()).unwrap();
            assert_eq!(read.check().unwrap_err().path(), field, "{schedules}");
        }
    }
}
