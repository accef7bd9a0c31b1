//! What happens after a failure: the next attempt, and the way back.

use aos_types::{InstanceState, NodeId, NodeState};
use aos_update::{
    Actual, DesiredNodeState, Direction, Effect, Engine, Failures, Input, Output, Record, Report,
    UpdateState,
};

use crate::given::*;

fn wish() -> aos_update::Desired {
    desired("1.0.0", &[("a", "2", 1)])
}

fn wake_at(outputs: &[Output]) -> i64 {
    let wake = outputs.iter().rev().find_map(|output| match output {
        Output::WakeAt(at) => Some(*at),
        _ => None,
    });
    // Whole seconds, not before the moment.
    wake.unwrap().as_secs() + 1
}

fn fail_download(engine: &mut Engine, now: i64, outputs: &[Output]) -> Vec<Output> {
    let download = asked(outputs).unwrap();
    assert!(matches!(download.1, Effect::Download { .. }));
    let failures = Failures {
        items: [(item_id("a"), error("no such blob"))].into(),
        ..Failures::default()
    };
    answer(engine, now, download, failures)
}

/// a 2 does not start: as far as the end of the way back.
fn fail_launch(engine: &mut Engine, now: i64, outputs: Vec<Output>) -> Vec<Output> {
    let mut all = outputs.clone();
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        let outputs = answer(engine, now, effect, Failures::default());
        next = asked(&outputs);
        all.extend(outputs);
    }
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    engine.handle(
        at(now),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let mut outputs = drain(engine);
    all.extend(outputs.clone());
    while let Some(effect) = asked(&outputs) {
        outputs = answer(engine, now, effect, Failures::default());
        all.extend(outputs.clone());
    }
    let active = all_active(engine);
    engine.handle(at(now), Input::Instances(active));
    all.extend(drain(engine));
    all
}

fn attempts(engine: &Engine) -> u32 {
    engine.record().failure.as_ref().unwrap().attempts
}

fn retry_at(engine: &Engine) -> Option<i64> {
    let failure = engine.record().failure.as_ref().unwrap();
    failure.retry_at.map(|at| at.as_secs())
}

#[test]
fn gap_16_a_failed_update_is_tried_again_by_itself() {
    let mut engine = settled();
    let outputs = send(&mut engine, 0, wish());
    let mut outputs = fail_download(&mut engine, 0, &outputs);
    assert_eq!(engine.state(), UpdateState::None);
    let mut now = 0;
    let mut pauses = Vec::new();
    for attempt in 1..8 {
        assert_eq!(attempts(&engine), attempt);
        let next = wake_at(&outputs);
        pauses.push(next - now);
        now = next;
        engine.handle(at(now), Input::Wake);
        outputs = drain(&mut engine);
        assert_eq!(engine.state(), UpdateState::Downloading);
        if attempt < 7 {
            outputs = fail_download(&mut engine, now, &outputs);
        }
    }
    for (pause, whole) in pauses.iter().zip([60, 120, 240, 480, 960, 1920, 3600]) {
        assert!(
            *pause >= whole / 2 && *pause <= whole + 1,
            "{pauses:?}: doubling, and up to half of it at random"
        );
    }
    go_on(&mut engine, now, outputs);
    assert_eq!(engine.record().committed.items[0].version, "2");
    assert_eq!(engine.record().failure, None);
}

