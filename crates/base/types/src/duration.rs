//! Durations in configurations: three ways to write one are read, ISO 8601 is written (`docs/protocol/items.md`,
//! durations).

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;
/// Months and years have no fixed length; these are the lengths we mean when a configuration speaks of them.
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 365 * DAY;

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// None of the accepted forms.
    #[error(
        "`{0}` is not a duration: write ISO 8601 (`PT1M30S`), units (`1m30s`) or a number of seconds"
    )]
    Malformed(String),
    /// Below zero, which no field of ours can mean.
    #[error("`{0}` is a negative duration")]
    Negative(String),
    /// More than can be counted.
    #[error("`{0}` is too long a duration")]
    TooLong(String),
}

/// Reads `P1DT2H`, `1d2h30m500ms`, or a number of seconds as text.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let text = text.trim();
    let shown = || text.chars().take(64).collect::<String>();
    let malformed = || ParseDurationError::Malformed(shown());
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let duration = match rest.strip_prefix(['P', 'p']) {
        Some(parts) => iso(parts),
        None if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            let seconds = rest.parse::<f64>().map_err(|_| malformed())?;
            return from_seconds(if negative { -seconds } else { seconds });
        }
        None => units(rest),
    };
    match duration {
        Err(Bad::Malformed) => Err(malformed()),
        Err(Bad::TooLong) => Err(ParseDurationError::TooLong(shown())),
        Ok(duration) if negative && !duration.is_zero() => {
            Err(ParseDurationError::Negative(shown()))
        }
        Ok(duration) => Ok(duration),
    }
}

/// A number of seconds, rounded to a whole one as AosCore does.
pub fn from_seconds(seconds: f64) -> Result<Duration, ParseDurationError> {
    if !seconds.is_finite() {
        return Err(ParseDurationError::Malformed(seconds.to_string()));
    }
    let rounded = seconds.round();
    if rounded < 0.0 {
        return Err(ParseDurationError::Negative(seconds.to_string()));
    }
    Duration::try_from_secs_f64(rounded)
        .map_err(|_| ParseDurationError::TooLong(seconds.to_string()))
}

enum Bad {
    Malformed,
    TooLong,
}

/// Splits the leading number off: its whole part, its fraction in nanoseconds (of one unit), and the rest.
fn number(text: &str) -> Result<(u64, u64, &str), Bad> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.contains('.') {
        return Err(Bad::Malformed);
    }
    let whole = whole.parse().map_err(|_| Bad::TooLong)?;
    let nanos = format!("{fraction:0<9}")
        .get(..9)
        .and_then(|text| text.parse().ok())
        .ok_or(Bad::Malformed)?;
    Ok((whole, nanos, rest))
}

fn span(whole: u64, fraction_nanos: u64, unit_seconds: u64) -> Result<Duration, Bad> {
    let whole = whole.checked_mul(unit_seconds).ok_or(Bad::TooLong)?;
    let fraction = Duration::from_nanos(fraction_nanos)
        .checked_mul(u32::try_from(unit_seconds).unwrap_or(u32::MAX))
        .ok_or(Bad::TooLong)?;
    Duration::from_secs(whole)
        .checked_add(fraction)
        .ok_or(Bad::TooLong)
}

fn iso(mut rest: &str) -> Result<Duration, Bad> {
    let mut total = Duration::ZERO;
    let mut in_time = false;
    let mut parts = 0;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't'])
            && !in_time
        {
            in_time = true;
            rest = after;
            continue;
        }
        let (whole, nanos, after) = number(rest)?;
        let mut letters = after.chars();
        let unit = match (in_time, letters.next().map(|c| c.to_ascii_uppercase())) {
            (false, Some('Y')) => YEAR,
            (false, Some('M')) => MONTH,
            (false, Some('W')) => WEEK,
            (false, Some('D')) => DAY,
            (true, Some('H')) => HOUR,
            (true, Some('M')) => MINUTE,
            (true, Some('S')) => SECOND,
            _ => return Err(Bad::Malformed),
        };
        total = total
            .checked_add(span(whole, nanos, unit)?)
            .ok_or(Bad::TooLong)?;
        parts += 1;
        rest = letters.as_str();
    }
    if parts == 0 {
        return Err(Bad::Malformed);
    }
    Ok(total)
}

