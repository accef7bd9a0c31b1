//! Choices that a seed repeats. When exactly a process dies is the machine's affair; what is tried is the seed's.

/// Numbers from a seed (SplitMix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `below`, exclusive; 0 if `below` is 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next().checked_rem(below).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let count = u64::try_from(others.len()).unwrap_or(0);
        let chosen = self.below(count + 1);
        usize::try_from(chosen)
            .ok()
            .and_then(|index| index.checked_sub(1))
            .and_then(|index| others.get(index))
            .copied()
            .unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_reaches_everything() {
        let roll = |seed| {
            let mut dice = Dice::new(seed);
            (0..200)
                .map(|_| dice.one_of('a', &['b', 'c']))
                .collect::<String>()
        };
        assert_eq!(roll(7), roll(7));
        assert_ne!(roll(7), roll(8));
        for letter in ['a', 'b', 'c'] {
            assert!(roll(7).contains(letter), "{letter} never came");
        }
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