#[test]
fn what_touches_nothing_is_tried_for_ever_and_what_does_a_bounded_number_of_times() {
    let mut engine = settled();
    let mut outputs = send(&mut engine, 0, wish());
    let mut now = 0;
    for _ in 0..50 {
        outputs = fail_download(&mut engine, now, &outputs);
        now = wake_at(&outputs);
        engine.handle(at(now), Input::Wake);
        outputs = drain(&mut engine);
    }
    // The next failure touches: it was tried often enough.
    fail_launch(&mut engine, now, outputs);
    assert_eq!((attempts(&engine), retry_at(&engine)), (51, None));

    let mut engine = settled();
    let mut outputs = send(&mut engine, 0, wish());
    for attempt in 1..=10 {
        let ended = fail_launch(&mut engine, now, outputs.clone());
        assert_eq!(attempts(&engine), attempt);
        if attempt < 10 {
            now = wake_at(&ended);
            engine.handle(at(now), Input::Wake);
            outputs = drain(&mut engine);
        }
    }
    assert_eq!(retry_at(&engine), None, "given up, and it says why");
    let said = engine.items()[1].error.clone().unwrap().message;
    assert!(said.ends_with("(attempt 10)"), "{said}");
    // Asked for again it gets another attempt, but not in a hurry.
    let outputs = send(&mut engine, now + 10, wish());
    assert_eq!(asked(&outputs), None);
    let outputs = send(&mut engine, now + 3700, wish());
    assert!(asked(&outputs).is_some());
}

