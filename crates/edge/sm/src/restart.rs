use std::time::Duration;

use aos_time::Timestamp;
use aos_types::{RestartPolicy, RunParameters};

/// Longest pause before a start, unless the item itself asks for a longer one.
const LONGEST: Duration = Duration::from_secs(300);
/// Shortest pause before a start: what always ends at once must not take the whole processor.
const LEAST: Duration = Duration::from_millis(10);
/// An instance that was healthy this long, or twice its start interval, has come through.
const HEALTHY: Duration = Duration::from_secs(30);

/// Says how long to wait before an instance that ended is started again, and whether it can still be expected to come up.
///
/// An instance has `start_burst` starts. The ends of these come with its own `restart_interval`; from then on the pause
/// doubles up to five minutes, and the instance counts as failed for good. One that was healthy long enough starts anew
/// with the short pause. It is never given up: what it waits for may come later (`docs/protocol/items.md`, runParameters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restarts {
    parameters: RunParameters,
    /// Since it was healthy long enough.
    ends: u32,
    /// In all.
    count: u32,
    healthy: Option<Timestamp>,
}

/// What the restart policy makes of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is started again.
    Again,
    /// It has done what it was for.
    Completed,
    /// It has not, and is not started again.
    Failed,
}

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// The pause before the next attempt.
    pub(crate) pause: Duration,
    /// It is not expected to come up: all its starts were in vain.
    pub(crate) exhausted: bool,
}

impl Restarts {
    pub(crate) fn new(parameters: RunParameters) -> Self {
        Self {
            parameters,
            ends: 0,
            count: 0,
            healthy: None,
        }
    }

    /// Takes over what the image says, once it is known.
    pub(crate) fn set(&mut self, parameters: RunParameters) {
        self.parameters = parameters;
    }

    /// Whether it is meant to end by itself.
    pub(crate) const fn ends(&self) -> bool {
        self.parameters.restart_policy.ends()
    }

    /// What an end with this exit code means; `None` if a signal ended it, or nobody knows what did.
    pub(crate) fn outcome(&self, code: Option<i32>) -> Outcome {
        match (self.parameters.restart_policy, code) {
            (RestartPolicy::OnFailure | RestartPolicy::Never, Some(0)) => Outcome::Completed,
            (RestartPolicy::Never, _) => Outcome::Failed,
            (RestartPolicy::Always | RestartPolicy::OnFailure, _) => Outcome::Again,
        }
    }

    /// How often it ended, or could not start, and was to be started again.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// It runs, and is healthy as far as anybody can tell, since `now`.
    pub(crate) fn healthy(&mut self, now: Timestamp) {
        self.healthy.get_or_insert(now);
    }

    /// It ended, or could not start. Another start with the same image cannot help if `hopeless`.
    pub(crate) fn ended(&mut self, now: Timestamp, hopeless: bool) -> Next {
        let enough = HEALTHY.max(self.parameters.start_interval * 2);
        if self
            .healthy
            .take()
            .is_some_and(|since| now.since(since) >= enough)
        {
            self.ends = 0;
        }
        let burst = self.parameters.start_burst.max(1);
        self.count = self.count.saturating_add(1);
        self.ends = self.ends.saturating_add(1);
        if hopeless {
            self.ends = self.ends.max(burst);
        }
        let doublings = self.ends.saturating_sub(burst);
        let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
        let own = self.parameters.restart_interval.max(LEAST);
        let pause = own.saturating_mul(factor).min(LONGEST.max(own));
        Next {
            pause,
            exhausted: self.ends >= burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_after_the_burst_and_shrink_after_health() {
        let mut restarts = Restarts::new(RunParameters::default());
        let mut now = Timestamp::from_secs(1_000);
        let mut seen = Vec::new();
        for _ in 0..7 {
            restarts.healthy(now);
            now = now + Duration::from_secs(1);
            let next = restarts.ended(now, false);
            seen.push((next.pause.as_secs(), next.exhausted));
        }
        let exhausted = [1, 2, 4, 8, 16].map(|pause| (pause, true));
        assert_eq!(seen[..2], [(1, false), (1, false)]);
        assert_eq!(seen[2..], exhausted);
        for _ in 0..30 {
            assert!(restarts.ended(now, false).pause <= LONGEST);
        }
        restarts.healthy(now);
        let next = restarts.ended(now + Duration::from_secs(31), false);
        assert_eq!(
            (next.pause, next.exhausted),
            (Duration::from_secs(1), false)
        );
        assert_eq!(restarts.count(), 38);
    }

    #[test]
    fn a_start_that_fails_counts_like_an_end() {
        let mut restarts = Restarts::new(RunParameters {
            start_burst: 0,
            restart_interval: Duration::ZERO,
            ..RunParameters::default()
        });
        let now = Timestamp::EPOCH;
        let pauses: Vec<_> = (0..4)
            .map(|_| restarts.ended(now, false).pause.as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80]);
    }

    #[test]
    fn an_item_may_ask_for_longer_pauses() {
        let hour = Duration::from_secs(3_600);
        let mut restarts = Restarts::new(RunParameters {
            restart_interval: hour,
            ..RunParameters::default()
        });
        let pauses = [(); 5].map(|()| restarts.ended(Timestamp::EPOCH, false).pause);
        assert_eq!(pauses, [hour; 5]);
    }

    #[test]
    fn what_cannot_start_has_no_burst() {
        let mut restarts = Restarts::new(RunParameters::default());
        let now = Timestamp::from_secs(1);
        let seen: Vec<_> = (0..3)
            .map(|_| restarts.ended(now, true))
            .map(|next| (next.pause.as_secs(), next.exhausted))
            .collect();
        assert_eq!(seen, [(1, true), (2, true), (4, true)]);
    }

    #[test]
    fn the_policy_says_what_an_end_means() {
        use Outcome::{Again, Completed, Failed};
        for (restart_policy, wanted) in [
            (RestartPolicy::Always, [Again, Again, Again]),
            (RestartPolicy::OnFailure, [Completed, Again, Again]),
            (RestartPolicy::Never, [Completed, Failed, Failed]),
        ] {
            let restarts = Restarts::new(RunParameters {
                restart_policy,
                ..RunParameters::default()
            });
            let seen = [Some(0), Some(1), None].map(|code| restarts.outcome(code));
            assert_eq!(seen, wanted, "{restart_policy:?}");
        }
    }

    #[test]
    fn time_before_the_first_success_is_not_health() {
        let mut restarts = Restarts::new(RunParameters::default());
        let mut now = Timestamp::from_secs(1_000);
        // A long start period, and no probe that succeeds.
        let exhausted: Vec<_> = (0..3)
            .map(|_| {
                now = now + Duration::from_secs(600);
                restarts.ended(now, false).exhausted
            })
            .collect();
        assert_eq!(exhausted, [false, false, true]);
    }

    #[test]
    fn gap_51_a_crash_loop_is_seen_however_slow_and_is_never_given_up() {
        let mut restarts = Restarts::new(RunParameters::default());
        let mut now = Timestamp::from_secs(1_000);
        let mut last = Duration::ZERO;
        // Each run outlives the start interval of 5 s.
        for round in 1..20_u32 {
            restarts.healthy(now);
            now = now + Duration::from_secs(8);
            let next = restarts.ended(now, false);
            assert_eq!(next.exhausted, round >= 3);
            assert!(next.pause >= last, "no end of restarting every second");
            last = next.pause;
            now = now + next.pause;
        }
        assert_eq!(last, LONGEST);
    }
}
