//! What the link does that the original does not (`docs/protocol/known-defects.md`, 1 to 9), over a real WebSocket.

use std::{
    fs,
    time::{Duration, Instant},
};

use aos_cloud_protocol::{
    AlertEvent, Alerts, BlobUrl, BlobUrls, Body, Caps, DesiredInstances, DesiredStatus, FileHash,
    Message, Nack, NewState, UnitStatus, UpdateState,
};
use aos_session::{Config, Handled, Priority};
use aos_types::{Digest, InstanceIdent, ItemId, ItemType, SubjectId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, protocol::frame::coding::CloseCode};

use super::{
    Answer, Outgoing,
    peer::{Peer, PeerSocket, Unit, answer, frame, hasty},
};
use crate::contract::BlobSource;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A desired state that is told from others by a number.
fn desired(number: u64) -> Body {
    Body::DesiredStatus(DesiredStatus {
        instances: Some(vec![DesiredInstances {
            item: ItemId::new("web").unwrap(),
            subject: SubjectId::new("s").unwrap(),
            priority: number,
            num_instances: 1,
            labels: vec![],
        }]),
        ..DesiredStatus::default()
    })
}

fn number(body: &Body) -> u64 {
    match body {
        Body::DesiredStatus(status) => status.instances.as_ref().unwrap()[0].priority,
        Body::UpdateState(state) => state.state.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn instance() -> InstanceIdent {
    InstanceIdent {
        item: ItemId::new("web").unwrap(),
        subject: SubjectId::new("s").unwrap(),
        index: 0,
        item_type: ItemType::Service,
        preinstalled: false,
    }
}

/// A state of an instance, for the cloud.
fn state(text: &str) -> Outgoing {
    let body = Body::NewState(NewState {
        instance: instance(),
        checksum: "c".into(),
        state: text.into(),
    });
    Outgoing::durable(body, Priority::High)
}

fn state_text(message: &Message) -> Option<&str> {
    match &message.body {
        Body::NewState(state) => Some(&state.state),
        _ => None,
    }
}

/// The texts of core alerts in a message.
fn complaints(message: &Message) -> Vec<String> {
    let Body::Alerts(alerts) = &message.body else {
        return Vec::new();
    };
    let texts = alerts.items.iter().filter_map(|alert| match &alert.event {
        AlertEvent::Core { message, .. } => Some(message.clone()),
        _ => None,
    });
    texts.collect()
}

async fn take(unit: &mut Unit, outcome: Handled) -> u64 {
    let incoming = unit.incoming().await;
    let number = number(&incoming.body);
    incoming.done.send(outcome).unwrap();
    number
}

/// Waits until everything that was sent before is stored. Only while the Unit is offline.
async fn handed_over(unit: &Unit) {
    let last = Outgoing {
        keep: aos_session::Keep::Connection,
        ..state("nobody hears this")
    };
    let dropped = unit.link.send_and_watch(last).await;
    assert_eq!(dropped.await.unwrap(), Answer::Dropped);
}

/// The processor time this process has used. `cargo nextest` runs each test in a process of its own.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn gap_01_what_cannot_be_used_is_answered_and_reported_and_does_not_come_for_ever() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let caps = Caps {
        message_bytes: 4000,
        ..Caps::default()
    };
    let mut unit = Unit::start(&peer, folder.path(), hasty(), caps).await;
    let mut socket = peer.socket().await;
    let message = |txn: &str, version: u32, system: &str, data: Value| {
        let header = json!({"version": version, "systemId": system, "createdAt": "2026-01-31T12:00:00Z", "txn": txn});
        json!({"header": header, "data": data})
            .to_string()
            .into_bytes()
    };
    let long = "x".repeat(5000);
    let useless = [
        (
            "unknown type",
            message("a", 7, "unit", json!({"messageType": "dance"})),
        ),
        (
            "another version",
            message("b", 6, "unit", json!({"messageType": "desiredStatus"})),
        ),
        (
            "another Unit",
            message("c", 7, "other", json!({"messageType": "desiredStatus"})),
        ),
        (
            "no meaning",
            message("d", 7, "unit", json!({"messageType": "stateAcceptance"})),
        ),
        (
            "wrong direction",
            message("e", 7, "unit", json!({"messageType": "unitStatus"})),
        ),
        (
            "too long",
            message(
                "f",
                7,
                "unit",
                json!({"messageType": "desiredStatus", "padding": long}),
            ),
        ),
    ];
    let mut told = Vec::new();
    for (what, frame) in useless {
        let txn: Value = serde_json::from_slice(&frame).unwrap();
        let txn = txn["header"]["txn"].as_str().unwrap();
        socket.raw(frame.clone()).await;
        assert!(socket.nacked(txn).await > 0, "{what}");
        socket.raw(frame).await;
        socket.acked(txn).await;
    }
    for _ in 0..3 {
        socket.raw(b"neither JSON nor anything".to_vec()).await;
    }
    socket.say("good", desired(1)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 1);
    while told.len() < 7 {
        let alerts = socket
            .wanted(|message| !complaints(message).is_empty())
            .await;
        told.extend(complaints(&alerts));
    }
    for words in [
        "`dance`",
        "version 6",
        "`other`",
        "data.item",
        "only a Unit",
        "bytes",
        "not JSON",
    ] {
        let times = told.iter().filter(|text| text.contains(words)).count();
        assert_eq!(times, 1, "{words} in {told:#?}");
    }

    // More than is ever read: the connection ends with the reason, people are told, and the next one works.
    socket.raw(vec![b' '; 50_000]).await;
    let code = loop {
        match socket.next().await {
            Some(tungstenite::Message::Close(close)) => break close.map(|close| close.code),
            Some(_) => {}
            None => break None,
        }
    };
    assert_eq!(code, Some(CloseCode::Size));
    let mut socket = peer.socket().await;
    let alerts = socket
        .wanted(|message| !complaints(message).is_empty())
        .await;
    assert!(
        complaints(&alerts)[0].contains("longer than anything"),
        "{alerts:?}"
    );
    socket.say("better", desired(2)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 2);
    unit.stop().await;
}

