use std::time::Duration;

use crate::policy::{Policy, Rules};

/// How a calling session spaces its attempts: doubling with jitter, so that a fleet that lost its cloud does not come back
/// all at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// The widest wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// A connection that lasted this long counts as good: the next wait is the first one again.
    pub stable_after: Duration,
    /// After a good connection is lost the first attempt is made within this time, at a moment that each Unit draws for
    /// itself: what ended one link may have ended those of all.
    pub spread: Duration,
    /// The longest wait that the peer may ask for. A mistake of the cloud must not silence a Unit for good.
    pub longest_asked: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
            stable_after: Duration::from_secs(60),
            spread: Duration::from_secs(3),
            longest_asked: Duration::from_secs(24 * 3600),
        }
    }
}

/// The bounds and waits of a session. The defaults are AosEdge's where it has one (`docs/protocol/unit-cloud.md`).
#[derive(Debug, Clone)]
pub struct Config {
    /// How a calling session reconnects; `None` for the side that is called.
    pub reconnect: Option<Reconnect>,
    /// How long an acknowledgement may take before the message is sent again (10 s).
    pub ack_wait: Duration,
    /// The longest such wait, after doubling.
    pub ack_wait_longest: Duration,
    /// The shortest wait before a nacked message goes again, whatever the nack says.
    pub nack_least: Duration,
    /// The longest such wait.
    pub nack_longest: Duration,
    /// Messages that may be sent and not yet acknowledged.
    pub window: usize,
    /// Most messages the outbox keeps.
    pub max_messages: usize,
    /// Most payload bytes the outbox keeps.
    pub max_bytes: usize,
    /// Received messages that may wait for their turn; further ones are nacked.
    pub max_inbox: usize,
    /// Bytes of received messages that may wait for their turn; one message may always wait.
    pub max_inbox_bytes: usize,
    /// Transmission ids remembered to recognise a message that comes again.
    pub max_seen: usize,
    /// What a nack for a full inbox asks the peer to wait.
    pub busy_retry_after: Duration,
    /// How long later messages are refused for the sake of an earlier one that was refused, so that the order is kept;
    /// counted from the moment the earlier one was asked for again. After that its sender has dropped it.
    pub order_patience: Duration,
    /// Silence after which a ping is sent.
    pub ping_after: Duration,
    /// Silence after which the peer counts as dead.
    pub dead_after: Duration,
    /// How it decides: [`Rules`], unless faults are planted.
    pub policy: &'static dyn Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reconnect: None,
            ack_wait: Duration::from_secs(10),
            ack_wait_longest: Duration::from_secs(300),
            nack_least: Duration::from_millis(100),
            nack_longest: Duration::from_secs(3600),
            window: 16,
            max_messages: 4096,
            max_bytes: 64 << 20,
            max_inbox: 64,
            max_inbox_bytes: 64 << 20,
            max_seen: 1024,
            busy_retry_after: Duration::from_millis(500),
            order_patience: Duration::from_secs(10),
            // Each ping of an idle link is paid by the byte.
            ping_after: Duration::from_secs(40),
            dead_after: Duration::from_secs(100),
            policy: &Rules,
        }
    }
}

impl Config {
    /// The side that calls: never later than ten minutes.
    pub fn calling() -> Self {
        Self {
            reconnect: Some(Reconnect::default()),
            ..Self::default()
        }
    }
}
