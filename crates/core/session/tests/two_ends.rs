//! Two sessions talk through drops, refusals and power cuts: nothing is lost, nothing is taken twice.
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
                    self.in_hand = Some(txn);
                }
                Output::Disconnect(_) => self.online = false,
                Output::Dropped { txn, why } => panic!("{txn} dropped: {why:?}"),
                _ => {}
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Send(bool),
    Carry(bool),
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
            let outcome = if accept {
                Handled::Accept
            } else {
                Handled::Refuse(Duration::from_secs(2))
            };
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
            let input = Input::Handled {
                txn,
                outcome: Handled::Accept,
            };
            end.session.handle(self.now, input);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_taken_twice(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.heal();
        for index in 0..2 {
            let mut sent = world.ends[index].sent.clone();
            let mut taken = world.ends[1 - index].taken.clone();
            sent.sort();
            taken.sort();
            prop_assert_eq!(sent, taken);
            prop_assert!(world.ends[index].disk.keys().all(|key| matches!(key, RecordKey::Seen(_))));
        }
    }

    #[test]
    fn without_refusals_the_order_is_kept(
        events in prop::collection::vec(
            event().prop_filter("only drops and cuts", |event| {
                !matches!(event, Event::Decide(_, false) | Event::Pass(_))
            }),
            0..120,
        )
    ) {
        let mut world = World::new();
        for end in &mut world.ends {
            end.config.max_inbox = 1000;
            let now = world.now;
            end.crash(now);
        }
        for event in &events {
            world.apply(event);
        }
        world.heal();
        for index in 0..2 {
            prop_assert_eq!(&world.ends[index].sent, &world.ends[1 - index].taken);
        }
    }
}
