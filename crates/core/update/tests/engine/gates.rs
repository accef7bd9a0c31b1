//! Updates that wait at their gates.

use std::time::Duration;

use aos_types::{AosCode, InstanceState, ItemType, Schedule, ScheduleRule};
use aos_update::{
    Config, Desired, Effect, Engine, Failures, GatePolicy, Input, Order, Output, PartState,
    Readiness, ReadinessPolicy, Record, Refused, Report, UpdatePart, UpdateState, WaitReason,
};

use crate::given::*;

use UpdatePart::{Firmware, Software};

const HOUR: i64 = 3600;

fn trigger(ttl: Option<u64>) -> Option<Schedule> {
    Some(Schedule::closed(ttl.map(Duration::from_secs)))
}

fn force() -> Option<Schedule> {
    Some(Schedule {
        ttl: None,
        rule: ScheduleRule::Force,
    })
}

/// Service a and component boot in these versions.
fn both(a: &str, boot: &str, sota: Option<Schedule>, fota: Option<Schedule>) -> Desired {
    let mut desired = desired("1.0.0", &[("a", a, 1), ("boot", boot, 1)]);
    for item in desired.items.iter_mut().flatten() {
        if item.id.as_str() == "boot" {
            item.item_type = ItemType::Component;
        }
    }
    desired.sota_schedule = sota;
    desired.fota_schedule = fota;
    desired
}

fn soft(a: &str, sota: Option<Schedule>) -> Desired {
    both(a, "1", sota, None)
}

fn config(gates: GatePolicy) -> Config {
    Config {
        gates,
        ..crate::given::config()
    }
}

/// An engine with a 1 and boot 1 committed.
fn settled_with(gates: GatePolicy) -> Engine {
    let mut engine = settled_both();
    let record = engine.record().clone();
    engine = Engine::restore(config(gates), Some(record), at(0));
    drain(&mut engine);
    engine
}

fn settled_both() -> Engine {
    let mut engine = engine();
    let outputs = send(&mut engine, 0, both("1", "1", None, None));
    go_on(&mut engine, 0, outputs);
    assert_eq!(engine.state(), UpdateState::None);
    engine
}

/// Sends it and answers the download.
fn pending(engine: &mut Engine, now: i64, desired: Desired) -> Vec<Output> {
    let outputs = send(engine, now, desired);
    let download = asked(&outputs).unwrap();
    assert!(matches!(download.1, Effect::Download { .. }));
    answer(engine, now, download, Failures::default())
}

fn waits(engine: &Engine, part: UpdatePart) -> Option<String> {
    engine.part_status(part).waits.map(|why| why.to_string())
}

fn start(engine: &mut Engine, now: i64, part: UpdatePart) -> Result<Vec<Output>, Refused> {
    engine.order(at(now), Order::Start { part, again: false })?;
    Ok(drain(engine))
}

fn restart_with(engine: &Engine, gates: GatePolicy, now: i64) -> (Engine, Vec<Output>) {
    let text = serde_json::to_string(engine.record()).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(&record, engine.record(), "the record survives JSON");
    let mut engine = Engine::restore(config(gates), Some(record), at(now));
    let outputs = drain(&mut engine);
    (engine, outputs)
}

fn committed(engine: &Engine, item: &str) -> String {
    let committed = &engine.record().committed;
    committed.item(&item_id(item)).unwrap().version.clone()
}

fn wake(engine: &mut Engine, now: i64) -> Vec<Output> {
    engine.handle(at(now), Input::Wake);
    drain(engine)
}

#[test]
fn a_trigger_is_waited_for_through_restarts_and_then_it_goes() {
    let mut engine = settled_both();
    let outputs = pending(&mut engine, 10, soft("2", trigger(None)));
    assert_eq!(asked(&outputs), None);
    assert!(outputs.contains(&Output::Report(Report::Waits {
        part: Software,
        reason: WaitReason::Trigger
    })));
    assert_eq!(engine.part_state(Software), PartState::Ready);
    assert_eq!(engine.part_state(Firmware), PartState::NoUpdate);
    let (mut engine, outputs) = restart_with(&engine, GatePolicy::default(), 20);
    assert_eq!(asked(&outputs), None, "a restart opens nothing");
    assert_eq!(engine.state(), UpdateState::Pending);
    assert_eq!(
        start(&mut engine, 30, Firmware),
        Err(Refused::NotReady {
            part: Firmware,
            state: PartState::NoUpdate
        })
    );
    let outputs = start(&mut engine, 30, Software).unwrap();
    assert_eq!(engine.part_state(Software), PartState::Updating);
    assert_eq!(
        start(&mut engine, 30, Software),
        Err(Refused::NotReady {
            part: Software,
            state: PartState::Updating
        })
    );
    go_on(&mut engine, 30, outputs);
    assert_eq!(committed(&engine, "a"), "2");
    assert_eq!(engine.record().gates, None);
}

