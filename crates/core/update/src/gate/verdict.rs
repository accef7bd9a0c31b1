use std::time::Duration;

use aos_time::{Timestamp, Zone};
use aos_types::{Schedule, ScheduleRule};

use super::timetable::next_open;

/// What a schedule says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go.
    Open,
    /// Not before this moment.
    ClosedUntil(Timestamp),
    /// Not before somebody starts it.
    NeedsTrigger,
    /// It waited as long as it may.
    Expired,
}

/// Evaluates a schedule; none is as good as `force`. `triggered` says that somebody has started the update: that opens any
/// schedule, since a person on the Unit knows better than a timetable. Nothing opens what has expired.
pub fn evaluate(
    schedule: Option<&Schedule>,
    triggered: bool,
    expires_at: Option<Timestamp>,
    now: Timestamp,
    zone: &Zone,
) -> Verdict {
    if expires_at.is_some_and(|at| now >= at) {
        return Verdict::Expired;
    }
    match schedule.map(|schedule| &schedule.rule) {
        _ if triggered => Verdict::Open,
        None | Some(ScheduleRule::Force) => Verdict::Open,
        Some(ScheduleRule::Trigger) => Verdict::NeedsTrigger,
        Some(ScheduleRule::Timetable(timetable)) => match next_open(timetable, zone, now) {
            Some(at) if at <= now => Verdict::Open,
            Some(at) => Verdict::ClosedUntil(at),
            // The end of the calendar.
            None => Verdict::ClosedUntil(now + Duration::from_secs(7 * 86_400)),
        },
    }
}

/// When an update that began to wait at `since` has waited as long as it may.
pub fn expiry(schedule: Option<&Schedule>, since: Timestamp, default_ttl: Duration) -> Timestamp {
    let ttl = schedule.and_then(|schedule| schedule.ttl);
    since + ttl.unwrap_or(default_ttl)
}
