//! When updates may be carried out, as people write it on a command line.

use aos_api::{ScheduleType, TimeSlot, TimetableDay, UpdateSchedule, UpdateSchedules};
use clap::Args;

use crate::failure::Failure;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What to set; nothing shows what holds.
#[derive(Args)]
pub struct Setting {
    /// When software may be changed: `force` (at once), `trigger` (when told on the Unit), `unset`, or a timetable in the
    /// Unit's local time such as 'mon-fri 22:00-24:00 00:00-05:00; sat,sun 08:00-18:00'.
    #[arg(long, value_name = "WHEN")]
    sota: Option<String>,
    /// When firmware may be changed, written likewise.
    #[arg(long, value_name = "WHEN")]
    fota: Option<String>,
    /// Give an update up that waited so many seconds.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

impl Setting {
    /// What holds from now on, if anything is to be set: parts that are not named stay.
    pub fn over(&self, now: &UpdateSchedules) -> Result<Option<UpdateSchedules>, Failure> {
        if self.sota.is_none() && self.fota.is_none() {
            if self.ttl.is_some() {
                return Err(Failure::new("--ttl needs --sota or --fota"));
            }
            return Ok(None);
        }
        let part = |asked: &Option<String>, now: &Option<UpdateSchedule>| match asked {
            None => Ok(now.clone()),
            Some(text) => read(text, self.ttl),
        };
        Ok(Some(UpdateSchedules {
            sota: part(&self.sota, &now.sota)?,
            fota: part(&self.fota, &now.fota)?,
        }))
    }
}

fn read(text: &str, ttl: Option<u64>) -> Result<Option<UpdateSchedule>, Failure> {
    let schedule_type = match text.trim() {
        "unset" => return Ok(None),
        "force" => ScheduleType::Force,
        "trigger" => ScheduleType::Trigger,
        _ => ScheduleType::Timetable,
    };
    let timetable = if schedule_type == ScheduleType::Timetable {
        timetable(text).ok_or_else(|| {
            Failure::new(format!("`{text}` does not say when"))
                .hint("write `force`, `trigger`, `unset` or days and slots: 'mon-fri 22:00-24:00; sun 08:00-18:00'")
        })?
    } else {
        Vec::new()
    };
    Ok(Some(UpdateSchedule {
        schedule_type,
        ttl,
        timetable,
    }))
}

fn timetable(text: &str) -> Option<Vec<TimetableDay>> {
    let mut table: Vec<TimetableDay> = Vec::new();
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let mut words = part.split_whitespace();
        let days = days(words.next()?)?;
        let time_slots = words
            .map(|slot| {
                let (start, end) = slot.split_once('-')?;
                Some(TimeSlot {
                    start: start.to_owned(),
                    end: end.to_owned(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        if time_slots.is_empty() {
            return None;
        }
        for day_of_week in days {
            table.push(TimetableDay {
                day_of_week,
                time_slots: time_slots.clone(),
            });
        }
    }
    (!table.is_empty()).then_some(table)
}

/// `mon`, `mon-fri`, `sat,sun`, `daily`.
fn days(text: &str) -> Option<Vec<u64>> {
    let text = text.to_ascii_lowercase();
    if text == "daily" {
        return Some((1..=7).collect());
    }
    let number = |word: &str| {
        let place = DAYS.iter().position(|day| *day == word)?;
        u64::try_from(place + 1).ok()
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to)?);
                if to < from {
                    return None;
                }
                days.extend(from..=to);
            }
            None => days.push(number(part)?),
        }
    }
    Some(days)
}

/// One schedule, for people.
pub fn said(schedule: Option<&UpdateSchedule>, none: &str) -> String {
    let Some(schedule) = schedule else {
        return none.to_owned();
    };
    let when = match schedule.schedule_type {
        ScheduleType::Force => "at once".to_owned(),
        ScheduleType::Trigger => "when told on the Unit".to_owned(),
        ScheduleType::Timetable => {
            let days: Vec<String> = schedule
                .timetable
                .iter()
                .map(|day| {
                    let place = usize::try_from(day.day_of_week).unwrap_or(0);
                    let name = DAYS.get(place.wrapping_sub(1)).unwrap_or(&"?");
                    let slots: Vec<String> = day
                        .time_slots
                        .iter()
                        .map(|slot| format!("{}-{}", slot.start, slot.end))
                        .collect();
                    format!("{name} {}", slots.join(" "))
                })
                .collect();
            days.join("; ")
        }
    };
    match schedule.ttl {
        Some(ttl) => format!("{when} (given up after {ttl} s)"),
        None => when,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_what_is_sent_and_shown() {
        let text = "mon-tue 22:00-24:00 00:00-05:00; sun 08:00-18:00";
        let read = read(text, Some(3600)).unwrap().unwrap();
        assert_eq!(read.schedule_type, ScheduleType::Timetable);
        assert_eq!(
            said(Some(&read), "-"),
            "mon 22:00-24:00 00:00-05:00; tue 22:00-24:00 00:00-05:00; sun 08:00-18:00 (given up after 3600 s)"
        );
        let schedules = UpdateSchedules {
            sota: Some(read),
            fota: None,
        };
        assert_eq!(schedules.check(), Ok(()));
        assert_eq!(super::read("unset", None).unwrap(), None);
        for wrong in ["", "never", "mon", "fri-mon 01:00-02:00", "mon 01:00"] {
            assert!(super::read(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_that_is_not_named_stays() {
        let now = UpdateSchedules {
            sota: read("trigger", None).unwrap(),
            fota: read("force", None).unwrap(),
        };
        let setting = |sota: Option<&str>, ttl| Setting {
            sota: sota.map(str::to_owned),
            fota: None,
            ttl,
        };
        let set = setting(Some("unset"), None).over(&now).unwrap().unwrap();
        assert_eq!((set.sota, &set.fota), (None, &now.fota));
        assert!(setting(None, None).over(&now).unwrap().is_none());
        assert!(setting(None, Some(60)).over(&now).is_err());
    }
}
