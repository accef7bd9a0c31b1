//! One download: the items of a set, wave by wave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aos_image::BlobStore;
use aos_types::{Digest, ErrorInfo, ItemId, RuntimeInfo};
use aos_update::DesiredItem;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    graph::{Need, needs},
    keep::{Kept, Kit},
    library::{Seen, Shared},
    signature,
    source::Proof,
};
use crate::contract::DownloadRequest;

/// Where finished items are told.
pub(super) type Progress = mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>;

/// An item on its way.
struct Pending {
    item: DesiredItem,
    /// Blobs it waits for in this wave.
    waits: BTreeSet<Digest>,
    /// All its blobs, once they are known.
    all: Option<Vec<Digest>>,
    /// Its record, if it is installed.
    installed: Option<Arc<Kit>>,
}

/// How an item stands.
enum Found {
    /// These are missing; then these are all, if that can be said.
    Wants(BTreeSet<Digest>, Option<Vec<Digest>>),
    /// It is installed, and something of it was lost: that is mended beside the update.
    Damaged,
}

/// A download under way.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    proof: Proof,
    pub(super) cancel: CancellationToken,
    runtimes: Vec<RuntimeInfo>,
    progress: Progress,
    failed: BTreeMap<ItemId, ErrorInfo>,
    /// All blobs come across so far: they stay, whatever room is needed.
    reached: BTreeSet<Digest>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        request: &DownloadRequest,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            shared,
            proof: Proof::Signed(Arc::new(signature::book(
                &request.certificates,
                &request.certificate_chains,
            ))),
            cancel,
            runtimes: request.runtimes.clone(),
            progress,
            failed: BTreeMap::new(),
            reached: BTreeSet::new(),
        }
    }

    /// Fetches everything; gives the items that failed.
    pub(super) async fn items(mut self, items: Vec<DesiredItem>) -> BTreeMap<ItemId, ErrorInfo> {
        let mut kits = match self.shared.keep.all().await {
            Ok(kits) => kits,
            Err(error) => {
                for item in &items {
                    self.tell(item, Err(error.info())).await;
                }
                return self.failed;
            }
        };
        let mut pending: Vec<Pending> = items
            .into_iter()
            .map(|item| Pending {
                waits: BTreeSet::new(),
                all: None,
                installed: kits
                    .remove(&item.index_digest)
                    .filter(|kit| kit.kept == Kept::Installed)
                    .map(Arc::new),
                item,
            })
            .collect();
        // Index, manifests, configs, layers: more waves than this would be a circle.
        for _ in 0..8 {
            pending = self.look(pending).await;
            if pending.is_empty() {
                break;
            }
            let wanted: BTreeSet<Digest> = pending
                .iter()
                .flat_map(|one| one.waits.iter().copied())
                .collect();
            pending = self.wave(pending, wanted).await;
        }
        for one in pending {
            self.end(
                &one.item,
                Err(Error::Absent {
                    digest: one.item.index_digest,
                }),
            )
            .await;
        }
        self.failed
    }

    /// Finds out what each item needs next; those that need nothing any more end here.
    async fn look(&mut self, pending: Vec<Pending>) -> Vec<Pending> {
        let mut open = Vec::new();
        for mut one in pending {
            match self.find(&one).await {
                Ok(Found::Damaged) => {
                    self.shared.damaged.notify_one();
                    self.end(&one.item, Ok(())).await;
                }
                Ok(Found::Wants(waits, all)) => {
                    one.waits = waits;
                    one.all = all;
                    if one.waits.is_empty() {
                        self.done(one).await;
                    } else {
                        open.push(one);
                    }
                }
                Err(error) => self.end(&one.item, Err(error)).await,
            }
        }
        open
    }

    async fn find(&mut self, one: &Pending) -> Result<Found, Error> {
        let (store, item, runtimes, kit) = (
            self.shared.blobs.clone(),
            one.item.clone(),
            self.runtimes.clone(),
            one.installed.clone(),
        );
        let seen = self.shared.seen.clone();
        let (found, reached) = blocking(move || {
            let mut reached = BTreeSet::new();
            let need = match &kit {
                Some(_) => needs(&store, &item, &runtimes, &mut reached),
                None => sound_needs(&store, &seen, &item, &runtimes, &mut reached),
            };
            let found = match need {
                Ok(need) => {
                    if let Need::All(all) = &need {
                        reached.extend(all);
                    }
                    wants(&store, &seen, need, kit.as_deref())
                }
                // It was whole when it was installed.
                Err(Error::Graph(_)) if kit.is_some() => Ok(Found::Damaged),
                Err(error) => Err(error),
            };
            (found, reached)
        })
        .await?;
        self.reached.extend(reached);
        found
    }

    /// Fetches what a wave needs; an item goes on, or ends, as soon as nothing of it is missing.
    async fn wave(&mut self, mut pending: Vec<Pending>, wanted: BTreeSet<Digest>) -> Vec<Pending> {
        let (told, mut arrived) = mpsc::channel(64);
        let shared = self.shared;
        let (proof, cancel, reached) = (
            self.proof.clone(),
            self.cancel.clone(),
            self.reached.clone(),
        );
        let fetching = shared.fetch_all(wanted, &reached, proof, cancel, told);
        tokio::pin!(fetching);
        let mut fetched = false;
        let mut next = Vec::new();
        loop {
            let event = if fetched {
                arrived.recv().await
            } else {
                // Both arms are cancel-safe: a channel, and a future that is polled on.
                tokio::select! {
                    event = arrived.recv() => event,
                    () = &mut fetching => {
                        fetched = true;
                        continue;
                    }
                }
            };
            let Some((digest, outcome)) = event else {
                break;
            };
            let mut rest = Vec::new();
            for mut one in pending {
                if !one.waits.remove(&digest) {
                    rest.push(one);
                    continue;
                }
                match &outcome {
                    Err(info) => {
                        let info: &ErrorInfo = info;
                        self.tell(&one.item, Err(info.clone())).await;
                    }
                    Ok(()) if !one.waits.is_empty() => rest.push(one),
                    Ok(()) if one.all.is_some() => self.done(one).await,
                    Ok(()) => next.push(one),
                }
            }
            pending = rest;
            if fetched && arrived.is_empty() {
                break;
            }
        }
        next.extend(pending);
        next
    }

    async fn done(&mut self, one: Pending) {
        let blobs = one.all.unwrap_or_default().into_iter().collect();
        let recorded = self.shared.keep.downloaded(&one.item, blobs).await;
        self.end(&one.item, recorded).await;
    }

    async fn end(&mut self, item: &DesiredItem, outcome: Result<(), Error>) {
        self.tell(item, outcome.map_err(|error| error.info())).await;
    }

    async fn tell(&mut self, item: &DesiredItem, outcome: Result<(), ErrorInfo>) {
        if let Err(info) = &outcome {
            tracing::warn!(item = %item.id, version = item.version, error = %info, "an item is not here");
            self.failed.insert(item.id.clone(), info.clone());
        }
        // Nobody listens any more only if the download was given up.
        let _ = self.progress.send((item.id.clone(), outcome)).await;
    }
}

