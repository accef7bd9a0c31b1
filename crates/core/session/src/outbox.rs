use std::collections::{BTreeMap, VecDeque};

use aos_time::Timestamp;

use crate::{
    Config, Dropped, Frame, Keep, Lost, Message, Outgoing, Output, Priority, Record, RecordKey, Txn,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not sent on this connection yet.
    Queued,
    /// Sent; the ack is due at the given time.
    InFlight(Timestamp),
    /// Nacked; may be sent at the given time.
    Later(Timestamp),
}

#[derive(Debug)]
struct Entry {
    message: Outgoing,
    keep: Keep,
    state: State,
    /// Transmissions without an answer.
    tries: u32,
}

/// The messages that are not acknowledged yet, by order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    by_txn: BTreeMap<Txn, u64>,
    next_seq: u64,
    bytes: usize,
    /// Dropped since the start because there was no room.
    pub(crate) dropped: u64,
    /// Dropped because there was no room, and nobody was told yet.
    pub(crate) lost: Lost,
}

type Outputs<M> = VecDeque<Output<M>>;

impl Outbox {
    pub(crate) fn restore(&mut self, message: Outgoing) {
        self.next_seq = self.next_seq.max(message.seq.saturating_add(1));
        self.insert(message, Keep::Durable);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push<M>(&mut self, config: &Config, message: Message, out: &mut Outputs<M>) {
        if self.by_txn.contains_key(&message.txn) {
            return;
        }
        if let Some(topic) = &message.topic {
            let replaced: Vec<u64> = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.message.topic.as_ref() == Some(topic))
                .map(|(seq, _)| *seq)
                .collect();
            for seq in replaced {
                self.drop_entry(seq, Dropped::Replaced, out);
            }
        }
        let stored = config.policy.stores(&message);
        if !self.make_room(config, &message, out) {
            self.count_lost(config, message.priority, out);
            out.push_back(Output::Dropped {
                txn: message.txn,
                why: Dropped::Full,
            });
            return;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let outgoing = Outgoing {
            seq,
            txn: message.txn,
            priority: message.priority,
            topic: message.topic,
            payload: message.payload,
        };
        if stored {
            out.push_back(Output::Persist(Record::Outgoing(outgoing.clone())));
        }
        self.insert(outgoing, message.keep);
    }

    /// What was stored may be more than the bounds are now.
    pub(crate) fn restored<M>(&mut self, config: &Config, out: &mut Outputs<M>) {
        while self.entries.len() > config.max_messages.max(1) || self.bytes > config.max_bytes {
            let Some((priority, seq)) = self.least() else {
                return;
            };
            self.count_lost(config, priority, out);
            self.drop_entry(seq, Dropped::Full, out);
        }
    }

    /// The peer has been told of these.
    pub(crate) fn told<M>(&mut self, told: Lost, out: &mut Outputs<M>) {
        self.lost = self.lost.minus(told);
        out.push_back(if self.lost == Lost::default() {
            Output::Forget(RecordKey::Lost)
        } else {
            Output::Persist(Record::Lost(self.lost))
        });
    }

    pub(crate) fn has_room(&self, config: &Config) -> bool {
        self.entries.len() < config.max_messages.max(1) && self.bytes < config.max_bytes
    }

    pub(crate) fn acked<M>(&mut self, txn: &str, out: &mut Outputs<M>) {
        if let Some(entry) = self.by_txn.get(txn).copied().and_then(|seq| self.take(seq)) {
            if entry.keep == Keep::Durable {
                out.push_back(Output::Forget(RecordKey::Outgoing(entry.message.seq)));
            }
            out.push_back(Output::Acked {
                txn: entry.message.txn,
            });
        }
    }

    /// A nack for a txn we do not know is nobody's message: nothing happens.
    pub(crate) fn nacked(&mut self, txn: &str, again_at: Timestamp) {
        let entry = self
            .by_txn
            .get(txn)
            .and_then(|seq| self.entries.get_mut(seq));
        if let Some(entry) = entry {
            entry.state = State::Later(again_at);
            entry.tries = 0;
        }
    }

    /// A new connection: everything unacknowledged goes again, in order. That includes what a nack put off, because what
    /// comes after it would overtake it.
    pub(crate) fn connected(&mut self, config: &Config) {
        if !config.policy.resends() {
            let sent = |entry: &Entry| matches!(entry.state, State::InFlight(_));
            let gone: Vec<u64> = self
                .entries
                .iter()
                .filter(|(_, entry)| sent(entry))
                .map(|(seq, _)| *seq)
                .collect();
            for seq in gone {
                self.take(seq);
            }
        }
        for entry in self.entries.values_mut() {
            entry.state = State::Queued;
            entry.tries = 0;
        }
    }

    pub(crate) fn disconnected<M>(&mut self, out: &mut Outputs<M>) {
        let passing: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.keep == Keep::Connection)
            .map(|(seq, _)| *seq)
            .collect();
        for seq in passing {
            self.drop_entry(seq, Dropped::Disconnected, out);
        }
    }

