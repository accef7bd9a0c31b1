//! What one session does with a scripted peer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use aos_session::{
    Config, Dropped, Frame, Gone, Handled, Input, Keep, Lost, Message, Outgoing, Output, Priority,
    Record, RecordKey, Session,
};
use aos_time::{SeededChance, Timestamp};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn message(txn: &str, priority: Priority) -> Message {
    Message {
        txn: txn.into(),
        payload: txn.as_bytes().into(),
        priority,
        keep: Keep::Durable,
        topic: None,
    }
}

fn session(config: Config) -> Session<&'static str> {
    Session::restore(config, Box::new(SeededChance::new(7)), [], at(0))
}

fn drain(session: &mut Session<&'static str>) -> Vec<Output<&'static str>> {
    std::iter::from_fn(|| session.poll())
        .filter(|output| !matches!(output, Output::WakeAt(_)))
        .collect()
}

fn step(
    session: &mut Session<&'static str>,
    now: i64,
    input: Input<&'static str>,
) -> Vec<Output<&'static str>> {
    session.handle(at(now), input);
    drain(session)
}

fn sent(txn: &str) -> Output<&'static str> {
    Output::Transmit(Frame::Message {
        txn: txn.into(),
        payload: txn.as_bytes().into(),
    })
}

fn receive(txn: &str) -> Input<&'static str> {
    Input::Received {
        txn: txn.into(),
        message: "x",
        bytes: 1,
    }
}

fn handled(txn: &str, outcome: Handled) -> Input<&'static str> {
    Input::Handled {
        txn: txn.into(),
        outcome,
    }
}

fn deliver(txn: &str) -> Output<&'static str> {
    Output::Deliver {
        txn: txn.into(),
        message: "x",
    }
}

fn ack(txn: &str) -> Output<&'static str> {
    Output::Transmit(Frame::Ack { txn: txn.into() })
}

fn nack(txn: &str, millis: u64) -> Output<&'static str> {
    Output::Transmit(Frame::Nack {
        txn: txn.into(),
        retry_after: Duration::from_millis(millis),
    })
}

fn seen(seq: u64, txn: &str) -> Output<&'static str> {
    Output::Persist(Record::Seen {
        seq,
        txn: txn.into(),
    })
}

fn full(txn: &str) -> Output<&'static str> {
    Output::Dropped {
        txn: txn.into(),
        why: Dropped::Full,
    }
}

fn stored(seq: u64, txn: &str, priority: Priority) -> Record {
    Record::Outgoing(Outgoing {
        seq,
        txn: txn.into(),
        priority,
        topic: None,
        payload: txn.as_bytes().into(),
    })
}

#[test]
fn a_message_is_stored_before_it_is_sent_and_forgotten_when_acked() {
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    assert_eq!(
        step(&mut s, 1, Input::Send(message("a", Priority::Normal))),
        vec![Output::Persist(stored(0, "a", Priority::Normal)), sent("a")]
    );
    assert_eq!(
        step(&mut s, 2, Input::Acked { txn: "a".into() }),
        vec![
            Output::Forget(RecordKey::Outgoing(0)),
            Output::Acked { txn: "a".into() }
        ]
    );
    assert_eq!(s.stats().queued, 0);
}

#[test]
fn without_an_ack_the_same_bytes_go_again_ever_later() {
    let mut s = session(Config {
        ping_after: Duration::from_secs(1_000_000),
        dead_after: Duration::from_secs(2_000_000),
        ..Config::default()
    });
    step(&mut s, 0, Input::Connected);
    step(&mut s, 0, Input::Send(message("a", Priority::Normal)));
    let mut sends = vec![0];
    for now in 1..2000 {
        if !step(&mut s, now, Input::Wake).is_empty() {
            sends.push(now);
        }
    }
    let waits: Vec<i64> = sends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits[..6], [10, 20, 40, 80, 160, 300]);
    assert!(waits[6..].iter().all(|wait| *wait == 300));
}

