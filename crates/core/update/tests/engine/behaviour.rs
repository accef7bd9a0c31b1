use aos_types::{InstanceState, ItemState, NodeId};
use aos_update::{
    DesiredNodeState, Direction, Effect, Failures, Input, Output, Report, UpdateState,
};

use crate::given::*;

fn names(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Download { .. } => "download",
            Effect::ApplyNodeStates { .. } => "nodes",
            Effect::ApplyUnitConfig { .. } => "config",
            Effect::InstallOnNodes { .. } => "install",
            Effect::Launch { .. } => "launch",
            Effect::Commit { .. } => "commit",
            Effect::AskReadiness => "ask readiness",
            Effect::Cancel { .. } => "cancel",
        })
        .collect()
}

fn states(engine: &aos_update::Engine) -> Vec<(String, String, ItemState)> {
    engine
        .items()
        .into_iter()
        .map(|item| (item.id.to_string(), item.version, item.state))
        .collect()
}

fn row(name: &str, version: &str, state: ItemState) -> (String, String, ItemState) {
    (name.into(), version.into(), state)
}

#[test]
fn a_first_update_goes_through_all_stages() {
    let mut engine = engine();
    let outputs = send(&mut engine, 0, desired("1.0.0", &[("a", "1", 2)]));
    assert!(matches!(outputs[0], Output::Persist(_)));
    let effects = go_on(&mut engine, 0, outputs);
    assert_eq!(
        names(&effects),
        ["download", "nodes", "config", "install", "launch", "commit"]
    );
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(engine.record().committed.instances[0].num_instances, 2);
    assert_eq!(engine.record().launched, None);
    assert_eq!(states(&engine), [row("a", "1", ItemState::Installed)]);
}

#[test]
fn the_same_again_is_answered_with_a_full_status_and_no_cycle() {
    let mut engine = settled();
    let outputs = send(&mut engine, 5, desired("1.0.0", &[("a", "1", 1)]));
    assert_eq!(asked(&outputs), None);
    assert!(outputs.contains(&Output::Report(Report::Full)));
    assert_eq!(engine.state(), UpdateState::None);
}

#[test]
fn item_states_follow_the_phases() {
    let mut engine = settled();
    let outputs = send(
        &mut engine,
        0,
        desired("1.0.0", &[("a", "2", 1), ("b", "1", 1)]),
    );
    let (effect, download) = asked(&outputs).unwrap();
    assert_eq!(
        states(&engine),
        [
            row("a", "1", ItemState::Installed),
            row("a", "2", ItemState::Downloading),
            row("b", "1", ItemState::Downloading)
        ]
    );
    engine.handle(
        at(1),
        Input::ItemDownloaded {
            effect,
            item: item_id("b"),
            error: None,
        },
    );
    assert_eq!(states(&engine)[2], row("b", "1", ItemState::Pending));
    drain(&mut engine);
    let outputs = answer(&mut engine, 1, (effect, download), Failures::default());
    assert_eq!(engine.state(), UpdateState::Installing);
    assert_eq!(states(&engine)[1], row("a", "2", ItemState::Installing));
    go_on(&mut engine, 1, outputs);
    assert_eq!(
        states(&engine),
        [
            row("a", "2", ItemState::Installed),
            row("b", "1", ItemState::Installed)
        ]
    );
}

#[test]
fn a_failed_download_touches_nothing_and_names_the_item() {
    let (mut engine, effect) = in_state(UpdateState::Downloading);
    let failures = Failures {
        items: [(item_id("a"), error("no such blob"))].into(),
        ..Failures::default()
    };
    let outputs = answer(&mut engine, 11, effect.unwrap(), failures);
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(asked(&outputs), None);
    assert!(outputs.contains(&Output::Report(Report::Full)));
    let items = engine.items();
    assert_eq!(items[0].state, ItemState::Installed);
    assert_eq!(items[1].version, "2");
    assert_eq!(items[1].state, ItemState::Failed);
    let said = &items[1].error.as_ref().unwrap().message;
    assert!(
        said.starts_with("no such blob (attempt 1, tried again at "),
        "{said}"
    );
    assert_eq!(engine.in_force().items[0].version, "1");
}

