//! When an alert begins, goes on and is over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use aos_alert::{Change, Parameter, Rule, Sizes, Watch, Watches, WrongRule};
use aos_time::Timestamp;
use aos_types::{AlertRule, AlertRules, PartitionAlertRule};
use proptest::prelude::*;

const RULE: Rule = Rule {
    hold: Duration::from_secs(30),
    lower: 50,
    upper: 90,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// What is said at which second of these measurements.
fn said(rule: Rule, measurements: &[(i64, u64)]) -> Vec<(i64, Change)> {
    let mut watch = Watch::new(rule);
    measurements
        .iter()
        .filter_map(|&(second, value)| Some((second, watch.measured(at(second), value)?)))
        .collect()
}

#[test]
fn an_alert_begins_goes_on_and_is_over_each_after_its_time() {
    use Change::{Continue, Fall, Raise};
    let every_10 = |values: &[u64]| -> Vec<(i64, u64)> {
        values
            .iter()
            .enumerate()
            .map(|(n, value)| (n as i64 * 10, *value))
            .collect()
    };
    for (what, values, wanted) in [
        ("a peak is nothing", vec![10, 95, 95, 10, 10], vec![]),
        (
            "a dip begins the time anew",
            vec![95, 95, 89, 95, 95, 95, 95],
            vec![(60, Raise)],
        ),
        (
            "it goes on above the lower threshold",
            vec![90, 90, 90, 90, 60, 60, 60, 60, 60, 60],
            vec![(30, Raise), (60, Continue), (90, Continue)],
        ),
        (
            "it is over after the time below",
            vec![99, 99, 99, 99, 49, 49, 60, 49, 49, 49, 49, 99],
            vec![(30, Raise), (60, Continue), (100, Fall)],
        ),
        (
            "and begins again only after its time",
            vec![99, 99, 99, 99, 0, 0, 0, 0, 99, 99, 99, 99],
            vec![(30, Raise), (70, Fall), (110, Raise)],
        ),
    ] {
        assert_eq!(said(RULE, &every_10(&values)), wanted, "{what}");
    }
}

#[test]
fn without_a_time_it_is_said_at_once_and_not_with_every_measurement() {
    let rule = Rule {
        hold: Duration::ZERO,
        ..RULE
    };
    let measurements: Vec<(i64, u64)> = (0..25).map(|second| (second, 95)).collect();
    assert_eq!(
        said(rule, &measurements),
        [
            (0, Change::Raise),
            (10, Change::Continue),
            (20, Change::Continue)
        ]
    );
}

fn percent(lower: f64, upper: f64) -> AlertRule {
    AlertRule {
        min_timeout: Duration::ZERO,
        min_threshold: lower,
        max_threshold: upper,
    }
}

#[test]
fn percentages_are_of_the_node_and_impossible_rules_are_named() {
    let rule = Rule::of_percent(&percent(50.0, 80.0), 2_000).unwrap();
    assert_eq!((rule.lower, rule.upper), (1_000, 1_600));
    assert!(matches!(
        Rule::of_percent(&percent(80.0, 50.0), 100),
        Err(WrongRule::Reversed { .. })
    ));
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let wrong = Rule::of_amount(&percent(0.0, bad)).unwrap_err();
        assert!(wrong.to_string().contains("maxThreshold"), "{wrong}");
    }
    assert_eq!(
        Rule::of_percent(&percent(1.0, 2.0), 0),
        Err(WrongRule::NoSize)
    );
    // 0 % would be an alert without an end.
    assert_eq!(Rule::of_amount(&percent(0.0, 0.0)).unwrap().upper, 1);
}

fn sizes() -> Sizes {
    Sizes {
        cpu: 1_000,
        ram: 1_000,
        partitions: [("data".to_owned(), 500)].into(),
    }
}

fn rules() -> AlertRules {
    AlertRules {
        cpu: Some(percent(50.0, 90.0)),
        partitions: vec![PartitionAlertRule {
            name: "data".into(),
            rule: percent(10.0, 20.0),
        }],
        upload: Some(percent(10.0, 20.0)),
        ..AlertRules::default()
    }
}

#[test]
fn gap_73_the_same_rules_given_again_neither_repeat_nor_forget_an_alert() {
    let mut watches = Watches::default();
    assert_eq!(watches.set(&"node", &rules(), &sizes()), (vec![], vec![]));
    let raised = watches
        .measured(at(0), &"node", &Parameter::Cpu, 950)
        .unwrap();
    assert_eq!((raised.change, raised.value), (Change::Raise, 950));
    let mut other = rules();
    other.upload = Some(percent(1.0, 2.0));
    assert_eq!(watches.set(&"node", &other, &sizes()), (vec![], vec![]));
    assert_eq!(
        watches.measured(at(1), &"node", &Parameter::Cpu, 950),
        None,
        "it is raised already"
    );
    let over = watches
        .measured(at(2), &"node", &Parameter::Cpu, 100)
        .unwrap();
    assert_eq!(over.change, Change::Fall);
}

#[test]
fn an_alert_ends_with_its_rule_and_with_its_instance() {
    let mut watches = Watches::default();
    for of in ["node", "instance"] {
        watches.set(&of, &rules(), &sizes());
        watches.measured(at(0), &of, &Parameter::Partition("data".into()), 100);
        watches.measured(at(0), &of, &Parameter::Cpu, 1_000);
    }
    let without = AlertRules {
        cpu: None,
        ..rules()
    };
    let (over, wrong) = watches.set(&"node", &without, &sizes());
    assert!(wrong.is_empty());
    let told: Vec<_> = over
        .iter()
        .map(|alert| (alert.of, alert.parameter.to_string(), alert.change))
        .collect();
    assert_eq!(told, [("node", "cpu".to_owned(), Change::Fall)]);
    let over = watches.retain(|of| *of == "node");
    assert_eq!(over.len(), 2);
    assert!(over.iter().all(|alert| alert.of == "instance"));
    assert!(watches.watches(&"node") && !watches.watches(&"instance"));
}

#[test]
fn a_rule_for_what_the_node_does_not_have_is_named() {
    let mut watches = Watches::default();
    let mut rules = rules();
    rules.partitions[0].name = "nowhere".into();
    let (_, wrong) = watches.set(&"node", &rules, &sizes());
    assert_eq!(
        wrong,
        [(Parameter::Partition("nowhere".into()), WrongRule::NoSize)]
    );
}

proptest! {
    /// Whatever is measured: words come in an order that makes sense, and none without its time.
    #[test]
    fn raises_and_falls_take_turns(values in prop::collection::vec((0_i64..40, 0_u64..120), 1..200)) {
        let mut watch = Watch::new(RULE);
        let (mut now, mut raised, mut last) = (0, false, None::<i64>);
        for (pause, value) in values {
            now += pause;
            let Some(change) = watch.measured(at(now), value) else { continue };
            if let (Some(last), true) = (last, change != Change::Raise) {
                prop_assert!(now - last >= 30);
            }
            match change {
                Change::Raise => prop_assert!(!raised && value >= RULE.upper),
                Change::Continue => prop_assert!(raised && value >= RULE.lower),
                Change::Fall => prop_assert!(raised && value < RULE.lower),
            }
            raised = change != Change::Fall;
            prop_assert_eq!(raised, watch.is_raised());
            last = Some(now);
        }
    }
}