#[test]
fn a_nack_waits_as_asked_without_end_and_an_unknown_one_is_nobodys() {
    let mut s = session(Config {
        dead_after: Duration::from_secs(2_000_000),
        ..Config::default()
    });
    step(&mut s, 0, Input::Connected);
    step(&mut s, 0, Input::Send(message("a", Priority::Normal)));
    let nacked = |retry_after| Input::Nacked {
        txn: "a".into(),
        retry_after,
    };
    for round in 0..10 {
        let now = round * 5;
        let five = nacked(Duration::from_secs(5));
        assert_eq!(step(&mut s, now, five), vec![]);
        assert_eq!(step(&mut s, now + 5, Input::Wake), vec![sent("a")]);
    }
    assert_eq!(
        step(&mut s, 50, nacked(Duration::ZERO)),
        vec![],
        "never at once"
    );
    assert_eq!(step(&mut s, 51, Input::Wake), vec![sent("a")]);
    step(&mut s, 51, nacked(Duration::MAX));
    let out = step(&mut s, 51 + 3600, Input::Wake);
    assert!(out.contains(&sent("a")), "never for good: {out:?}");
    let unknown = Input::Nacked {
        txn: "nobody".into(),
        retry_after: Duration::ZERO,
    };
    assert_eq!(step(&mut s, 3652, unknown), vec![]);
    let unknown = Input::Acked {
        txn: "nobody".into(),
    };
    assert_eq!(step(&mut s, 3652, unknown), vec![]);
}

#[test]
fn after_a_restart_what_was_not_acked_is_sent_in_order() {
    let records = [
        stored(4, "b", Priority::Normal),
        stored(3, "a", Priority::Normal),
        stored(9, "urgent", Priority::High),
    ];
    let mut s: Session<&str> = Session::restore(
        Config::default(),
        Box::new(SeededChance::new(1)),
        records,
        at(0),
    );
    assert_eq!(
        step(&mut s, 0, Input::Connected),
        vec![sent("urgent"), sent("a"), sent("b")]
    );
    assert_eq!(
        step(&mut s, 0, Input::Send(message("c", Priority::Normal))),
        vec![
            Output::Persist(stored(10, "c", Priority::Normal)),
            sent("c")
        ]
    );
}

#[test]
fn messages_are_delivered_one_at_a_time_and_acked_when_handled() {
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    assert_eq!(step(&mut s, 0, receive("1")), vec![deliver("1")]);
    assert_eq!(step(&mut s, 0, receive("2")), vec![]);
    assert_eq!(step(&mut s, 0, receive("1")), vec![], "it is in hand");
    let refused = handled("1", Handled::Refuse(Duration::from_secs(3)));
    assert_eq!(
        step(&mut s, 0, refused),
        vec![nack("1", 3000), nack("2", 3500)],
        "what is behind it must not overtake it"
    );
    assert_eq!(step(&mut s, 1, receive("3")), vec![nack("3", 2500)]);
    assert_eq!(step(&mut s, 3, receive("1")), vec![deliver("1")]);
    assert_eq!(step(&mut s, 3, receive("3")), vec![nack("3", 1000)]);
    assert_eq!(
        step(&mut s, 3, handled("1", Handled::Accept)),
        vec![seen(0, "1"), ack("1")]
    );
    assert_eq!(step(&mut s, 4, receive("2")), vec![deliver("2")]);
    assert_eq!(
        step(&mut s, 4, handled("2", Handled::Accept)),
        vec![seen(1, "2"), ack("2")]
    );
    assert_eq!(
        step(&mut s, 4, receive("2")),
        vec![ack("2")],
        "seen before: acked, not delivered"
    );
    assert_eq!(step(&mut s, 4, receive("3")), vec![deliver("3")]);
}

#[test]
fn one_that_was_refused_and_never_comes_back_stops_the_rest_for_a_bounded_time() {
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    step(&mut s, 0, receive("dropped by its sender"));
    let refused = Handled::Refuse(Duration::from_secs(3));
    step(&mut s, 0, handled("dropped by its sender", refused));
    assert_eq!(step(&mut s, 1, receive("next")), vec![nack("next", 2500)]);
    assert_eq!(step(&mut s, 12, receive("next")), vec![nack("next", 500)]);
    assert_eq!(step(&mut s, 13, receive("next")), vec![deliver("next")]);
}