#[test]
fn a_failed_instance_brings_the_old_set_back_and_the_cause_survives_a_restart() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    assert_eq!(engine.in_force().items[0].version, "2");
    let mut view = views(&[("a", 0, "2", InstanceState::Failed)]);
    view.get_mut(&ident("a", 0)).unwrap().error = Some(error("exit code 3"));
    engine.handle(at(12), Input::Instances(view));
    let outputs = drain(&mut engine);
    assert_eq!(
        engine.record().cycle.as_ref().unwrap().direction,
        Direction::Back
    );
    let effects = go_on(&mut engine, 12, outputs);
    assert_eq!(names(&effects), ["nodes", "config", "install", "launch"]);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::ApplyUnitConfig { config: Some(config), restore: true } if config.version == "1.0.0"
    )));
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(engine.in_force().items[0].version, "1");
    let engine = restarted(&engine, 13);
    let failed = &engine.items()[1];
    assert_eq!(failed.state, ItemState::Failed);
    let said = &failed.error.as_ref().unwrap().message;
    assert!(said.starts_with("instance 0: exit code 3"), "{said}");
}

#[test]
fn gap_17_the_wait_for_active_ends_at_its_deadline_whatever_else_happens() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    for second in 11..609 {
        engine.handle(
            at(second),
            // Another one goes up and down all the time.
            Input::Instances(views(&[
                ("a", 0, "2", InstanceState::Activating),
                match second % 2 {
                    0 => ("a", 1, "2", InstanceState::Active),
                    _ => ("a", 1, "2", InstanceState::Activating),
                },
            ])),
        );
        engine.handle(at(second), Input::Wake);
    }
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    let mut engine = restarted(&engine, 609);
    drain(&mut engine);
    engine.handle(at(610), Input::Wake);
    assert_eq!(
        engine.record().cycle.as_ref().unwrap().direction,
        Direction::Back
    );
    let failure = engine.record().failure.as_ref().unwrap();
    assert_eq!(failure.state, UpdateState::WaitingActive);
    assert!(failure.failures.instances.contains_key(&ident("a", 0)));
}

#[test]
fn a_refused_configuration_fails_the_update_and_is_reported() {
    let (mut engine, effect) = in_state(UpdateState::Installing);
    let outputs = answer(&mut engine, 11, effect.unwrap(), Failures::default());
    let config = asked(&outputs).unwrap();
    let failures = Failures {
        unit_config: Some(error("node main refuses")),
        ..Failures::default()
    };
    let outputs = answer(&mut engine, 11, config, failures);
    go_on(&mut engine, 11, outputs);
    let failed = engine.failed_unit_config().unwrap();
    assert_eq!(
        (failed.version.as_str(), failed.error.message.as_str()),
        ("2.0.0", "node main refuses")
    );
    assert!(
        engine.items()[1]
            .error
            .as_ref()
            .unwrap()
            .message
            .contains("unit configuration: node main refuses")
    );
}

#[test]
fn a_newer_state_supersedes_at_once_and_cancels_the_download() {
    let (mut engine, effect) = in_state(UpdateState::Downloading);
    let outputs = send(&mut engine, 11, desired("2.0.0", &[("a", "3", 1)]));
    let old = effect.unwrap().0;
    assert!(outputs.iter().any(
        |output| matches!(output, Output::Do(_, Effect::Cancel { effect }) if *effect == old)
    ));
    assert_eq!(engine.state(), UpdateState::Downloading);
    engine.handle(
        at(12),
        Input::Downloaded {
            effect: old,
            failures: Failures::of_step(error("cancelled")),
        },
    );
    assert_eq!(
        engine.state(),
        UpdateState::Downloading,
        "the late answer is nobody's"
    );
    go_on(&mut engine, 12, outputs);
    assert_eq!(engine.in_force().items[0].version, "3");
}

#[test]
fn the_one_in_progress_again_changes_nothing() {
    let (mut engine, _) = in_state(UpdateState::Downloading);
    let before = engine.record().clone();
    assert_eq!(
        send(&mut engine, 11, desired("2.0.0", &[("a", "2", 1)])),
        vec![]
    );
    assert_eq!(engine.record(), &before);
}

#[test]
fn a_newer_state_supersedes_a_launch_at_once_and_waits_for_no_node() {
    let (mut engine, effect) = in_state(UpdateState::Launching);
    let launch = effect.unwrap();
    let outputs = send(&mut engine, 11, desired("2.0.0", &[("a", "3", 1)]));
    assert!(outputs.iter().any(
        |output| matches!(output, Output::Do(_, Effect::Cancel { effect }) if *effect == launch.0)
    ));
    assert_eq!(engine.state(), UpdateState::Downloading);
    let outputs = send(&mut engine, 11, desired("2.0.0", &[("a", "4", 1)]));
    assert_eq!(
        answer(&mut engine, 12, launch, Failures::of_step(error("late"))),
        vec![],
        "the late answer is nobody's"
    );
    assert_eq!(engine.state(), UpdateState::Downloading);
    assert_eq!(
        engine.in_force().items[0].version,
        "2",
        "it runs until 4 is launched"
    );
    go_on(&mut engine, 12, outputs);
    assert_eq!(engine.record().committed.items[0].version, "4");
}