#[tokio::test]
async fn gap_02_the_outbox_survives_a_power_cut_never_gives_up_and_is_bounded() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let later = answer(2, 60_000, &[]);
    peer.answer([later]);
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    for text in ["one", "two", "three"] {
        unit.link.send(state(text)).await;
    }
    handed_over(&unit).await;
    peer.asked_times(1).await;
    unit.kill().await;

    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    let heard = socket.listen(Duration::from_millis(2500)).await;
    let times = |text: &str| {
        let same = heard
            .iter()
            .filter(|message| state_text(message) == Some(text));
        let txns: std::collections::BTreeSet<_> = same.clone().map(|one| &one.header.txn).collect();
        assert_eq!(txns.len(), 1, "the same txn each time");
        same.count()
    };
    for text in ["one", "two", "three"] {
        assert!(times(text) > 4, "{text} came {} times", times(text));
    }
    let first: Vec<_> = heard.iter().filter_map(state_text).take(3).collect();
    assert_eq!(first, ["one", "two", "three"]);
    for message in &heard[..3] {
        socket.ack(message).await;
    }
    socket.listen(Duration::from_millis(400)).await;
    assert_eq!(socket.listen(Duration::from_millis(600)).await, vec![]);
    unit.stop().await;
    drop(socket);

    // A month offline: usage and logs go first, then alerts; the states stay, and people are told what is gone.
    let config = Config {
        max_messages: 6,
        ..hasty()
    };
    peer.answer([self::answer(2, 60_000, &[])]);
    let unit = Unit::start(&peer, folder.path(), config.clone(), Caps::default()).await;
    let alert = || Body::Alerts(Alerts::default());
    for number in 0..20 {
        unit.link
            .send(Outgoing::durable(alert(), Priority::Normal))
            .await;
        unit.link
            .send(Outgoing::durable(alert(), Priority::Low))
            .await;
        if number % 5 == 0 {
            unit.link.send(state(&format!("state {number}"))).await;
        }
    }
    unit.link.send(state("last")).await;
    handed_over(&unit).await;
    peer.asked_times(3).await;
    unit.stop().await;
    let unit = Unit::start(&peer, folder.path(), config, Caps::default()).await;
    let mut socket = peer.socket().await;
    let mut states = Vec::new();
    let report = loop {
        let message = socket.message().await;
        socket.ack(&message).await;
        states.extend(state_text(&message).map(ToOwned::to_owned));
        if let Some(text) = complaints(&message).first() {
            break text.clone();
        }
    };
    assert_eq!(
        states,
        ["state 0", "state 5", "state 10", "state 15", "last"]
    );
    assert!(report.starts_with("39 messages"), "{report}");
    assert!(
        report.contains("20 of logs and usage, 19 of alerts, 0 of all else"),
        "{report}"
    );
    unit.stop().await;
}