#[test]
fn a_useless_message_is_refused_once_and_then_taken_off_the_peers_hands() {
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    let useless = Handled::Useless(Duration::from_secs(60));
    assert_eq!(step(&mut s, 0, receive("bad")), vec![deliver("bad")]);
    step(&mut s, 0, receive("good"));
    assert_eq!(
        step(&mut s, 0, handled("bad", useless)),
        vec![nack("bad", 60_000), deliver("good")],
        "it holds up nobody"
    );
    step(&mut s, 0, handled("good", Handled::Accept));
    assert_eq!(step(&mut s, 60, receive("bad")), vec![deliver("bad")]);
    assert_eq!(
        step(&mut s, 60, handled("bad", useless)),
        vec![seen(1, "bad"), ack("bad")]
    );
    assert_eq!(step(&mut s, 61, receive("bad")), vec![ack("bad")]);
}

#[test]
fn what_waits_is_bounded_by_count_and_by_bytes() {
    let mut s = session(Config {
        max_inbox: 2,
        max_inbox_bytes: 100,
        ..Config::default()
    });
    step(&mut s, 0, Input::Connected);
    let of = |txn: &str, bytes| Input::Received {
        txn: txn.into(),
        message: "x",
        bytes,
    };
    step(&mut s, 0, of("in hand", 10));
    assert_eq!(
        step(&mut s, 0, of("large", 1000)),
        vec![],
        "one may always wait"
    );
    assert_eq!(step(&mut s, 0, of("small", 1)), vec![nack("small", 500)]);
    assert_eq!(s.stats().waiting, 1);
    step(&mut s, 0, handled("in hand", Handled::Accept));
    step(&mut s, 0, handled("large", Handled::Accept));
    step(&mut s, 0, of("small", 1));
    assert_eq!(step(&mut s, 0, of("a", 1)), vec![]);
    assert_eq!(step(&mut s, 0, of("b", 1)), vec![]);
    assert_eq!(step(&mut s, 0, of("c", 1)), vec![nack("c", 500)]);
}

#[test]
fn a_full_outbox_drops_what_matters_least_and_says_so() {
    let mut s = session(Config {
        max_messages: 2,
        ..Config::default()
    });
    step(&mut s, 0, Input::Send(message("log", Priority::Low)));
    step(&mut s, 0, Input::Send(message("alert", Priority::Normal)));
    let out = step(&mut s, 0, Input::Send(message("state", Priority::High)));
    let lost = |low, normal| Lost {
        low,
        normal,
        high: 0,
    };
    let count = |lost| Output::Persist(Record::Lost(lost));
    assert_eq!(out[0], count(lost(1, 0)), "counted before it goes");
    assert_eq!(out[2], full("log"));
    let out = step(&mut s, 0, Input::Send(message("log2", Priority::Low)));
    assert_eq!(out, vec![count(lost(2, 0)), full("log2")]);
    let out = step(&mut s, 0, Input::Send(message("state2", Priority::High)));
    assert_eq!(out[2], full("alert"));
    let out = step(&mut s, 0, Input::Send(message("alert2", Priority::Normal)));
    assert_eq!(
        out,
        vec![count(lost(2, 2)), full("alert2")],
        "states stay when an alert comes"
    );
    let huge = Message {
        payload: vec![0; 65 << 20].into(),
        ..message("huge", Priority::High)
    };
    let out = step(&mut s, 0, Input::Send(huge));
    assert_eq!(out.last(), Some(&full("huge")));
    assert_eq!(s.stats().queued, 2, "what can never fit pushes nothing out");
    assert_eq!(s.stats().dropped, 5);
}

#[test]
fn the_peer_is_told_what_was_dropped_until_it_has_it_even_after_a_restart() {
    let lost = Lost {
        low: 7,
        normal: 1,
        high: 0,
    };
    let records = [
        stored(0, "a", Priority::High),
        stored(1, "b", Priority::High),
        Record::Lost(lost),
    ];
    let config = Config {
        max_messages: 2,
        ..Config::default()
    };
    let mut s: Session<&str> =
        Session::restore(config, Box::new(SeededChance::new(1)), records, at(0));
    assert_eq!(
        step(&mut s, 0, Input::Connected),
        vec![sent("a"), sent("b")],
        "no room for the report yet"
    );
    let out = step(&mut s, 0, Input::Acked { txn: "a".into() });
    assert_eq!(out.last(), Some(&Output::Report(lost)));
    assert_eq!(step(&mut s, 1, Input::Wake), vec![], "asked for once");
    step(&mut s, 2, Input::Disconnected);
    let out = step(&mut s, 3, Input::Connected);
    assert!(out.contains(&Output::Report(lost)), "{out:?}");
    step(&mut s, 3, Input::Send(message("c", Priority::High)));
    step(&mut s, 3, Input::Send(message("log", Priority::Low)));
    let one = Lost {
        low: 1,
        ..Lost::default()
    };
    assert_eq!(
        step(&mut s, 4, Input::Reported(lost)),
        vec![Output::Persist(Record::Lost(one))],
        "what came after the report is still to be told"
    );
    let out = step(&mut s, 5, Input::Acked { txn: "b".into() });
    assert_eq!(out.last(), Some(&Output::Report(one)));
    assert_eq!(
        step(&mut s, 6, Input::Reported(one)),
        vec![Output::Forget(RecordKey::Lost)]
    );
}

