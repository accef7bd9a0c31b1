use std::time::Duration;

/// When something that failed is tried again: the pause doubles from `first` to `most`, and between half of it and all of it
/// is taken, so that a fleet that failed together does not try again together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The pause after the first failure, before jitter.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// How many attempts may touch what runs. After so many it is given up: only something newer, or the same asked for
    /// again after the longest pause, brings another one.
    pub attempts: u32,
}

impl Retry {
    /// The pause after this many failed attempts. The same `seed` gives the same pause.
    pub fn pause(&self, attempts: u32, seed: u64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.most);
        let half = whole / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let jitter =
            mix(seed ^ u64::from(attempts).rotate_left(32)) % span.saturating_add(1).max(1);
        whole - half + Duration::from_micros(jitter)
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64, which is in the public domain).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds_and_differ_between_units() {
        let retry = Retry {
            first: Duration::from_secs(60),
            most: Duration::from_secs(3600),
            attempts: 10,
        };
        for (attempts, whole) in [(1, 60), (2, 120), (6, 1920), (7, 3600), (u32::MAX, 3600)] {
            let whole = Duration::from_secs(whole);
            for seed in 0..100 {
                let pause = retry.pause(attempts, seed);
                assert!(
                    pause >= whole / 2 && pause <= whole,
                    "{attempts}: {pause:?}"
                );
            }
        }
        let pauses: std::collections::BTreeSet<Duration> =
            (0..100).map(|seed| retry.pause(3, seed)).collect();
        assert!(pauses.len() > 90, "{}", pauses.len());
    }
}