/// What an item needs, by documents that were read again and are what they should be. Damaged ones are removed, and so are
/// among what is needed.
fn sound_needs(
    store: &BlobStore,
    seen: &Seen,
    item: &DesiredItem,
    runtimes: &[RuntimeInfo],
    documents: &mut BTreeSet<Digest>,
) -> Result<Need, Error> {
    loop {
        let need = needs(store, item, runtimes, documents);
        let mut removed = false;
        for digest in documents.iter() {
            removed |= store.contains(digest)? && !seen.is_intact(store, digest)?;
        }
        // Ends: each time round there is one document less.
        if !removed {
            return need;
        }
    }
}

/// What is missing of an item. Of an installed one only presence is looked at: its content was verified when it came, is
/// looked after beside the updates, and must not hold one up.
fn wants(
    store: &BlobStore,
    seen: &Seen,
    need: Need,
    installed: Option<&Kit>,
) -> Result<Found, Error> {
    let (missing, all) = match need {
        Need::More(missing) => (missing.into_iter().collect(), None),
        Need::All(all) => {
            let mut missing = BTreeSet::new();
            for digest in &all {
                let here = match installed {
                    Some(_) => store.contains(digest)?,
                    None => seen.is_intact(store, digest)?,
                };
                if !here {
                    missing.insert(*digest);
                }
            }
            (missing, Some(all))
        }
    };
    // A Node of another kind may need what this item never had here: that is fetched as for a new one.
    let is_lost = |kit: &Kit| !missing.is_empty() && missing.is_subset(&kit.blobs);
    if installed.is_some_and(is_lost) {
        return Ok(Found::Damaged);
    }
    Ok(Found::Wants(missing, all))
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Interrupted)
}
