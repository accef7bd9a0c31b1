//! One download: the items of a set, wave by wave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aos_pki::ChainBook;
use aos_types::{Digest, ErrorInfo, ItemId, RuntimeInfo};
use aos_update::DesiredItem;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    graph::{Need, needs},
    library::Shared,
    signature,
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
}

/// A download under way.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) book: Arc<ChainBook>,
    pub(super) cancel: CancellationToken,
    runtimes: Vec<RuntimeInfo>,
    progress: Progress,
    failed: BTreeMap<ItemId, ErrorInfo>,
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
            book: Arc::new(signature::book(
                &request.certificates,
                &request.certificate_chains,
            )),
            cancel,
            runtimes: request.runtimes.clone(),
            progress,
            failed: BTreeMap::new(),
        }
    }

    /// Fetches everything; gives the items that failed.
    pub(super) async fn items(mut self, items: Vec<DesiredItem>) -> BTreeMap<ItemId, ErrorInfo> {
        let mut pending: Vec<Pending> = items
            .into_iter()
            .map(|item| Pending {
                item,
                waits: BTreeSet::new(),
                all: None,
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
            match self.missing(&mut one).await {
                Ok(()) if one.waits.is_empty() => self.done(one).await,
                Ok(()) => open.push(one),
                Err(error) => self.end(&one.item, Err(error)).await,
            }
        }
        open
    }

    async fn missing(&self, one: &mut Pending) -> Result<(), Error> {
        let (store, item, runtimes) = (
            self.shared.blobs.clone(),
            one.item.clone(),
            self.runtimes.clone(),
        );
        let seen = self.shared.seen.clone();
        let (waits, all) = blocking(move || match needs(&store, &item, &runtimes)? {
            Need::More(missing) => Ok::<_, Error>((missing.into_iter().collect(), None)),
            Need::All(all) => {
                let mut waits = BTreeSet::new();
                for digest in &all {
                    if !seen.is_intact(&store, digest)? {
                        waits.insert(*digest);
                    }
                }
                Ok((waits, Some(all)))
            }
        })
        .await??;
        one.waits = waits;
        one.all = all;
        Ok(())
    }

    /// Fetches what a wave needs; an item goes on, or ends, as soon as nothing of it is missing.
    async fn wave(&mut self, mut pending: Vec<Pending>, wanted: BTreeSet<Digest>) -> Vec<Pending> {
        let (told, mut arrived) = mpsc::channel(64);
        let shared = self.shared;
        let (book, cancel) = (self.book.clone(), self.cancel.clone());
        let fetching = shared.fetch_all(wanted, book, cancel, told);
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

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Interrupted)
}
