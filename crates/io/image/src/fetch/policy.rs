use std::time::Duration;

/// How long and how often a transfer is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the request to the head of the answer.
    pub connect: Duration,
    /// Between two pieces of the body.
    pub stall: Duration,
    /// For the whole blob, all attempts and pauses together.
    pub total: Duration,
    /// Attempts over all URLs together; an attempt that broke off is resumed by the next.
    pub attempts: u32,
    /// Pause after the first failed attempt; doubled after each one.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(3600),
            attempts: 8,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}
