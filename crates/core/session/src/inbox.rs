use std::collections::{HashSet, VecDeque};

use crate::{Config, Frame, Handled, Output, Record, RecordKey, Txn};

/// What the peer sent: waiting for its turn, in the shell's hands, or seen before.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    waiting: VecDeque<(Txn, M)>,
    handling: Option<Txn>,
    seen: VecDeque<(u64, Txn)>,
    seen_txns: HashSet<Txn>,
    next_seq: u64,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            handling: None,
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

    pub(crate) fn received(
        &mut self,
        config: &Config,
        txn: Txn,
        message: M,
        online: bool,
        out: &mut VecDeque<Output<M>>,
    ) {
        if self.seen_txns.contains(&txn) {
            if online {
                out.push_back(Output::Transmit(Frame::Ack { txn }));
            }
            return;
        }
        if self.handling.as_ref() == Some(&txn) || self.waiting.iter().any(|(have, _)| *have == txn)
        {
            return;
        }
        if self.waiting.len() >= config.max_inbox {
            if online {
                out.push_back(Output::Transmit(Frame::Nack {
                    txn,
                    retry_after: config.busy_retry_after,
                }));
            }
            return;
        }
        self.waiting.push_back((txn, message));
        self.deliver_next(out);
    }

    pub(crate) fn handled(
        &mut self,
        config: &Config,
        txn: Txn,
        outcome: Handled,
        online: bool,
        out: &mut VecDeque<Output<M>>,
    ) {
        if self.handling.as_ref() != Some(&txn) {
            return;
        }
        self.handling = None;
        let answer = match outcome {
            Handled::Accept => {
                self.remember(config, &txn, out);
                Frame::Ack { txn }
            }
            Handled::Refuse(retry_after) => Frame::Nack { txn, retry_after },
        };
        if online {
            out.push_back(Output::Transmit(answer));
        }
        self.deliver_next(out);
    }

    fn remember(&mut self, config: &Config, txn: &Txn, out: &mut VecDeque<Output<M>>) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.seen.push_back((seq, txn.clone()));
        self.seen_txns.insert(txn.clone());
        out.push_back(Output::Persist(Record::Seen {
            seq,
            txn: txn.clone(),
        }));
        while self.seen.len() > config.max_seen.max(1) {
            if let Some((old, txn)) = self.seen.pop_front() {
                self.seen_txns.remove(&txn);
                out.push_back(Output::Forget(RecordKey::Seen(old)));
            }
        }
    }

    fn deliver_next(&mut self, out: &mut VecDeque<Output<M>>) {
        if self.handling.is_none()
            && let Some((txn, message)) = self.waiting.pop_front()
        {
            self.handling = Some(txn.clone());
            out.push_back(Output::Deliver { txn, message });
        }
    }
}
