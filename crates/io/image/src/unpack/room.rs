//! How much one layer may take of the disk it is unpacked on.

use std::{io, path::Path};

use super::{Error, Limits};

/// What is left for others, whatever arrives: this part of the file system, and no more than that.
const LEAVE_PARTS: u64 = 20;
const LEAVE_BYTES: u64 = 1 << 30;
const LEAVE_ENTRIES: u64 = 10_000;
/// How much longer than packed a layer may be. Even text rarely shrinks to a twentieth; a bomb shrinks to a thousandth.
const RATIO: u64 = 200;
/// So much may always come out, however little went in.
const SMALL: u64 = 256 << 20;

/// What one layer may be, here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) limits: Limits,
    /// It is the disk that allows no more bytes.
    short_of_bytes: bool,
    /// It is the disk that allows no more files.
    short_of_entries: bool,
}

impl Room {
    /// Room for a layer of `packed` bytes that is unpacked below `folder`.
    pub(super) fn find(limits: &Limits, folder: &Path, packed: u64) -> Self {
        let free = rustix::fs::statvfs(folder)
            .map(|facts| {
                let bytes = facts.f_bavail.saturating_mul(facts.f_frsize);
                let whole = facts.f_blocks.saturating_mul(facts.f_frsize);
                // Some file systems make entries as they need them and say 0.
                let entries = (facts.f_files > 0).then_some((facts.f_favail, facts.f_files));
                (bytes, whole, entries)
            })
            .unwrap_or((u64::MAX, 0, None));
        Self::within(limits, free, packed)
    }

    fn within(
        limits: &Limits,
        (bytes, whole, entries): (u64, u64, Option<(u64, u64)>),
        packed: u64,
    ) -> Self {
        let left = bytes.saturating_sub(LEAVE_BYTES.min(whole / LEAVE_PARTS));
        let entries = entries.map_or(u64::MAX, |(free, all)| {
            free.saturating_sub(LEAVE_ENTRIES.min(all / LEAVE_PARTS))
        });
        let most = limits.bytes.min(packed.saturating_mul(RATIO).max(SMALL));
        Self {
            limits: Limits {
                bytes: most.min(left),
                entries: limits.entries.min(entries),
                ..*limits
            },
            short_of_bytes: left < most,
            short_of_entries: entries < limits.entries,
        }
    }

    /// The same error, as a full disk if it is the disk that is too small.
    pub(super) fn explain(&self, error: Error) -> Error {
        let full = io::ErrorKind::StorageFull;
        match error {
            Error::TooMuch { what, cap }
                if what == "entries" && self.short_of_entries
                    || what.starts_with("bytes when unpacked") && self.short_of_bytes =>
            {
                Error::NoRoom {
                    what,
                    cap,
                    source: full.into(),
                }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_takes_what_is_free_and_leaves_some() {
        let most = Limits::default();
        let big = 1 << 40;
        for (bytes, whole, entries, packed, wanted, short) in [
            (
                big,
                big,
                None,
                big,
                (most.bytes, most.entries),
                (false, false),
            ),
            // A gigabyte of a large disk stays, a twentieth of a small one.
            (
                100 << 30,
                big,
                Some((5_000, 20_000)),
                big,
                (most.bytes, 4_000),
                (false, true),
            ),
            (
                5 << 30,
                big,
                Some((500, 1 << 20)),
                big,
                (4 << 30, 0),
                (true, true),
            ),
            (
                100 << 20,
                1 << 30,
                None,
                big,
                ((100 << 20) - (1 << 30) / 20, most.entries),
                (true, false),
            ),
            (
                10 << 20,
                1 << 30,
                None,
                big,
                (0, most.entries),
                (true, false),
            ),
            // A small archive does not become a large one.
            (big, big, None, 1_000, (SMALL, most.entries), (false, false)),
            (
                big,
                big,
                None,
                10 << 20,
                (2_000 << 20, most.entries),
                (false, false),
            ),
        ] {
            let got = Room::within(&most, (bytes, whole, entries), packed);
            assert_eq!((got.limits.bytes, got.limits.entries), wanted);
            assert_eq!((got.short_of_bytes, got.short_of_entries), short);
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_layer_that_is_too_much() {
        let most = Limits::default();
        let error = || Error::TooMuch {
            what: "entries",
            cap: 5,
        };
        let short = Room::within(&most, (1 << 40, 1 << 40, Some((1_005, 20_000))), 1 << 40);
        assert!(matches!(
            short.explain(error()),
            Error::NoRoom { cap: 5, .. }
        ));
        let wide = Room::within(&most, (1 << 40, 1 << 40, None), 1 << 40);
        assert!(matches!(wide.explain(error()), Error::TooMuch { .. }));
    }
}