#[test]
fn on_the_way_back_a_node_that_hangs_holds_up_something_newer_only_for_a_moment() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(
        at(11),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let mut outputs = drain(&mut engine);
    while engine.state() != UpdateState::Launching {
        let effect = asked(&outputs).unwrap();
        outputs = answer(&mut engine, 11, effect, Failures::default());
    }
    let launch = asked(&outputs).unwrap().0;
    let outputs = send(&mut engine, 20, desired("2.0.0", &[("a", "3", 1)]));
    assert!(outputs.contains(&Output::WakeAt(at(50))), "{outputs:?}");
    assert_eq!(engine.state(), UpdateState::Launching);
    // A restart moves nothing.
    let mut engine = restarted(&engine, 49);
    let launch_again = asked(&drain(&mut engine)).unwrap().0;
    assert_ne!(launch, launch_again);
    engine.handle(at(50), Input::Wake);
    let outputs = drain(&mut engine);
    assert!(outputs.iter().any(
        |output| matches!(output, Output::Do(_, Effect::Cancel { effect }) if *effect == launch_again)
    ));
    assert_eq!(engine.state(), UpdateState::Downloading);
    go_on(&mut engine, 50, outputs);
    assert_eq!(engine.record().committed.items[0].version, "3");
}

#[test]
fn superseded_after_launch_a_failed_download_still_brings_the_committed_set_back() {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    let outputs = send(&mut engine, 11, desired("2.0.0", &[("a", "3", 1)]));
    assert_eq!(engine.state(), UpdateState::Downloading);
    let failures = Failures {
        items: [(item_id("a"), error("gone"))].into(),
        ..Failures::default()
    };
    let outputs = answer(&mut engine, 12, asked(&outputs).unwrap(), failures);
    let effects = go_on(&mut engine, 12, outputs);
    assert_eq!(names(&effects), ["nodes", "config", "install", "launch"]);
    assert_eq!(engine.in_force().items[0].version, "1");
}

#[test]
fn going_back_to_what_runs_before_anything_was_touched_ends_the_cycle() {
    let (mut engine, _) = in_state(UpdateState::Downloading);
    let outputs = send(&mut engine, 11, desired("1.0.0", &[("a", "1", 1)]));
    assert_eq!(engine.state(), UpdateState::None);
    assert!(outputs.contains(&Output::Report(Report::Full)));
}

#[test]
fn trouble_with_what_is_not_changed_does_not_fail_the_update() {
    let mut engine = settled();
    let mut outputs = send(
        &mut engine,
        10,
        desired("1.0.0", &[("a", "1", 1), ("b", "1", 1)]),
    );
    let lost = Failures {
        nodes: [(NodeId::new("other").unwrap(), error("not connected"))].into(),
        instances: [(ident("a", 0), error("its node is lost"))].into(),
        ..Failures::default()
    };
    while let Some((id, effect)) = asked(&outputs) {
        let failures = match &effect {
            Effect::InstallOnNodes { .. } | Effect::Launch { .. } => lost.clone(),
            _ => Failures::default(),
        };
        outputs = answer(&mut engine, 10, (id, effect), failures);
    }
    assert_eq!(engine.state(), UpdateState::WaitingActive);
    engine.handle(
        at(11),
        Input::Instances(views(&[
            ("a", 0, "1", InstanceState::Failed),
            ("b", 0, "1", InstanceState::Active),
        ])),
    );
    assert_eq!(engine.state(), UpdateState::Finalizing);
}

#[test]
fn a_new_instance_that_has_no_place_fails_the_update_before_anything_stops() {
    let (mut engine, effect) = in_state(UpdateState::Installing);
    let mut next = effect;
    while !matches!(next, Some((_, Effect::InstallOnNodes { .. }))) {
        let outputs = answer(&mut engine, 10, next.unwrap(), Failures::default());
        next = asked(&outputs);
    }
    let failures = Failures {
        instances: [(ident("a", 0), error("no node has the label"))].into(),
        ..Failures::default()
    };
    let outputs = answer(&mut engine, 11, next.unwrap(), failures);
    assert_eq!(engine.record().launched, None);
    let effects = go_on(&mut engine, 11, outputs);
    assert!(names(&effects).contains(&"launch"));
    assert_eq!(engine.in_force().items[0].version, "1");
}

