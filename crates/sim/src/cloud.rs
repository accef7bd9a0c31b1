//! The cloud: the other end of the session, what it wants, and where blobs are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_session::{
    Config, Handled, Input, Keep, Message as Outgoing, Output, Priority, Record, RecordKey, Session,
};
use aos_time::Timestamp;

use crate::{
    coverage::Fault,
    dice::Dice,
    draw::{Fate, SEC},
    event::Event,
    mutation::{Mutation, planted_link},
    wire::encode,
    words::Blob,
    world::{Message, Status, World},
};

pub(crate) struct Cloud {
    pub(crate) up: bool,
    pub(crate) life: u32,
    session: Session<u32>,
    dice: Dice,
    disk: BTreeMap<RecordKey, Record>,
    serial: u64,
    txns: u64,
    /// The connection its session believes in.
    conn: u64,
    /// Alerts that arrived, and how often.
    pub(crate) alerts: BTreeMap<u32, u32>,
    /// Messages the Unit says it has dropped.
    pub(crate) lost: u64,
    pub(crate) status: Option<Status>,
    /// Desired states the Unit has acknowledged.
    pub(crate) acked: BTreeSet<usize>,
    sent: BTreeMap<String, usize>,
}

pub(crate) fn config(calling: bool, outbox: usize, mutation: Option<Mutation>) -> Config {
    // Long silences: a ping is an event like another, and a month has many.
    let base = if calling {
        Config::calling()
    } else {
        Config::default()
    };
    Config {
        ping_after: Duration::from_secs(1200),
        dead_after: Duration::from_secs(3600),
        max_messages: outbox,
        policy: planted_link(mutation),
        // Enough for all that can still come again, and few enough that some are forgotten.
        max_seen: 200,
        ..base
    }
}

impl Cloud {
    pub(crate) fn new(now: Timestamp, dice: Dice, mutation: Option<Mutation>) -> Self {
        Self {
            up: false,
            life: 0,
            session: Session::restore(
                config(false, 4096, mutation),
                Box::new(dice.clone()),
                [],
                now,
            ),
            dice,
            disk: BTreeMap::new(),
            serial: 0,
            txns: 0,
            conn: 0,
            alerts: BTreeMap::new(),
            lost: 0,
            status: None,
            acked: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }
}

impl World {
    pub(crate) fn cloud_boots(&mut self, life: u32) {
        if life != self.cloud.life {
            return;
        }
        self.cloud.up = true;
        let records: Vec<Record> = self.cloud.disk.values().cloned().collect();
        let chance = Box::new(self.cloud.dice.split());
        let config = config(false, 4096, self.mutation);
        self.cloud.session = Session::restore(config, chance, records, self.now);
        self.cloud_carries_out();
    }

    pub(crate) fn cloud_restarts(&mut self) {
        if !self.cloud.up {
            return;
        }
        self.note(|_| "the cloud goes down and starts again".into());
        self.cloud.up = false;
        self.cloud.life += 1;
        if self.wire.open {
            self.wire.open = false;
            self.unit_hears_the_end();
        }
        let after = self.dice.scale(SEC, Duration::from_secs(600));
        let life = self.cloud.life;
        self.after(after, Event::CloudBoot { life });
    }

    pub(crate) fn cloud_hears_the_end(&mut self) {
        if self.cloud.up {
            self.cloud_input(Input::Disconnected);
        }
    }

    pub(crate) fn cloud_wakes(&mut self, life: u32, serial: u64) {
        if life == self.cloud.life && serial == self.cloud.serial && self.cloud.up {
            self.cloud_input(Input::Wake);
        }
    }

    pub(crate) fn cloud_input(&mut self, input: Input<u32>) {
        if matches!(input, Input::Connected) {
            self.cloud.conn = self.wire.conn;
        }
        self.cloud.session.handle(self.now, input);
        self.cloud_carries_out();
    }

    fn cloud_carries_out(&mut self) {
        while let Some(output) = self.cloud.session.poll() {
            match output {
                Output::Persist(record) => {
                    self.cloud.disk.insert(record.key(), record);
                }
                Output::Forget(key) => {
                    self.cloud.disk.remove(&key);
                }
                Output::Transmit(frame) => self.carry(true, self.cloud.conn, frame),
                Output::Deliver { txn, message } => {
                    let life = self.cloud.life;
                    self.after(
                        Duration::from_millis(5),
                        Event::CloudTake { life, txn, message },
                    );
                }
                Output::WakeAt(at) => {
                    self.cloud.serial += 1;
                    let (life, serial) = (self.cloud.life, self.cloud.serial);
                    self.queue
                        .plan(at.max(self.now), Event::CloudWake { life, serial });
                }
                Output::Acked { txn } => {
                    if let Some(number) = self.cloud.sent.get(&txn).copied() {
                        self.cloud.acked.insert(number);
                        self.check_acked(number);
                    }
                }
                Output::Disconnect(_) => {
                    if self.cloud.conn == self.wire.conn && self.wire.open {
                        self.wire.open = false;
                        self.unit_hears_the_end();
                    }
                }
                Output::Connect | Output::Dropped { .. } | Output::Report(_) => {}
            }
        }
    }

    pub(crate) fn cloud_takes(&mut self, life: u32, txn: String, message: u32) {
        if life != self.cloud.life || !self.cloud.up {
            return;
        }
        match self.messages.get(message as usize).cloned() {
            Some(Message::Alert(number)) => {
                *self.cloud.alerts.entry(number).or_default() += 1;
            }
            Some(Message::Lost(count)) => self.cloud.lost += count,
            Some(Message::Status(status)) => self.cloud.status = Some(*status),
            Some(Message::Ask(question, blobs)) => self.cloud_answers(question, blobs),
            _ => {}
        }
        let outcome = Handled::Accept;
        self.cloud_input(Input::Handled { txn, outcome });
    }

    fn cloud_answers(&mut self, question: u32, blobs: Vec<Blob>) {
        let mut have = Vec::new();
        for blob in blobs {
            let absent = blob.part != 2 && self.scene.fate(blob.item, blob.ver) == Fate::Absent;
            if absent {
                self.coverage.fault(Fault::UrlsMissing);
            } else {
                have.push(blob);
            }
        }
        let message = self.message(Message::Urls(question, have));
        self.cloud_sends(message, Keep::Connection, None);
    }

    pub(crate) fn cloud_sends_desired(&mut self, number: usize) {
        let message = self.message(Message::Desired(number));
        let txn = self.cloud_sends(message, Keep::Durable, Some("desired"));
        self.cloud.sent.insert(txn, number);
    }

    pub(crate) fn cloud_sends_useless(&mut self) {
        let message = self.message(Message::Useless);
        self.cloud_sends(message, Keep::Durable, None);
    }

    pub(crate) fn cloud_sends(&mut self, message: u32, keep: Keep, topic: Option<&str>) -> String {
        self.cloud.txns += 1;
        let txn = format!("c{}", self.cloud.txns);
        let input = Input::Send(Outgoing {
            txn: txn.clone(),
            payload: encode(message),
            priority: Priority::High,
            keep,
            topic: topic.map(Into::into),
        });
        self.cloud_input(input);
        txn
    }
}
