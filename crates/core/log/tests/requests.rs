//! CM's book of requests: everybody is answered, and nobody waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_cloud_protocol::{
    LogFilter, LogStatus, LogType, PushLog, RequestLog, UploadOptions, UploadType,
};
use aos_log::{Output, Reach, Requests, Wait};
use aos_time::Timestamp;
use aos_types::{ErrorInfo, NodeId};
use proptest::prelude::*;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// The world's time is not that of waits.
fn utc(secs: i64) -> Timestamp {
    at(1_000_000 + secs)
}

fn request(nodes: &[&str]) -> RequestLog {
    RequestLog {
        log_type: LogType::Instance,
        filter: LogFilter {
            nodes: nodes.iter().map(|name| node(name)).collect(),
            ..LogFilter::default()
        },
        upload_options: None,
    }
}

fn live(nodes: &[&str], till: Option<Timestamp>) -> RequestLog {
    let mut request = request(nodes);
    request.filter.till = till;
    request.upload_options = Some(UploadOptions {
        upload_type: UploadType::Wss,
        url: None,
        bearer_token: None,
        bearer_token_ttl: None,
    });
    request
}

fn known() -> BTreeMap<NodeId, Reach> {
    let connected = Reach::Connected { follows: true };
    BTreeMap::from([
        (node("main"), connected),
        (node("old"), Reach::Connected { follows: false }),
        (node("lost"), Reach::Away),
    ])
}

fn ask(requests: &mut Requests, id: &str, request: RequestLog) -> Vec<Output> {
    requests.asked(at(0), utc(0), id.into(), request, &known(), &node("main"))
}

/// What is told of each Node.
fn told(out: &[Output]) -> Vec<(String, LogStatus)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Answer { part, .. } => Some((part.node.to_string(), part.status)),
            _ => None,
        })
        .collect()
}

fn asked_of(out: &[Output]) -> Vec<String> {
    out.iter()
        .filter_map(|output| match output {
            Output::Ask { node, .. } => Some(node.to_string()),
            _ => None,
        })
        .collect()
}

fn part(of: &str, part: u64, parts_count: u64, status: LogStatus) -> PushLog {
    PushLog {
        node: node(of),
        part,
        parts_count,
        content: vec![1],
        status,
        error: None,
    }
}

#[test]
fn without_a_node_all_are_asked_and_each_that_cannot_be_is_answered_for_at_once() {
    let mut requests = Requests::new(Wait::default());
    let out = ask(&mut requests, "a", request(&[]));
    assert_eq!(asked_of(&out), ["main", "old"]);
    assert_eq!(told(&out), [("lost".to_owned(), LogStatus::Failed)]);
    let both = vec![node("main"), node("old")];
    assert_eq!(
        out[0],
        Output::Persist {
            id: "a".into(),
            nodes: both
        }
    );
    let out = ask(&mut requests, "b", request(&["nobody", "main", "main"]));
    assert_eq!(asked_of(&out), ["main"]);
    assert_eq!(told(&out), [("nobody".to_owned(), LogStatus::Absent)]);
    // All that is known is answered: nothing is in hand.
    let out = ask(&mut requests, "c", request(&["nobody"]));
    assert_eq!(out.len(), 1);
    let empty = requests.asked(
        at(0),
        utc(0),
        "d".into(),
        request(&[]),
        &BTreeMap::new(),
        &node("main"),
    );
    assert_eq!(told(&empty), [("main".to_owned(), LogStatus::Failed)]);
}

#[test]
fn a_request_is_done_with_its_last_part_whatever_their_order() {
    let mut requests = Requests::new(Wait::default());
    ask(&mut requests, "a", request(&["main", "old"]));
    assert!(ask(&mut requests, "a", request(&["main"])).is_empty());
    let ok = LogStatus::Ok;
    assert_eq!(requests.part(at(1), "a", part("main", 2, 2, ok)).len(), 1);
    assert!(requests.part(at(1), "a", part("main", 2, 2, ok)).is_empty());
    assert_eq!(requests.part(at(1), "a", part("main", 1, 2, ok)).len(), 1);
    assert!(requests.part(at(1), "a", part("main", 3, 3, ok)).is_empty());
    assert!(requests.part(at(1), "x", part("old", 1, 1, ok)).is_empty());
    let out = requests.part(at(1), "a", part("old", 1, 1, LogStatus::Absent));
    assert_eq!(out.last(), Some(&Output::Forget { id: "a".into() }));
    assert_eq!(requests.next_wake(), None);
}

