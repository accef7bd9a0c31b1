//! Brings blobs over HTTPS into a [`BlobStore`], verified while the bytes pass by.
//!
//! ```text
//! attempt 1..n, over the URLs in turn ── connect ──► stream ──► whole ──► size, checksum, tag, digest, signature ──► stored
//!        ▲                                 │ resume where it broke off        │ wrong: start over from nothing
//!        └────────── pause, doubling ──────┴──────────────────────────────────┘
//! ```
//!
//! Each URL has its own failures, pauses and bound of attempts (`turns`). A file that is encrypted is decrypted as it
//! passes; only plain bytes are written, and they get their name in the store when all of them were found right. Room for
//! the whole file is set aside before the first byte is asked for.
//!
//! Every wait has a deadline: for the answer, for the next bytes, for the whole. What arrived stays in the store's
//! `partial` folder, so that a later call goes on from there, also after a restart. No byte is read a second time, except
//! those that an earlier process left behind.

mod error;
mod hashes;
mod policy;
mod sink;
mod source;
mod throttle;
mod transfer;
mod turns;

use std::time::Duration;

use aos_types::Digest;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::blob::{BlobStore, Stored};

pub use error::Error;
pub use policy::Policy;
pub use source::{Checksum, HashAlgorithm, ParseChecksumError, SignatureCheck, Source};
pub use throttle::Throttle;

use sink::Sink;
use turns::Turns;

/// How long a transfer waits for another one of the same blob, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Why it broke off just now; it goes on after a pause, or with another source.
    pub broke_off: Option<String>,
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
    throttle: Throttle,
}

impl Fetcher {
    /// The client brings TLS and its client certificate; deadlines come from `policy`.
    pub fn new(store: BlobStore, client: reqwest::Client, policy: Policy) -> Self {
        Self {
            store,
            client,
            policy,
            throttle: Throttle::default(),
        }
    }

    /// Shares a bound of the bytes a second with whoever has the same.
    #[must_use]
    pub fn with_throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = throttle;
        self
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
        let after = self.deadline(source.size);
        let work = timeout_at(
            Instant::now() + after,
            self.attempts(digest, source, progress),
        );
        tokio::select! {
            done = work => done.unwrap_or(Err(Error::Deadline { after })),
            // What arrived is on disk; nothing else is lost.
            () = stop.cancelled() => Err(Error::Stopped),
        }
    }

    /// A bound of ours on the rate must not make a transfer fail: it lengthens the deadline.
    fn deadline(&self, size: u64) -> Duration {
        let own = self.throttle.rate().map_or(0, |rate| size / rate.max(1));
        // Transfers share the bound: each may get a part of it only.
        let own = Duration::from_secs(own.saturating_mul(8).min(365 * 24 * 3600));
        self.policy
            .deadline(size)
            .saturating_add(own)
            .min(Duration::from_secs(365 * 24 * 3600))
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
        let Some(mut sink) = self.take_up(digest, source).await? else {
            return self.stored(digest).await?.ok_or(Error::Busy);
        };
        let mut turns = Turns::new(&source.urls, &self.policy, Instant::now());
        let mut last = Error::NoUrls;
        while let Some(turn) = turns.next(Instant::now()) {
            sleep_until(turn.at).await;
            let url = turns.url(turn.index);
            let (back, outcome) = transfer::run(self, url, turn.has_fresh, sink, progress).await;
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
            tracing::debug!(%digest, attempt = turns.made() + 1, error = %chain(&error), "blob transfer failed");
            progress(Progress {
                broke_off: Some(chain(&error)),
                done: sink.len(),
                total: sink.size(),
            });
            if error.is_final() {
                blocking(move || sink.release()).await?;
                return Err(error);
            }
            let spoils = error.spoils_url();
            turns.failed(turn.index, spoils, Instant::now(), rand::random());
            last = error;
        }
        blocking(move || sink.release()).await?;
        Err(Error::GaveUp {
            attempts: turns.made(),
            source: Box::new(last),
        })
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<Stored>, Error> {
        let (store, digest) = (self.store.clone(), *digest);
        let size = blocking(move || store.size(&digest)).await??;
        Ok(size.map(|size| Stored { digest, size }))
    }

    /// Takes up the partial file. While another transfer of the same blob holds it, this waits a while: that one is
    /// either ending, or about to store the blob, which gives nothing here.
    async fn take_up(&self, digest: &Digest, source: &Source) -> Result<Option<Sink>, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (store, name, source) = (self.store.clone(), *digest, source.clone());
            match blocking(move || Sink::open(&store, &name, &source)).await? {
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

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
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
