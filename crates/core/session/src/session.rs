use std::{collections::VecDeque, fmt};

use aos_time::{Chance, Timestamp};

use crate::{
    Config, Frame, Gone, Input, Lost, Output, Record,
    inbox::{Inbox, Way},
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
    /// Those of them, and of earlier starts, that the peer has not been told of.
    pub lost: Lost,
    /// Received messages that wait for their turn.
    pub waiting: usize,
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
    /// The peer was told of lost messages on this connection and has not answered.
    reporting: bool,
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
                Record::Lost(lost) => outbox.lost = lost,
            }
        }
        inbox.restored();
        let mut outputs = VecDeque::new();
        outbox.restored(&config, &mut outputs);
        let mut session = Self {
            link: Link::new(&config, now),
            config,
            chance,
            outbox,
            inbox,
            outputs,
            wake: None,
            reporting: false,
        };
        session.advance(now);
        session
    }

    /// Takes in what happened at `now`; then [`Session::poll`] until it is empty.
    pub fn handle(&mut self, now: Timestamp, input: Input<M>) {
        let online = self.link.online();
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
                if message.keep == crate::Keep::Connection && !online {
                    out.push_back(Output::Dropped {
                        txn: message.txn,
                        why: crate::Dropped::Disconnected,
                    });
                } else {
                    self.outbox.push(config, message, out);
                }
            }
            Input::Connected => {
                if online {
                    self.outbox.disconnected(out);
                }
                self.link.connected(now);
                self.outbox.connected(config);
                self.inbox.connection();
                self.reporting = false;
            }
            Input::Disconnected => {
                self.link.lost(config, now, self.chance.as_mut());
                self.outbox.disconnected(out);
                self.inbox.connection();
            }
            Input::ConnectFailed { wait } => {
                self.link.failed(config, now, wait, self.chance.as_mut());
            }
            Input::ConnectNow => self.link.connect_now(now),
            Input::Renew => self.link.renew(now),
            Input::FirstWait(first) => self.link.first_wait(first),
            Input::Received {
                txn,
                message,
                bytes,
            } => {
                let way = Way {
                    config,
                    now,
                    online,
                    out,
                };
                self.inbox.received(txn, message, bytes, way);
            }
            Input::Handled { txn, outcome } => {
                let way = Way {
                    config,
                    now,
                    online,
                    out,
                };
                self.inbox.handled(txn, outcome, way);
            }
            Input::Acked { txn } => self.outbox.acked(&txn, out),
            Input::Nacked { txn, retry_after } => {
                let wait = retry_after.min(config.nack_longest).max(config.nack_least);
                self.outbox.nacked(&txn, now + wait);
            }
            Input::Reported(lost) => {
                self.reporting = false;
                self.outbox.told(lost, out);
            }
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
            lost: self.outbox.lost,
            waiting: self.inbox.waiting(),
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
                self.inbox.connection();
                self.outputs.push_back(Output::Disconnect(Gone::Silent));
            }
            None => {}
        }
        let mut wake = self.link.wake_at(&self.config);
        if self.link.online() {
            let untold = self.outbox.lost != Lost::default();
            if untold && !self.reporting && self.outbox.has_room(&self.config) {
                self.reporting = true;
                self.outputs.push_back(Output::Report(self.outbox.lost));
            }
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
