use std::collections::{BTreeMap, VecDeque};

use aos_time::Timestamp;

use crate::{
    Config, Dropped, Frame, Keep, Message, Outgoing, Output, Priority, Record, RecordKey, Txn,
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
    pub(crate) dropped: u64,
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
        while self.entries.len() >= config.max_messages.max(1)
            || self.bytes.saturating_add(message.payload.len()) > config.max_bytes
        {
            match self.least() {
                Some((priority, seq)) if priority <= message.priority => {
                    self.dropped += 1;
                    self.drop_entry(seq, Dropped::Full, out);
                }
                _ => {
                    self.dropped += 1;
                    out.push_back(Output::Dropped {
                        txn: message.txn,
                        why: Dropped::Full,
                    });
                    return;
                }
            }
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
        if message.keep == Keep::Durable {
            out.push_back(Output::Persist(Record::Outgoing(outgoing.clone())));
        }
        self.insert(outgoing, message.keep);
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

    /// A new connection: everything unacknowledged goes again, in order.
    pub(crate) fn connected(&mut self) {
        for entry in self.entries.values_mut() {
            if let State::InFlight(_) = entry.state {
                entry.state = State::Queued;
            }
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
                State::InFlight(due) if due <= now => entry.state = State::Queued,
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

    /// The message that matters least: lowest priority, then oldest.
    fn least(&self) -> Option<(Priority, u64)> {
        self.entries
            .values()
            .map(|entry| (entry.message.priority, entry.message.seq))
            .min()
    }
}
