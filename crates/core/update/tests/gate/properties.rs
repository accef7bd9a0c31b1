//! Against a slow model: looking at the local clock minute by minute.

use std::time::Duration;

use aos_time::{Timestamp, Zone};
use aos_types::{ScheduleRule, Timetable};
use aos_update::{Verdict, evaluate, is_open, next_close, next_open};
use proptest::prelude::*;

use super::{schedule, timetable};

const MINUTE: Duration = Duration::from_secs(60);

/// Places whose clocks go forward and back by an hour and by half an hour, at 1, 2 and 3 o'clock and at midnight, on both
/// halves of the Earth.
const PLACES: &[&str] = &[
    "UTC0",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "<-03>3<-02>,M3.5.0/0,M10.5.0/0",
];

fn slots() -> impl Strategy<Value = Timetable> {
    // Whole quarters of an hour; a later slot that overlaps an earlier one is made a slot of its own day by the reader.
    let slot = (1u8..=7, 0u32..95, 1u32..12)
        .prop_map(|(day, start, length)| (day, start, (start + length).min(96)));
    proptest::collection::vec(slot, 1..5).prop_filter_map("overlapping", |slots| {
        let text = |quarter: u32| format!("{:02}:{:02}", quarter / 4, quarter % 4 * 15);
        let entries = slots
            .into_iter()
            .map(|(day, start, end)| aos_types::TimetableEntry {
                day_of_week: day,
                time_slots: vec![aos_types::TimeSlot {
                    start: text(start).parse().unwrap(),
                    end: text(end).parse().unwrap(),
                }],
            })
            .collect();
        Timetable::new(entries).0
    })
}

/// Moments near the changes of the clock in 2026, and any other ones; whole minutes.
fn moments() -> impl Strategy<Value = Timestamp> {
    let whole = |secs: i64| Timestamp::from_secs(secs / 60 * 60);
    let year = 1_767_225_600_i64;
    let changes = prop::sample::select(vec![
        1_774_746_000_i64, // 2026-03-29 01:00 UTC
        1_792_890_000,     // 2026-10-25 01:00 UTC
        1_772_953_200,     // 2026-03-08 07:00 UTC
        1_793_512_800,     // 2026-11-01 06:00 UTC
        1_775_314_800,     // 2026-04-04 15:00 UTC
        1_791_041_400,     // 2026-10-03 15:30 UTC
    ]);
    prop_oneof![
        (changes, -200_000i64..200_000).prop_map(move |(change, off)| whole(change + off)),
        (year..year + 400 * 86_400).prop_map(whole),
    ]
}

fn shown(timetable: &Timetable, zone: &Zone, at: Timestamp) -> bool {
    let local = zone.local(at);
    timetable.entries().any(|entry| {
        entry.day_of_week == local.date().day_of_week()
            && entry.time_slots.iter().any(|slot| {
                slot.start.as_secs() <= local.second_of_day()
                    && local.second_of_day() < slot.end.as_secs()
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_opens_at_the_next_slot_exactly_and_never_outside(
        timetable in slots(),
        place in prop::sample::select(PLACES),
        from in moments(),
    ) {
        let zone = Zone::posix(place).unwrap();
        prop_assert_eq!(is_open(&timetable, &zone, from), shown(&timetable, &zone, from));
        let opens = next_open(&timetable, &zone, from).unwrap();
        prop_assert!(opens >= from);
        prop_assert!(shown(&timetable, &zone, opens));
        let mut look = from;
        while look < opens {
            prop_assert!(!shown(&timetable, &zone, look), "open at {} already", look);
            look = look + MINUTE;
        }
        prop_assert_eq!(look, opens);
        let Some(closes) = next_close(&timetable, &zone, opens) else {
            return Err(TestCaseError::fail("a few slots never fill a week"));
        };
        while look < closes {
            prop_assert!(shown(&timetable, &zone, look), "closed at {} already", look);
            look = look + MINUTE;
        }
        prop_assert!(!shown(&timetable, &zone, closes));
    }

    #[test]
    fn a_verdict_is_open_only_in_a_slot_or_by_hand_and_never_after_its_end(
        timetable in slots(),
        place in prop::sample::select(PLACES),
        now in moments(),
        triggered: bool,
        ttl in 0u64..3_000_000,
        waited in 0u64..3_000_000,
    ) {
        let zone = Zone::posix(place).unwrap();
        let schedule = aos_types::Schedule { ttl: None, rule: ScheduleRule::Timetable(timetable.clone()) };
        let expires_at = now - Duration::from_secs(waited) + Duration::from_secs(ttl);
        let verdict = evaluate(Some(&schedule), triggered, Some(expires_at), now, &zone);
        let expected = if ttl <= waited {
            Verdict::Expired
        } else if triggered || shown(&timetable, &zone, now) {
            Verdict::Open
        } else {
            Verdict::ClosedUntil(next_open(&timetable, &zone, now).unwrap())
        };
        prop_assert_eq!(verdict, expected);
    }
}

#[test]
fn the_model_itself_sees_slots() {
    let table = timetable(&[(1, "02:00", "04:00")]);
    assert_eq!(
        schedule(&[(1, "02:00", "04:00")]).rule,
        ScheduleRule::Timetable(table.clone())
    );
    assert!(shown(
        &table,
        &Zone::utc(),
        super::at("2026-03-02T03:59:59Z")
    ));
    assert!(!shown(
        &table,
        &Zone::utc(),
        super::at("2026-03-02T04:00:00Z")
    ));
}