#[test]
fn the_same_again_keeps_count_and_time_also_through_a_restart() {
    let mut engine = settled();
    let outputs = send(&mut engine, 0, wish());
    fail_download(&mut engine, 0, &outputs);
    let before = engine.record().failure.clone();
    let outputs = send(&mut engine, 5, wish());
    assert_eq!(outputs, [Output::Report(Report::Full)]);
    assert_eq!(engine.record().failure, before);
    let mut engine = restarted(&engine, 10);
    let outputs = drain(&mut engine);
    assert_eq!(engine.record().failure, before);
    let now = wake_at(&outputs);
    engine.handle(at(now), Input::Wake);
    let outputs = drain(&mut engine);
    fail_download(&mut engine, now, &outputs);
    assert_eq!(attempts(&engine), 2);
    // Also while it goes back.
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(
        at(12),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    drain(&mut engine);
    let before = engine.record().clone();
    assert_eq!(
        send(&mut engine, 13, desired("2.0.0", &[("a", "2", 1)])),
        []
    );
    assert_eq!(engine.record(), &before);
}

#[test]
fn anything_newer_supersedes_the_next_attempt_and_the_committed_set_clears_it() {
    let mut engine = settled();
    let outputs = send(&mut engine, 0, wish());
    fail_download(&mut engine, 0, &outputs);
    let mut cleared = restarted(&engine, 1);
    let outputs = send(&mut cleared, 1, desired("1.0.0", &[("a", "1", 1)]));
    assert!(outputs.contains(&Output::Report(Report::Full)));
    assert_eq!(cleared.record().failure, None);
    cleared.handle(at(10_000), Input::Wake);
    assert_eq!(asked(&drain(&mut cleared)), None);

    let outputs = send(&mut engine, 1, desired("1.0.0", &[("a", "3", 1)]));
    fail_download(&mut engine, 1, &outputs);
    assert_eq!(attempts(&engine), 1, "a newer one counts anew");
    let target = &engine.record().failure.as_ref().unwrap().target;
    assert_eq!(target.items[0].version, "3");
}

#[test]
fn a_clock_that_is_put_back_makes_nothing_wait_longer() {
    let day = 24 * 3600;
    let mut engine = settled();
    let outputs = send(&mut engine, 100 * day, wish());
    fail_download(&mut engine, 100 * day, &outputs);
    engine.handle(at(day), Input::Wake);
    let outputs = drain(&mut engine);
    assert!(wake_at(&outputs) <= day + 3601, "{outputs:?}");

    let (engine, _) = in_state(UpdateState::WaitingActive);
    let record = engine.record().clone();
    let mut engine = Engine::restore(config(), Some(record), at(-30 * day));
    let outputs = drain(&mut engine);
    assert_eq!(wake_at(&outputs), -30 * day + 601);
}

/// The way back has begun, and a 1 does not come up again.
fn going_back() -> Engine {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(
        at(12),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let mut outputs = drain(&mut engine);
    while let Some(effect) = asked(&outputs) {
        outputs = answer(&mut engine, 12, effect, Failures::default());
    }
    engine
}

#[test]
fn a_way_back_that_fails_is_reported_and_tried_again_until_it_succeeds() {
    let mut engine = going_back();
    engine.handle(
        at(13),
        Input::Instances(views(&[("a", 0, "1", InstanceState::Failed)])),
    );
    let outputs = drain(&mut engine);
    assert!(outputs.contains(&Output::Report(Report::Full)));
    assert_eq!(engine.state(), UpdateState::None);
    let rollback = engine.record().rollback.clone().unwrap();
    assert_eq!(rollback.attempts, 1);
    assert!(rollback.failures.instances.contains_key(&ident("a", 0)));
    assert!(
        rollback
            .to_string()
            .starts_with("the committed set could not be brought back: instance `a:subject:0`: ")
    );
    let mut engine = restarted(&engine, 14);
    let mut outputs = drain(&mut engine);
    for attempt in 2..5 {
        let now = engine.record().rollback.as_ref().unwrap().retry_at;
        engine.handle(now, Input::Wake);
        outputs = drain(&mut engine);
        let cycle = engine.record().cycle.as_ref();
        if cycle.unwrap().direction == Direction::Forward {
            // The next attempt at the update is due as well.
            return;
        }
        while let Some(effect) = asked(&outputs) {
            outputs = answer(&mut engine, now.as_secs(), effect, Failures::default());
        }
        engine.handle(
            now,
            Input::Instances(views(&[("a", 0, "1", InstanceState::Failed)])),
        );
        outputs = drain(&mut engine);
        assert_eq!(engine.record().rollback.as_ref().unwrap().attempts, attempt);
    }
    let now = engine.record().rollback.as_ref().unwrap().retry_at;
    engine.handle(now, Input::Wake);
    outputs.extend(drain(&mut engine));
    let effects = go_on(&mut engine, now.as_secs(), outputs);
    assert!(matches!(effects.last(), Some(Effect::Launch { .. })));
    assert_eq!(engine.record().rollback, None);
}

#[test]
fn a_node_that_does_not_take_its_old_configuration_back_is_asked_again() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(
        at(12),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let mut outputs = drain(&mut engine);
    let refuses = Failures {
        nodes: [(NodeId::new("main").unwrap(), error("no space"))].into(),
        ..Failures::default()
    };
    while let Some(effect) = asked(&outputs) {
        let failures = match &effect.1 {
            Effect::ApplyUnitConfig { .. } => refuses.clone(),
            _ => Failures::default(),
        };
        outputs = answer(&mut engine, 12, effect, failures);
    }
    let active = all_active(&engine);
    engine.handle(at(13), Input::Instances(active));
    drain(&mut engine);
    let rollback = engine.record().rollback.clone().unwrap();
    assert_eq!(
        rollback.failures.summary().unwrap(),
        "node `main`: no space"
    );
    engine.handle(rollback.retry_at, Input::Wake);
    let outputs = drain(&mut engine);
    go_on(&mut engine, 30, outputs);
    assert_eq!(engine.record().rollback, None);
}

#[test]
fn an_instance_that_may_recover_is_waited_for_until_the_deadline() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    let failing = |recovers| {
        let mut view = views(&[("a", 0, "2", InstanceState::Failed)]);
        let one = view.get_mut(&ident("a", 0)).unwrap();
        one.recovers = recovers;
        one.error = Some(error("exit code 7"));
        view
    };
    engine.handle(at(20), Input::Instances(failing(true)));
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    let mut engine = restarted(&engine, 30);
    engine.handle(at(30), Input::Instances(failing(true)));
    engine.handle(at(610), Input::Wake);
    let failure = engine.record().failure.as_ref().unwrap();
    let said = &failure.failures.instances[&ident("a", 0)].message;
    assert_eq!(
        said,
        "did not become active in time (last error: exit code 7); look at its log and its Node"
    );
    // One that cannot recover ends the wait at once.
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(at(20), Input::Instances(failing(false)));
    let failure = engine.record().failure.as_ref().unwrap();
    assert_eq!(failure.at, at(20));
}

#[test]
fn what_the_update_did_not_change_does_not_fail_the_way_back() {
    let mut engine = engine();
    let both = |b: &'static str| desired("1.0.0", &[("a", "1", 1), ("b", b, 1)]);
    let outputs = send(&mut engine, 0, both("1"));
    go_on(&mut engine, 0, outputs);
    let outputs = send(&mut engine, 1, both("2"));
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        next = asked(&answer(&mut engine, 1, effect, Failures::default()));
    }
    let view = |b: &str, state| {
        Input::Instances(views(&[
            ("a", 0, "1", InstanceState::Failed),
            ("b", 0, b, state),
        ]))
    };
    engine.handle(at(2), view("2", InstanceState::Failed));
    let mut outputs = drain(&mut engine);
    while let Some(effect) = asked(&outputs) {
        outputs = answer(&mut engine, 2, effect, Failures::default());
    }
    engine.handle(at(3), view("1", InstanceState::Active));
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(engine.record().rollback, None, "a had failed before");
}