#[test]
fn who_is_silent_leaves_or_never_ends_is_answered_for() {
    let mut requests = Requests::new(Wait::default());
    ask(&mut requests, "a", request(&["main", "old"]));
    let ok = LogStatus::Ok;
    requests.part(at(30), "a", part("main", 1, 9, ok));
    assert_eq!(requests.next_wake(), Some(at(60)));
    assert_eq!(
        told(&requests.wake(at(60))),
        [("old".to_owned(), LogStatus::Failed)]
    );
    assert!(requests.wake(at(89)).is_empty());
    let out = requests.left(&node("main"));
    assert_eq!(told(&out), [("main".to_owned(), LogStatus::Failed)]);
    assert_eq!(out.last(), Some(&Output::Forget { id: "a".into() }));

    ask(&mut requests, "b", request(&["main"]));
    let mut out = Vec::new();
    for number in 0..300 {
        out = requests.part(at(1), "b", part("main", number, 10_000, ok));
        if out.len() > 1 {
            break;
        }
    }
    assert_eq!(told(&out), [("main".to_owned(), LogStatus::Failed)]);

    // Talking on and on does not help either.
    ask(&mut requests, "c", request(&["main"]));
    for number in 0..20 {
        requests.part(
            at(30 * number),
            "c",
            part("main", number as u64, 10_000, ok),
        );
    }
    assert_eq!(requests.next_wake(), Some(at(600)));

    let out = Requests::interrupted("d", &[node("main")]);
    assert_eq!(told(&out), [("main".to_owned(), LogStatus::Failed)]);
}

