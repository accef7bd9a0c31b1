//! The library against a cloud and Nodes over real TLS.

mod bench;
mod encrypted;
mod faults;
mod faulty;
mod gaps;
mod room;
mod serving;
mod sets;

/// Content that is no small file and does not compress to one.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        })
        .collect()
}
