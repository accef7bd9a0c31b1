//! A bound on the bytes a second that several transfers take together.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// What may pass at once after a pause, as time at the given rate.
const BURST: Duration = Duration::from_millis(250);

/// Shared by all transfers whose bytes count together. Clones share the bound.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    rate: u64,
    /// When the bytes taken so far would have passed at the given rate.
    passed: Mutex<Instant>,
}

impl Shared {
    /// Counts these bytes at `now`; when they have passed.
    fn count(&self, bytes: usize, now: Instant) -> Instant {
        // A plain value, whole at every moment.
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (*passed).max(now.checked_sub(BURST).unwrap_or(now));
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(self.rate);
        *passed = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *passed
    }
}

impl Throttle {
    /// So many bytes a second; 0 is without a bound.
    pub fn new(bytes_per_second: u64) -> Self {
        Self((bytes_per_second > 0).then(|| {
            Arc::new(Shared {
                rate: bytes_per_second,
                passed: Mutex::new(Instant::now()),
            })
        }))
    }

    /// Bytes a second, if there is a bound.
    pub fn rate(&self) -> Option<u64> {
        self.0.as_ref().map(|shared| shared.rate)
    }

    /// Waits until these bytes, which are here already, may count. Cancel-safe: they count once.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(shared) = &self.0 else { return };
        let until = shared.count(bytes, Instant::now());
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_share_one_bound() {
        let throttle = Throttle::new(1000);
        let (one, other) = (throttle.0.clone().unwrap(), throttle.clone().0.unwrap());
        let start = Instant::now();
        let mut last = start;
        for _ in 0..50 {
            last = one.count(100, start).max(other.count(100, start));
        }
        // 10,000 bytes at 1000 a second, less at most the burst.
        let took = last - start;
        assert!(took >= Duration::from_millis(9_700), "{took:?}");
        assert!(took <= Duration::from_millis(10_000), "{took:?}");
        // A pause saves up no more than the burst.
        let later = last + Duration::from_secs(60);
        let took = one.count(1250, later) - later;
        assert_eq!(took, Duration::from_secs(1));
        assert_eq!(throttle.rate(), Some(1000));
    }

    #[tokio::test]
    async fn without_a_bound_nobody_waits() {
        let throttle = Throttle::new(0);
        assert_eq!(throttle.rate(), None);
        throttle.take(usize::MAX).await;
    }
}
