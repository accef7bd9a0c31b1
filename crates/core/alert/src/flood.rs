use std::{collections::BTreeMap, time::Duration};

use aos_time::Timestamp;

/// Whom a flood is counted for, at most; of more the one that was quiet longest is forgotten.
const MOST: usize = 1_024;

/// How much one of them may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tide {
    /// So much at once.
    pub burst: u32,
    /// Then one each.
    pub pause: Duration,
}

/// Whether something may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It may; so many before it were left out and not told of.
    Tell {
        /// How many.
        left_out: u64,
    },
    /// Too much was said lately. It is counted.
    LeaveOut,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    filled: Timestamp,
    left_out: u64,
}

/// Bounds what is said, for each source by itself, and counts what was left out, so that a flood neither drowns others nor
/// ends in silence.
#[derive(Debug, Clone)]
pub struct Flood<K> {
    tide: Tide,
    of: BTreeMap<K, Bucket>,
}

impl<K: Ord + Clone> Flood<K> {
    /// Nobody has said anything.
    pub const fn new(tide: Tide) -> Self {
        Self {
            tide,
            of: BTreeMap::new(),
        }
    }

    /// `of` wants to say something.
    pub fn admit(&mut self, now: Timestamp, of: &K) -> Admitted {
        if !self.of.contains_key(of) && self.of.len() >= MOST {
            let oldest = self.of.iter().min_by_key(|(_, bucket)| bucket.filled);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.of.remove(&oldest);
            }
        }
        let Tide { burst, pause } = self.tide;
        let bucket = self.of.entry(of.clone()).or_insert(Bucket {
            tokens: burst,
            filled: now,
            left_out: 0,
        });
        let pause = pause.as_micros().max(1);
        let more = now.since(bucket.filled).as_micros() / pause;
        if more > 0 {
            bucket.tokens = burst.min(
                bucket
                    .tokens
                    .saturating_add(u32::try_from(more).unwrap_or(u32::MAX)),
            );
            bucket.filled = now;
        }
        if bucket.tokens == 0 {
            bucket.left_out = bucket.left_out.saturating_add(1);
            return Admitted::LeaveOut;
        }
        bucket.tokens -= 1;
        Admitted::Tell {
            left_out: std::mem::take(&mut bucket.left_out),
        }
    }

    /// Those of whom something was left out since they were last heard, and how much; each is given once. For who wants to
    /// tell of the end of a flood.
    pub fn ebbed(&mut self, now: Timestamp) -> Vec<(K, u64)> {
        let pause = self.tide.pause;
        let silent = self
            .of
            .iter_mut()
            .filter(|(_, bucket)| bucket.left_out > 0 && now.since(bucket.filled) >= pause);
        silent
            .map(|(key, bucket)| (key.clone(), std::mem::take(&mut bucket.left_out)))
            .collect()
    }

    /// Whether anything was left out that nobody was told of.
    pub fn owes(&self) -> bool {
        self.of.values().any(|bucket| bucket.left_out > 0)
    }
}