#[tokio::test]
async fn gap_03_messages_are_handled_in_the_order_they_came() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let mut unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    for number in 0..40 {
        let body = if number % 2 == 0 {
            desired(number)
        } else {
            Body::UpdateState(UpdateState {
                instance: instance(),
                checksum: "c".into(),
                state: number.to_string(),
            })
        };
        socket.say(&number.to_string(), body).await;
    }
    for number in 0..40 {
        let incoming = unit.incoming().await;
        assert_eq!(self::number(&incoming.body), number);
        assert!(unit.incoming.try_recv().is_err(), "one at a time");
        tokio::time::sleep(Duration::from_millis(number % 4)).await;
        incoming.done.send(Handled::Accept).unwrap();
    }
    for number in 0..40 {
        socket.acked(&number.to_string()).await;
    }

    // One that is not taken at first is not overtaken by those behind it.
    for txn in ["x", "y"] {
        socket
            .say(txn, desired(if txn == "x" { 1 } else { 2 }))
            .await;
    }
    assert_eq!(
        take(&mut unit, Handled::Refuse(Duration::from_millis(50))).await,
        1
    );
    socket.nacked("x").await;
    socket.nacked("y").await;
    socket.say("y", desired(2)).await;
    socket.nacked("y").await;
    socket.say("x", desired(1)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 1);
    socket.acked("x").await;
    socket.say("y", desired(2)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 2);
    socket.acked("y").await;
    unit.stop().await;
}

#[tokio::test]
async fn gap_04_the_same_message_is_handled_once() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let mut unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    socket.say("t", desired(1)).await;
    socket.say("t", desired(1)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 1);
    socket.acked("t").await;
    socket.say("t", desired(1)).await;
    socket.acked("t").await;
    drop(socket);
    let mut socket = peer.socket().await;
    socket.say("t", desired(1)).await;
    socket.acked("t").await;
    assert!(unit.incoming.try_recv().is_err());
    unit.kill().await;

    let mut unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    socket.say("t", desired(1)).await;
    socket.acked("t").await;
    socket.say("u", desired(2)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 2);
    unit.stop().await;
}

#[tokio::test]
async fn gap_05_nacks_and_acks_for_unknown_messages_stop_nothing() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let mut unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    for number in 0..50 {
        let txn = format!("unknown {number}");
        socket
            .say(
                &txn,
                Body::Nack(Nack {
                    retry_after_ms: u64::MAX,
                }),
            )
            .await;
        socket.say(&txn, Body::Ack).await;
    }
    socket.say("t", desired(1)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 1);
    socket.acked("t").await;
    unit.link.send(state("out")).await;
    socket
        .wanted(|message| state_text(message) == Some("out"))
        .await;
    unit.stop().await;
}

#[tokio::test]
async fn gap_06_a_closed_socket_and_unanswered_messages_cost_no_processor_time() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let slow = Config {
        ack_wait: Duration::from_secs(60),
        ping_after: Duration::from_secs(60),
        dead_after: Duration::from_secs(90),
        ..hasty()
    };
    let unit = Unit::start(&peer, folder.path(), slow, Caps::default()).await;
    let socket = peer.socket().await;
    for _ in 0..20 {
        unit.link.send(state("unanswered")).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_time() - before;
    assert!(
        used <= Duration::from_millis(100),
        "{used:?} with unanswered messages"
    );

    // The peer goes in the middle of it, and nobody listens any more.
    peer.go().await;
    drop(socket);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_time() - before;
    assert!(
        used <= Duration::from_millis(300),
        "{used:?} on a closed socket"
    );
    unit.stop().await;
}

