use std::time::Duration;

use aos_time::Chance;

/// Repeatable chance, much faster than the cores' own source: a run throws some hundred thousand times (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn to(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn span(&mut self, low: u64, high: u64) -> u64 {
        low + self.to(high.saturating_sub(low) + 1)
    }

    /// An index into something with `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        self.to(len as u64) as usize
    }

    /// True once in `n` throws on average; never if `n` is 0.
    pub fn once_in(&mut self, n: u64) -> bool {
        n != 0 && self.to(n) == 0
    }

    /// True in so many of a hundred throws.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.to(100) < percent
    }

    /// A time between both ends, evenly.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_micros() as u64, high.as_micros() as u64);
        Duration::from_micros(self.span(low, high))
    }

    /// A time between both ends, evenly in its order of magnitude: as many between 1 s and 10 s as between 1 h and 10 h.
    pub fn scale(&mut self, low: Duration, high: Duration) -> Duration {
        let low = (low.as_micros() as u64).max(1);
        let doublings = (high.as_micros() as u64 / low).max(1).ilog2();
        let base = low << self.to(u64::from(doublings) + 1);
        Duration::from_micros(self.span(base, base * 2).min(high.as_micros() as u64))
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Dice of its own, so that what one part throws does not shift what another gets.
    pub fn split(&mut self) -> Self {
        Self(self.bits())
    }
}

impl Chance for Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.to(bound)
    }

    fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bits().to_le_bytes());
        bytes[8..].copy_from_slice(&self.bits().to_le_bytes());
        bytes
    }
}
