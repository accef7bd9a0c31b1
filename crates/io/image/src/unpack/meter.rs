//! Readers that count, hash and stop.

use std::io::{self, Read};

use aos_types::Digest;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// The text of the error that a meter gives when its cap is reached; told apart by [`is_over`].
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct Over(u64);

#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// Passes bytes on, hashing and counting them; fails after `cap` bytes or when stopped.
pub(super) struct Meter<'a, R> {
    inner: R,
    hasher: Sha256,
    left: u64,
    cap: u64,
    stop: &'a CancellationToken,
}

impl<'a, R: Read> Meter<'a, R> {
    pub(super) fn new(inner: R, cap: u64, stop: &'a CancellationToken) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            left: cap,
            cap,
            stop,
        }
    }

    /// Reads the rest and gives the digest of everything.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_bytes(self.hasher.finalize().into()))
    }
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(Stopped));
        }
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(Over(self.cap)))?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn inner<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error
        .get_ref()
        .map(|e| e as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // An io::Error inside another shows its own inner error through `get_ref`, not through `source`.
        cause = match error.downcast_ref::<io::Error>() {
            Some(nested) => nested
                .get_ref()
                .map(|e| e as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The cap, if the error is that of a full meter.
pub(super) fn is_over(error: &io::Error) -> Option<u64> {
    inner::<Over>(error).map(|over| over.0)
}

/// Whether the error is that of a stopped meter.
pub(super) fn is_stopped(error: &io::Error) -> bool {
    inner::<Stopped>(error).is_some()
}