    /// Sends what may be sent now and returns when to look again.
    pub(crate) fn transmit<M>(
        &mut self,
        config: &Config,
        now: Timestamp,
        out: &mut Outputs<M>,
    ) -> Option<Timestamp> {
        let mut waiting = 0;
        for entry in self.entries.values_mut() {
            match entry.state {
                State::InFlight(due) if due <= now && config.policy.repeats() => {
                    entry.state = State::Queued;
                }
                // One that was repeated already does not take a place: a peer that never answers it cannot stop the rest.
                State::InFlight(_) if entry.tries <= 1 => waiting += 1,
                State::Later(at) if at <= now => entry.state = State::Queued,
                _ => {}
            }
        }
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let ready = self
                .entries
                .values_mut()
                .filter(|entry| entry.message.priority == priority && entry.state == State::Queued);
            for entry in ready {
                if entry.tries == 0 && waiting >= config.window.max(1) {
                    continue;
                }
                if entry.tries == 0 {
                    waiting += 1;
                }
                let wait = config
                    .ack_wait
                    .saturating_mul(1 << entry.tries.min(16))
                    .min(config.ack_wait_longest);
                entry.state = State::InFlight(now + wait);
                entry.tries = entry.tries.saturating_add(1);
                out.push_back(Output::Transmit(Frame::Message {
                    txn: entry.message.txn.clone(),
                    payload: entry.message.payload.clone(),
                }));
            }
        }
        self.entries
            .values()
            .filter_map(|entry| match entry.state {
                State::Queued => None,
                State::InFlight(_) if !config.policy.repeats() => None,
                State::InFlight(at) | State::Later(at) => Some(at),
            })
            .min()
    }

    fn insert(&mut self, message: Outgoing, keep: Keep) {
        self.bytes = self.bytes.saturating_add(message.payload.len());
        self.by_txn.insert(message.txn.clone(), message.seq);
        self.entries.insert(
            message.seq,
            Entry {
                message,
                keep,
                state: State::Queued,
                tries: 0,
            },
        );
    }

    fn take(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.by_txn.remove(&entry.message.txn);
        self.bytes = self.bytes.saturating_sub(entry.message.payload.len());
        Some(entry)
    }

    fn drop_entry<M>(&mut self, seq: u64, why: Dropped, out: &mut Outputs<M>) {
        if let Some(entry) = self.take(seq) {
            if entry.keep == Keep::Durable {
                out.push_back(Output::Forget(RecordKey::Outgoing(seq)));
            }
            out.push_back(Output::Dropped {
                txn: entry.message.txn,
                why,
            });
        }
    }

    /// Drops what matters less or as much, least first, until the message has room. If even that would not do, nothing is
    /// dropped and the answer is `false`.
    fn make_room<M>(&mut self, config: &Config, message: &Message, out: &mut Outputs<M>) -> bool {
        let (most, most_bytes) = (config.max_messages.max(1), config.max_bytes);
        let needed = message.payload.len();
        let stays = |entry: &&Entry| entry.message.priority > message.priority;
        let staying = self.entries.values().filter(stays);
        let (count, bytes) = staying.fold((0_usize, 0_usize), |(count, bytes), entry| {
            (count + 1, bytes.saturating_add(entry.message.payload.len()))
        });
        if count >= most || bytes.saturating_add(needed) > most_bytes {
            return false;
        }
        while self.entries.len() >= most || self.bytes.saturating_add(needed) > most_bytes {
            let Some((priority, seq)) = self.least() else {
                break;
            };
            self.count_lost(config, priority, out);
            self.drop_entry(seq, Dropped::Full, out);
        }
        true
    }

    fn count_lost<M>(&mut self, config: &Config, priority: Priority, out: &mut Outputs<M>) {
        if !config.policy.counts(Dropped::Full) {
            return;
        }
        self.dropped = self.dropped.saturating_add(1);
        self.lost.add(priority);
        out.push_back(Output::Persist(Record::Lost(self.lost)));
    }

    /// The message that matters least: lowest priority, then oldest.
    fn least(&self) -> Option<(Priority, u64)> {
        self.entries
            .values()
            .map(|entry| (entry.message.priority, entry.message.seq))
            .min()
    }
}
