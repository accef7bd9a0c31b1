//! Asks the cloud where blobs are, and fetches them side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aos_cloud_protocol::{AlertEvent, BlobUrl, DownloadState};
use aos_image::fetch::{Checksum, Error as FetchError, Progress, Source};
use aos_pki::ChainBook;
use aos_types::{Digest, ErrorInfo};
use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Error, library::Shared, request::blocking, signature::Check};

/// Blobs fetched side by side.
const SIDE_BY_SIDE: usize = 4;
/// Digests in one question. AosCore's own limit is 16; a cloud takes more, but not any number.
const DIGESTS: usize = 500;
/// How often a blob that failed is asked for again, while the cloud is connected.
const ROUNDS: u32 = 3;
/// First and longest pause before the cloud is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often progress of one blob is told to the cloud.
const TELL: Duration = Duration::from_secs(10);

/// Where each digest's outcome goes.
pub(super) type Told = mpsc::Sender<(Digest, Result<(), ErrorInfo>)>;

impl Shared {
    /// Fetches all of `wanted`. Each digest is told exactly once.
    pub(super) async fn fetch_all(
        &self,
        wanted: BTreeSet<Digest>,
        book: Arc<ChainBook>,
        cancel: CancellationToken,
        told: Told,
    ) {
        let mut open = wanted;
        let mut round = 0;
        let mut pause = PAUSES.0;
        while !open.is_empty() {
            let asked = tokio::select! {
                asked = self.ask(&open) => asked,
                // The question was only listening to the cloud; nothing is lost.
                () = cancel.cancelled() => {
                    tell_all(&told, &open, &Error::Ended).await;
                    return;
                }
            };
            let failed = match asked {
                Err(error) => {
                    tracing::info!(%error, "the cloud did not say where blobs are; asking again");
                    None
                }
                Ok(sources) => {
                    if let Err(error) = self.make_room(&sources, &open).await {
                        tell_all(&told, &open, &error).await;
                        return;
                    }
                    round += 1;
                    Some(
                        self.round(&open, sources, &book, &cancel, &told, round)
                            .await,
                    )
                }
            };
            if let Some(failed) = failed {
                open = failed;
                // Progress was made, or at least tried: the pause starts over.
                pause = PAUSES.0;
                if open.is_empty() {
                    return;
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Waits for the cloud and asks for all digests.
    async fn ask(&self, open: &BTreeSet<Digest>) -> Result<BTreeMap<Digest, BlobUrl>, ErrorInfo> {
        let mut connected = self.cloud.connected();
        // An error means that the link is gone for good: the question will say so.
        let _ = connected.wait_for(|connected| *connected).await;
        let mut found = BTreeMap::new();
        let all: Vec<Digest> = open.iter().copied().collect();
        for some in all.chunks(DIGESTS) {
            for url in self.cloud.blob_urls(some.to_vec()).await? {
                if open.contains(&url.digest) {
                    found.insert(url.digest, url);
                }
            }
        }
        Ok(found)
    }

    /// Fetches what has a source. Gives those that are worth another question.
    async fn round(
        &self,
        open: &BTreeSet<Digest>,
        mut sources: BTreeMap<Digest, BlobUrl>,
        book: &Arc<ChainBook>,
        cancel: &CancellationToken,
        told: &Told,
        round: u32,
    ) -> BTreeSet<Digest> {
        let work: Vec<(Digest, Option<BlobUrl>)> = open
            .iter()
            .map(|digest| (*digest, sources.remove(digest)))
            .collect();
        let mut results = stream::iter(work)
            .map(|(digest, url)| async move {
                let outcome = self.one(digest, url, book, cancel).await;
                (digest, outcome)
            })
            .buffer_unordered(SIDE_BY_SIDE);
        let mut again = BTreeSet::new();
        while let Some((digest, outcome)) = results.next().await {
            let outcome = match outcome {
                Err(error) if self.is_worth_it(&error, cancel, round) => {
                    tracing::info!(%digest, error = %error.info(), "a blob did not arrive; asking again");
                    again.insert(digest);
                    continue;
                }
                other => other.map_err(|error| error.info()),
            };
            let _ = told.send((digest, outcome)).await;
        }
        again
    }

    /// Whether a blob may arrive another time. While the cloud is away nothing counts.
    fn is_worth_it(&self, error: &Error, cancel: &CancellationToken, round: u32) -> bool {
        if cancel.is_cancelled() {
            return false;
        }
        let transient = matches!(
            error,
            Error::Fetch {
                source: FetchError::GaveUp { .. } | FetchError::Deadline { .. } | FetchError::Busy,
                ..
            }
        );
        transient && (round < ROUNDS || !*self.cloud.connected().borrow())
    }

    async fn one(
        &self,
        digest: Digest,
        url: Option<BlobUrl>,
        book: &Arc<ChainBook>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let url = url.ok_or(Error::Unknown { digest })?;
        let info = url.sign_info.as_ref().ok_or(Error::Unsigned { digest })?;
        let check = Check::new(&digest, info, book, &self.trust)?;
        let source = Source {
            urls: url.urls,
            size: url.size,
            checksum: Some(Checksum(url.sha256.0)),
            encrypted: url.decrypt_info.is_some(),
            signature: Some(Arc::new(check)),
        };
        let alert = |state, downloaded_bytes, error| {
            self.alerts.alert(AlertEvent::DownloadProgress {
                digest,
                downloaded_bytes,
                total_bytes: source.size,
                state,
                // The address may carry a token.
                url: None,
                reason: None,
                error,
            });
        };
        let last = Mutex::new(None::<Instant>);
        let progress = |progress: Progress| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|at| at.elapsed() >= TELL) && progress.done < progress.total {
                *last = Some(Instant::now());
                alert(DownloadState::Started, progress.done, None);
            }
        };
        let fetched = self
            .fetcher
            .fetch(&digest, &source, &progress, cancel)
            .await
            .map_err(|source| Error::Fetch { digest, source });
        match &fetched {
            Ok(_) => {
                alert(DownloadState::Finished, source.size, None);
                // It was verified while it arrived; it need not be read again.
                let (seen, store) = (self.seen.clone(), self.blobs.clone());
                blocking(move || seen.note(&store, &digest)).await?;
            }
            Err(error) => alert(DownloadState::Interrupted, 0, Some(error.info())),
        }
        fetched.map(|_| ())
    }

    /// Sees to it that what is announced fits on the disk, giving up unused items, the oldest first.
    async fn make_room(
        &self,
        sources: &BTreeMap<Digest, BlobUrl>,
        open: &BTreeSet<Digest>,
    ) -> Result<(), Error> {
        let wanted = sources
            .values()
            .fold(0_u64, |sum, url| sum.saturating_add(url.size));
        loop {
            let folder = self.dir.clone();
            let free = blocking(move || free_bytes(&folder)).await?;
            let Some(free) = free.filter(|free| *free < wanted) else {
                return Ok(());
            };
            if !self.keep.give_up_oldest().await? {
                return Err(Error::NoRoom { wanted, free });
            }
            self.keep.collect(&self.blobs, open, false).await?;
        }
    }
}

/// Bytes free for us in the file system of a folder, if it tells.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

async fn tell_all(told: &Told, open: &BTreeSet<Digest>, error: &Error) {
    for digest in open {
        let _ = told.send((*digest, Err(error.info()))).await;
    }
}
