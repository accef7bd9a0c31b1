//! Which items are kept, and which blobs each needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_image::BlobStore;
use aos_store::{Records, Store};
use aos_time::Timestamp;
use aos_types::{Digest, ItemId};
use aos_update::DesiredItem;
use serde::{Deserialize, Serialize};

use super::Error;

/// A blob this young is not collected: a download may be about to refer to it.
const GRACE: Duration = Duration::from_secs(3600);

/// How an item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kept {
    /// Downloaded, not committed yet.
    Pending,
    /// Of the committed set.
    Installed,
    /// Not needed since then, in microseconds since 1970.
    Removable(i64),
}

/// One version of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kit {
    pub(super) id: ItemId,
    pub(super) version: String,
    pub(super) index: Digest,
    pub(super) blobs: BTreeSet<Digest>,
    pub(super) kept: Kept,
}

/// The records, by index digest: the same index is the same content, whatever it is called.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    records: Records<Kit>,
}

impl Keep {
    pub(super) fn new(store: Store) -> Self {
        Self {
            records: Records::new(store, "image_kit"),
        }
    }

    pub(super) async fn all(&self) -> Result<BTreeMap<Digest, Kit>, Error> {
        let all = self.records.all().await?;
        Ok(all.into_iter().map(|(_, kit)| (kit.index, kit)).collect())
    }

    /// Records an item whose blobs are all here.
    pub(super) async fn downloaded(
        &self,
        item: &DesiredItem,
        blobs: BTreeSet<Digest>,
    ) -> Result<(), Error> {
        let key = item.index_digest.hex();
        let before = self.records.get(key.as_str()).await?;
        let kept = match &before {
            Some(kit) if kit.kept == Kept::Installed => Kept::Installed,
            _ => Kept::Pending,
        };
        let kit = Kit {
            id: item.id.clone(),
            version: item.version.clone(),
            index: item.index_digest,
            blobs,
            kept,
        };
        // Nothing is written for what is known already.
        if before.as_ref() != Some(&kit) {
            self.records.put(key, &kit).await?;
        }
        Ok(())
    }

    /// Items that were fetched for a set which never was committed and is no longer wanted become removable.
    pub(super) async fn supersede(
        &self,
        items: &[DesiredItem],
        now: Timestamp,
    ) -> Result<(), Error> {
        let wanted: BTreeSet<Digest> = items.iter().map(|item| item.index_digest).collect();
        let mut changes = Vec::new();
        for (index, mut kit) in self.all().await? {
            if kit.kept == Kept::Pending && !wanted.contains(&index) {
                kit.kept = Kept::Removable(now.as_micros());
                changes.push((index.hex(), Some(kit)));
            }
        }
        if !changes.is_empty() {
            self.records.apply(changes).await?;
        }
        Ok(())
    }

    /// Makes exactly these the installed ones.
    pub(super) async fn commit(&self, items: &[DesiredItem], now: Timestamp) -> Result<(), Error> {
        let wanted: BTreeSet<Digest> = items.iter().map(|item| item.index_digest).collect();
        let mut changes = Vec::new();
        for (index, mut kit) in self.all().await? {
            let kept = if wanted.contains(&index) {
                Kept::Installed
            } else if let removable @ Kept::Removable(_) = kit.kept {
                removable
            } else {
                Kept::Removable(now.as_micros())
            };
            if kept != kit.kept {
                kit.kept = kept;
                changes.push((index.hex(), Some(kit)));
            }
        }
        if !changes.is_empty() {
            self.records.apply(changes).await?;
        }
        Ok(())
    }

    /// Forgets what has been removable for `keep`. When the next item is due, if one is left.
    pub(super) async fn expire(
        &self,
        keep: Duration,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let mut next: Option<Duration> = None;
        let mut gone = Vec::new();
        for (index, kit) in self.all().await? {
            let Kept::Removable(since) = kit.kept else {
                continue;
            };
            let age = now.since(Timestamp::from_micros(since));
            match keep.checked_sub(age).filter(|left| !left.is_zero()) {
                None => gone.push((index.hex(), None)),
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        if !gone.is_empty() {
            self.records.apply(gone).await?;
        }
        Ok(next)
    }

    /// Forgets these items.
    pub(super) async fn forget(&self, indexes: &[Digest]) -> Result<(), Error> {
        let gone = indexes.iter().map(|index| (index.hex(), None));
        self.records.apply(gone.collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// Removes blobs that no record names and that are not in `needed`. When to look again, if some are still too young.
    pub(super) async fn collect(
        &self,
        store: &BlobStore,
        needed: &BTreeSet<Digest>,
        grace: bool,
    ) -> Result<Option<Duration>, Error> {
        let mut keep = needed.clone();
        for kit in self.all().await?.into_values() {
            keep.extend(kit.blobs);
        }
        let store = store.clone();
        let grace = if grace { GRACE } else { Duration::ZERO };
        let collected = tokio::task::spawn_blocking(move || store.collect(&keep, grace))
            .await
            .map_err(|_| Error::Interrupted)??;
        if collected.bytes > 0 {
            tracing::info!(
                blobs = collected.blobs,
                bytes = collected.bytes,
                "unused images removed"
            );
        }
        Ok((collected.young > 0).then_some(GRACE))
    }
}
