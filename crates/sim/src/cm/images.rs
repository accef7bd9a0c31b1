//! CM's store of images: blobs by digest, kept as long as an item needs them.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    coverage::Fault,
    draw::{DAY, HOUR},
    event::Event,
    mutation::Mutation,
    words::{Blob, Item, Ver, blobs_of, item_number, version_number},
    world::World,
};

/// How long items that are not installed any more are kept; shorter than the product's, so that it happens in a run.
const KEEP: Duration = Duration::from_secs(5 * 24 * 3600);

/// A blob on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its bytes are those of its digest.
    pub(crate) intact: bool,
    /// It was verified when it came.
    pub(crate) verified: bool,
}

impl World {
    /// Whether all blobs of a version are at CM, verified and intact.
    pub(crate) fn cm_has(&self, item: Item, ver: Ver) -> bool {
        blobs_of(item, ver).iter().all(|blob| {
            let stored = self.cm.disk.blobs.get(blob);
            stored.is_some_and(|stored| stored.intact)
        })
    }

    /// Blobs that must stay: of every item in the table, and those being fetched.
    fn cm_needs(&self) -> BTreeSet<Blob> {
        let mut needs: BTreeSet<Blob> = self
            .cm
            .disk
            .items
            .keys()
            .flat_map(|(item, ver)| blobs_of(*item, *ver))
            .collect();
        if let Some(run) = &self.cm.run {
            for job in run.jobs.values() {
                needs.extend(job.blobs());
            }
        }
        needs
    }

    fn drop_blob(&mut self, blob: Blob) {
        self.cm.disk.blobs.remove(&blob);
        self.check_blob_removed(blob);
    }

    /// At the start: what no item needs goes, as it may be half of something.
    pub(crate) fn cm_cleans_images(&mut self) {
        let needs = self.cm_needs();
        let idle: Vec<Blob> = self
            .cm
            .disk
            .blobs
            .keys()
            .filter(|blob| !needs.contains(blob))
            .copied()
            .collect();
        for blob in idle {
            self.drop_blob(blob);
        }
    }

    /// Items of the update under way.
    fn in_work(&self) -> BTreeSet<(Item, Ver)> {
        let record = self.cm.disk.engine.iter();
        record
            .flat_map(|record| record.cycle.iter())
            .flat_map(|cycle| &cycle.target.items)
            .map(|item| (item_number(&item.id), version_number(&item.version)))
            .collect()
    }

    /// Removes items whose time has come.
    pub(crate) fn cm_tidies(&mut self) {
        let life = self.cm.life;
        if self.cm.run.is_none() {
            return;
        }
        let after = self.dice.time(6 * HOUR, DAY);
        self.after(after, Event::CmTidy { life });
        let now = self.cm_now();
        let due = |since: &Option<aos_time::Timestamp>| {
            since.is_some_and(|since| now.since(since) >= KEEP)
        };
        // What an update in work needs is not old, however long it waits at its gate.
        let in_work = self.in_work();
        self.cm
            .disk
            .items
            .retain(|item, since| !due(since) || in_work.contains(item));
        self.cm_cleans_images();
    }

    /// Makes room for `count` blobs by removing the oldest items that are not installed. False if there is none.
    pub(crate) fn cm_makes_room(&mut self, count: u64, keep: &BTreeSet<(Item, Ver)>) -> bool {
        let any = self.has(Mutation::EvictsInstalled);
        let in_work = self.in_work();
        loop {
            let space = if self.cm.disk.full {
                self.cm.disk.blobs.len() as u64
            } else {
                self.cm.disk.space
            };
            if self.cm.disk.blobs.len() as u64 + count <= space {
                return true;
            }
            let oldest = self
                .cm
                .disk
                .items
                .iter()
                .filter(|(item, since)| {
                    (since.is_some() || any) && !keep.contains(item) && !in_work.contains(item)
                })
                .min_by_key(|(_, since)| **since)
                .map(|(item, _)| *item);
            let Some(oldest) = oldest else {
                self.coverage.fault(Fault::NoSpace);
                return false;
            };
            self.coverage.fault(Fault::Evicted);
            self.note(|_| format!("CM evicts i{}v{}", oldest.0, oldest.1));
            self.cm.disk.items.remove(&oldest);
            self.cm_cleans_images();
        }
    }

    /// The installed items are these; all others become removable.
    pub(crate) fn cm_commits(&mut self, items: &[(Item, Ver)]) {
        let now = self.cm_now();
        for (item, since) in &mut self.cm.disk.items {
            if items.contains(item) {
                *since = None;
            } else if since.is_none() {
                *since = Some(now);
            }
        }
        for item in items {
            self.cm.disk.items.insert(*item, None);
        }
    }

    /// Some stored content is damaged behind everybody's back.
    pub(crate) fn blob_rots(&mut self, node: usize) {
        if self.dice.percent(50) {
            let count = self.cm.disk.blobs.len();
            if count > 0 {
                let at = self.dice.index(count);
                if let Some((blob, stored)) = self.cm.disk.blobs.iter_mut().nth(at) {
                    stored.intact = false;
                    let blob = *blob;
                    self.oracle.rotted.insert(blob);
                    self.coverage.fault(Fault::BlobRots);
                    self.note(|_| format!("blob {blob} at CM is damaged"));
                }
            }
        } else {
            let count = self.nodes[node].images.len();
            if count > 0 {
                let at = self.dice.index(count);
                if let Some((image, intact)) = self.nodes[node].images.iter_mut().nth(at) {
                    *intact = false;
                    let image = *image;
                    self.coverage.fault(Fault::BlobRots);
                    self.note(|_| format!("image i{}v{} on n{node} is damaged", image.0, image.1));
                }
            }
        }
    }
}
