use std::{collections::BTreeMap, time::Duration};

use aos_time::Timestamp;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// What is older goes.
    pub age: Duration,
    /// Bytes of one instance.
    pub instance_bytes: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// A file that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Whose.
    pub instance: String,
    /// When its last line was written.
    pub last: Timestamp,
    /// Its length.
    pub bytes: u64,
}

/// Which of these files go, by their place: what is too old, then of each instance and of all the oldest that are too
/// much.
pub fn surplus(files: &[KeptFile], keep: &Keep, now: Timestamp) -> Vec<usize> {
    let mut newest_first: Vec<(usize, &KeptFile)> = files.iter().enumerate().collect();
    newest_first.sort_by(|(a, one), (b, other)| other.last.cmp(&one.last).then(b.cmp(a)));
    let mut of_instance: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all = 0_u64;
    let mut gone: Vec<usize> = newest_first
        .into_iter()
        .filter(|(_, file)| {
            let own = of_instance.entry(&file.instance).or_default();
            let fits = now.since(file.last) <= keep.age
                && own.saturating_add(file.bytes) <= keep.instance_bytes
                && all.saturating_add(file.bytes) <= keep.bytes;
            if fits {
                *own += file.bytes;
                all += file.bytes;
            } else {
                // A gap in the middle would look as if nothing had been said: what is older goes with it.
                *own = u64::MAX;
            }
            !fits
        })
        .map(|(place, _)| place)
        .collect();
    gone.sort_unstable();
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(instance: &str, last: i64, bytes: u64) -> KeptFile {
        KeptFile {
            instance: instance.into(),
            last: Timestamp::from_secs(last),
            bytes,
        }
    }

    #[test]
    fn the_oldest_goes_and_no_gap_is_left() {
        let keep = Keep {
            age: Duration::from_secs(100),
            instance_bytes: 100,
            bytes: 150,
        };
        let now = Timestamp::from_secs(1_000);
        let gone = |files: &[KeptFile]| surplus(files, &keep, now);
        assert_eq!(gone(&[file("a", 899, 1), file("a", 900, 1)]), [0]);
        // The second does not fit, so the third, which would, goes too.
        let files = [
            file("a", 990, 60),
            file("a", 980, 60),
            file("a", 970, 10),
            file("b", 960, 80),
        ];
        assert_eq!(gone(&files), [1, 2]);
        let files = [file("a", 990, 100), file("b", 980, 60), file("c", 970, 50)];
        assert_eq!(gone(&files), [1]);
        assert!(gone(&[]).is_empty());
    }
}
