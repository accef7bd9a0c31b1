use std::time::Duration;

use aos_time::Timestamp;
use aos_types::RunParameters;

/// Longest pause before a start.
const LONGEST: Duration = Duration::from_secs(300);
/// An instance that ran this long, or twice its start interval, counts as healthy again.
const HEALTHY: Duration = Duration::from_secs(30);

/// Says how long to wait before an instance that ended is started again.
///
/// The first `start_burst` ends come with the instance's own `restart_interval`; from then on the pause doubles up to five
/// minutes. An instance that ran long enough starts anew with the short pause. It is never given up: what it waits for may
/// come later (`docs/protocol/items.md`, runParameters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restarts {
    parameters: RunParameters,
    ends: u32,
    started: Option<Timestamp>,
}

impl Restarts {
    pub(crate) fn new(parameters: RunParameters) -> Self {
        Self {
            parameters,
            ends: 0,
            started: None,
        }
    }

    /// It runs since `now`.
    pub(crate) fn started(&mut self, now: Timestamp) {
        self.started = Some(now);
    }

    /// It ended, or could not start. Gives the pause before the next attempt.
    pub(crate) fn ended(&mut self, now: Timestamp) -> Duration {
        let healthy = HEALTHY.max(self.parameters.start_interval * 2);
        if self
            .started
            .take()
            .is_some_and(|started| now.since(started) >= healthy)
        {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        let doublings = self.ends.saturating_sub(self.parameters.start_burst.max(1));
        let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
        self.parameters
            .restart_interval
            .max(Duration::from_millis(10))
            .saturating_mul(factor)
            .min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_after_the_burst_and_shrink_after_health() {
        let mut restarts = Restarts::new(RunParameters::default());
        let mut now = Timestamp::from_secs(1_000);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            restarts.started(now);
            now = now + Duration::from_secs(1);
            pauses.push(restarts.ended(now).as_secs());
        }
        assert_eq!(pauses, [1, 1, 1, 2, 4, 8, 16]);
        for _ in 0..30 {
            assert!(restarts.ended(now) <= LONGEST);
        }
        restarts.started(now);
        assert_eq!(
            restarts.ended(now + Duration::from_secs(31)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_start_that_fails_counts_like_an_end() {
        let mut restarts = Restarts::new(RunParameters {
            start_burst: 0,
            restart_interval: Duration::ZERO,
            ..RunParameters::default()
        });
        let now = Timestamp::EPOCH;
        let pauses: Vec<_> = (0..4).map(|_| restarts.ended(now).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80]);
    }
}