#[test]
fn it_goes_at_the_slot_and_not_before() {
    let mut engine = settled_both();
    // 1970-01-01 is a Thursday.
    let schedule: Schedule = serde_json::from_value(serde_json::json!({
        "type": "timetable",
        "timetable": [{"dayOfWeek": 4, "timeSlots": [{"start": "02:00", "end": "03:00"}]}],
    }))
    .unwrap();
    let outputs = pending(&mut engine, 10, soft("2", Some(schedule)));
    assert!(outputs.contains(&Output::WakeAt(at(2 * HOUR))));
    assert_eq!(
        waits(&engine, Software).unwrap(),
        "the next time slot begins at Thu 1970-01-01 02:00:00"
    );
    assert!(engine.waits_for_the_clock());
    let early = wake(&mut engine, 2 * HOUR - 1);
    assert_eq!(asked(&early), None);
    let (mut engine, outputs) = restart_with(&engine, GatePolicy::default(), 2 * HOUR);
    assert!(asked(&outputs).is_some(), "the slot began while it was off");
    go_on(&mut engine, 2 * HOUR, outputs);
    assert_eq!(committed(&engine, "a"), "2");
}

#[test]
fn other_rules_of_local_time_move_the_slot() {
    let mut engine = settled_both();
    let schedule: Schedule = serde_json::from_value(serde_json::json!({
        "type": "timetable",
        "timetable": [{"dayOfWeek": 4, "timeSlots": [{"start": "02:00", "end": "03:00"}]}],
    }))
    .unwrap();
    pending(&mut engine, 10, soft("2", Some(schedule)));
    let east = aos_time::Zone::posix("EET-2").unwrap();
    engine.set_zone(at(20), east);
    assert!(
        asked(&drain(&mut engine)).is_some(),
        "it is two o'clock there"
    );
}

#[test]
fn one_part_goes_while_the_other_waits_and_follows() {
    let mut engine = settled_both();
    let outputs = pending(&mut engine, 10, both("2", "2", None, trigger(None)));
    let target = &engine.record().cycle.as_ref().unwrap().target;
    assert_eq!(target.item(&item_id("boot")).unwrap().version, "1");
    assert_eq!(engine.part_state(Software), PartState::Updating);
    assert_eq!(engine.part_state(Firmware), PartState::Ready);
    let pending_items: Vec<_> = engine
        .items()
        .into_iter()
        .filter(|item| item.state == aos_types::ItemState::Pending)
        .map(|item| item.id.to_string())
        .collect();
    assert_eq!(pending_items, ["boot"], "what waits is shown as pending");
    // Cut in the middle: the other part is not forgotten.
    let (mut engine, again) = restart_with(&engine, GatePolicy::default(), 11);
    assert!(asked(&outputs).is_some());
    go_on(&mut engine, 11, again);
    assert_eq!(committed(&engine, "a"), "2");
    assert_eq!(committed(&engine, "boot"), "1");
    assert_eq!(engine.state(), UpdateState::Pending);
    assert_eq!(
        waits(&engine, Firmware).unwrap(),
        "somebody has to start it: `aos update start`"
    );
    let outputs = start(&mut engine, 30, Firmware).unwrap();
    go_on(&mut engine, 30, outputs);
    assert_eq!(committed(&engine, "boot"), "2");
    assert_eq!(engine.state(), UpdateState::None);
}

#[test]
fn a_start_while_the_other_part_is_updated_is_remembered() {
    let mut engine = settled_both();
    let outputs = pending(&mut engine, 10, both("2", "2", None, trigger(None)));
    engine
        .order(
            at(11),
            Order::Start {
                part: Firmware,
                again: false,
            },
        )
        .unwrap();
    go_on(&mut engine, 12, outputs);
    assert_eq!(committed(&engine, "a"), "2");
    assert_eq!(committed(&engine, "boot"), "2");
}

fn ready_policy() -> GatePolicy {
    GatePolicy {
        readiness: Some(ReadinessPolicy {
            interval: Duration::from_secs(60),
            deadline: Duration::from_secs(600),
        }),
        ..GatePolicy::default()
    }
}

