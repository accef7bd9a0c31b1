//! Desired states that are large or wrong.

use std::time::Duration;

use aos_types::{Digest, ItemType, NodeId, SubjectId, SubjectType};
use aos_update::{
    Actual, Desired, DesiredItem, DesiredNode, DesiredNodeState, DesiredSubject, Input, Output,
    Part, Report, Target, UpdateState, differences, resolve,
};

use crate::given::*;

fn many(entries: u64, each: u64, version: &str) -> Desired {
    let name = |number| format!("item-{number}");
    Desired {
        items: Some(
            (0..entries)
                .map(|number| DesiredItem {
                    index_digest: Digest::from_bytes([7; 32]),
                    ..item(&name(number), version)
                })
                .collect(),
        ),
        instances: Some(
            (0..entries)
                .map(|number| run(&name(number), each))
                .collect(),
        ),
        ..Desired::default()
    }
}

/// How long it takes to read, compare, compare with what is in force, and judge.
fn work(entries: u64, each: u64) -> Duration {
    let wish = many(entries, each, "1");
    let started = on_processor();
    let (target, notes) = resolve(wish, &Target::default());
    assert_eq!(notes, []);
    let mut actual = Actual::default();
    let found = differences(&target, &Target::default(), &actual);
    assert_eq!(found.len() as u64, entries + entries * each);
    actual.instances = target
        .wanted_instances()
        .map(|wanted| (wanted.ident, wanted.version))
        .collect();
    assert_eq!(differences(&target, &target, &actual), []);
    on_processor() - started
}

/// How long this thread was on a processor: others use the machine too.
fn on_processor() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_hundred_thousand_instances_take_linear_time() {
    // Of three tries the best: memory and caches are shared as well.
    let best = |entries, each| (0..3).map(|_| work(entries, each)).min().unwrap();
    let small = best(1_000, 10);
    let large = best(10_000, 10);
    assert!(
        large < small * 40 + Duration::from_millis(50),
        "ten times as much took {large:?}, not about ten times {small:?}"
    );
}

#[test]
fn a_large_update_is_carried_through_and_judged() {
    let mut engine = engine();
    let outputs = send(&mut engine, 0, many(2_000, 50, "1"));
    go_on(&mut engine, 0, outputs);
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(
        engine.record().committed.wanted_instances().count(),
        100_000
    );
    // Silence on all of them is one bounded failure.
    let outputs = send(&mut engine, 1, many(2_000, 50, "2"));
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        next = asked(&answer(
            &mut engine,
            1,
            effect,
            aos_update::Failures::default(),
        ));
    }
    engine.handle(at(601), Input::Wake);
    let failures = &engine.record().failure.as_ref().unwrap().failures;
    assert_eq!(
        (failures.instances.len(), failures.omitted),
        (1_000, 99_000)
    );
}

fn notes_of(outputs: &[Output]) -> Vec<String> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Report(Report::Notes(notes)) => Some(notes),
            _ => None,
        })
        .flatten()
        .map(|note| note.text.clone())
        .collect()
}

#[test]
fn no_instances_of_a_service_is_an_error_and_stops_nothing() {
    let mut engine = settled();
    let mut wish = desired("1.0.0", &[("a", "1", 0), ("b", "1", 0)]);
    let component = DesiredItem {
        item_type: ItemType::Component,
        ..item("boot", "1")
    };
    wish.items.as_mut().unwrap().push(component);
    wish.instances.as_mut().unwrap().push(run("boot", 0));
    let outputs = send(&mut engine, 1, wish);
    let notes = notes_of(&outputs);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("`a` for `subject` asks for no instances"),
        "{notes:?}"
    );
    let target = engine.record().cycle.as_ref().unwrap().target.clone();
    let counts: Vec<(&str, u64)> = target
        .instances
        .iter()
        .map(|entry| (entry.item.as_str(), entry.num_instances))
        .collect();
    assert_eq!(counts, [("a", 1), ("boot", 0)], "a runs on, b never ran");
}

#[test]
fn unknown_nodes_and_subjects_are_named_and_stop_nothing() {
    let mut engine = settled();
    let mut wish = desired("1.0.0", &[("a", "1", 1)]);
    wish.nodes.as_mut().unwrap().push(DesiredNode {
        node: NodeId::new("ghost").unwrap(),
        state: DesiredNodeState::Paused,
    });
    wish.subjects = Some(vec![DesiredSubject {
        id: SubjectId::new("other").unwrap(),
        subject_type: SubjectType::Group,
        is_reported_from_unit: false,
    }]);
    let outputs = send(&mut engine, 1, wish);
    let notes = notes_of(&outputs);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes
            .iter()
            .any(|note| note.contains("`ghost` is not part of this Unit"))
    );
    assert!(
        notes
            .iter()
            .any(|note| note.contains("`subject` is used and not among"))
    );
    assert_eq!(engine.in_force().instances.len(), 1);
}

#[test]
fn the_order_of_lists_says_nothing() {
    let mut engine = engine();
    let services = [("a", "1", 1), ("b", "1", 1), ("c", "1", 1)];
    let outputs = send(&mut engine, 0, desired("1.0.0", &services));
    let mut turned = services;
    turned.reverse();
    assert_eq!(
        send(&mut engine, 1, desired("1.0.0", &turned)),
        [],
        "under way"
    );
    go_on(&mut engine, 1, outputs);
    let outputs = send(&mut engine, 2, desired("1.0.0", &turned));
    assert_eq!(asked(&outputs), None);
    assert!(outputs.contains(&Output::Report(Report::Full)));
}

#[test]
fn a_thousand_doubles_leave_one() {
    let doubles = Desired {
        items: Some(vec![item("a", "1"); 1000]),
        instances: Some(vec![run("a", 1); 1000]),
        ..Desired::default()
    };
    let (target, notes) = resolve(doubles, &Target::default());
    assert_eq!((target.items.len(), target.instances.len()), (1, 1));
    assert_eq!(notes.len(), 2, "one note for each name: {}", notes.len());
    assert_eq!(notes[0].part, Part::Items);
    assert!(notes[0].text.contains("1000 times"), "{}", notes[0].text);
}
