//! Sees to it that what is announced fits on the disk, giving up unused items, the oldest first.
//!
//! Nothing is locked here while something else is waited for: room is counted, then made, then counted again. If giving up
//! everything would not do, nothing is given up.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::Path,
};

use aos_cloud_protocol::BlobUrl;
use aos_types::Digest;

use super::{
    Error,
    keep::{Kept, Kit},
    library::Shared,
    request::blocking,
};

impl Shared {
    /// Makes room for what is open. The blobs of this download that are here already stay, named by a record or not.
    pub(super) async fn make_room(
        &self,
        sources: &BTreeMap<Digest, BlobUrl>,
        open: &BTreeSet<Digest>,
        reached: &BTreeSet<Digest>,
    ) -> Result<(), Error> {
        let announced: Vec<(Digest, u64)> =
            sources.values().map(|url| (url.digest, url.size)).collect();
        let blobs = self.blobs.clone();
        let wanted = blocking(move || {
            announced.iter().fold(0_u64, |sum, (digest, size)| {
                let begun = allocated(&blobs.partial_path(digest));
                sum.saturating_add(size.saturating_sub(begun))
            })
        })
        .await?;
        let wanted = wanted.saturating_add(self.options.keep_free);
        if self.lacks(wanted).await?.is_none() {
            return Ok(());
        }
        let needed: BTreeSet<Digest> = open.union(reached).copied().collect();
        self.keep.collect(&self.blobs, &needed, false).await?;
        let Some((short, free)) = self.lacks(wanted).await? else {
            return Ok(());
        };
        let kits = self.keep.all().await?;
        let blobs = self.blobs.clone();
        let sizes = blocking(move || blobs.list()).await??;
        let sizes = sizes.iter().map(|blob| (blob.digest, blob.size)).collect();
        let Some(gone) = give_up(&kits, &sizes, &needed, short) else {
            return Err(Error::NoRoom { wanted, free });
        };
        for index in &gone {
            let kit = kits.get(index);
            let (id, version) = kit.map(|kit| (&kit.id, &kit.version)).unzip();
            tracing::info!(
                ?id,
                ?version,
                "an unused item is given up: its room is needed"
            );
        }
        self.keep.forget(&gone).await?;
        self.keep.collect(&self.blobs, &needed, false).await?;
        match self.lacks(wanted).await? {
            None => Ok(()),
            Some((_, free)) => Err(Error::NoRoom { wanted, free }),
        }
    }

    /// How much is missing, and how much is free, if the file system tells and it is not enough.
    async fn lacks(&self, wanted: u64) -> Result<Option<(u64, u64)>, Error> {
        let folder = self.dir.clone();
        let free = blocking(move || free_bytes(&folder)).await?;
        Ok(free
            .filter(|free| *free < wanted)
            .map(|free| (wanted - free, free)))
    }
}

/// Which unused items go, the oldest first, so that so many bytes become free. Nothing if all of them would not do.
fn give_up(
    kits: &BTreeMap<Digest, Kit>,
    sizes: &BTreeMap<Digest, u64>,
    needed: &BTreeSet<Digest>,
    short: u64,
) -> Option<Vec<Digest>> {
    let mut uses: BTreeMap<Digest, usize> = needed.iter().map(|digest| (*digest, 1)).collect();
    for digest in kits.values().flat_map(|kit| &kit.blobs) {
        *uses.entry(*digest).or_default() += 1;
    }
    let mut removable: Vec<(i64, &Kit)> = kits
        .values()
        .filter_map(|kit| match kit.kept {
            Kept::Removable(since) => Some((since, kit)),
            Kept::Pending | Kept::Installed => None,
        })
        .collect();
    removable.sort_by_key(|(since, kit)| (*since, kit.index));
    let mut freed = 0_u64;
    let mut gone = Vec::new();
    for (_, kit) in removable {
        if freed >= short {
            break;
        }
        gone.push(kit.index);
        for digest in &kit.blobs {
            let left = uses.entry(*digest).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                freed = freed.saturating_add(sizes.get(digest).copied().unwrap_or(0));
            }
        }
    }
    (freed >= short).then_some(gone)
}

/// Bytes that a file takes on the disk already.
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.blocks().saturating_mul(512))
}

/// Bytes free for us in the file system of a folder, if it tells.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod room_tests {
    use super::*;
    use aos_types::ItemId;

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    fn kit(index: u8, blobs: &[u8], kept: Kept) -> (Digest, Kit) {
        let kit = Kit {
            id: ItemId::new("item").unwrap(),
            version: index.to_string(),
            index: digest(index),
            blobs: blobs.iter().map(|number| digest(*number)).collect(),
            kept,
        };
        (kit.index, kit)
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_needed() {
        let kits = BTreeMap::from([
            kit(1, &[1, 10, 20], Kept::Removable(200)),
            kit(2, &[2, 10], Kept::Removable(100)),
            kit(3, &[3, 30], Kept::Removable(300)),
            kit(4, &[4, 20], Kept::Installed),
            kit(5, &[5, 50], Kept::Pending),
        ]);
        let sizes: BTreeMap<Digest, u64> = [1, 2, 3, 4, 5, 10, 20, 30, 50]
            .into_iter()
            .map(|number| (digest(number), 100))
            .collect();
        let none = BTreeSet::new();
        let gone = |short| give_up(&kits, &sizes, &none, short);
        let of = |numbers: &[u8]| Some(numbers.iter().map(|n| digest(*n)).collect::<Vec<_>>());
        // Blob 10 is shared by 1 and 2, blob 20 with an installed item.
        assert_eq!(gone(100), of(&[2]));
        assert_eq!(gone(101), of(&[2, 1]));
        assert_eq!(gone(300), of(&[2, 1]));
        assert_eq!(gone(301), of(&[2, 1, 3]));
        assert_eq!(gone(500), of(&[2, 1, 3]));
        assert_eq!(gone(501), None, "installed and pending ones stay");
        // What this very download needs does not count as freed.
        let needed = BTreeSet::from([digest(3), digest(30)]);
        assert_eq!(give_up(&kits, &sizes, &needed, 301), None);
    }
}
