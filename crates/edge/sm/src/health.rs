use std::time::Duration;

use aos_types::HealthCheck;

/// The first pause before the first success; it doubles from there. Most services need a moment, few need a second.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// The longest pause before the first success.
const EAGER: Duration = Duration::from_secs(1);

/// What follows from the probes of one running instance (`docs/protocol/items.md`, health check).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    check: HealthCheck,
    passed: bool,
    /// In a row.
    failures: u32,
    looks: u32,
}

/// What one probe means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing new.
    Same,
    /// Its first success.
    Healthy,
    /// It has not succeeded yet; this is why.
    NotYet(String),
    /// It has to be started again; this is why.
    Unhealthy(String),
}

impl Health {
    /// Of an instance that has succeeded before or not.
    pub(crate) fn new(check: HealthCheck, passed: bool) -> Self {
        Self {
            check,
            passed,
            failures: 0,
            looks: 0,
        }
    }

    pub(crate) const fn check(&self) -> &HealthCheck {
        &self.check
    }

    /// How long to wait before the next probe.
    pub(crate) fn pause(&self) -> Duration {
        if self.passed {
            return self.check.interval;
        }
        let eager = FIRST_LOOK.saturating_mul(1_u32.checked_shl(self.looks).unwrap_or(u32::MAX));
        eager.min(EAGER).min(self.check.interval)
    }

    /// Takes in how a probe ended of an instance that has been running for so long. (A clock of the day may jump, so time
    /// is counted.)
    pub(crate) fn looked(&mut self, running: Duration, found: Result<(), String>) -> Verdict {
        self.looks = self.looks.saturating_add(1).min(16);
        let Err(why) = found else {
            self.failures = 0;
            let first = !std::mem::replace(&mut self.passed, true);
            return if first {
                Verdict::Healthy
            } else {
                Verdict::Same
            };
        };
        let why = format!("health check {}: {why}", self.check.probe);
        if !self.passed && running < self.check.start_period {
            return Verdict::NotYet(why);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.check.retries {
            return Verdict::Unhealthy(match self.failures {
                1 => why,
                many => format!("{why} ({many} times in a row)"),
            });
        }
        if self.passed {
            Verdict::Same
        } else {
            Verdict::NotYet(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use aos_types::Probe;

    use super::*;

    fn health(passed: bool) -> Health {
        let check = HealthCheck {
            retries: 2,
            ..HealthCheck::of(Probe::Tcp { port: 80 })
        };
        Health::new(check, passed)
    }

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn bad() -> Result<(), String> {
        Err("refused".into())
    }

    const WHY: &str = "health check tcp :80: refused";

    #[test]
    fn failures_count_after_the_start_period() {
        let mut health = health(false);
        for secs in 0..10 {
            assert_eq!(health.looked(at(secs), bad()), Verdict::NotYet(WHY.into()));
        }
        assert_eq!(health.looked(at(10), bad()), Verdict::NotYet(WHY.into()));
        assert_eq!(
            health.looked(at(11), bad()),
            Verdict::Unhealthy(format!("{WHY} (2 times in a row)"))
        );
    }

    #[test]
    fn a_success_makes_it_healthy_and_ends_the_start_period() {
        let mut health = health(false);
        assert_eq!(health.looked(at(0), Ok(())), Verdict::Healthy);
        assert_eq!(health.looked(at(1), Ok(())), Verdict::Same);
        assert_eq!(health.looked(at(2), bad()), Verdict::Same);
        // Not in a row.
        assert_eq!(health.looked(at(3), Ok(())), Verdict::Same);
        assert_eq!(health.looked(at(4), bad()), Verdict::Same);
        assert!(matches!(health.looked(at(5), bad()), Verdict::Unhealthy(_)));
    }

    #[test]
    fn one_that_was_healthy_before_has_no_start_period() {
        let mut health = health(true);
        assert_eq!(health.pause(), Duration::from_secs(10));
        assert_eq!(health.looked(at(0), bad()), Verdict::Same);
        assert!(matches!(health.looked(at(1), bad()), Verdict::Unhealthy(_)));
    }

    #[test]
    fn it_is_looked_at_eagerly_until_the_first_success() {
        let mut health = health(false);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(health.pause().as_millis());
            health.looked(at(0), bad());
        }
        assert_eq!(pauses[..6], [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pauses[39], 1_000);
        health.looked(at(0), Ok(()));
        assert_eq!(health.pause(), Duration::from_secs(10));
    }
}
