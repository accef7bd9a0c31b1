use std::{sync::Arc, time::Duration};

use aos_time::Timestamp;

/// A transmission id: names one message for good; a repetition carries the same one.
pub type Txn = String;

/// The bytes of an outgoing message as they go over the wire. They never change: `createdAt` stays that of the first time.
pub type Payload = Arc<[u8]>;

/// What goes first, and what stays when the outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// May be dropped first: monitoring, logs.
    Low = 0,
    /// Alerts and other reports.
    Normal = 1,
    /// What an update waits for.
    High = 2,
}

impl Priority {
    /// The number a record keeps.
    pub const fn as_number(self) -> u8 {
        self as u8
    }

    /// The priority a record kept; anything unknown is `Normal`.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Low,
            2 => Self::High,
            _ => Self::Normal,
        }
    }
}

/// How long a message is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until it is acknowledged, across restarts.
    Durable,
    /// As long as this connection: a status that is sent afresh on the next one.
    Connection,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its transmission id, unique for good.
    pub txn: Txn,
    /// Its bytes.
    pub payload: Payload,
    /// Its place among others.
    pub priority: Priority,
    /// Whether it survives a restart.
    pub keep: Keep,
    /// A message with the same topic that is still in the outbox is replaced by this one.
    pub topic: Option<String>,
}

/// A durable message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the order; unique in the outbox.
    pub seq: u64,
    /// See [`Message::txn`].
    pub txn: Txn,
    /// See [`Message::priority`].
    pub priority: Priority,
    /// See [`Message::topic`].
    pub topic: Option<String>,
    /// See [`Message::payload`].
    pub payload: Payload,
}

/// Messages that were dropped because the outbox was full, by priority, and that the peer has not been told of yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Of [`Priority::Low`].
    pub low: u64,
    /// Of [`Priority::Normal`].
    pub normal: u64,
    /// Of [`Priority::High`].
    pub high: u64,
}

impl Lost {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.low
            .saturating_add(self.normal)
            .saturating_add(self.high)
    }

    pub(crate) const fn add(&mut self, priority: Priority) {
        let count = match priority {
            Priority::Low => &mut self.low,
            Priority::Normal => &mut self.normal,
            Priority::High => &mut self.high,
        };
        *count = count.saturating_add(1);
    }

    pub(crate) const fn minus(self, told: Self) -> Self {
        Self {
            low: self.low.saturating_sub(told.low),
            normal: self.normal.saturating_sub(told.normal),
            high: self.high.saturating_sub(told.high),
        }
    }
}

/// What the shell keeps for the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message that was not acknowledged yet.
    Outgoing(Outgoing),
    /// What is still to be told about dropped messages.
    Lost(Lost),
    /// A message of the peer that has been handled.
    Seen {
        /// Its place in the order of handling.
        seq: u64,
        /// Its transmission id.
        txn: Txn,
    },
}

/// Names a stored [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKey {
    /// [`Outgoing::seq`].
    Outgoing(u64),
    /// The `seq` of a [`Record::Seen`].
    Seen(u64),
    /// The one [`Record::Lost`].
    Lost,
}

impl Record {
    /// The key it is stored under.
    pub const fn key(&self) -> RecordKey {
        match self {
            Self::Outgoing(outgoing) => RecordKey::Outgoing(outgoing.seq),
            Self::Seen { seq, .. } => RecordKey::Seen(*seq),
            Self::Lost(_) => RecordKey::Lost,
        }
    }
}

/// One frame for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message, first time or again.
    Message {
        /// Its transmission id.
        txn: Txn,
        /// Its bytes.
        payload: Payload,
    },
    /// The message with this txn has been taken over.
    Ack {
        /// The txn it answers.
        txn: Txn,
    },
    /// The message with this txn was not taken; it may come again.
    Nack {
        /// The txn it answers.
        txn: Txn,
        /// When it may come again.
        retry_after: Duration,
    },
    /// A WebSocket ping.
    Ping,
}

/// What the shell decided about a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Taken over; it is not wanted again.
    Accept,
    /// Not now: the peer shall send it again after the given time. What follows it is refused until then, so that the
    /// order is kept.
    Refuse(Duration),
    /// Nothing can be done with it. The first time it is refused like this, in case it was damaged on its way; when it
    /// comes again it is taken as handled, so that it does not come for ever.
    Useless(Duration),
}

/// Why the connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Nothing was heard for [`crate::Config::dead_after`].
    Silent,
}

/// Why a message left the outbox without having been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The outbox was full and others mattered more.
    Full,
    /// A newer message of the same topic replaced it.
    Replaced,
    /// It was kept for its connection only, and that has ended.
    Disconnected,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<M> {
    /// There is a message to send.
    Send(Message),
    /// The connection is up; a former one, if any, is gone.
    Connected,
    /// The attempt asked for by [`Output::Connect`] failed.
    ConnectFailed {
        /// What the peer asked to wait, if it did (`nextRequestDelay`).
        wait: Option<Duration>,
    },
    /// The connection is gone.
    Disconnected,
    /// There is a reason to try now rather than when the wait is over.
    ConnectNow,
    /// There are new credentials: the connection is to be replaced by one that is made with them. The present one stays
    /// until then, so nothing waits for it.
    Renew,
    /// The peer asks that the first wait between attempts be this long from now on (`nextRequestDelay`).
    FirstWait(Duration),
    /// The peer sent a message.
    Received {
        /// Its transmission id.
        txn: Txn,
        /// What it says.
        message: M,
        /// Its length on the wire.
        bytes: usize,
    },
    /// The peer has taken our message over.
    Acked {
        /// The txn it answers.
        txn: Txn,
    },
    /// The peer did not take our message.
    Nacked {
        /// The txn it answers.
        txn: Txn,
        /// When it may be sent again.
        retry_after: Duration,
    },
    /// Something else was heard (pong, ping): the peer lives.
    Heard,
    /// The shell has dealt with the message of the last [`Output::Deliver`].
    Handled {
        /// Its transmission id.
        txn: Txn,
        /// The decision.
        outcome: Handled,
    },
    /// The peer has taken over what [`Output::Report`] said.
    Reported(Lost),
    /// The time asked for by [`Output::WakeAt`] has come. Harmless at any time.
    Wake,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<M> {
    /// Store this record before anything that follows.
    Persist(Record),
    /// Delete this record. May be late: a restored copy is only sent or remembered once more.
    Forget(RecordKey),
    /// Send this frame on the connection; nothing if there is none any more.
    Transmit(Frame),
    /// Deal with this message of the peer and answer with [`Input::Handled`]. The next one comes after that.
    Deliver {
        /// Its transmission id.
        txn: Txn,
        /// What it says.
        message: M,
    },
    /// Try to connect and answer with [`Input::Connected`] or [`Input::ConnectFailed`]. If there is a connection, keep it
    /// until then.
    Connect,
    /// Close the connection. The session already counts it as gone.
    Disconnect(Gone),
    /// Call with [`Input::Wake`] at this time; replaces the time given before.
    WakeAt(Timestamp),
    /// The peer has taken over the message with this txn.
    Acked {
        /// Its transmission id.
        txn: Txn,
    },
    /// The message with this txn will not be sent any more.
    Dropped {
        /// Its transmission id.
        txn: Txn,
        /// Why.
        why: Dropped,
    },
    /// Tell the peer that so many messages were dropped, on this connection, and answer with [`Input::Reported`] when it
    /// has taken that over. Until then it is asked for again on each connection.
    Report(Lost),
}
