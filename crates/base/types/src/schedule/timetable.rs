use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::{Value, json};

use crate::tolerant::{FieldError, Fields, FromJson, word};

/// Most slots of one timetable: far above anything real, and few enough to look through at once.
pub const MAX_SLOTS: usize = 1000;

const DAY: u32 = 24 * 3600;

/// A time of day by the local clock, in whole seconds since midnight: 0 to 86 400, which is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(u32);

impl TimeOfDay {
    /// From seconds since midnight; `None` above 86 400.
    pub const fn from_secs(secs: u32) -> Option<Self> {
        if secs <= DAY { Some(Self(secs)) } else { None }
    }

    /// Seconds since midnight.
    pub const fn as_secs(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(secs) = self;
        write!(
            f,
            "{:02}:{:02}:{:02}",
            secs / 3600,
            secs / 60 % 60,
            secs % 60
        )
    }
}

impl FromStr for TimeOfDay {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let parse = || {
            let mut parts = text.split(':').map(|part| {
                let two = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
                two.then(|| part.parse::<u32>().ok()).flatten()
            });
            let (hours, minutes) = (parts.next()??, parts.next()??);
            let seconds = match parts.next() {
                Some(seconds) => seconds?,
                None => 0,
            };
            let whole = parts.next().is_none() && minutes < 60 && seconds < 60;
            whole
                .then(|| Self::from_secs(hours * 3600 + minutes * 60 + seconds))
                .flatten()
        };
        parse().ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            FieldError::new(format!(
                "`{text}` is not a time of day such as 07:30 or 07:30:15"
            ))
        })
    }
}

/// Part of a day: from `start` up to `end`, which is later and belongs to it no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSlot {
    /// Its first moment.
    pub start: TimeOfDay,
    /// The first moment after it.
    pub end: TimeOfDay,
}

impl TimeSlot {
    /// Whether this second of the day is in it.
    pub fn holds(&self, second: u32) -> bool {
        self.start.0 <= second && second < self.end.0
    }
}

/// The slots of one day of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimetableEntry {
    /// 1 is Monday, 7 is Sunday.
    pub day_of_week: u8,
    /// Its slots.
    pub time_slots: Vec<TimeSlot>,
}

/// Slots of a week by local days: at least one, none empty, none overlapping another, at most [`MAX_SLOTS`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timetable {
    days: BTreeMap<u8, Vec<TimeSlot>>,
}

impl Timetable {
    /// Puts one together. `None` if nothing is left; what was refused comes beside it, by field.
    pub fn new(entries: Vec<TimetableEntry>) -> (Option<Self>, Vec<FieldError>) {
        let mut building = Building::default();
        for (place, entry) in entries.iter().enumerate() {
            let day = building.day(i64::from(entry.day_of_week));
            let day = day.map_err(|error| error.at_index(place));
            let Some(day) = building.note(day) else {
                continue;
            };
            for (index, slot) in entry.time_slots.iter().enumerate() {
                let put = building.put(day, *slot);
                building.note(
                    put.map_err(|error| error.at_index(index).at("timeSlots").at_index(place)),
                );
            }
        }
        building.finish()
    }

    /// Reads the list as a peer wrote it, element by element.
    pub(super) fn read(value: &Value) -> (Option<Self>, Vec<FieldError>) {
        let mut building = Building::default();
        let entries = match list(value) {
            Ok(entries) => entries,
            Err(error) => return (None, vec![error]),
        };
        for (place, entry) in entries.iter().enumerate() {
            if building.is_full() {
                break;
            }
            let read = building
                .read_entry(entry)
                .map_err(|error| error.at_index(place));
            let slots = building.note(read);
            for (index, (day, slot)) in slots.into_iter().flatten().enumerate() {
                if building.is_full() {
                    break;
                }
                let put = slot.and_then(|slot| building.put(day, slot));
                building.note(
                    put.map_err(|error| error.at_index(index).at("timeSlots").at_index(place)),
                );
            }
        }
        building.finish()
    }

    /// The slots of a day (1 is Monday), in order.
    pub fn of_day(&self, day_of_week: u8) -> &[TimeSlot] {
        self.days.get(&day_of_week).map_or(&[], Vec::as_slice)
    }

