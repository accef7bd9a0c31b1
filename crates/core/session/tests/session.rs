//! What one session does with a scripted peer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use aos_session::{
    Config, Dropped, Frame, Gone, Handled, Input, Keep, Message, Outgoing, Output, Priority,
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
    let mut s = session(Config::default());
    step(&mut s, 0, Input::Connected);
    step(&mut s, 0, Input::Send(message("a", Priority::Normal)));
    for round in 0..10 {
        let now = round * 5;
        let nack = Input::Nacked {
            txn: "a".into(),
            retry_after: Duration::from_secs(5),
        };
        assert_eq!(step(&mut s, now, nack), vec![]);
        assert_eq!(step(&mut s, now + 5, Input::Wake), vec![sent("a")]);
    }
    let unknown = Input::Nacked {
        txn: "nobody".into(),
        retry_after: Duration::ZERO,
    };
    assert_eq!(step(&mut s, 51, unknown), vec![]);
    let unknown = Input::Acked {
        txn: "nobody".into(),
    };
    assert_eq!(step(&mut s, 51, unknown), vec![]);
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
    let receive = |txn: &str| Input::Received {
        txn: txn.into(),
        message: "x",
    };
    let accept = |txn: &str| Input::Handled {
        txn: txn.into(),
        outcome: Handled::Accept,
    };
    let deliver = |txn: &str| Output::Deliver {
        txn: txn.into(),
        message: "x",
    };
    assert_eq!(step(&mut s, 0, receive("1")), vec![deliver("1")]);
    assert_eq!(step(&mut s, 0, receive("2")), vec![]);
    assert_eq!(step(&mut s, 0, receive("1")), vec![], "it is in hand");
    let refused = Input::Handled {
        txn: "1".into(),
        outcome: Handled::Refuse(Duration::from_secs(3)),
    };
    assert_eq!(
        step(&mut s, 0, refused),
        vec![
            Output::Transmit(Frame::Nack {
                txn: "1".into(),
                retry_after: Duration::from_secs(3)
            }),
            deliver("2")
        ]
    );
    assert_eq!(
        step(&mut s, 0, accept("2")),
        vec![
            Output::Persist(Record::Seen {
                seq: 0,
                txn: "2".into()
            }),
            Output::Transmit(Frame::Ack { txn: "2".into() })
        ]
    );
    assert_eq!(
        step(&mut s, 0, receive("2")),
        vec![Output::Transmit(Frame::Ack { txn: "2".into() })],
        "seen before: acked, not delivered"
    );
    assert_eq!(step(&mut s, 0, receive("1")), vec![deliver("1")]);
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
    assert_eq!(
        out[1],
        Output::Dropped {
            txn: "log".into(),
            why: Dropped::Full
        }
    );
    let out = step(&mut s, 0, Input::Send(message("log2", Priority::Low)));
    assert_eq!(
        out,
        vec![Output::Dropped {
            txn: "log2".into(),
            why: Dropped::Full
        }]
    );
    assert_eq!(s.stats().dropped, 2);
    let huge = Message {
        payload: vec![0; 65 << 20].into(),
        ..message("huge", Priority::High)
    };
    let out = step(&mut s, 0, Input::Send(huge));
    assert!(out.contains(&Output::Dropped {
        txn: "huge".into(),
        why: Dropped::Full
    }));
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
        step(&mut s, 15, Input::Wake),
        vec![Output::Transmit(Frame::Ping)]
    );
    assert_eq!(step(&mut s, 20, Input::Heard), vec![]);
    assert_eq!(
        step(&mut s, 35, Input::Wake),
        vec![Output::Transmit(Frame::Ping)]
    );
    assert_eq!(
        step(&mut s, 65, Input::Wake),
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
