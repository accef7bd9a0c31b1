//! Items that may fail alone.

use aos_types::{InstanceState, ItemState};
use aos_update::{Effect, Engine, Failures, Input, Output, Report, UpdateState};

use crate::given::*;

/// a and b, of which b may fail alone.
fn both(a: &str, b: &str) -> aos_update::Desired {
    independent(desired("1.0.0", &[("a", a, 1), ("b", b, 1)]), "b")
}

fn settled_both() -> Engine {
    let mut engine = engine();
    let outputs = send(&mut engine, 0, both("1", "1"));
    go_on(&mut engine, 0, outputs);
    engine
}

fn versions(engine: &Engine) -> Vec<String> {
    let mut versions: Vec<String> = engine
        .record()
        .committed
        .items
        .iter()
        .map(|item| format!("{} {}", item.id, item.version))
        .collect();
    versions.sort();
    versions
}

fn of(item: &str) -> Failures {
    Failures {
        items: [(item_id(item), error("not found"))].into(),
        ..Failures::default()
    }
}

/// What is said of b 2 in the end.
fn reported(engine: &Engine) -> String {
    let items = engine.items();
    let b = items
        .iter()
        .find(|item| item.version == "2" && item.id == item_id("b"));
    let b = b.unwrap();
    assert_eq!(b.state, ItemState::Failed);
    b.error.as_ref().unwrap().message.clone()
}

#[test]
fn a_failed_download_of_one_leaves_it_as_it_is_and_the_rest_goes_on() {
    let mut engine = settled_both();
    let outputs = send(&mut engine, 1, both("2", "2"));
    let outputs = answer(&mut engine, 1, asked(&outputs).unwrap(), of("b"));
    assert_eq!(engine.state(), UpdateState::Installing);
    let mut engine = restarted(&engine, 2);
    assert!(asked(&outputs).is_some());
    let again = drain(&mut engine);
    go_on(&mut engine, 2, again);
    assert_eq!(versions(&engine), ["a 2", "b 1"]);
    let said = reported(&engine);
    assert!(
        said.starts_with("not found (attempt 1, tried again at "),
        "{said}"
    );
    let failure = engine.record().failure.clone().unwrap();
    assert_eq!(failure.state, UpdateState::Downloading);
    // The same again is nothing new, and in time it is tried again.
    assert_eq!(
        send(&mut engine, 3, both("2", "2")),
        [Output::Report(Report::Full)]
    );
    engine.handle(failure.retry_at.unwrap(), Input::Wake);
    let outputs = drain(&mut engine);
    go_on(&mut engine, 100, outputs);
    assert_eq!(versions(&engine), ["a 2", "b 2"]);
    assert_eq!(engine.record().failure, None);
}

#[test]
fn an_item_that_may_not_fail_alone_takes_all_with_it() {
    let mut engine = settled_both();
    let outputs = send(&mut engine, 1, both("2", "2"));
    answer(&mut engine, 1, asked(&outputs).unwrap(), of("a"));
    assert_eq!(engine.state(), UpdateState::None);
    assert_eq!(versions(&engine), ["a 1", "b 1"]);
}

#[test]
fn alone_in_its_update_it_fails_like_any_other() {
    let mut engine = settled_both();
    let outputs = send(&mut engine, 1, both("1", "2"));
    answer(&mut engine, 1, asked(&outputs).unwrap(), of("b"));
    assert_eq!(engine.state(), UpdateState::None);
    assert!(reported(&engine).starts_with("not found"));
}

#[test]
fn what_a_node_cannot_install_is_set_aside() {
    let mut engine = settled_both();
    let mut outputs = send(&mut engine, 1, both("2", "2"));
    loop {
        let effect = asked(&outputs).unwrap();
        if matches!(effect.1, Effect::InstallOnNodes { .. }) {
            let failures = Failures {
                instances: [(ident("b", 0), error("no space"))].into(),
                ..Failures::default()
            };
            outputs = answer(&mut engine, 1, effect, failures);
            break;
        }
        outputs = answer(&mut engine, 1, effect, Failures::default());
    }
    let Some((_, Effect::InstallOnNodes { target })) = asked(&outputs) else {
        panic!("what is left is not installed again: {outputs:?}");
    };
    assert_eq!(target.item(&item_id("b")).unwrap().version, "1");
    go_on(&mut engine, 1, outputs);
    assert_eq!(versions(&engine), ["a 2", "b 1"]);
    assert!(reported(&engine).starts_with("instance 0: no space"));
    let failure = engine.record().failure.as_ref().unwrap();
    assert!(failure.failures.instances.contains_key(&ident("b", 0)));
}

#[test]
fn one_that_does_not_come_up_goes_back_by_itself_while_the_other_stays() {
    let mut engine = settled_both();
    let outputs = send(&mut engine, 1, both("2", "2"));
    let mut next = asked(&outputs);
    while let Some(effect) = next {
        next = asked(&answer(&mut engine, 1, effect, Failures::default()));
    }
    engine.handle(
        at(2),
        Input::Instances(views(&[
            ("a", 0, "2", InstanceState::Active),
            ("b", 0, "2", InstanceState::Failed),
        ])),
    );
    let outputs = drain(&mut engine);
    let Some((_, Effect::Launch { target })) = asked(&outputs) else {
        panic!("not launched again: {outputs:?}");
    };
    assert_eq!(target.item(&item_id("a")).unwrap().version, "2");
    assert_eq!(target.item(&item_id("b")).unwrap().version, "1");
    go_on(&mut engine, 2, outputs);
    assert_eq!(versions(&engine), ["a 2", "b 1"]);
    let failure = engine.record().failure.as_ref().unwrap();
    assert_eq!(failure.state, UpdateState::WaitingActive);
}

#[test]
fn a_new_one_that_fails_is_simply_not_there() {
    let mut engine = settled();
    let wish = independent(desired("1.0.0", &[("a", "2", 1), ("b", "2", 3)]), "b");
    let outputs = send(&mut engine, 1, wish);
    let outputs = answer(&mut engine, 1, asked(&outputs).unwrap(), of("b"));
    go_on(&mut engine, 1, outputs);
    assert_eq!(versions(&engine), ["a 2"]);
    assert_eq!(engine.record().committed.instances.len(), 1);
    assert!(reported(&engine).starts_with("not found"));
}