#[tokio::test]
async fn gap_07_a_peer_that_is_silent_is_noticed_and_left() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut alive = peer.socket().await;
    // Reading answers the pings: so long the connection stands.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        alive.listen(Duration::from_millis(100)).await;
    }
    assert!(!peer.connects_within(Duration::ZERO).await);
    // Now nobody reads: the TCP connection is fine, the peer is as good as dead.
    let began = Instant::now();
    let mut second = peer.socket().await;
    let noticed = began.elapsed();
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    unit.link.send(state("on the new one")).await;
    second
        .wanted(|message| state_text(message) == Some("on the new one"))
        .await;
    drop(alive);
    unit.stop().await;
}

#[tokio::test]
async fn gap_08_every_answer_of_the_discovery_is_acted_on_and_attempts_spread_out() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let elsewhere = peer.at.replace("/sd/v7/", "/elsewhere/");
    let dead = "https://localhost:1/sd/v7/";
    peer.answer([
        answer(2, 700, &[]),
        answer(3, 0, &[]),
        answer(3, 0, &[]),
        answer(3, 0, &[]),
        answer(3, 0, &[]),
        answer(1, 0, &[dead, &elsewhere]),
        // The first address does not work.
        answer(0, 0, &["wss://localhost:1/ws/v7/", &peer.link]),
    ]);
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let socket = peer.socket().await;
    let asked = peer.asked();
    let waits: Vec<u128> = asked
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0).as_millis())
        .collect();
    assert_eq!(asked.len(), 7, "{waits:?}");
    assert!(waits[0] >= 700, "asked to come back later: {waits:?}");
    // From attempt to attempt the wait doubles: the fifth is between 160 and 320 ms, and never over 400.
    assert!(waits[4] >= 150, "{waits:?}");
    let paths: Vec<&str> = asked.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths[6], "/elsewhere/", "a redirect is followed");
    // A drop needs no new discovery: the address that worked is the first choice.
    drop(socket);
    let socket = peer.socket().await;
    assert_eq!(peer.asked().len(), 7);
    drop(socket);
    unit.stop().await;

    // What the cloud asks as the wait between attempts counts from then on.
    let peer_link = peer.link.clone();
    peer.answer([
        answer(0, 300, &["wss://localhost:1/ws/v7/"]),
        answer(0, 0, &[&peer_link]),
    ]);
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    peer.asked_times(9).await;
    let asked = peer.asked();
    let wait = asked[8].0 - asked[7].0;
    assert!(wait >= Duration::from_millis(150), "{wait:?}");
    unit.stop().await;
}

#[tokio::test]
async fn gap_09_late_answers_and_parallel_questions_do_not_meet() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    socket.listen(Duration::from_millis(50)).await;
    let digest = |number: u8| Digest::from_bytes([number; 32]);
    let ask = |number| {
        let link = unit.link.clone();
        tokio::spawn(async move { link.blob_urls(vec![digest(number)]).await })
    };
    async fn question(socket: &mut PeerSocket) -> (String, Digest) {
        let asked = |message: &Message| matches!(message.body, Body::RequestBlobUrls(_));
        let message = socket.wanted(asked).await;
        let Body::RequestBlobUrls(request) = message.body else {
            unreachable!()
        };
        (message.correlation_id.unwrap(), request.digests[0])
    }
    let urls = |digest| {
        Body::BlobUrls(BlobUrls {
            items: vec![BlobUrl {
                digest,
                urls: vec!["https://x".into()],
                sha256: FileHash([0; 32]),
                size: 1,
                decrypt_info: None,
                sign_info: None,
            }],
            ..BlobUrls::default()
        })
    };
    // Nobody answers these two in time.
    let (first, second) = (ask(1), ask(2));
    let late = [question(&mut socket).await, question(&mut socket).await];
    assert!(first.await.unwrap().is_err() && second.await.unwrap().is_err());
    // These two are answered the other way round, after the late answers of the first.
    let (third, fourth) = (ask(3), ask(4));
    let mut open = vec![question(&mut socket).await, question(&mut socket).await];
    open.reverse();
    for (place, (id, digest)) in late.iter().chain(&open).enumerate() {
        let txn = format!("answer {place}");
        socket.raw(frame(&txn, Some(id), urls(*digest))).await;
        socket.acked(&txn).await;
    }
    assert_eq!(third.await.unwrap().unwrap().items[0].digest, digest(3));
    assert_eq!(fourth.await.unwrap().unwrap().items[0].digest, digest(4));
    unit.stop().await;
}

