use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use aos_time::Timestamp;

use crate::{Config, Frame, Handled, Output, Record, RecordKey, Txn};

/// Useless messages remembered as refused once.
const REFUSED: usize = 256;

/// What the peer sent: waiting for its turn, in the shell's hands, asked for again, or seen before.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    waiting: VecDeque<Waiting<M>>,
    waiting_bytes: usize,
    handling: Option<Txn>,
    owed: Owed,
    /// Refused once as useless.
    useless: VecDeque<Txn>,
    seen: VecDeque<(u64, Txn)>,
    seen_txns: HashSet<Txn>,
    next_seq: u64,
}

#[derive(Debug)]
struct Waiting<M> {
    txn: Txn,
    message: M,
    bytes: usize,
}

/// Messages that were refused and are to come again, in the order in which they came first. Only the first of them is
/// taken; whatever else comes is refused too, until it is its turn.
#[derive(Debug, Default)]
struct Owed {
    txns: VecDeque<Txn>,
    /// When the first one was asked for.
    due: Timestamp,
    /// When it is not waited for any more: its sender has dropped it.
    until: Timestamp,
}

impl Owed {
    fn wait(&mut self, due: Timestamp, config: &Config) {
        self.due = due;
        self.until = due + config.order_patience;
    }
}

/// Where frames and records go, and whether there is a connection for the former.
pub(crate) struct Way<'a, M> {
    pub(crate) config: &'a Config,
    pub(crate) now: Timestamp,
    pub(crate) online: bool,
    pub(crate) out: &'a mut VecDeque<Output<M>>,
}

impl<M> Way<'_, M> {
    fn say(&mut self, frame: Frame) {
        if self.online {
            self.out.push_back(Output::Transmit(frame));
        }
    }
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            handling: None,
            owed: Owed::default(),
            useless: VecDeque::new(),
            seen: VecDeque::new(),
            seen_txns: HashSet::new(),
            next_seq: 0,
        }
    }
}

impl<M> Inbox<M> {
    /// Records may come in any order; [`Inbox::restored`] sorts them.
    pub(crate) fn restore(&mut self, seq: u64, txn: Txn) {
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        self.seen_txns.insert(txn.clone());
        self.seen.push_back((seq, txn));
    }

    pub(crate) fn restored(&mut self) {
        self.seen.make_contiguous().sort_unstable();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A connection came or went. The peer sends all that was not answered again, in order.
    pub(crate) fn connection(&mut self) {
        self.owed.txns.clear();
    }

    pub(crate) fn received(&mut self, txn: Txn, message: M, bytes: usize, mut way: Way<'_, M>) {
        if way.config.policy.recognises() && self.seen_txns.contains(&txn) {
            return way.say(Frame::Ack { txn });
        }
        if self.handling.as_ref() == Some(&txn) || self.waiting.iter().any(|have| have.txn == txn) {
            return;
        }
        if self.owed.until <= way.now {
            self.owed.txns.clear();
        }
        let owing = !self.owed.txns.is_empty() && way.config.policy.keeps_order();
        if owing && self.owed.txns.front() != Some(&txn) {
            return self.owe(txn, &mut way);
        }
        let full = self.waiting.len() >= way.config.max_inbox
            || (!self.waiting.is_empty()
                && self.waiting_bytes.saturating_add(bytes) > way.config.max_inbox_bytes);
        if full {
            self.owed
                .wait(way.now + way.config.busy_retry_after, way.config);
            return self.owe(txn, &mut way);
        }
        if owing {
            self.owed.txns.pop_front();
            self.owed
                .wait(way.now + way.config.busy_retry_after, way.config);
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        self.waiting.push_back(Waiting {
            txn,
            message,
            bytes,
        });
        self.deliver_next(way.out);
    }

    pub(crate) fn handled(&mut self, txn: Txn, outcome: Handled, mut way: Way<'_, M>) {
        if self.handling.as_ref() != Some(&txn) {
            return;
        }
        self.handling = None;
        match outcome {
            Handled::Accept => self.accept(txn, &mut way),
            Handled::Useless(_) if self.useless.contains(&txn) => {
                self.useless.retain(|have| *have != txn);
                self.accept(txn, &mut way);
            }
            Handled::Useless(retry_after) => {
                if self.useless.len() >= REFUSED {
                    self.useless.pop_front();
                }
                self.useless.push_back(txn.clone());
                way.say(Frame::Nack { txn, retry_after });
            }
            Handled::Refuse(retry_after) => self.refuse(txn, retry_after, &mut way),
        }
        self.deliver_next(way.out);
    }

    fn accept(&mut self, txn: Txn, way: &mut Way<'_, M>) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.seen.push_back((seq, txn.clone()));
        self.seen_txns.insert(txn.clone());
        way.out.push_back(Output::Persist(Record::Seen {
            seq,
            txn: txn.clone(),
        }));
        while self.seen.len() > way.config.max_seen.max(1) {
            if let Some((old, txn)) = self.seen.pop_front() {
                self.seen_txns.remove(&txn);
                way.out.push_back(Output::Forget(RecordKey::Seen(old)));
            }
        }
        way.say(Frame::Ack { txn });
    }

    /// Asks for a message again, and for those behind it too.
    fn refuse(&mut self, txn: Txn, retry_after: Duration, way: &mut Way<'_, M>) {
        if !way.config.policy.keeps_order() {
            return way.say(Frame::Nack { txn, retry_after });
        }
        let behind = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        // Without a connection nothing is asked for: the next one begins with all of it.
        if !way.online {
            return;
        }
        let later = std::mem::take(&mut self.owed.txns);
        self.owed.wait(way.now + retry_after, way.config);
        way.say(Frame::Nack {
            txn: txn.clone(),
            retry_after,
        });
        self.owed.txns.push_back(txn);
        for waiting in behind {
            self.owe(waiting.txn, way);
        }
        self.owed.txns.extend(later);
    }

    /// Refuses a message until those before it are here.
    fn owe(&mut self, txn: Txn, way: &mut Way<'_, M>) {
        if !self.owed.txns.contains(&txn) && self.owed.txns.len() < way.config.max_seen {
            self.owed.txns.push_back(txn.clone());
        }
        let first = self.owed.txns.front() == Some(&txn);
        let busy = way.config.busy_retry_after;
        let retry_after = if first {
            busy
        } else {
            self.owed.due.since(way.now) + busy
        };
        way.say(Frame::Nack { txn, retry_after });
    }

    fn deliver_next(&mut self, out: &mut VecDeque<Output<M>>) {
        if self.handling.is_none()
            && let Some(next) = self.waiting.pop_front()
        {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(next.bytes);
            self.handling = Some(next.txn.clone());
            out.push_back(Output::Deliver {
                txn: next.txn,
                message: next.message,
            });
        }
    }
}
