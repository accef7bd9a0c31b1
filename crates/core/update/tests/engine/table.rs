use std::fmt::Write;

use aos_types::InstanceState;
use aos_update::{Effect, Engine, Failures, Input, Output, Record, Report, UpdateState};

use crate::given::*;

fn brief(outputs: &[Output]) -> String {
    let words: Vec<String> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Persist(record) => Some(format!("store({})", standing(record))),
            Output::Do(_, effect) => Some(
                match effect {
                    Effect::Download { .. } => "Download",
                    Effect::ApplyNodeStates { .. } => "ApplyNodeStates",
                    Effect::ApplyUnitConfig { .. } => "ApplyUnitConfig",
                    Effect::InstallOnNodes { .. } => "InstallOnNodes",
                    Effect::Launch { .. } => "Launch",
                    Effect::Commit { .. } => "Commit",
                    Effect::AskReadiness => "AskReadiness",
                    Effect::Cancel { .. } => "Cancel",
                }
                .into(),
            ),
            Output::WakeAt(_) | Output::Report(Report::Changed) => None,
            Output::Report(Report::Full) => Some("full status".into()),
            Output::Report(Report::Notes(_)) => Some("notes".into()),
            Output::Report(Report::Waits { part, reason }) => {
                Some(format!("{part} waits: {reason}"))
            }
        })
        .collect();
    words.join(", ")
}

fn standing(record: &Record) -> String {
    record.cycle.as_ref().map_or("none".into(), |cycle| {
        let next = if cycle.next.is_some() { " +next" } else { "" };
        format!("{:?} {}{next}", cycle.direction, cycle.state).to_lowercase()
    })
}

fn back(state: UpdateState) -> (Engine, Option<(aos_update::EffectId, Effect)>) {
    let (mut engine, _) = in_state(UpdateState::WaitingActive);
    engine.handle(
        at(10),
        Input::Instances(views(&[("a", 0, "2", InstanceState::Failed)])),
    );
    let mut outputs = drain(&mut engine);
    while engine.state() != state {
        let effect = asked(&outputs).unwrap();
        outputs = answer(&mut engine, 10, effect, Failures::default());
    }
    (engine, asked(&outputs))
}

#[test]
fn transitions() {
    let mut table = String::new();
    let forward = [
        UpdateState::None,
        UpdateState::Downloading,
        UpdateState::Installing,
        UpdateState::Launching,
        UpdateState::WaitingActive,
        UpdateState::Finalizing,
    ]
    .map(|state| (state, false));
    let backward = [
        UpdateState::Installing,
        UpdateState::Launching,
        UpdateState::WaitingActive,
    ]
    .map(|state| (state, true));
    for (state, goes_back) in forward.into_iter().chain(backward) {
        let fresh = || match (state, goes_back) {
            (UpdateState::None, _) => (settled(), None),
            (_, false) => in_state(state),
            (_, true) => back(state),
        };
        let mut line = |input: &str, engine: &Engine, outputs: &[Output]| {
            let (start, _) = fresh();
            let from = standing(start.record());
            let to = standing(engine.record());
            writeln!(
                table,
                "{from:22} | {input:18} | {to:28} | {}",
                brief(outputs)
            )
            .unwrap();
        };
        if let (mut engine, Some(effect)) = fresh() {
            let outputs = answer(&mut engine, 11, effect, Failures::default());
            line("step succeeds", &engine, &outputs);
        }
        if let (mut engine, Some(effect)) = fresh() {
            let outputs = answer(&mut engine, 11, effect, Failures::of_step(error("no")));
            line("step fails", &engine, &outputs);
        }
        for (name, instance) in [
            ("instances active", InstanceState::Active),
            ("instance failed", InstanceState::Failed),
        ] {
            let (mut engine, _) = fresh();
            let version = engine.in_force().items[0].version.clone();
            engine.handle(
                at(11),
                Input::Instances(views(&[("a", 0, &version, instance)])),
            );
            let outputs = drain(&mut engine);
            line(name, &engine, &outputs);
        }
        let (mut engine, _) = fresh();
        engine.handle(at(10 + 25 * 3600), Input::Wake);
        let outputs = drain(&mut engine);
        line("deadline", &engine, &outputs);
        for (name, version) in [("the same again", "2"), ("a newer one", "3")] {
            let (mut engine, _) = fresh();
            let outputs = send(&mut engine, 11, desired("2.0.0", &[("a", version, 1)]));
            line(name, &engine, &outputs);
        }
        let (mut engine, _) = fresh();
        let outputs = send(&mut engine, 11, desired("1.0.0", &[("a", "1", 1)]));
        line("the committed one", &engine, &outputs);
        let (engine, _) = fresh();
        let mut engine = restarted(&engine, 11);
        let outputs = drain(&mut engine);
        line("restart", &engine, &outputs);
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}
