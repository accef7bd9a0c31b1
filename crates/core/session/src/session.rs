use std::{collections::VecDeque, fmt};

use aos_time::{Chance, Timestamp};

use crate::{
    Config, Frame, Gone, Input, Output, Record,
    inbox::Inbox,
    link::{Link, Wish},
    outbox::Outbox,
};

/// Figures for people and monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Whether there is a connection.
    pub online: bool,
    /// Messages not acknowledged yet.
    pub queued: usize,
    /// Their payload bytes.
    pub queued_bytes: usize,
    /// Messages dropped since start because the outbox was full.
    pub dropped: u64,
}

/// One end of a conversation; see the crate's description. `M` is what the peer's messages are once read.
pub struct Session<M> {
    config: Config,
    chance: Box<dyn Chance>,
    link: Link,
    outbox: Outbox,
    inbox: Inbox<M>,
    outputs: VecDeque<Output<M>>,
    wake: Option<Timestamp>,
}

impl<M> fmt::Debug for Session<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("link", &self.link)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<M> Session<M> {
    /// Starts with what was stored before; with nothing the first time. A calling session asks to connect at once.
    pub fn restore(
        config: Config,
        chance: Box<dyn Chance>,
        records: impl IntoIterator<Item = Record>,
        now: Timestamp,
    ) -> Self {
        let mut outbox = Outbox::default();
        let mut inbox = Inbox::default();
        for record in records {
            match record {
                Record::Outgoing(message) => outbox.restore(message),
                Record::Seen { seq, txn } => inbox.restore(seq, txn),
            }
        }
        inbox.restored();
        let mut session = Self {
            link: Link::new(&config, now),
            config,
            chance,
            outbox,
            inbox,
            outputs: VecDeque::new(),
            wake: None,
        };
        session.advance(now);
        session
    }

    /// Takes in what happened at `now`; then [`Session::poll`] until it is empty.
    pub fn handle(&mut self, now: Timestamp, input: Input<M>) {
        let (config, out) = (&self.config, &mut self.outputs);
        if matches!(
            input,
            Input::Received { .. } | Input::Acked { .. } | Input::Nacked { .. } | Input::Heard
        ) {
            self.link.heard(now);
        }
        match input {
            Input::Send(message) => {
                // What lives only as long as a connection has nowhere to go without one.
                if message.keep == crate::Keep::Connection && !self.link.online() {
                    out.push_back(Output::Dropped {
                        txn: message.txn,
                        why: crate::Dropped::Disconnected,
                    });
                } else {
                    self.outbox.push(config, message, out);
                }
            }
            Input::Connected => {
                if self.link.online() {
                    self.outbox.disconnected(out);
                }
                self.link.connected(now);
                self.outbox.connected();
            }
            Input::Disconnected => {
                self.link.lost(config, now, self.chance.as_mut());
                self.outbox.disconnected(out);
            }
            Input::ConnectFailed { wait } => {
                self.link.failed(config, now, wait, self.chance.as_mut());
            }
            Input::ConnectNow => self.link.connect_now(now),
            Input::Received { txn, message } => {
                let online = self.link.online();
                self.inbox.received(config, txn, message, online, out);
            }
            Input::Handled { txn, outcome } => {
                let online = self.link.online();
                self.inbox.handled(config, txn, outcome, online, out);
            }
            Input::Acked { txn } => self.outbox.acked(&txn, out),
            Input::Nacked { txn, retry_after } => self.outbox.nacked(&txn, now + retry_after),
            // Said again even if unchanged: the timer that fired may have been early.
            Input::Wake => self.wake = None,
            Input::Heard => {}
        }
        self.advance(now);
    }

    /// The next thing to do, or nothing until the next input.
    pub fn poll(&mut self) -> Option<Output<M>> {
        self.outputs.pop_front()
    }

    /// Whether there is a connection.
    pub fn is_online(&self) -> bool {
        self.link.online()
    }

    /// Figures for people and monitoring.
    pub fn stats(&self) -> Stats {
        Stats {
            online: self.link.online(),
            queued: self.outbox.len(),
            queued_bytes: self.outbox.bytes(),
            dropped: self.outbox.dropped,
        }
    }

    /// Does what is due and says when to come back.
    fn advance(&mut self, now: Timestamp) {
        match self.link.due(&self.config, now) {
            Some(Wish::Connect) => self.outputs.push_back(Output::Connect),
            Some(Wish::Ping) => self.outputs.push_back(Output::Transmit(Frame::Ping)),
            Some(Wish::GiveUp) => {
                self.link.lost(&self.config, now, self.chance.as_mut());
                self.outbox.disconnected(&mut self.outputs);
                self.outputs.push_back(Output::Disconnect(Gone::Silent));
            }
            None => {}
        }
        let mut wake = self.link.wake_at(&self.config);
        if self.link.online() {
            let resend = self.outbox.transmit(&self.config, now, &mut self.outputs);
            wake = match (wake, resend) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        if wake != self.wake {
            self.wake = wake;
            if let Some(at) = wake {
                self.outputs.push_back(Output::WakeAt(at));
            }
        }
    }
}
