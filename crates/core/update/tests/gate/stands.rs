//! One gate: schedule, then consent, and its end.

use std::time::Duration;

use aos_types::{Schedule, ScheduleRule};
use aos_update::{Consent, Gate, GatePolicy, Stand, UpdatePart, WaitReason};

use super::{at, berlin, schedule};

const MONDAY: &str = "2026-03-02T12:00:00Z";

fn policy() -> GatePolicy {
    GatePolicy {
        zone: berlin(),
        consent: [UpdatePart::Firmware].into(),
        ..GatePolicy::default()
    }
}

fn waits(stand: &Stand) -> (String, Option<aos_time::Timestamp>) {
    match stand {
        Stand::Waits { reason, until } => (reason.to_string(), *until),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_schedule_the_gate_is_open_and_the_default_ttl_bounds_other_waits() {
    let gate = Gate::new(at(MONDAY));
    let stand = |part, now| gate.stand(part, None, &policy(), now);
    assert_eq!(stand(UpdatePart::Software, at(MONDAY)), Stand::Open);
    let (why, until) = waits(&stand(UpdatePart::Firmware, at(MONDAY)));
    assert_eq!(why, "the user has to consent: `aos unit consent give`");
    assert_eq!(until, None);
    let late = at(MONDAY) + Duration::from_secs(30 * 86_400);
    assert_eq!(
        stand(UpdatePart::Firmware, late),
        Stand::Expired {
            reason: Some(WaitReason::Consent)
        }
    );
    assert_eq!(
        stand(UpdatePart::Software, late),
        Stand::Open,
        "the Unit's own TTL ends waiting only"
    );
}

#[test]
fn a_start_by_hand_opens_any_schedule_but_gives_no_consent() {
    let night = schedule(&[(1, "02:00", "04:00")]);
    let trigger = Schedule::closed(Some(Duration::from_secs(3600)));
    let mut gate = Gate::new(at(MONDAY));
    let software = |gate: &Gate, schedule: &Schedule| {
        gate.stand(UpdatePart::Software, Some(schedule), &policy(), at(MONDAY))
    };
    assert_eq!(
        waits(&software(&gate, &night)),
        (
            "the next time slot begins at Mon 2026-03-09 02:00:00".into(),
            Some(at("2026-03-09T01:00:00Z"))
        )
    );
    assert_eq!(
        waits(&software(&gate, &trigger)).0,
        "somebody has to start it: `aos update start`"
    );
    gate.triggered = true;
    for schedule in [&night, &trigger] {
        assert_eq!(software(&gate, schedule), Stand::Open);
        let firmware = gate.stand(UpdatePart::Firmware, Some(schedule), &policy(), at(MONDAY));
        assert!(matches!(
            firmware,
            Stand::Waits {
                reason: WaitReason::Consent,
                ..
            }
        ));
    }
    let late = at(MONDAY) + Duration::from_secs(3600);
    assert_eq!(
        gate.stand(UpdatePart::Software, Some(&trigger), &policy(), late),
        Stand::Expired { reason: None }
    );
}

#[test]
fn a_refusal_says_why_and_may_be_taken_back() {
    let mut gate = Gate::new(at(MONDAY));
    let mut say = |given| {
        gate.consent = Some(Consent {
            given,
            at: at(MONDAY),
            reason: "on the road".into(),
        });
        gate.stand(UpdatePart::Firmware, None, &policy(), at(MONDAY))
    };
    assert_eq!(waits(&say(false)).0, "the user has refused: on the road");
    assert_eq!(say(true), Stand::Open);
}

#[test]
fn a_clock_that_is_behind_opens_no_slot() {
    let always: Vec<_> = (1..=7).map(|day| (day, "00:00", "24:00")).collect();
    let gate = Gate::new(at(MONDAY));
    let stand = gate.stand(
        UpdatePart::Software,
        Some(&schedule(&always)),
        &policy(),
        at("1970-01-01T00:00:10Z"),
    );
    assert_eq!(
        stand,
        Stand::Waits {
            reason: WaitReason::Clock,
            until: Some(at(MONDAY))
        }
    );
    let force = Schedule {
        ttl: None,
        rule: ScheduleRule::Force,
    };
    let stand = gate.stand(
        UpdatePart::Software,
        Some(&force),
        &policy(),
        at("1970-01-01T00:00:10Z"),
    );
    assert_eq!(stand, Stand::Open);
}