#[test]
fn a_smaller_outbox_after_a_restart_keeps_what_matters_most() {
    let records = [
        stored(0, "state", Priority::High),
        stored(1, "log", Priority::Low),
        stored(2, "alert", Priority::Normal),
    ];
    let config = Config {
        max_messages: 2,
        ..Config::default()
    };
    let mut s: Session<&str> =
        Session::restore(config, Box::new(SeededChance::new(1)), records, at(0));
    assert!(drain(&mut s).contains(&full("log")));
    assert_eq!(s.stats().queued, 2);
}

#[test]
fn a_newer_message_of_the_same_topic_replaces_the_older() {
    let mut s = session(Config::default());
    let of_topic = |txn| Message {
        topic: Some("desired".into()),
        ..message(txn, Priority::High)
    };
    step(&mut s, 0, Input::Send(of_topic("one")));
    let out = step(&mut s, 0, Input::Send(of_topic("two")));
    assert_eq!(out[0], Output::Forget(RecordKey::Outgoing(0)));
    assert_eq!(step(&mut s, 0, Input::Connected), vec![sent("two")]);
}

#[test]
fn what_belongs_to_a_connection_ends_with_it_and_is_never_stored() {
    let mut s = session(Config::default());
    let passing = |txn| Message {
        keep: Keep::Connection,
        ..message(txn, Priority::High)
    };
    let dropped = |txn: &str| Output::Dropped {
        txn: txn.into(),
        why: Dropped::Disconnected,
    };
    assert_eq!(
        step(&mut s, 0, Input::Send(passing("early"))),
        vec![dropped("early")]
    );
    step(&mut s, 0, Input::Connected);
    assert_eq!(
        step(&mut s, 0, Input::Send(passing("status"))),
        vec![sent("status")]
    );
    assert_eq!(
        step(&mut s, 0, Input::Disconnected),
        vec![dropped("status")]
    );
    assert_eq!(step(&mut s, 0, Input::Connected), vec![]);
}

#[test]
fn a_silent_peer_is_pinged_then_given_up() {
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    assert_eq!(
        step(&mut s, 40, Input::Wake),
        vec![Output::Transmit(Frame::Ping)]
    );
    assert_eq!(step(&mut s, 45, Input::Heard), vec![]);
    assert_eq!(
        step(&mut s, 85, Input::Wake),
        vec![Output::Transmit(Frame::Ping)]
    );
    assert_eq!(
        step(&mut s, 145, Input::Wake),
        vec![Output::Disconnect(Gone::Silent)]
    );
    assert!(!s.is_online());
}

#[test]
fn attempts_spread_out_up_to_ten_minutes_and_heed_what_the_cloud_asks() {
    let mut s = session(Config::calling());
    assert_eq!(drain(&mut s), vec![Output::Connect]);
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..14 {
        s.handle(now, Input::ConnectFailed { wait: None });
        let wake = std::iter::from_fn(|| s.poll())
            .find_map(|output| match output {
                Output::WakeAt(at) => Some(at),
                _ => None,
            })
            .unwrap();
        waits.push(wake.since(now).as_secs_f64());
        now = wake;
        s.handle(now, Input::Wake);
        assert_eq!(drain(&mut s), vec![Output::Connect]);
    }
    assert!(waits[0] >= 0.5 && waits[0] <= 1.0, "{waits:?}");
    assert!(waits[12] >= 300.0 && waits[12] <= 600.0, "{waits:?}");
    s.handle(
        now,
        Input::ConnectFailed {
            wait: Some(Duration::from_secs(3600)),
        },
    );
    drain(&mut s);
    s.handle(now + Duration::from_secs(3599), Input::Wake);
    assert_eq!(drain(&mut s), vec![]);
    s.handle(now + Duration::from_secs(3599), Input::ConnectNow);
    assert_eq!(drain(&mut s), vec![Output::Connect]);
}