fn say(engine: &mut Engine, now: i64, outputs: &[Output], ready: Readiness) -> Vec<Output> {
    let Some((effect, Effect::AskReadiness)) = asked(outputs) else {
        panic!("not asked: {outputs:?}");
    };
    let readiness = ready;
    engine.handle(at(now), Input::Readiness { effect, readiness });
    drain(engine)
}

fn driving() -> Readiness {
    Readiness::NotReady("the vehicle drives".into())
}

#[test]
fn readiness_is_asked_last_again_at_intervals_and_when_told() {
    let mut engine = settled_with(ready_policy());
    let outputs = pending(&mut engine, 100, soft("2", trigger(None)));
    assert_eq!(asked(&outputs), None, "not before it is started");
    let outputs = start(&mut engine, 110, Software).unwrap();
    assert_eq!(engine.part_state(Software), PartState::Ready);
    assert_eq!(
        waits(&engine, Software).unwrap(),
        "the Unit is being asked whether it is ready"
    );
    let told = |outputs: &[Output]| {
        outputs
            .iter()
            .any(|output| matches!(output, Output::Report(Report::Waits { .. })))
    };
    assert!(!told(&outputs), "that it is being asked is no news");
    let outputs = say(&mut engine, 110, &outputs, driving());
    assert!(told(&outputs));
    assert_eq!(asked(&outputs), None);
    assert_eq!(
        waits(&engine, Software).unwrap(),
        "the Unit is not ready: the vehicle drives"
    );
    assert_eq!(asked(&wake(&mut engine, 169)), None);
    let outputs = wake(&mut engine, 170);
    let outputs = say(&mut engine, 171, &outputs, driving());
    assert!(!told(&outputs), "the same reason is told once");
    engine.handle(at(172), Input::LookAgain);
    let outputs = drain(&mut engine);
    // A restart forgets the answer and asks again, and the trigger is still there.
    let (mut engine, again) = restart_with(&engine, ready_policy(), 173);
    assert!(asked(&outputs).is_some());
    let outputs = say(&mut engine, 173, &again, Readiness::Ready);
    go_on(&mut engine, 173, outputs);
    assert_eq!(committed(&engine, "a"), "2");
}

#[test]
fn an_answer_that_does_not_come_counts_as_not_ready_and_the_wait_has_an_end() {
    let mut engine = settled_with(ready_policy());
    let outputs = pending(&mut engine, 100, soft("2", None));
    let first = asked(&outputs).unwrap().0;
    let outputs = wake(&mut engine, 160);
    assert!(outputs.iter().any(
        |output| matches!(output, Output::Do(_, Effect::Cancel { effect }) if *effect == first)
    ));
    let second = asked(&outputs).unwrap();
    assert_eq!(second.1, Effect::AskReadiness);
    engine.handle(
        at(161),
        Input::Readiness {
            effect: first,
            readiness: Readiness::Ready,
        },
    );
    assert_eq!(
        engine.state(),
        UpdateState::Pending,
        "the late answer says nothing about now"
    );
    say(&mut engine, 162, &outputs, driving());
    wake(&mut engine, 700);
    assert_eq!(engine.state(), UpdateState::None);
    let failure = engine.record().failure.clone().unwrap();
    assert!(failure.expired);
    assert_eq!(
        failure.failures.items[&item_id("a")].message,
        "the software part has waited as long as it may: the Unit is not ready: the vehicle drives"
    );
}