#[test]
fn a_half_done_set_is_undone_when_the_newer_one_keeps_it_waiting() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    let first = send(&mut engine, 100, desired("2.0.0", &[("a", "3", 1)]));
    assert!(asked(&first).is_some());
    // Newer ones do not give it more time.
    send(&mut engine, 500, desired("2.0.0", &[("a", "4", 1)]));
    assert_eq!(engine.in_force().items[0].version, "2");
    engine.handle(at(700), Input::Wake);
    let outputs = drain(&mut engine);
    let cycle = engine.record().cycle.as_ref().unwrap();
    assert_eq!(cycle.direction, Direction::Back);
    assert_eq!(engine.record().failure, None, "nothing has failed");
    let effects = go_on(&mut engine, 700, outputs);
    let launched: Vec<String> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Launch { target } => Some(target.items[0].version.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(launched, ["1", "4"]);
    assert_eq!(engine.record().committed.items[0].version, "4");
}

#[test]
fn a_node_that_a_failed_update_paused_takes_part_again() {
    let mut engine = settled();
    let other = NodeId::new("other").unwrap();
    let mut wish = desired("1.0.0", &[("a", "2", 1)]);
    wish.nodes.as_mut().unwrap().push(aos_update::DesiredNode {
        node: other.clone(),
        state: DesiredNodeState::Paused,
    });
    let actual = Actual {
        nodes: [
            (NodeId::new("main").unwrap(), NodeState::Provisioned),
            (other.clone(), NodeState::Provisioned),
        ]
        .into(),
        ..actual_of(&engine)
    };
    engine.handle(
        at(0),
        Input::Desired {
            desired: wish,
            actual,
        },
    );
    let outputs = drain(&mut engine);
    let ended = fail_launch(&mut engine, 0, outputs);
    let resumed = ended.iter().rev().find_map(|output| match output {
        Output::Do(_, Effect::ApplyNodeStates { nodes }) => Some(nodes.clone()),
        _ => None,
    });
    let resumed = resumed.unwrap();
    let one = resumed.iter().find(|one| one.node == other).unwrap();
    assert_eq!(one.state, DesiredNodeState::Provisioned);
}

#[test]
fn records_of_earlier_programs_are_read() {
    let mut json = serde_json::to_value(in_state(UpdateState::Launching).0.record()).unwrap();
    let cycle = json["cycle"].as_object_mut().unwrap();
    for key in ["undo", "aside", "trouble", "asked"] {
        cycle.remove(key);
    }
    json.as_object_mut().unwrap().remove("rollback");
    let record: Record = serde_json::from_value(json).unwrap();
    let mut engine = Engine::restore(config(), Some(record), at(20));
    let outputs = drain(&mut engine);
    go_on(&mut engine, 20, outputs);
    assert_eq!(engine.record().committed.items[0].version, "2");
}

