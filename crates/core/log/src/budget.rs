use std::time::Duration;

use aos_time::Timestamp;

/// Bounds how many bytes a second something may have: so much at once, so much a second after that.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    rate: u64,
    most: u64,
    left: u64,
    since: Timestamp,
}

impl Budget {
    /// Full at `now`.
    pub fn new(rate: u64, most: u64, now: Timestamp) -> Self {
        Self {
            rate,
            most,
            left: most,
            since: now,
        }
    }

    /// Takes so many bytes if they are there.
    pub fn take(&mut self, bytes: u64, now: Timestamp) -> bool {
        let micros = now.since(self.since).as_micros().min(u128::from(u64::MAX));
        let gained = u128::from(self.rate) * micros / Duration::from_secs(1).as_micros();
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.left = self.left.saturating_add(gained).min(self.most);
            self.since = now;
        }
        let enough = bytes <= self.left;
        if enough {
            self.left -= bytes;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_with_time_and_never_over_its_brim() {
        let at = |millis: i64| Timestamp::from_micros(millis * 1_000);
        let mut budget = Budget::new(1_000, 500, at(0));
        assert!(budget.take(500, at(0)) && !budget.take(1, at(0)));
        assert!(budget.take(100, at(100)) && !budget.take(1, at(100)));
        assert!(!budget.take(501, at(60_000)) && budget.take(500, at(60_000)));
        // A clock that goes back gives nothing and takes nothing.
        assert!(!budget.take(1, at(10)));
    }
}
