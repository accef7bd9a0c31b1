use std::fmt;

use jiff::{
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::Timestamp;

/// The rules of local time of one place, as a value: whoever makes it reads the machine's rules, whoever decides is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The text is not a POSIX rule of local time.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a rule of local time such as CET-1CEST,M3.5.0,M10.5.0/3")]
pub struct ParseZoneError {
    text: String,
    #[source]
    source: jiff::Error,
}

/// A calendar day of some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalDate(Date);

/// What calendar and clock of some place show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime(DateTime);

impl Zone {
    /// Local time is UTC.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// From a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`; good for tests and machines without a zone database.
    pub fn posix(text: &str) -> Result<Self, ParseZoneError> {
        TimeZone::posix(text)
            .map(Self)
            .map_err(|source| ParseZoneError {
                text: text.chars().take(64).collect(),
                source,
            })
    }

    /// What calendar and clock show at this moment.
    pub fn local(&self, at: Timestamp) -> LocalTime {
        LocalTime(self.0.to_datetime(instant(at)))
    }

    /// The moments at which the local clock shows this second of this day (86 400 is the end of the day): one, none if the
    /// clock is put forward past it, two if it is put back over it.
    pub fn moments(&self, date: LocalDate, second: u32) -> impl Iterator<Item = Timestamp> + use<> {
        let date_time = match time_of(second) {
            Some(time) => Some(date.0.to_datetime(time)),
            None => date
                .0
                .tomorrow()
                .ok()
                .map(|next| next.to_datetime(Time::midnight())),
        };
        let found = date_time.map(|local| {
            let moment = |offset: jiff::tz::Offset| offset.to_timestamp(local).ok().map(timestamp);
            match self.0.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Unambiguous { offset } => [moment(offset), None],
                AmbiguousOffset::Gap { .. } => [None, None],
                AmbiguousOffset::Fold { before, after } => [moment(before), moment(after)],
            }
        });
        found.into_iter().flatten().flatten()
    }

    /// The moments after `after` at which the local clock is put forward or back, the earliest first.
    pub fn shifts(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        self.0
            .following(instant(after))
            .map(|shift| timestamp(shift.timestamp()))
    }
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        Self(zone)
    }
}

/// `None` for the end of the day and beyond.
fn time_of(second: u32) -> Option<Time> {
    let part = |value: u32| i8::try_from(value).ok();
    Time::new(
        part(second / 3600)?,
        part(second / 60 % 60)?,
        part(second % 60)?,
        0,
    )
    .ok()
}

/// Saturates at the ends of the calendar.
fn instant(at: Timestamp) -> jiff::Timestamp {
    let end = if at < Timestamp::EPOCH {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(end)
}

fn timestamp(instant: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(instant.as_microsecond())
}

impl LocalTime {
    /// The day.
    pub fn date(&self) -> LocalDate {
        LocalDate(self.0.date())
    }

    /// What the clock shows, in seconds since midnight: 0 to 86 399. On a day on which the clock is changed this is not the
    /// time that has passed since midnight.
    pub fn second_of_day(&self) -> u32 {
        let time = self.0.time();
        let part = |value: i8| u32::try_from(value).unwrap_or(0);
        part(time.hour()) * 3600 + part(time.minute()) * 60 + part(time.second())
    }
}

impl LocalDate {
    /// 1 is Monday, 7 is Sunday.
    pub fn day_of_week(&self) -> u8 {
        u8::try_from(self.0.weekday().to_monday_one_offset()).unwrap_or(1)
    }

    /// This day and those after it.
    pub fn days(self) -> impl Iterator<Item = Self> {
        self.0.series(jiff::ToSpan::day(1)).map(Self)
    }

    /// The day before, if the calendar has one.
    #[must_use]
    pub fn before(self) -> Self {
        self.0.yesterday().map_or(self, Self)
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%a %Y-%m-%d %H:%M:%S"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn local_time_follows_the_rules_of_the_place() {
        let berlin = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let winter = berlin.local(at("2026-03-29T00:59:59Z"));
        assert_eq!(winter.to_string(), "Sun 2026-03-29 01:59:59");
        assert_eq!(winter.date().day_of_week(), 7);
        let summer = berlin.local(at("2026-03-29T01:00:00Z"));
        assert_eq!(summer.second_of_day(), 3 * 3600);
        assert_eq!(
            berlin
                .shifts(at("2026-01-01T00:00:00Z"))
                .take(2)
                .collect::<Vec<_>>(),
            [at("2026-03-29T01:00:00Z"), at("2026-10-25T01:00:00Z")]
        );
    }

    #[test]
    fn a_clock_time_comes_once_never_or_twice() {
        let berlin = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let moments = |day: &str, second| {
            let date = berlin.local(at(day)).date();
            berlin.moments(date, second).collect::<Vec<_>>()
        };
        let half_past_two = 2 * 3600 + 1800;
        assert_eq!(
            moments("2026-03-28T12:00:00Z", half_past_two),
            [at("2026-03-28T01:30:00Z")]
        );
        assert_eq!(moments("2026-03-29T12:00:00Z", half_past_two), []);
        assert_eq!(
            moments("2026-10-25T12:00:00Z", half_past_two),
            [at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z")]
        );
        assert_eq!(
            moments("2026-03-28T12:00:00Z", 86_400),
            [at("2026-03-28T23:00:00Z")],
            "the end of a day is the beginning of the next one"
        );
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        let zone = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for at in [i64::MIN, -1, 0, i64::MAX] {
            let local = zone.local(Timestamp::from_micros(at));
            let _ = zone.moments(local.date(), 86_400).count();
            let _ = local.date().before().days().take(3).count();
            let _ = zone.shifts(Timestamp::from_micros(at)).take(3).count();
        }
        assert!(Zone::posix("somewhere").is_err());
    }
}