#[tokio::test]
async fn a_new_certificate_replaces_the_connection_and_nothing_is_lost() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let mut unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut old = peer.socket().await;
    unit.link.send(state("before")).await;
    let on_old = old.message().await;
    assert_eq!(state_text(&on_old), Some("before"));

    // IAM was started again and tells the same once more: nothing happens.
    unit.online.set(unit.online.current());
    assert!(!peer.connects_within(Duration::from_millis(400)).await);

    let certificate = old.certificate.clone();
    let closing = tokio::spawn(async move {
        loop {
            match old.next().await {
                Some(tungstenite::Message::Close(_)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    });
    let renewed = peer.online();
    unit.online.set(Some(renewed.clone()));
    unit.link.send(state("meanwhile")).await;
    let mut new = peer.socket().await;
    assert_eq!(new.certificate, renewed.cert[0].as_ref());
    assert_ne!(new.certificate, certificate);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let message = new.message().await;
        new.ack(&message).await;
        heard.extend(state_text(&message).map(ToOwned::to_owned));
    }
    assert_eq!(heard, ["before", "meanwhile"]);
    assert!(closing.await.unwrap(), "closed, not broken off");
    new.say("t", desired(1)).await;
    assert_eq!(take(&mut unit, Handled::Accept).await, 1);
    new.acked("t").await;
    unit.stop().await;
}

#[tokio::test]
async fn an_idle_link_writes_nothing_to_the_disk() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    unit.link.send(state("something")).await;
    socket.wanted(|message| state_text(message).is_some()).await;
    // Until the log of the database is folded back.
    socket.listen(Duration::from_millis(3000)).await;
    let look = || {
        let files = fs::read_dir(folder.path()).unwrap().map(|file| {
            let path = file.unwrap().path();
            (
                path.clone(),
                fs::metadata(&path).unwrap().modified().unwrap(),
                fs::read(path).unwrap(),
            )
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    };
    let before = look();
    let pings = socket.listen(Duration::from_secs(2)).await;
    assert_eq!(pings, vec![], "no message is idle talk");
    assert!(look() == before, "the database was written");
    unit.stop().await;
}

#[tokio::test]
async fn a_question_survives_a_short_break() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let socket = peer.socket().await;
    unit.connected().await;
    let link = unit.link.clone();
    let digest = Digest::from_bytes([1; 32]);
    let asking = tokio::spawn(async move { link.blob_urls(vec![digest]).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(socket);
    let mut socket = peer.socket().await;
    let again = socket
        .wanted(|message| matches!(message.body, Body::RequestBlobUrls(_)))
        .await;
    let id = again.correlation_id.unwrap();
    let none = Body::BlobUrls(BlobUrls::default());
    socket.raw(frame("a", Some(&id), none)).await;
    assert_eq!(asking.await.unwrap().unwrap(), BlobUrls::default());
    unit.stop().await;
}

#[tokio::test]
async fn a_status_of_another_connection_is_not_sent() {
    let mut peer = Peer::start().await;
    let folder = folder();
    let unit = Unit::start(&peer, folder.path(), hasty(), Caps::default()).await;
    let mut socket = peer.socket().await;
    let status = || Outgoing {
        keep: aos_session::Keep::Connection,
        topic: Some("unitStatus"),
        ..Outgoing::durable(Body::UnitStatus(UnitStatus::default()), Priority::High)
    };
    unit.connected().await;
    unit.link.send(status()).await;
    let first = socket.message().await;
    drop(socket);
    let mut socket = peer.socket().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    unit.connected().await;
    unit.link.send(status()).await;
    let second = socket.message().await;
    assert_ne!(first.header.txn, second.header.txn);
    unit.stop().await;
}
