//! Asks the cloud where blobs are, and fetches them side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aos_cloud_protocol::BlobUrl;
use aos_image::fetch::Error as FetchError;
use aos_types::{Digest, ErrorInfo};
use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Error, library::Shared, source::Proof};

/// Digests in one question. AosCore's own limit is 16; a cloud takes more, but not any number.
const DIGESTS: usize = 500;

/// How often something is tried again, while the cloud is connected. While it is away nothing counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Questions in a row that the cloud may leave without an answer.
    pub questions: u32,
    /// Times that a blob which failed is asked for.
    pub rounds: u32,
    /// First pause before the cloud is asked again; doubled while nothing comes of it.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            questions: 10,
            rounds: 3,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// What the cloud says of the digests it was asked for.
#[derive(Default)]
struct Answer {
    sources: BTreeMap<Digest, BlobUrl>,
    undelivered: BTreeMap<Digest, ErrorInfo>,
}

/// Where each digest's outcome goes.
pub(super) type Told = mpsc::Sender<(Digest, Result<(), ErrorInfo>)>;

impl Shared {
    /// Fetches all of `wanted`. Each digest is told exactly once. What is in `reached` is not given up to make room.
    pub(super) async fn fetch_all(
        &self,
        wanted: BTreeSet<Digest>,
        reached: &BTreeSet<Digest>,
        proof: Proof,
        cancel: CancellationToken,
        told: Told,
    ) {
        let tries = self.tries;
        let mut open = wanted;
        let (mut round, mut unanswered) = (0, 0);
        let mut pause = tries.first_pause;
        while !open.is_empty() {
            let asked = tokio::select! {
                asked = self.ask(&open) => asked,
                // The question was only listening to the cloud; nothing is lost.
                () = cancel.cancelled() => return tell_all(&told, &open, &Error::Ended).await,
            };
            match asked {
                Err(why) => {
                    if *self.cloud.connected().borrow() {
                        unanswered += 1;
                    }
                    if unanswered >= tries.questions {
                        let error = Error::NoAnswer {
                            times: unanswered,
                            why,
                        };
                        return tell_all(&told, &open, &error).await;
                    }
                    tracing::info!(%why, "the cloud did not say where blobs are; asking again");
                }
                Ok(answer) => {
                    if let Err(error) = self.make_room(&answer.sources, &open, reached).await {
                        return tell_all(&told, &open, &error).await;
                    }
                    round += 1;
                    open = self
                        .round(open, answer, &proof, &cancel, &told, round)
                        .await;
                    // Progress was made, or at least tried: the pause starts over.
                    unanswered = 0;
                    pause = tries.first_pause;
                    if open.is_empty() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {}
            }
            pause = (pause * 2).min(tries.longest_pause);
        }
    }

    /// Waits for the cloud and asks for all digests.
    async fn ask(&self, open: &BTreeSet<Digest>) -> Result<Answer, ErrorInfo> {
        let mut connected = self.cloud.connected();
        // An error means that the link is gone for good: the question will say so.
        let _ = connected.wait_for(|connected| *connected).await;
        let mut answer = Answer::default();
        let all: Vec<Digest> = open.iter().copied().collect();
        for some in all.chunks(DIGESTS) {
            let urls = self.cloud.blob_urls(some.to_vec()).await?;
            for url in urls.items {
                if open.contains(&url.digest) {
                    answer.sources.insert(url.digest, url);
                }
            }
            for one in urls.undelivered {
                answer.undelivered.insert(one.digest, one.error);
            }
        }
        Ok(answer)
    }

    /// Fetches what has a source. Gives those that are worth another question.
    async fn round(
        &self,
        open: BTreeSet<Digest>,
        mut answer: Answer,
        proof: &Proof,
        cancel: &CancellationToken,
        told: &Told,
        round: u32,
    ) -> BTreeSet<Digest> {
        let work: Vec<(Digest, Result<BlobUrl, Error>)> = open
            .into_iter()
            .map(|digest| {
                let url = answer.sources.remove(&digest);
                let why = answer.undelivered.remove(&digest);
                let error = why.map_or(Error::Unknown { digest }, |why| Error::Undelivered {
                    digest,
                    why,
                });
                (digest, url.ok_or(error))
            })
            .collect();
        let mut results = stream::iter(work)
            .map(|(digest, url)| async move {
                let outcome = self.one(digest, url, proof, cancel).await;
                (digest, outcome)
            })
            .buffer_unordered(self.options.parallel.max(1));
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

    /// Whether a blob may arrive another time.
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
        transient && (round < self.tries.rounds || !*self.cloud.connected().borrow())
    }

    async fn one(
        &self,
        digest: Digest,
        url: Result<BlobUrl, Error>,
        proof: &Proof,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let source = self.source(url?, proof).await?;
        let notices = super::notices::Notices::new(self, digest, source.size);
        let fetched = self
            .fetcher
            .fetch(
                &digest,
                &source,
                &|progress| notices.note(&progress),
                cancel,
            )
            .await
            .map_err(|source| Error::Fetch { digest, source });
        match &fetched {
            Ok(_) => {
                notices.finished();
                // It was verified while it arrived; it need not be read again.
                let (seen, store) = (self.seen.clone(), self.blobs.clone());
                super::request::blocking(move || seen.note(&store, &digest)).await?;
            }
            Err(error) => notices.failed(error.info()),
        }
        fetched.map(|_| ())
    }
}

async fn tell_all(told: &Told, open: &BTreeSet<Digest>, error: &Error) {
    for digest in open {
        let _ = told.send((*digest, Err(error.info()))).await;
    }
}

/// Fetches what an item needed before and has lost; its records say that these digests were verified.
pub(super) async fn fetch_again(
    shared: &Arc<Shared>,
    lost: BTreeSet<Digest>,
    cancel: &CancellationToken,
) -> BTreeMap<Digest, ErrorInfo> {
    let (told, mut outcomes) = mpsc::channel(64);
    let reached = lost.clone();
    let fetching = shared.fetch_all(lost, &reached, Proof::Known, cancel.clone(), told);
    let listening = async {
        let mut failed = BTreeMap::new();
        while let Some((digest, outcome)) = outcomes.recv().await {
            if let Err(error) = outcome {
                failed.insert(digest, error);
            }
        }
        failed
    };
    let ((), failed) = tokio::join!(fetching, listening);
    failed
}
