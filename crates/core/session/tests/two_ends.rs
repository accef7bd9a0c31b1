//! Two sessions talk over a line that loses, repeats and reorders, through drops, refusals and power cuts: nothing is lost,
//! nothing is taken twice, and what a WebSocket can do does not change the order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use aos_session::{
    Config, Frame, Handled, Input, Keep, Message, Output, Priority, Record, RecordKey, Session,
};
use aos_time::{SeededChance, Timestamp};
use proptest::prelude::*;

/// One end with its disk and its application.
struct End {
    session: Session<String>,
    config: Config,
    disk: BTreeMap<RecordKey, Record>,
    /// What the application has taken, in order; durable, written with the `Seen` record.
    taken: Vec<String>,
    /// Delivered, not decided yet.
    in_hand: Option<String>,
    /// How often each message was delivered.
    delivered: BTreeMap<String, usize>,
    crashes: usize,
    sent: Vec<String>,
    online: bool,
    name: &'static str,
}

#[derive(Debug, Clone)]
enum Wire {
    Message(String),
    Ack(String),
    Nack(String, Duration),
}

impl End {
    fn new(name: &'static str, config: Config, now: Timestamp) -> Self {
        Self {
            session: Session::restore(config.clone(), Box::new(SeededChance::new(3)), [], now),
            config,
            disk: BTreeMap::new(),
            taken: Vec::new(),
            in_hand: None,
            delivered: BTreeMap::new(),
            crashes: 0,
            sent: Vec::new(),
            online: false,
            name,
        }
    }

    fn crash(&mut self, now: Timestamp) {
        let records: Vec<Record> = self.disk.values().cloned().collect();
        self.session = Session::restore(
            self.config.clone(),
            Box::new(SeededChance::new(3)),
            records,
            now,
        );
        self.in_hand = None;
        self.online = false;
        self.crashes += 1;
    }

    fn send(&mut self, now: Timestamp, number: usize) {
        let txn = format!("{}{number}", self.name);
        self.session.handle(
            now,
            Input::Send(Message {
                txn: txn.clone(),
                payload: txn.as_bytes().into(),
                priority: Priority::Normal,
                keep: Keep::Durable,
                topic: None,
            }),
        );
        self.sent.push(txn);
    }

    /// Carries out at most `budget` outputs; a power cut comes after the last.
    fn run(&mut self, wire: &mut VecDeque<Wire>, budget: &mut usize) {
        while *budget > 0 {
            let Some(output) = self.session.poll() else {
                return;
            };
            *budget -= 1;
            match output {
                Output::Persist(record) => {
                    // The application's own change is in the same transaction.
                    if let Record::Seen { txn, .. } = &record {
                        self.taken.push(txn.clone());
                    }
                    self.disk.insert(record.key(), record);
                }
                Output::Forget(key) => {
                    self.disk.remove(&key);
                }
                Output::Transmit(frame) if self.online => match frame {
                    Frame::Message { txn, payload } => {
                        assert_eq!(payload.as_ref(), txn.as_bytes(), "bytes never change");
                        wire.push_back(Wire::Message(txn));
                    }
                    Frame::Ack { txn } => wire.push_back(Wire::Ack(txn)),
                    Frame::Nack { txn, retry_after } => {
                        wire.push_back(Wire::Nack(txn, retry_after));
                    }
                    Frame::Ping => {}
                },
                Output::Deliver { txn, .. } => {
                    assert!(self.in_hand.is_none(), "one at a time");
                    *self.delivered.entry(txn.clone()).or_default() += 1;
                    self.in_hand = Some(txn);
                }
                Output::Disconnect(_) => self.online = false,
                Output::Dropped { txn, why } => panic!("{txn} dropped: {why:?}"),
                _ => {}
            }
        }
    }
}

/// Of every seventh message nothing can be made.
fn is_useless(txn: &str) -> bool {
    let number: usize = txn.trim_start_matches(char::is_alphabetic).parse().unwrap();
    number.is_multiple_of(7)
}

fn outcome(txn: &str, accept: bool) -> Handled {
    let wait = Duration::from_secs(2);
    match accept {
        _ if is_useless(txn) => Handled::Useless(wait),
        true => Handled::Accept,
        false => Handled::Refuse(wait),
    }
}

