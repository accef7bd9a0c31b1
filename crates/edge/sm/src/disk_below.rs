//! Watches the disk on which the file grows that storages and states are in. The file promises its instances more than it has
//! taken of the disk yet; when the disk is full before, their writes fail with errors of the device, and the file system in
//! the file may go read-only.

use std::{sync::Arc, time::Duration};

use aos_quota::Below;

use crate::{alerts::Alerts, places::Places};

const MIB: u64 = 1 << 20;
/// Less than a tenth of what the file may still take is scarce, within these bounds.
const LEAST: u64 = 64 * MIB;
const MOST: u64 = 1024 * MIB;

/// Looks after the disk below.
pub(crate) struct DiskBelow {
    pub(crate) places: Places,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) interval: Duration,
}

impl DiskBelow {
    /// Never ends; dropping it is safe.
    pub(crate) async fn run(self) {
        let mut scarce = false;
        loop {
            let places = self.places.clone();
            let looked = tokio::task::spawn_blocking(move || places.below()).await;
            if let Some(below) = looked.ok().flatten()
                && let Some(now) = turned(scarce, below.free, below.growth)
            {
                scarce = now;
                self.alerts.own(text(now, &below));
            }
            tokio::time::sleep(self.interval).await;
        }
    }
}

/// Whether the disk has become scarce, or has room again; nothing if it is as it was.
fn turned(was: bool, free: u64, growth: u64) -> Option<bool> {
    let limit = (growth / 10).clamp(LEAST, MOST).min(growth);
    if !was && free < limit {
        Some(true)
    } else if was && free >= limit.saturating_mul(2).min(growth) {
        Some(false)
    } else {
        None
    }
}

fn text(scarce: bool, below: &Below) -> String {
    let folder = below.folder.display();
    let free = below.free / MIB;
    match scarce {
        true => format!(
            "the disk of {folder} has {free} MiB left, and the storages and states of instances, which are in a file there, may \
             still take {} MiB of it. When it is full their writes fail with input/output errors and may go read-only: make \
             room on that disk, or set `quota.image_max` to less before the file is made",
            below.growth / MIB
        ),
        false => format!(
            "the disk of {folder} has room again for storages and states: {free} MiB are free"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_becomes_scarce_is_told_once_and_that_it_has_room_again_too() {
        let gib = 1024 * MIB;
        for (was, free, growth, expected) in [
            // What the file has taken it has: then the disk may be full.
            (false, 0, 0, None),
            (false, 5 * MIB, 6 * MIB, Some(true)),
            (false, 6 * MIB, 6 * MIB, None),
            (false, 63 * MIB, gib / 2, Some(true)),
            (false, 64 * MIB, gib / 2, None),
            (false, gib - 1, 100 * gib, Some(true)),
            (false, gib, 100 * gib, None),
            (true, 0, 100 * gib, None),
            (true, 2 * gib - 1, 100 * gib, None),
            (true, 2 * gib, 100 * gib, Some(false)),
            (true, 6 * MIB, 6 * MIB, Some(false)),
            (true, 0, 0, Some(false)),
        ] {
            assert_eq!(turned(was, free, growth), expected, "{was} {free} {growth}");
        }
    }
}