#[test]
fn a_peer_that_never_answers_some_messages_does_not_stop_the_rest() {
    let mut s = session(Config {
        window: 2,
        ping_after: Duration::from_secs(1_000_000),
        dead_after: Duration::from_secs(2_000_000),
        ..Config::default()
    });
    step(&mut s, 0, Input::Connected);
    for txn in ["a", "b", "c"] {
        step(&mut s, 0, Input::Send(message(txn, Priority::Normal)));
    }
    let mut all = Vec::new();
    for now in 1..30 {
        all.extend(step(&mut s, now, Input::Wake));
    }
    assert!(all.contains(&sent("c")), "{all:?}");
}

#[test]
fn new_credentials_replace_the_connection_and_lose_nothing() {
    let mut s = session(Config::calling());
    drain(&mut s);
    step(&mut s, 0, Input::Connected);
    step(&mut s, 1, Input::Send(message("a", Priority::Normal)));
    assert_eq!(step(&mut s, 2, Input::Renew), vec![Output::Connect]);
    assert!(s.is_online(), "the old connection serves on");
    assert_eq!(
        step(&mut s, 3, Input::Send(message("b", Priority::Normal)))[1],
        sent("b")
    );
    step(&mut s, 4, Input::ConnectFailed { wait: None });
    assert!(s.is_online(), "a failed attempt takes nothing away");
    assert_eq!(step(&mut s, 6, Input::Wake), vec![Output::Connect]);
    assert_eq!(
        step(&mut s, 7, Input::Connected),
        vec![sent("a"), sent("b")],
        "unacknowledged ones go again on the new connection"
    );
    step(&mut s, 8, Input::Renew);
    step(&mut s, 9, Input::Disconnected);
    assert_eq!(
        step(&mut s, 60, Input::Wake),
        vec![],
        "the attempt under way is the only one"
    );
    assert_eq!(
        step(&mut s, 61, Input::Connected),
        vec![sent("a"), sent("b")]
    );
}

#[test]
fn a_fleet_that_loses_its_cloud_does_not_come_back_all_at_once() {
    let mut starts = Vec::new();
    for unit in 0..1000 {
        let mut s: Session<&str> = Session::restore(
            Config::calling(),
            Box::new(SeededChance::new(unit)),
            [],
            at(0),
        );
        drain(&mut s);
        s.handle(at(0), Input::Connected);
        s.handle(at(40), Input::Heard);
        s.handle(at(80), Input::Disconnected);
        let wake = std::iter::from_fn(|| s.poll())
            .filter_map(|output| match output {
                Output::WakeAt(at) => Some(at),
                _ => None,
            })
            .last()
            .unwrap();
        starts.push(wake.since(at(80)).as_millis());
    }
    for tenth in 0..10 {
        let (from, to) = (tenth * 300, (tenth + 1) * 300);
        let here = starts.iter().filter(|at| (from..to).contains(*at)).count();
        assert!(
            (50..200).contains(&here),
            "{here} of 1000 in {from}..{to} ms"
        );
    }
}

#[test]
fn the_peer_may_slow_us_down_but_neither_hurry_nor_silence_us() {
    let wait = |asked: Option<Duration>, first: Option<Duration>| {
        let mut s = session(Config::calling());
        if let Some(first) = first {
            s.handle(at(0), Input::FirstWait(first));
        }
        drain(&mut s);
        s.handle(at(0), Input::ConnectFailed { wait: asked });
        std::iter::from_fn(|| s.poll())
            .find_map(|output| match output {
                Output::WakeAt(wake) => Some(wake.since(at(0)).as_secs_f64()),
                _ => None,
            })
            .unwrap()
    };
    assert!((0.5..=1.0).contains(&wait(None, None)));
    assert!((0.5..=1.0).contains(&wait(None, Some(Duration::ZERO))));
    assert!((20.0..=40.0).contains(&wait(None, Some(Duration::from_secs(40)))));
    assert!((300.0..=600.0).contains(&wait(None, Some(Duration::MAX))));
    assert!((90.0..=112.5).contains(&wait(Some(Duration::from_secs(90)), None)));
    let day = 24.0 * 3600.0;
    assert!((day..=day * 1.25).contains(&wait(Some(Duration::MAX), None)));
}