#[test]
fn a_ttl_that_ends_is_a_failure_that_only_something_newer_or_a_person_brings_back() {
    let mut engine = settled_both();
    let outputs = pending(&mut engine, 10, soft("2", trigger(Some(100))));
    assert!(outputs.contains(&Output::WakeAt(at(110))));
    let outputs = wake(&mut engine, 110);
    assert_eq!(engine.state(), UpdateState::None);
    assert!(outputs.contains(&Output::Report(Report::Full)));
    let failure = engine.record().failure.clone().unwrap();
    let error = &failure.failures.items[&item_id("a")];
    assert_eq!(error.aos_code, AosCode::Timeout as i32);
    assert_eq!(
        error.message,
        "the software part has waited as long as it may: somebody has to start it: `aos update start`"
    );
    assert_eq!(engine.part_status(Software).error.as_ref(), Some(error));
    // The same again, also after a restart, brings a full status and nothing else.
    let (mut engine, outputs) = restart_with(&engine, GatePolicy::default(), 500);
    assert_eq!(asked(&outputs), None);
    let outputs = send(&mut engine, 501, soft("2", trigger(Some(100))));
    assert_eq!(outputs, [Output::Report(Report::Full)]);
    assert!(engine.record().failure.is_some());
    assert!(matches!(
        start(&mut engine, 502, Software),
        Err(Refused::NotReady { .. })
    ));
    // A person may try it once more.
    let mut by_hand = restart_with(&engine, GatePolicy::default(), 510).0;
    by_hand
        .order(
            at(510),
            Order::Start {
                part: Software,
                again: true,
            },
        )
        .unwrap();
    let outputs = drain(&mut by_hand);
    go_on(&mut by_hand, 510, outputs);
    assert_eq!(committed(&by_hand, "a"), "2");
    assert_eq!(by_hand.record().failure, None);
    // So does another schedule, or another version.
    let outputs = send(&mut engine, 520, soft("2", force()));
    go_on(&mut engine, 520, outputs);
    assert_eq!(committed(&engine, "a"), "2");
}

#[test]
fn a_ttl_counts_through_restarts_and_a_new_schedule_counts_anew() {
    let mut engine = settled_both();
    pending(&mut engine, 10, soft("2", trigger(Some(100))));
    let (mut engine, _) = restart_with(&engine, GatePolicy::default(), 90);
    send(&mut engine, 91, soft("2", trigger(Some(100))));
    assert_eq!(
        engine.part_status(Software).expires_at,
        Some(at(110)),
        "the same schedule again moves nothing"
    );
    send(&mut engine, 92, soft("2", trigger(Some(200))));
    assert_eq!(engine.part_status(Software).expires_at, Some(at(292)));
    assert_eq!(asked(&wake(&mut engine, 110)), None);
    assert_eq!(engine.state(), UpdateState::Pending);
    let outputs = send(&mut engine, 120, soft("2", None));
    go_on(&mut engine, 120, outputs);
    assert_eq!(committed(&engine, "a"), "2", "no schedule means at once");
}

fn consent(given: bool, update: Option<u64>) -> Order {
    Order::Consent {
        update,
        parts: [].into(),
        given,
        reason: "not now".into(),
    }
}

#[test]
fn consent_is_for_one_update_and_may_be_taken_back_until_it_goes() {
    let policy = GatePolicy {
        consent: [Software, Firmware].into(),
        ..GatePolicy::default()
    };
    let mut engine = settled_with(policy.clone());
    assert_eq!(
        engine.order(at(5), consent(true, None)),
        Err(Refused::NoConsentNeeded)
    );
    pending(&mut engine, 10, soft("2", trigger(None)));
    let shown = engine.part_status(Software);
    assert!(shown.needs_consent);
    engine
        .order(at(11), consent(true, Some(shown.update)))
        .unwrap();
    engine
        .order(at(12), consent(false, Some(shown.update)))
        .unwrap();
    drain(&mut engine);
    let outputs = start(&mut engine, 13, Software).unwrap();
    assert_eq!(asked(&outputs), None);
    let (mut engine, _) = restart_with(&engine, policy, 14);
    assert_eq!(
        waits(&engine, Software).unwrap(),
        "the user has refused: not now"
    );
    // A newer update has not been consented to by consenting to the older one.
    pending(&mut engine, 20, soft("3", trigger(None)));
    let present = engine.part_status(Software).update;
    assert_ne!(present, shown.update);
    assert_eq!(
        engine.order(at(21), consent(true, Some(shown.update))),
        Err(Refused::OtherUpdate {
            meant: shown.update,
            present
        })
    );
    let outputs = start(&mut engine, 22, Software).unwrap();
    assert_eq!(asked(&outputs), None);
    engine.order(at(23), consent(true, Some(present))).unwrap();
    let outputs = drain(&mut engine);
    go_on(&mut engine, 23, outputs);
    assert_eq!(committed(&engine, "a"), "3");
}

#[test]
fn an_update_that_takes_the_place_of_a_running_one_waits_on_the_committed_set() {
    let mut engine = settled_both();
    let outputs = pending(&mut engine, 10, soft("2", None));
    // As far as WaitingActive: the Nodes run a 2.
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        next = asked(&answer(&mut engine, 10, effect, Failures::default()));
    }
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    let outputs = pending(&mut engine, 20, soft("3", trigger(None)));
    assert_eq!(
        engine.state(),
        UpdateState::Installing,
        "it goes back first"
    );
    go_on(&mut engine, 20, outputs);
    assert_eq!(engine.state(), UpdateState::Pending);
    assert_eq!(engine.in_force().item(&item_id("a")).unwrap().version, "1");
    assert_eq!(engine.record().launched, None);
    let outputs = start(&mut engine, 30, Software).unwrap();
    go_on(&mut engine, 30, outputs);
    assert_eq!(committed(&engine, "a"), "3");
}