#[test]
fn an_empty_time_and_too_many_requests_are_explained() {
    let mut requests = Requests::new(Wait::default());
    let mut backwards = request(&["main"]);
    backwards.filter.from = Some(utc(10));
    backwards.filter.till = Some(utc(10));
    let out = ask(&mut requests, "a", backwards);
    assert_eq!(told(&out), [("main".to_owned(), LogStatus::Empty)]);
    for number in 0..16 {
        ask(&mut requests, &number.to_string(), request(&["main"]));
    }
    let out = ask(&mut requests, "more", request(&["main"]));
    let [Output::Answer { part, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    assert!(part.error.as_ref().unwrap().message.contains("16 requests"));
}

#[test]
fn a_live_log_ends_at_its_time_or_when_it_is_told_to() {
    let mut requests = Requests::new(Wait::default());
    let out = ask(&mut requests, "a", live(&[], Some(utc(5_000))));
    assert_eq!(asked_of(&out), ["main"]);
    assert_eq!(told(&out).len(), 2, "the others cannot");
    let until = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::Ask { request, .. } => request.filter.till,
            _ => None,
        })
    };
    assert_eq!(until(&out), Some(utc(900)));
    assert_eq!(requests.next_wake(), Some(at(930)));
    let out = requests.live("a", &node("main"), vec![1], false, None);
    let [
        Output::Answer {
            part, live: true, ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!((part.part, part.parts_count), (1, 0));
    // Its end is moved to now: the Node is asked once more, and says goodbye.
    let out = ask(&mut requests, "a", live(&[], Some(utc(0))));
    assert_eq!(until(&out), Some(utc(0)));
    let error = None;
    let out = requests.live("a", &node("main"), vec![], true, error);
    let [Output::Answer { part, .. }, Output::Forget { .. }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(
        (part.part, part.parts_count, part.status),
        (2, 2, LogStatus::Empty)
    );
    assert!(
        requests
            .live("a", &node("main"), vec![1], false, None)
            .is_empty()
    );
    // In a time that is over, or without an end, it is a request like any other.
    for till in [None, Some(utc(0))] {
        let mut requests = Requests::new(Wait::default());
        let out = ask(&mut requests, "c", live(&["old"], till));
        assert_eq!(asked_of(&out), ["old"]);
        let Some(Output::Ask { request, .. }) = out.last() else {
            panic!("{out:?}");
        };
        assert_eq!(request.upload_options, None);
    }
    // Far ahead is cut to the longest.
    let out = ask(&mut requests, "b", live(&["main"], Some(utc(1_000_000))));
    assert_eq!(until(&out), Some(utc(900)));
    let error = Some(ErrorInfo::default());
    let out = requests.live("b", &node("main"), vec![], true, error);
    assert_eq!(told(&out), [("main".to_owned(), LogStatus::Failed)]);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, Vec<&'static str>, bool),
    Part(u8, &'static str, u64, u64, LogStatus),
    Live(u8, &'static str, bool),
    Left(&'static str),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let names = prop_oneof![Just("main"), Just("old"), Just("lost"), Just("nobody")];
    let status = prop_oneof![
        Just(LogStatus::Ok),
        Just(LogStatus::Empty),
        Just(LogStatus::Failed)
    ];
    prop_oneof![
        (
            0_u8..4,
            prop::collection::vec(names.clone(), 0..3),
            any::<bool>()
        )
            .prop_map(|(id, nodes, live)| Step::Ask(id, nodes, live)),
        (0_u8..4, names.clone(), 0_u64..4, 0_u64..4, status)
            .prop_map(|(id, node, part, count, status)| Step::Part(id, node, part, count, status)),
        (0_u8..4, names.clone(), any::<bool>())
            .prop_map(|(id, node, end)| Step::Live(id, node, end)),
        names.prop_map(Step::Left),
        (1_i64..400).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, every request that is begun is ended, and no Node has two last words.
    #[test]
    fn every_request_is_answered_to_its_end(steps in prop::collection::vec(step(), 0..60)) {
        let mut requests = Requests::new(Wait::default());
        let mut now = 0;
        let mut owed: BTreeSet<(String, String)> = BTreeSet::new();
        let mut stored: BTreeSet<String> = BTreeSet::new();
        let mut note = |out: Vec<Output>, owed: &mut BTreeSet<(String, String)>| -> Result<(), TestCaseError> {
            for output in out {
                match output {
                    Output::Persist { id, nodes } => {
                        prop_assert!(stored.insert(id.clone()));
                        owed.extend(nodes.iter().map(|node| (id.clone(), node.to_string())));
                    }
                    Output::Forget { id } => {
                        prop_assert!(stored.remove(&id));
                        owed.retain(|(of, _)| *of != id);
                    }
                    Output::Ask { id, node, .. } => {
                        prop_assert!(owed.contains(&(id, node.to_string())));
                    }
                    Output::Answer { id, part, live } => {
                        let key = (id, part.node.to_string());
                        if live {
                            prop_assert!(owed.contains(&key));
                        } else if stored.contains(&key.0) && part.status != LogStatus::Ok {
                            // A last word. A Node that was never asked has none to lose.
                            let asked = owed.remove(&key);
                            let never = ["lost", "nobody"].contains(&key.1.as_str());
                            prop_assert!(asked || never || key.1 == "old", "{key:?} twice");
                        }
                    }
                }
            }
            Ok(())
        };
        for step in steps {
            let out = match step {
                Step::Ask(id, nodes, true) => {
                    requests.asked(at(now), utc(now), id.to_string(), live(&nodes, Some(utc(now + 500))), &known(), &node("main"))
                }
                Step::Ask(id, nodes, false) => {
                    requests.asked(at(now), utc(now), id.to_string(), request(&nodes), &known(), &node("main"))
                }
                Step::Part(id, of, number, count, status) => {
                    requests.part(at(now), &id.to_string(), part(of, number, count, status))
                }
                Step::Live(id, of, end) => requests.live(&id.to_string(), &node(of), vec![1], end, None),
                Step::Left(of) => requests.left(&node(of)),
                Step::Wait(secs) => {
                    now += secs;
                    requests.wake(at(now))
                }
            };
            note(out, &mut owed)?;
        }
        now += 10_000;
        note(requests.wake(at(now)), &mut owed)?;
        prop_assert_eq!(requests.next_wake(), None);
        prop_assert!(stored.is_empty(), "still stored: {:?}", stored);
    }
}