#[test]
fn failures_are_bounded_before_they_are_stored() {
    let (mut engine, effect) = in_state(UpdateState::Downloading);
    let long = "ä".repeat(5000);
    let failures = Failures {
        items: (0..3000)
            .map(|number| (item_id(&format!("i{number}")), error(&long)))
            .collect(),
        ..Failures::default()
    };
    answer(&mut engine, 11, effect.unwrap(), failures);
    let kept = &engine.record().failure.as_ref().unwrap().failures;
    assert_eq!((kept.items.len(), kept.omitted), (1000, 2000));
    assert!(kept.items.values().all(|error| error.message.len() < 2100));
}

#[test]
fn a_unit_configuration_that_may_not_follow_is_refused_and_the_rest_goes_on() {
    let mut engine = settled();
    let outputs = send(&mut engine, 10, desired("2.0.0", &[("a", "1", 1)]));
    go_on(&mut engine, 10, outputs);
    let older = desired("1.0.0", &[("a", "2", 1)]);
    let mut same = desired("2.0.0", &[("a", "3", 1)]);
    same.unit_config.as_mut().unwrap().format_version = "other".into();
    for (wish, version, why) in [
        (&older, "1.0.0", "version 1.0.0 is not greater than 2.0.0"),
        (
            &same,
            "2.0.0",
            "another configuration of the same version 2.0.0",
        ),
    ] {
        let outputs = send(&mut engine, 20, wish.clone());
        let effects = go_on(&mut engine, 20, outputs);
        let applied = effects.iter().find_map(|effect| match effect {
            Effect::ApplyUnitConfig { config, .. } => config.clone(),
            _ => None,
        });
        assert_eq!(applied.unwrap().format_version, "");
        let committed = &engine.record().committed;
        assert_eq!(
            committed.items[0].version,
            wish.items.as_ref().unwrap()[0].version
        );
        assert_eq!(committed.unit_config.as_ref().unwrap().version, "2.0.0");
        assert_eq!(engine.record().failure, None);
        let status = engine.failed_unit_config().unwrap();
        assert_eq!(status.version, version);
        assert!(status.error.message.starts_with(why), "{}", status.error);
        // The same again changes nothing, also after a restart.
        let mut again = restarted(&engine, 30);
        assert_eq!(asked(&send(&mut again, 40, wish.clone())), None);
        assert_eq!(again.failed_unit_config(), Some(status));
    }
    // What names none asks for nothing new; what names the one in force takes the refused one back.
    let mut without = desired("-", &[("a", "3", 1)]);
    without.unit_config = None;
    send(&mut engine, 50, without);
    assert!(engine.failed_unit_config().is_some());
    send(&mut engine, 60, desired("2.0.0", &[("a", "3", 1)]));
    assert_eq!(engine.failed_unit_config(), None);
}

#[test]
fn what_waits_for_a_commit_may_not_bring_an_older_unit_configuration_either() {
    let (mut engine, effect) = in_state(UpdateState::Finalizing);
    let version = |engine: &Engine| {
        engine
            .record()
            .committed
            .unit_config
            .clone()
            .unwrap()
            .version
    };
    let before = version(&engine);
    let outputs = send(&mut engine, 100, desired("0.1.0", &[("a", "3", 1)]));
    assert_eq!(asked(&outputs), None, "a commit is finished first");
    let outputs = answer(&mut engine, 101, effect.unwrap(), Failures::default());
    go_on(&mut engine, 101, outputs);
    assert_eq!(version(&engine), before);
    assert_eq!(engine.record().committed.items[0].version, "3");
    assert_eq!(engine.failed_unit_config().unwrap().version, "0.1.0");
}
