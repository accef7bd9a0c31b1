use aos_time::Zone;
use aos_update::{is_open, next_close, next_open};

use super::{at, berlin, timetable};

/// Slots, the place, now, when it opens (the same moment: it is open), when it closes after that.
type Row = (
    &'static [(u8, &'static str, &'static str)],
    bool,
    &'static str,
    &'static str,
    &'static str,
);

/// 2026-03-02 is a Monday. In Berlin clocks go forward on Sunday 2026-03-29 at 01:00 UTC (02:00 to 03:00) and back on
/// Sunday 2026-10-25 at 01:00 UTC (03:00 to 02:00).
const TABLE: &[(&str, Row)] = &[
    (
        "before the slot of the same day",
        (
            &[(1, "02:00", "04:00")],
            false,
            "2026-03-02T01:00:00Z",
            "2026-03-02T02:00:00Z",
            "2026-03-02T04:00:00Z",
        ),
    ),
    (
        "in the slot",
        (
            &[(1, "02:00", "04:00")],
            false,
            "2026-03-02T02:00:00Z",
            "2026-03-02T02:00:00Z",
            "2026-03-02T04:00:00Z",
        ),
    ),
    (
        "its end belongs to it no more, so it is a week on",
        (
            &[(1, "02:00", "04:00")],
            false,
            "2026-03-02T04:00:00Z",
            "2026-03-09T02:00:00Z",
            "2026-03-09T04:00:00Z",
        ),
    ),
    (
        "the earliest slot counts, not the first listed",
        (
            &[(1, "10:00", "11:00"), (1, "02:00", "03:00")],
            false,
            "2026-03-01T23:00:00Z",
            "2026-03-02T02:00:00Z",
            "2026-03-02T03:00:00Z",
        ),
    ),
    (
        "from Sunday to Monday",
        (
            &[(7, "22:00", "23:00"), (1, "00:00", "01:00")],
            false,
            "2026-03-01T23:30:00Z",
            "2026-03-02T00:00:00Z",
            "2026-03-02T01:00:00Z",
        ),
    ),
    (
        "a slot past midnight is two that touch",
        (
            &[(7, "23:00", "24:00"), (1, "00:00", "01:00")],
            false,
            "2026-03-01T22:00:00Z",
            "2026-03-01T23:00:00Z",
            "2026-03-02T01:00:00Z",
        ),
    ),
    (
        "local days are not those of UTC",
        (
            &[(1, "00:00", "01:00")],
            true,
            "2026-03-01T12:00:00Z",
            "2026-03-01T23:00:00Z",
            "2026-03-02T00:00:00Z",
        ),
    ),
    (
        "a slot in the missing hour does not come that day",
        (
            &[(7, "02:15", "02:45")],
            true,
            "2026-03-28T12:00:00Z",
            "2026-04-05T00:15:00Z",
            "2026-04-05T00:45:00Z",
        ),
    ),
    (
        "a slot that begins in the missing hour begins after it",
        (
            &[(7, "02:30", "04:00")],
            true,
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T02:00:00Z",
        ),
    ),
    (
        "a slot that ends in the missing hour ends with it",
        (
            &[(7, "01:30", "02:30")],
            true,
            "2026-03-28T12:00:00Z",
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
        ),
    ),
    (
        "a slot in the repeated hour comes the first time",
        (
            &[(7, "02:15", "02:45")],
            true,
            "2026-10-24T12:00:00Z",
            "2026-10-25T00:15:00Z",
            "2026-10-25T00:45:00Z",
        ),
    ),
    (
        "and a second time",
        (
            &[(7, "02:15", "02:45")],
            true,
            "2026-10-25T00:45:00Z",
            "2026-10-25T01:15:00Z",
            "2026-10-25T01:45:00Z",
        ),
    ),
    (
        "a slot over the repeated hour is longer by it",
        (
            &[(7, "01:00", "04:00")],
            true,
            "2026-10-24T12:00:00Z",
            "2026-10-24T23:00:00Z",
            "2026-10-25T03:00:00Z",
        ),
    ),
];

#[test]
fn slots_open_and_close_at_local_times() {
    for (what, (slots, in_berlin, now, opens, closes)) in TABLE {
        let zone = if *in_berlin { berlin() } else { Zone::utc() };
        let table = timetable(slots);
        let open = next_open(&table, &zone, at(now)).unwrap();
        assert_eq!(open, at(opens), "{what}: opens");
        assert_eq!(is_open(&table, &zone, at(now)), open == at(now), "{what}");
        let close = next_close(&table, &zone, open);
        assert_eq!(close, Some(at(closes)), "{what}: closes");
    }
}

#[test]
fn whole_days_without_a_break_never_close() {
    let all: Vec<_> = (1..=7).map(|day| (day, "00:00", "24:00")).collect();
    let table = timetable(&all);
    for zone in [Zone::utc(), berlin()] {
        assert_eq!(next_close(&table, &zone, at("2026-03-28T12:34:56Z")), None);
    }
}
