//! What is committed has been active for a while: a service that ends over and over is active each time for a moment.

use std::time::Duration;

use aos_types::InstanceState;
use aos_update::{Config, Effect, Engine, Failures, Input, Output, UpdateState};
use proptest::prelude::*;

use crate::given::*;

/// a 2 was launched over the committed a 1 and nothing is known of it yet; the time is 10.
fn waiting() -> Engine {
    let (engine, _) = in_state(UpdateState::WaitingActive);
    let record = engine.record().clone();
    let mut engine = Engine::restore(Config::default(), Some(record), at(10));
    drain(&mut engine);
    engine
}

fn say(
    engine: &mut Engine,
    now: i64,
    state: InstanceState,
    recovers: bool,
    restarts: u32,
) -> Vec<Output> {
    let mut view = views(&[("a", 0, "2", state)]);
    for one in view.values_mut() {
        one.recovers = recovers;
        one.restarts = restarts;
        one.error = (state != InstanceState::Active).then(|| error("exit code 1"));
    }
    engine.handle(at(now), Input::Instances(view));
    drain(engine)
}

fn wake(engine: &mut Engine, now: i64) -> Vec<Output> {
    engine.handle(at(now), Input::Wake);
    drain(engine)
}

use InstanceState::{Activating, Active, Failed};

#[test]
fn active_for_a_moment_is_not_committed() {
    let mut engine = waiting();
    let outputs = say(&mut engine, 10, Active, false, 0);
    assert!(outputs.contains(&Output::WakeAt(at(13))), "{outputs:?}");
    assert_eq!(asked(&wake(&mut engine, 12)), None);
    // Down and up again: it begins anew.
    say(&mut engine, 12, Activating, false, 1);
    say(&mut engine, 13, Active, false, 1);
    assert_eq!(asked(&wake(&mut engine, 15)), None);
    let outputs = wake(&mut engine, 16);
    assert!(matches!(asked(&outputs), Some((_, Effect::Commit { .. }))));
    assert_eq!(engine.record().committed.items[0].version, "2");
}

#[test]
fn a_restart_that_nobody_saw_counts_too() {
    let mut engine = waiting();
    say(&mut engine, 10, Active, false, 0);
    say(&mut engine, 12, Active, false, 1);
    assert_eq!(asked(&wake(&mut engine, 14)), None);
    assert!(asked(&wake(&mut engine, 15)).is_some());
}

#[test]
fn a_crash_loop_gives_the_old_set_back_with_its_reason() {
    let mut engine = waiting();
    for round in 0..3_i64 {
        say(&mut engine, 10 + 2 * round, Active, false, 0);
        say(&mut engine, 11 + 2 * round, Activating, false, 0);
    }
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    // Some Nodes try on after "failed"; the one that has given up ends the wait.
    say(&mut engine, 17, Failed, true, 3);
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    let outputs = say(&mut engine, 18, Failed, false, 3);
    go_on(&mut engine, 18, outputs);
    assert_eq!(engine.record().committed.items[0].version, "1");
    let failed = engine.items().pop().unwrap();
    assert_eq!(failed.version, "2");
    assert!(failed.error.unwrap().to_string().contains("exit code 1"));
}

#[test]
fn the_deadline_stays_where_it_is() {
    let mut engine = waiting();
    // Up two seconds before the ten minutes are over: that is too late to be sure.
    say(&mut engine, 608, Active, false, 0);
    let outputs = wake(&mut engine, 610);
    go_on(&mut engine, 610, outputs);
    assert_eq!(engine.record().committed.items[0].version, "1");
    let failure = engine.record().failure.as_ref().unwrap();
    let why = failure.failures.summary().unwrap();
    assert!(why.contains("without interruption"), "{why}");
}

#[test]
fn a_restart_of_cm_begins_it_anew() {
    let mut engine = waiting();
    say(&mut engine, 10, Active, false, 0);
    let record = engine.record().clone();
    let mut engine = Engine::restore(Config::default(), Some(record), at(12));
    drain(&mut engine);
    say(&mut engine, 12, Active, false, 0);
    assert_eq!(asked(&wake(&mut engine, 14)), None);
    assert!(asked(&wake(&mut engine, 15)).is_some());
}

#[test]
fn a_short_deadline_leaves_room() {
    let (engine, _) = in_state(UpdateState::Downloading);
    let mut config = Config::default();
    config.deadlines.waiting_active = Duration::from_secs(2);
    let mut engine = Engine::restore(config, Some(engine.record().clone()), at(10));
    let mut outputs = drain(&mut engine);
    while let Some(effect) = asked(&outputs) {
        outputs = answer(&mut engine, 10, effect, Failures::default());
    }
    say(&mut engine, 10, Active, false, 0);
    assert!(asked(&wake(&mut engine, 11)).is_some());
}

#[derive(Debug, Clone)]
enum Event {
    Say(InstanceState, bool),
    Restart,
    Pass(i64),
}

proptest! {
    #[test]
    fn nothing_is_committed_that_was_down_in_the_last_three_seconds(
        events in prop::collection::vec(
            prop_oneof![
                4 => Just(Event::Say(Active, true)),
                1 => Just(Event::Say(Activating, true)),
                1 => Just(Event::Say(Failed, true)),
                1 => Just(Event::Restart),
                6 => (1..4i64).prop_map(Event::Pass),
            ],
            1..60,
        )
    ) {
        let mut engine = waiting();
        let (mut now, mut since, mut restarts) = (10, None, 0);
        for event in events {
            let outputs = match event {
                Event::Say(state, recovers) => {
                    if state == Active {
                        since = since.or(Some(now));
                    } else {
                        (since, restarts) = (None, restarts + 1);
                    }
                    say(&mut engine, now, state, recovers, restarts)
                }
                Event::Restart => {
                    since = None;
                    let record = engine.record().clone();
                    engine = Engine::restore(Config::default(), Some(record), at(now));
                    drain(&mut engine)
                }
                Event::Pass(secs) => {
                    now += secs;
                    wake(&mut engine, now)
                }
            };
            let long = since.is_some_and(|since| now >= since + 3);
            let commits = matches!(asked(&outputs), Some((_, Effect::Commit { .. })));
            prop_assert_eq!(commits, long);
            if commits {
                return Ok(());
            }
        }
    }
}
