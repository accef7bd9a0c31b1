use std::time::Duration;

/// How a calling session spaces its attempts: doubling with full jitter, so that a fleet that lost its cloud does not come
/// back all at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// The first wait, before jitter.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// A connection that lasted this long counts as good: the next wait is the first one again.
    pub stable_after: Duration,
}

/// The bounds and waits of a session. The defaults are AosEdge's where it has one (`docs/protocol/unit-cloud.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How a calling session reconnects; `None` for the side that is called.
    pub reconnect: Option<Reconnect>,
    /// How long an acknowledgement may take before the message is sent again (10 s).
    pub ack_wait: Duration,
    /// The longest such wait, after doubling.
    pub ack_wait_longest: Duration,
    /// Messages that may be sent and not yet acknowledged.
    pub window: usize,
    /// Most messages the outbox keeps.
    pub max_messages: usize,
    /// Most payload bytes the outbox keeps.
    pub max_bytes: usize,
    /// Received messages that may wait for their turn; further ones are nacked.
    pub max_inbox: usize,
    /// Transmission ids remembered to recognise a message that comes again.
    pub max_seen: usize,
    /// What a nack for a full inbox asks the peer to wait.
    pub busy_retry_after: Duration,
    /// Silence after which a ping is sent.
    pub ping_after: Duration,
    /// Silence after which the peer counts as dead.
    pub dead_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reconnect: None,
            ack_wait: Duration::from_secs(10),
            ack_wait_longest: Duration::from_secs(300),
            window: 16,
            max_messages: 4096,
            max_bytes: 64 << 20,
            max_inbox: 64,
            max_seen: 1024,
            busy_retry_after: Duration::from_millis(500),
            ping_after: Duration::from_secs(15),
            dead_after: Duration::from_secs(45),
        }
    }
}

impl Config {
    /// The side that calls: first retry after a second, never later than ten minutes.
    pub fn calling() -> Self {
        Self {
            reconnect: Some(Reconnect {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(600),
                stable_after: Duration::from_secs(60),
            }),
            ..Self::default()
        }
    }
}
