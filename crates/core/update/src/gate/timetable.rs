use aos_time::{Timestamp, Zone};
use aos_types::Timetable;

/// How many days ahead a slot is looked for. A slot comes again after a week; one that falls into the hour the clock skips
/// is passed over once, so three weeks always hold one.
const DAYS: usize = 22;

/// Whether the local clock shows a time in a slot.
pub fn is_open(timetable: &Timetable, zone: &Zone, at: Timestamp) -> bool {
    let local = zone.local(at);
    let slots = timetable.of_day(local.date().day_of_week());
    slots.iter().any(|slot| slot.holds(local.second_of_day()))
}

/// The first moment from `from` on at which it is open; `None` only at the end of the calendar.
pub fn next_open(timetable: &Timetable, zone: &Zone, from: Timestamp) -> Option<Timestamp> {
    next(timetable, zone, from, true)
}

/// The first moment from `from` on at which it is closed; `None` if it is always open.
pub fn next_close(timetable: &Timetable, zone: &Zone, from: Timestamp) -> Option<Timestamp> {
    next(timetable, zone, from, false)
}

/// Being open changes only when the clock shows the start or the end of a slot, and when the clock is put forward or back.
fn next(timetable: &Timetable, zone: &Zone, from: Timestamp, open: bool) -> Option<Timestamp> {
    if is_open(timetable, zone, from) == open {
        return Some(from);
    }
    let first = zone.local(from).date().before();
    let edges = first.days().take(DAYS + 1).flat_map(|date| {
        let slots = timetable.of_day(date.day_of_week()).iter();
        slots.flat_map(move |slot| {
            let second = if open { slot.start } else { slot.end };
            zone.moments(date, second.as_secs())
        })
    });
    let horizon = from + std::time::Duration::from_secs(DAYS as u64 * 86_400);
    let shifts = zone.shifts(from).take_while(|shift| *shift <= horizon);
    edges
        .chain(shifts)
        .filter(|at| *at > from && is_open(timetable, zone, *at) == open)
        .min()
}
