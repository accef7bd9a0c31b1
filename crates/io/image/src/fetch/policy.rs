use std::time::Duration;

/// How long and how often a transfer is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the request to the head of the answer.
    pub connect: Duration,
    /// Between two pieces of the body.
    pub stall: Duration,
    /// For the whole blob, all attempts and pauses together; on top of what its size takes at `slowest`.
    pub total: Duration,
    /// Attempts at each URL; an attempt that broke off is resumed by the next, at whatever URL.
    pub attempts: u32,
    /// Pause before a URL is tried again; doubled with each of its failures.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// A source that gives fewer bytes a second than this is left for one that was not tried yet.
    pub slowest: u64,
    /// How long a source is watched before it is found slow.
    pub watch: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(3600),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            slowest: 16 * 1024,
            watch: Duration::from_secs(20),
        }
    }
}

impl Policy {
    /// How long a blob of this size may take in all.
    pub(super) fn deadline(&self, size: u64) -> Duration {
        let seconds = size / self.slowest.max(1);
        self.total.saturating_add(Duration::from_secs(seconds))
    }
}