#[derive(Debug, Clone)]
enum Event {
    Send(bool),
    Carry(bool),
    /// The frame that leaves next is lost.
    Lose(bool),
    /// The frame that leaves next comes again later.
    Repeat(bool, usize),
    /// The frame that leaves next is overtaken.
    Overtake(bool, usize),
    Decide(bool, bool),
    Connect,
    Drop,
    Crash(bool, usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(Event::Send),
        8 => any::<bool>().prop_map(Event::Carry),
        2 => any::<bool>().prop_map(Event::Lose),
        2 => (any::<bool>(), 0..6usize).prop_map(|(a, b)| Event::Repeat(a, b)),
        2 => (any::<bool>(), 0..6usize).prop_map(|(a, b)| Event::Overtake(a, b)),
        6 => (any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(a, b)| Event::Decide(a, b)),
        3 => Just(Event::Connect),
        1 => Just(Event::Drop),
        2 => (any::<bool>(), 0..4usize).prop_map(|(a, b)| Event::Crash(a, b)),
        3 => (1..40u64).prop_map(Event::Pass),
    ]
}

struct World {
    now: Timestamp,
    ends: [End; 2],
    /// `wires[i]` is what end `i` has sent.
    wires: [VecDeque<Wire>; 2],
    counter: usize,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_secs(0);
        let config = Config {
            window: 3,
            max_inbox: 2,
            order_patience: Duration::from_secs(100_000),
            dead_after: Duration::from_secs(100_000),
            ..Config::default()
        };
        Self {
            now,
            ends: [
                End::new("unit", config.clone(), now),
                End::new("cloud", config, now),
            ],
            wires: [VecDeque::new(), VecDeque::new()],
            counter: 0,
        }
    }

    fn settle(&mut self) {
        for (end, wire) in self.ends.iter_mut().zip(&mut self.wires) {
            end.run(wire, &mut { usize::MAX });
        }
        if self.ends.iter().any(|end| !end.online) {
            self.disconnect();
        }
        for end in &self.ends {
            let seen = |key: &&RecordKey| matches!(key, RecordKey::Seen(_));
            assert!(end.session.stats().waiting <= end.config.max_inbox);
            assert!(end.disk.keys().filter(seen).count() <= end.config.max_seen);
        }
    }

    fn disconnect(&mut self) {
        for wire in &mut self.wires {
            wire.clear();
        }
        for (end, wire) in self.ends.iter_mut().zip(&mut self.wires) {
            end.online = false;
            end.session.handle(self.now, Input::Disconnected);
            end.run(wire, &mut { usize::MAX });
        }
    }

    fn connect(&mut self) {
        if self.ends.iter().all(|end| end.online) {
            return;
        }
        self.disconnect();
        for end in &mut self.ends {
            end.online = true;
            end.session.handle(self.now, Input::Connected);
        }
        self.settle();
    }

    fn carry(&mut self, from: usize) {
        let Some(frame) = self.wires[from].pop_front() else {
            return;
        };
        let input = match frame {
            Wire::Message(txn) => Input::Received {
                message: txn.clone(),
                bytes: txn.len(),
                txn,
            },
            Wire::Ack(txn) => Input::Acked { txn },
            Wire::Nack(txn, retry_after) => Input::Nacked { txn, retry_after },
        };
        self.ends[1 - from].session.handle(self.now, input);
        self.settle();
    }

    fn decide(&mut self, end: usize, accept: bool) {
        if let Some(txn) = self.ends[end].in_hand.take() {
            let outcome = outcome(&txn, accept);
            self.ends[end]
                .session
                .handle(self.now, Input::Handled { txn, outcome });
            self.settle();
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Send(end) => {
                self.counter += 1;
                let (counter, now) = (self.counter, self.now);
                self.ends[usize::from(end)].send(now, counter);
                self.settle();
            }
            Event::Carry(from) => self.carry(usize::from(from)),
            Event::Lose(from) => {
                self.wires[usize::from(from)].pop_front();
            }
            Event::Repeat(from, later) => {
                let wire = &mut self.wires[usize::from(from)];
                if let Some(frame) = wire.front().cloned() {
                    wire.insert(wire.len().min(1 + later), frame);
                }
            }
            Event::Overtake(from, by) => {
                let wire = &mut self.wires[usize::from(from)];
                if let Some(frame) = wire.pop_front() {
                    wire.insert(wire.len().min(by), frame);
                }
            }
            Event::Decide(end, accept) => self.decide(usize::from(end), accept),
            Event::Connect => self.connect(),
            Event::Drop => self.disconnect(),
            Event::Crash(end, outputs) => self.crash(usize::from(end), outputs),
            Event::Pass(secs) => {
                self.now = self.now + Duration::from_secs(secs);
                for end in &mut self.ends {
                    end.session.handle(self.now, Input::Wake);
                }
                self.settle();
            }
        }
    }

    /// The power goes in the middle of what the end does with its next decision or message.
    fn crash(&mut self, index: usize, outputs: usize) {
        let mut budget = outputs;
        let end = &mut self.ends[index];
        if let Some(txn) = end.in_hand.take() {
            let outcome = outcome(&txn, true);
            end.session
                .handle(self.now, Input::Handled { txn, outcome });
        } else if let Some(Wire::Ack(txn)) = self.wires[1 - index].pop_front() {
            end.session.handle(self.now, Input::Acked { txn });
        }
        end.run(&mut self.wires[index], &mut budget);
        end.crash(self.now);
        self.disconnect();
    }

    fn heal(&mut self) {
        for _ in 0..20_000 {
            self.connect();
            for end in 0..2 {
                self.carry(end);
                self.decide(end, true);
            }
            let idle = self.wires.iter().all(VecDeque::is_empty)
                && self.ends.iter().all(|end| end.session.stats().queued == 0);
            if idle {
                return;
            }
            if self.wires.iter().all(VecDeque::is_empty) {
                self.apply(&Event::Pass(1));
            }
        }
        panic!("does not come to rest");
    }
}

