//! Brings blobs over HTTPS into a [`BlobStore`], verified while the bytes pass by.
//!
//! ```text
//! attempt 1..n, over the URLs in turn ── connect ──► stream ──► whole ──► size, checksum, digest, signature ──► stored
//!        ▲                                 │ resume where it broke off        │ wrong: start over from nothing
//!        └────────── pause, doubling ──────┴──────────────────────────────────┘
//! ```
//!
//! Every wait has a deadline: for the answer, for the next bytes, for the whole. What arrived stays in the store's
//! `partial` folder, so that a later call goes on from there, also after a restart. No byte is read a second time, except
//! those that an earlier process left behind.

mod error;
mod policy;
mod sink;
mod source;
mod transfer;

use std::time::Duration;

use aos_types::Digest;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::blob::{BlobStore, Stored};

pub use error::Error;
pub use policy::Policy;
pub use source::{Checksum, HashAlgorithm, ParseChecksumError, SignatureCheck, Source};

use sink::Sink;

/// How long a transfer waits for another one of the same blob, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes here, those of an earlier transfer included.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Fetches blobs into one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    store: BlobStore,
    client: reqwest::Client,
    policy: Policy,
}

impl Fetcher {
    /// The client brings TLS and its client certificate; deadlines come from `policy`.
    pub fn new(store: BlobStore, client: reqwest::Client, policy: Policy) -> Self {
        Self {
            store,
            client,
            policy,
        }
    }

    /// The store blobs go to.
    pub fn store(&self) -> &BlobStore {
        &self.store
    }

    /// Fetches one blob, unless it is in the store. Cancel-safe: dropping the future keeps what arrived.
    pub async fn fetch(
        &self,
        digest: &Digest,
        source: &Source,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Stored, Error> {
        let deadline = Instant::now() + self.policy.total;
        let work = timeout_at(deadline, self.attempts(digest, source, progress));
        tokio::select! {
            done = work => done.unwrap_or(Err(Error::Deadline { after: self.policy.total })),
            // What arrived is on disk; nothing else is lost.
            () = stop.cancelled() => Err(Error::Stopped),
        }
    }

    async fn attempts(
        &self,
        digest: &Digest,
        source: &Source,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Stored, Error> {
        if let Some(stored) = self.stored(digest).await? {
            return Ok(stored);
        }
        source.check(self.store.max_blob())?;
        let mut urls = source.urls.clone();
        let Some(mut sink) = self.take_up(digest, source).await? else {
            return self.stored(digest).await?.ok_or(Error::Busy);
        };
        let mut pause = self.policy.first_pause;
        let mut attempt = 0;
        loop {
            let turn = attempt as usize % urls.len().max(1);
            let Some(url) = urls.get(turn).cloned() else {
                return Err(Error::NoUrls);
            };
            attempt += 1;
            let (back, outcome) = transfer::run(self, &url, sink, progress).await;
            let error = match outcome {
                Ok(()) => match self.accept(digest, source, back).await? {
                    Ok(stored) => return Ok(stored),
                    Err((again, error)) => {
                        sink = again;
                        error
                    }
                },
                Err(error) => {
                    sink = back.ok_or(Error::Interrupted)?;
                    error
                }
            };
            tracing::debug!(%digest, attempt, error = %chain(&error), "blob transfer failed");
            if error.is_final() {
                return Err(error);
            }
            if error.spoils_url() {
                urls.remove(turn);
            }
            if attempt >= self.policy.attempts || urls.is_empty() {
                return Err(Error::GaveUp {
                    attempts: attempt,
                    source: Box::new(error),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.policy.longest_pause);
        }
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<Stored>, Error> {
        let (store, digest) = (self.store.clone(), *digest);
        let size = blocking(move || store.size(&digest)).await??;
        Ok(size.map(|size| Stored { digest, size }))
    }

    /// Takes up the partial file. While another transfer of the same blob holds it, this waits a while: that one is
    /// either ending, or about to store the blob, which gives nothing here.
    async fn take_up(&self, digest: &Digest, source: &Source) -> Result<Option<Sink>, Error> {
        let hashes = source.hashes(digest);
        let until = Instant::now() + PATIENCE;
        loop {
            let (store, name, size) = (self.store.clone(), *digest, source.size);
            match blocking(move || Sink::open(&store, &name, size, hashes)).await? {
                Err(Error::Busy) if Instant::now() < until => sleep(AGAIN).await,
                Err(error) => return Err(error),
                Ok(sink) => return Ok(Some(sink)),
            }
            if self.stored(digest).await?.is_some() {
                return Ok(None);
            }
        }
    }

    /// Checks a whole file and moves it into the store; gives the emptied sink back if the content is wrong.
    async fn accept(
        &self,
        digest: &Digest,
        source: &Source,
        sink: Option<Sink>,
    ) -> Result<Result<Stored, (Sink, Error)>, Error> {
        let sink = sink.ok_or(Error::Interrupted)?;
        let (store, digest, source) = (self.store.clone(), *digest, source.clone());
        blocking(move || sink.accept(&store, &digest, &source)).await?
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Interrupted)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
