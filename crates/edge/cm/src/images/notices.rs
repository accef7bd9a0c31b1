//! Tells the cloud how far a download is.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use aos_cloud_protocol::{AlertEvent, DownloadState};
use aos_image::fetch::Progress;
use aos_types::{Digest, ErrorInfo};

use super::library::Shared;

/// The notices about one blob: started, how far it is at an interval, interrupted, gone on, finished.
pub(super) struct Notices<'a> {
    shared: &'a Shared,
    digest: Digest,
    total: u64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    done: u64,
}

impl<'a> Notices<'a> {
    pub(super) fn new(shared: &'a Shared, digest: Digest, total: u64) -> Self {
        Self {
            shared,
            digest,
            total,
            told: Mutex::default(),
        }
    }

    /// The first notice, and the first after an interruption, come at once: with the bytes that are here already.
    pub(super) fn note(&self, progress: &Progress) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.done = progress.done;
        if let Some(why) = &progress.broke_off {
            told.last = None;
            self.alert(DownloadState::Interrupted, progress.done, Some(why), None);
            return;
        }
        let due = told
            .last
            .is_none_or(|at| at.elapsed() >= self.shared.options.progress());
        if due && progress.done < progress.total {
            told.last = Some(Instant::now());
            self.alert(DownloadState::Started, progress.done, None, None);
        }
    }

    pub(super) fn finished(&self) {
        self.alert(DownloadState::Finished, self.total, None, None);
    }

    pub(super) fn failed(&self, error: ErrorInfo) {
        let done = self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .done;
        self.alert(DownloadState::Interrupted, done, None, Some(error));
    }

    fn alert(
        &self,
        state: DownloadState,
        downloaded_bytes: u64,
        reason: Option<&str>,
        error: Option<ErrorInfo>,
    ) {
        self.shared.alerts.alert(AlertEvent::DownloadProgress {
            digest: self.digest,
            downloaded_bytes,
            total_bytes: self.total,
            state,
            // The address may carry a token.
            url: None,
            reason: reason.map(|why| why.chars().take(256).collect()),
            error,
        });
    }
}