/// Everything that was sent was taken once; what was useless was not delivered for ever.
fn check_taken(world: &World) {
    for index in 0..2 {
        let (from, to) = (&world.ends[index], &world.ends[1 - index]);
        let mut sent = from.sent.clone();
        let mut taken = to.taken.clone();
        sent.sort();
        taken.sort();
        assert_eq!(sent, taken);
        assert!(
            from.disk
                .keys()
                .all(|key| matches!(key, RecordKey::Seen(_)))
        );
        for (txn, times) in &to.delivered {
            // Twice, and as often again for each power cut: what was known of it may be gone just before it is stored.
            let bound = 2 * (1 + to.crashes);
            assert!(
                !is_useless(txn) || *times <= bound,
                "{txn} was delivered {times} times"
            );
        }
    }
}

fn usable(txns: &[String]) -> Vec<&String> {
    txns.iter().filter(|txn| !is_useless(txn)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_taken_twice(events in prop::collection::vec(event(), 0..160)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.heal();
        check_taken(&world);
    }

    #[test]
    fn what_a_websocket_can_do_does_not_change_the_order(
        events in prop::collection::vec(
            event().prop_filter("no frame is lost or overtaken on a connection that lasts", |event| {
                !matches!(event, Event::Lose(_) | Event::Overtake(..))
            }),
            0..160,
        )
    ) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.heal();
        check_taken(&world);
        for index in 0..2 {
            prop_assert_eq!(usable(&world.ends[index].sent), usable(&world.ends[1 - index].taken));
        }
    }

    #[test]
    fn what_is_dropped_is_what_matters_least_and_is_counted(
        sends in prop::collection::vec((0..3u8, 1..40usize), 1..80),
        cut in 0..200usize,
    ) {
        let now = Timestamp::from_secs(0);
        let config = Config { max_messages: 8, max_bytes: 120, ..Config::default() };
        let restore = |disk: &BTreeMap<RecordKey, Record>| -> Session<String> {
            let records = disk.values().cloned();
            Session::restore(config.clone(), Box::new(SeededChance::new(3)), records, now)
        };
        let mut disk = BTreeMap::new();
        let mut session = restore(&disk);
        let (mut outputs, mut priorities) = (0, BTreeMap::new());
        for (number, (priority, length)) in sends.iter().enumerate() {
            let priority = Priority::from_number(*priority);
            priorities.insert(number, priority);
            session.handle(now, Input::Send(Message {
                txn: number.to_string(),
                payload: vec![0; *length].into(),
                priority,
                keep: Keep::Durable,
                topic: None,
            }));
            loop {
                outputs += 1;
                if outputs == cut {
                    session = restore(&disk);
                }
                match session.poll() {
                    Some(Output::Persist(record)) => { disk.insert(record.key(), record); }
                    Some(Output::Forget(key)) => { disk.remove(&key); }
                    Some(Output::Dropped { txn, .. }) => {
                        let dropped = priorities[&txn.parse::<usize>().unwrap()];
                        prop_assert!(dropped <= priority, "a {dropped:?} went for a {priority:?}");
                        let less = disk.values().any(|record| {
                            matches!(record, Record::Outgoing(message) if message.priority < dropped)
                        });
                        let refused = txn == number.to_string();
                        prop_assert!(refused || !less, "a {dropped:?} went before what matters less");
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            prop_assert!(session.stats().queued <= 8 && session.stats().queued_bytes <= 120);
        }
        let stored = disk.keys().filter(|key| matches!(key, RecordKey::Outgoing(_))).count();
        let (lost, gone) = (session.stats().lost, sends.len() - stored);
        // A cut may come after the count and before the drop, or before the new message was stored.
        prop_assert!(lost.total().abs_diff(gone as u64) <= 1, "{lost:?}, {gone} gone");
    }
}