    /// All days that have slots.
    pub fn entries(&self) -> impl Iterator<Item = TimetableEntry> + '_ {
        self.days.iter().map(|(day, slots)| TimetableEntry {
            day_of_week: *day,
            time_slots: slots.clone(),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let slot = |slot: &TimeSlot| json!({ "start": slot.start.to_string(), "end": slot.end.to_string() });
        self.days
            .iter()
            .map(|(day, slots)| json!({ "dayOfWeek": day, "timeSlots": slots.iter().map(slot).collect::<Vec<_>>() }))
            .collect()
    }
}

fn list(value: &Value) -> Result<&Vec<Value>, FieldError> {
    match value {
        Value::Array(list) => Ok(list),
        // The words of the tolerant reader.
        other => Err(Vec::<Value>::from_json(other)
            .err()
            .unwrap_or_else(|| FieldError::new("expected a list"))),
    }
}

/// A timetable that grows slot by slot.
#[derive(Default)]
struct Building {
    /// By day and start, so that only neighbours can overlap.
    days: BTreeMap<u8, BTreeMap<TimeOfDay, TimeSlot>>,
    count: usize,
    errors: Vec<FieldError>,
    full: bool,
}

/// Slots of one entry with their day, each read by itself.
type Slots = Vec<(u8, Result<TimeSlot, FieldError>)>;

impl Building {
    fn note<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn day(&self, day: i64) -> Result<u8, FieldError> {
        u8::try_from(day)
            .ok()
            .filter(|day| (1..=7).contains(day))
            .ok_or_else(|| {
                FieldError::new(format!("{day} is no day; 1 is Monday, 7 is Sunday"))
                    .at("dayOfWeek")
            })
    }

    fn read_entry(&self, entry: &Value) -> Result<Slots, FieldError> {
        let fields = Fields::of(entry)?;
        let day = self.day(fields.req("dayOfWeek")?)?;
        let slots = fields
            .get("timeSlots")
            .ok_or_else(|| FieldError::new("is missing").at("timeSlots"))?;
        let slots = list(slots).map_err(|error| error.at("timeSlots"))?;
        Ok(slots.iter().map(|slot| (day, read_slot(slot))).collect())
    }

    fn is_full(&mut self) -> bool {
        if self.count >= MAX_SLOTS {
            self.full = true;
        }
        self.full
    }

    fn put(&mut self, day: u8, slot: TimeSlot) -> Result<(), FieldError> {
        if self.is_full() {
            return Ok(());
        }
        let (start, end) = (slot.start, slot.end);
        if end <= start {
            return Err(FieldError::new(format!(
                "ends at {end}, not after its start at {start}; write a slot that goes on past midnight as two, one for \
                 each day"
            )));
        }
        let slots = self.days.entry(day).or_default();
        let before = slots.range(..end).next_back().map(|(_, before)| *before);
        if let Some(other) = before.filter(|other| other.end > start) {
            return Err(FieldError::new(format!(
                "overlaps the slot from {} to {} of the same day",
                other.start, other.end
            )));
        }
        slots.insert(start, slot);
        self.count += 1;
        Ok(())
    }

    fn finish(mut self) -> (Option<Timetable>, Vec<FieldError>) {
        if self.full {
            self.errors.push(FieldError::new(format!(
                "holds more than {MAX_SLOTS} slots; those after them are left out"
            )));
        }
        if self.count == 0 && self.errors.is_empty() {
            self.errors
                .push(FieldError::new("holds no slot that can be used"));
        }
        let days = self
            .days
            .into_iter()
            .filter(|(_, slots)| !slots.is_empty())
            .map(|(day, slots)| (day, slots.into_values().collect()))
            .collect();
        let timetable = (self.count > 0).then_some(Timetable { days });
        (timetable, self.errors)
    }
}

fn read_slot(value: &Value) -> Result<TimeSlot, FieldError> {
    let fields = Fields::of(value)?;
    let time = |keys: &[&'static str]| {
        let (key, value) = fields.any(keys).ok_or_else(|| {
            FieldError::new("is missing").at(keys.first().copied().unwrap_or_default())
        })?;
        word::<TimeOfDay>(value).map_err(|error| error.at(key))
    };
    Ok(TimeSlot {
        start: time(&["start"])?,
        end: time(&["end", "finish"])?,
    })
}