#[test]
fn a_commit_that_fails_is_tried_again_until_it_succeeds() {
    let (mut engine, effect) = in_state(UpdateState::Finalizing);
    let mut effect = effect.unwrap();
    for round in 0..5 {
        let now = 20 + round * 10;
        let outputs = answer(
            &mut engine,
            now,
            effect,
            Failures::of_step(error("disk full")),
        );
        assert_eq!(asked(&outputs), None);
        engine.handle(at(now + 10), Input::Wake);
        effect = asked(&drain(&mut engine)).unwrap();
    }
    answer(&mut engine, 100, effect, Failures::default());
    assert_eq!(engine.record().committed.items[0].version, "2");
}

#[test]
fn a_node_that_cannot_be_paused_fails_the_update() {
    let mut engine = settled();
    let mut wish = desired("1.0.0", &[("a", "1", 1)]);
    wish.nodes = Some(vec![node(DesiredNodeState::Paused)]);
    let outputs = send(&mut engine, 10, wish);
    let outputs = answer(
        &mut engine,
        10,
        asked(&outputs).unwrap(),
        Failures::default(),
    );
    let failures = Failures {
        nodes: [(NodeId::new("main").unwrap(), error("IAM says no"))].into(),
        ..Failures::default()
    };
    let outputs = answer(&mut engine, 10, asked(&outputs).unwrap(), failures);
    go_on(&mut engine, 10, outputs);
    let failure = engine.record().failure.as_ref().unwrap();
    assert_eq!(
        failure.failures.summary().unwrap(),
        "node `main`: IAM says no"
    );
}

#[test]
fn no_stage_waits_without_end() {
    for state in [
        UpdateState::Downloading,
        UpdateState::Installing,
        UpdateState::Launching,
    ] {
        let (mut engine, _) = in_state(state);
        engine.handle(at(10 + 25 * 3600), Input::Wake);
        let failure = engine.record().failure.as_ref().unwrap();
        assert_eq!(failure.state, state);
        // The way back is silent too: it ends all the same, and says that it did not succeed.
        let mut ended = engine.state() == UpdateState::None;
        let mut outputs = drain(&mut engine);
        for _ in 0..20 {
            let wake = outputs.iter().rev().find_map(|output| match output {
                Output::WakeAt(at) => Some(*at),
                _ => None,
            });
            engine.handle(wake.unwrap(), Input::Wake);
            outputs = drain(&mut engine);
            ended |= engine.state() == UpdateState::None;
        }
        assert!(ended);
        assert!(engine.record().failure.as_ref().unwrap().attempts > 1);
        // Only what was given to the Nodes has anything to bring back.
        let launched = state == UpdateState::Launching;
        assert_eq!(engine.record().rollback.is_some(), launched, "{state}");
    }
}

#[test]
fn certificates_that_come_while_it_is_committed_are_committed_too() {
    let (mut engine, _) = in_state(UpdateState::Finalizing);
    let mut again = desired("2.0.0", &[("a", "2", 1)]);
    again.certificates = Some(vec![aos_update::Certificate {
        der: vec![1],
        fingerprint: "01".into(),
    }]);
    send(&mut engine, 11, again);
    let record = engine.record();
    let target = &record.cycle.as_ref().unwrap().target;
    assert_eq!(target.certificates.len(), 1);
    assert_eq!(
        record.committed, *target,
        "a commit that is repeated asks for what is stored"
    );
}

#[test]
fn certificates_that_come_during_a_launch_are_launched_too() {
    for state in [UpdateState::Launching, UpdateState::WaitingActive] {
        let (mut engine, _) = in_state(state);
        let mut again = desired("2.0.0", &[("a", "2", 1)]);
        again.certificates = Some(vec![aos_update::Certificate {
            der: vec![1],
            fingerprint: "01".into(),
        }]);
        send(&mut engine, 11, again);
        let record = engine.record();
        let target = &record.cycle.as_ref().unwrap().target;
        assert_eq!(target.certificates.len(), 1);
        assert_eq!(
            record.launched.as_ref(),
            Some(target),
            "a launch that is repeated asks for what is stored"
        );
    }
}