fn units(mut rest: &str) -> Result<Duration, Bad> {
    if rest.is_empty() {
        return Err(Bad::Malformed);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (whole, nanos, after) = number(rest)?;
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let part = match unit {
            "ns" => Duration::from_nanos(whole),
            "us" | "µs" | "μs" => Duration::from_micros(whole),
            "ms" => Duration::from_millis(whole),
            "s" => span(whole, nanos, SECOND)?,
            "m" => span(whole, nanos, MINUTE)?,
            "h" => span(whole, nanos, HOUR)?,
            "d" => span(whole, nanos, DAY)?,
            "w" => span(whole, nanos, WEEK)?,
            "y" => span(whole, nanos, YEAR)?,
            _ => return Err(Bad::Malformed),
        };
        total = total.checked_add(part).ok_or(Bad::TooLong)?;
        rest = next;
    }
    Ok(total)
}

/// Writes a duration as ISO 8601 in days, hours, minutes and seconds: `P1DT2H3M4S`. A part of a second is written as
/// decimals, which AosCore does not read; its own configurations hold whole seconds.
pub fn to_iso8601(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanos = duration.subsec_nanos();
    let mut text = String::from("P");
    let mut push = |count: u64, unit: char| {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(unit);
        }
    };
    push(seconds / DAY, 'D');
    if seconds.is_multiple_of(DAY) && nanos == 0 && seconds > 0 {
        return text;
    }
    text.push('T');
    let mut push = |count: u64, unit: char| {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(unit);
        }
    };
    push(seconds % DAY / HOUR, 'H');
    push(seconds % HOUR / MINUTE, 'M');
    if nanos > 0 {
        let fraction = format!("{nanos:09}");
        text.push_str(&format!(
            "{}.{}S",
            seconds % MINUTE,
            fraction.trim_end_matches('0')
        ));
    } else if !seconds.is_multiple_of(MINUTE) || seconds == 0 {
        text.push_str(&format!("{}S", seconds % MINUTE));
    }
    text
}

/// For `#[serde(with = "aos_types::duration")]`.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_iso8601(*duration))
}

/// For `#[serde(with = "aos_types::duration")]`: reads all accepted forms.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use crate::tolerant::FromJson;
    let value = serde_json::Value::deserialize(deserializer)?;
    Duration::from_json(&value).map_err(serde::de::Error::custom)
}

/// The same for optional durations: `#[serde(with = "aos_types::duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes nothing or an ISO 8601 duration.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_str(&super::to_iso8601(*duration)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads null or any accepted form.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        use crate::tolerant::FromJson;
        Option::<serde_json::Value>::deserialize(deserializer)?
            .filter(|value| !value.is_null())
            .map(|value| Duration::from_json(&value).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms_are_read() {
        for (text, seconds) in [
            ("PT1M30S", 90),
            ("pt1m30s", 90),
            ("P1DT2H", 93_600),
            ("P1Y2M3W4D", 365 * DAY + 60 * DAY + 21 * DAY + 4 * DAY),
            ("1h30m", 5400),
            ("30d", 30 * DAY),
            ("1w1y", WEEK + YEAR),
            ("5", 5),
            ("1.6", 2),
            ("1000ms", 1),
            ("-PT0S", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250us"), Ok(Duration::from_micros(250)));
        for bad in [
            "", "P", "PT", "5x", "m5", "P5", "PT1D", "P1H", "T5S", "1h 30m", "..", "P-5D",
        ] {
            assert!(
                matches!(parse(bad), Err(ParseDurationError::Malformed(_))),
                "{bad} gave {:?}",
                parse(bad)
            );
        }
        assert!(matches!(
            parse("-PT5S"),
            Err(ParseDurationError::Negative(_))
        ));
        assert!(matches!(
            parse("P99999999999999999999Y"),
            Err(ParseDurationError::TooLong(_))
        ));
    }

    #[test]
    fn written_as_iso_8601() {
        for (seconds, text) in [
            (0, "PT0S"),
            (1, "PT1S"),
            (90, "PT1M30S"),
            (DAY, "P1D"),
            (DAY + 1, "P1DT1S"),
            (2 * HOUR, "PT2H"),
        ] {
            assert_eq!(to_iso8601(Duration::from_secs(seconds)), text);
        }
        assert_eq!(to_iso8601(Duration::from_millis(1500)), "PT1.5S");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0u64..u64::MAX) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&to_iso8601(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
