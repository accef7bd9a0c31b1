//! The Unit's end of the session.

use std::time::Duration;

use aos_session::{
    Dropped, Handled, Input, Keep, Message as Outgoing, Output, Priority, Record, RecordKey,
};

use crate::{
    coverage::Fault,
    draw::SEC,
    event::Event,
    mutation::Mutation,
    wire::encode,
    world::{Message, World},
};

/// A change of what the session keeps, not stored yet.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Record),
    Delete(RecordKey),
}

impl World {
    pub(crate) fn link_wakes(&mut self, life: u32, serial: u64) {
        let mine = self.cm.run.as_ref().map(|run| run.link_serial);
        if life == self.cm.life && mine == Some(serial) {
            self.unit_input(Input::Wake);
        }
    }

    pub(crate) fn unit_is_connected(&mut self) {
        if let Some(run) = &mut self.cm.run {
            run.online = true;
            run.conn = self.wire.conn;
        }
        self.unit_input(Input::Connected);
        if !self.has(Mutation::NoStatusOnConnect) {
            self.status_soon(Duration::from_millis(1));
        }
        self.jobs_online();
    }

    pub(crate) fn unit_hears_the_end(&mut self) {
        if let Some(run) = &mut self.cm.run {
            run.online = false;
            self.unit_input(Input::Disconnected);
        }
    }

    pub(crate) fn unit_input(&mut self, input: Input<u32>) {
        let now = self.cm_now();
        if let Some(run) = &mut self.cm.run {
            run.session.handle(now, input);
            self.unit_carries_out();
        }
    }

    /// Carries out what the session says; what is to be stored is on the disk before anything after it happens.
    pub(crate) fn unit_carries_out(&mut self) {
        loop {
            let Some(run) = &mut self.cm.run else { return };
            let Some(output) = run.session.poll() else {
                self.flush();
                return;
            };
            match output {
                Output::Persist(record) => run.changes.push(Change::Put(record)),
                Output::Forget(key) => run.changes.push(Change::Delete(key)),
                Output::Transmit(frame) => {
                    let conn = run.conn;
                    self.flush();
                    self.carry(false, conn, frame);
                }
                Output::Deliver { txn, message } => {
                    self.flush();
                    self.unit_delivers(txn, message);
                }
                Output::Connect => self.unit_dials(),
                Output::Disconnect(_) => {
                    run.online = false;
                    if run.conn == self.wire.conn {
                        self.wire.open = false;
                    }
                }
                Output::WakeAt(at) => {
                    run.link_serial += 1;
                    let (life, serial) = (self.cm.life, run.link_serial);
                    let at = self.true_time(at);
                    self.queue.plan(at, Event::LinkWake { life, serial });
                }
                Output::Acked { txn } => {
                    if let Some(lost) = run.telling.remove(&txn) {
                        self.unit_input(Input::Reported(lost));
                    }
                }
                Output::Report(lost) => {
                    let message = Message::Lost(lost.total());
                    let txn = self.unit_sends(message, Priority::High, Keep::Connection, None);
                    if let Some(run) = &mut self.cm.run {
                        run.telling.insert(txn, lost);
                    }
                }
                Output::Dropped { txn, why } => {
                    run.telling.remove(&txn);
                    if why == Dropped::Full {
                        self.coverage.fault(Fault::OutboxFull);
                    }
                    self.oracle.dropped(&txn, why);
                }
            }
            if self.cm_cut(Fault::CutInLink) {
                return;
            }
        }
    }

    fn flush(&mut self) {
        let Some(run) = &mut self.cm.run else { return };
        for change in run.changes.drain(..) {
            match change {
                Change::Put(record) => {
                    if let Record::Outgoing(message) = &record {
                        self.oracle.stored(&message.txn, self.now);
                    }
                    if !self
                        .mutation
                        .is_some_and(|one| one == Mutation::OutboxInMemory)
                    {
                        self.cm.disk.link.insert(record.key(), record);
                    }
                }
                Change::Delete(key) => {
                    self.cm.disk.link.remove(&key);
                }
            }
        }
    }

    fn unit_delivers(&mut self, txn: String, message: u32) {
        self.check_delivered(&txn);
        let life = self.cm.life;
        match self.messages.get(message as usize).cloned() {
            Some(Message::Desired(_)) => {
                let after = self
                    .dice
                    .time(Duration::from_millis(1), Duration::from_millis(80));
                self.after(after, Event::CmTake { life, txn, message });
            }
            Some(Message::Urls(question, blobs)) => {
                self.unit_input(Input::Handled {
                    txn,
                    outcome: Handled::Accept,
                });
                self.job_hears_urls(question, &blobs);
            }
            Some(Message::Override(number)) => {
                self.cm_overrides(number);
                self.unit_input(Input::Handled {
                    txn,
                    outcome: Handled::Accept,
                });
            }
            Some(Message::Useless) => self.unit_input(Input::Handled {
                txn,
                outcome: Handled::Useless(300 * SEC),
            }),
            _ => self.unit_input(Input::Handled {
                txn,
                outcome: Handled::Accept,
            }),
        }
    }

    pub(crate) fn unit_sends(
        &mut self,
        message: Message,
        priority: Priority,
        keep: Keep,
        topic: Option<&str>,
    ) -> String {
        self.cm.unique += 1;
        let txn = format!("u{}", self.cm.unique);
        let message = self.message(message);
        self.unit_input(Input::Send(Outgoing {
            txn: txn.clone(),
            payload: encode(message),
            priority,
            keep,
            topic: topic.map(Into::into),
        }));
        txn
    }

    /// Something that must reach the cloud, whatever happens.
    pub(crate) fn cm_alerts(&mut self) {
        if self.cm.run.is_none() {
            return;
        }
        self.alerts += 1;
        let number = self.alerts;
        // The session stores it before it goes anywhere; only then it is promised.
        let txn = format!("u{}", self.cm.unique + 1);
        self.note(|_| format!("alert {number} comes to CM as {txn}"));
        self.oracle.alerts.insert(txn, number);
        self.unit_sends(
            Message::Alert(number),
            Priority::Normal,
            Keep::Durable,
            None,
        );
    }
}
