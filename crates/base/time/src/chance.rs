use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// A source of random numbers for jitter and identifiers. Not for keys: those come from `aos-pki`.
pub trait Chance: Send {
    /// A number in `0..bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: u64) -> u64;

    /// Sixteen random bytes, enough for a UUID.
    fn bytes16(&mut self) -> [u8; 16];
}

/// The machine's own randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            rand::rng().random_range(0..bound)
        }
    }

    fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }
}

/// Repeatable chance for tests and the simulator: the same seed gives the same numbers.
#[derive(Debug, Clone)]
pub struct SeededChance(StdRng);

impl SeededChance {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }
}

impl Chance for SeededChance {
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.0.random_range(0..bound)
        }
    }

    fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