#[test]
fn the_way_back_and_repairs_ask_nobody() {
    let mut engine = settled_with(ready_policy());
    let outputs = pending(&mut engine, 10, soft("2", None));
    let outputs = say(&mut engine, 10, &outputs, Readiness::Ready);
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        next = asked(&answer(&mut engine, 10, effect, Failures::default()));
    }
    engine.handle(
        at(11),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let outputs = drain(&mut engine);
    let effects = go_on(&mut engine, 11, outputs);
    assert!(!effects.contains(&Effect::AskReadiness));
    assert_eq!(engine.in_force().item(&item_id("a")).unwrap().version, "1");
}

#[test]
fn a_part_that_has_expired_fails_when_the_other_one_is_through() {
    let mut engine = settled_both();
    let desired = both("2", "2", trigger(None), trigger(Some(100)));
    pending(&mut engine, 10, desired);
    wake(&mut engine, 110);
    assert!(engine.part_status(Firmware).expired);
    assert!(
        start(&mut engine, 111, Firmware).is_err(),
        "nothing opens what has expired"
    );
    let outputs = start(&mut engine, 120, Software).unwrap();
    go_on(&mut engine, 120, outputs);
    assert_eq!(committed(&engine, "a"), "2");
    assert_eq!(committed(&engine, "boot"), "1");
    assert_eq!(engine.state(), UpdateState::None);
    let failure = engine.record().failure.as_ref().unwrap();
    assert!(failure.expired);
    assert!(failure.failures.items.contains_key(&item_id("boot")));
    assert!(!failure.failures.items.contains_key(&item_id("a")));
    assert_eq!(engine.part_status(Software).error, None);
}

#[test]
fn the_units_own_ttl_ends_a_wait_for_a_person_too() {
    let mut engine = settled_with(GatePolicy {
        ttl: Duration::from_secs(1000),
        ..GatePolicy::default()
    });
    pending(&mut engine, 10, soft("2", trigger(None)));
    wake(&mut engine, 1010);
    assert!(engine.record().failure.as_ref().unwrap().expired);
}

#[test]
fn what_an_older_update_waited_for_says_nothing_about_a_newer_one() {
    let mut engine = settled_with(ready_policy());
    let outputs = pending(&mut engine, 100, soft("2", None));
    say(&mut engine, 100, &outputs, driving());
    send(&mut engine, 101, soft("3", None));
    assert_eq!(waits(&engine, Software), None, "it is being downloaded");
    let mut engine = settled_with(ready_policy());
    let outputs = pending(&mut engine, 100, soft("2", None));
    say(&mut engine, 100, &outputs, driving());
    let outputs = pending(&mut engine, 101, soft("3", None));
    assert_eq!(
        asked(&outputs).map(|(_, effect)| effect),
        Some(Effect::AskReadiness),
        "asked at once, not after the older one's pause"
    );
}

#[test]
fn a_retry_keeps_what_was_said_to_the_update_and_asks_the_unit_anew() {
    let policy = GatePolicy {
        consent: [Software].into(),
        ..ready_policy()
    };
    let mut engine = settled_with(policy);
    pending(&mut engine, 10, soft("2", trigger(None)));
    engine.order(at(11), consent(true, None)).unwrap();
    drain(&mut engine);
    let outputs = start(&mut engine, 12, Software).unwrap();
    let outputs = say(&mut engine, 12, &outputs, Readiness::Ready);
    let step = asked(&outputs).unwrap();
    let outputs = answer(&mut engine, 12, step, Failures::of_step(error("no")));
    go_on(&mut engine, 12, outputs);
    let again = engine.record().failure.as_ref().unwrap().retry_at.unwrap();
    let outputs = wake(&mut engine, again.as_secs() + 1);
    let download = asked(&outputs).unwrap();
    let now = again.as_secs() + 2;
    let outputs = answer(&mut engine, now, download, Failures::default());
    let outputs = say(&mut engine, now, &outputs, Readiness::Ready);
    go_on(&mut engine, now, outputs);
    assert_eq!(committed(&engine, "a"), "2");
}
