//! Which images stay when the disk is full, and which go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aos_types::{AosCode, Digest, ErrorInfo};

use crate::images::Images;

/// How long an image that was asked for may take to be used: longer than CM waits for an order.
const ASKED: Duration = Duration::from_secs(900);

/// What must stay, whatever room is needed.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What instances used when that was looked at last; nothing before.
    used: Option<BTreeSet<Digest>>,
    /// Asked for of late: an order installs all of its images before its instances use them.
    asked: BTreeMap<Digest, Instant>,
}

impl Wanted {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data, whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an image is being installed.
    pub(crate) fn ask(&self, manifest: Digest) {
        let now = Instant::now();
        let mut state = self.state();
        state.asked.retain(|_, at| now.duration_since(*at) < ASKED);
        state.asked.insert(manifest, now);
    }

    /// Notes what instances use now.
    pub(crate) fn use_now(&self, used: BTreeSet<Digest>) {
        self.state().used = Some(used);
    }

    /// What must stay; nothing is known before instances were looked at.
    fn all(&self) -> Option<BTreeSet<Digest>> {
        let state = self.state();
        let mut all = state.used.clone()?;
        all.extend(state.asked.keys());
        Some(all)
    }
}

impl Images {
    /// Gives up the image that nobody has used for longest. Whether there was one. Waits for installations that are under
    /// way; the caller must not hold one.
    pub(crate) async fn give_up_oldest(&self) -> Result<bool, ErrorInfo> {
        let Some(mut keep) = self.wanted.all() else {
            return Ok(false);
        };
        let _quiet = self.installing.write().await;
        let stored = |error| ErrorInfo::from_error(AosCode::Failed, &error);
        let images = self.kept.images.all().await.map_err(stored)?;
        let oldest = images
            .iter()
            .filter(|(_, image)| !keep.contains(&image.manifest))
            .min_by_key(|(_, image)| image.last);
        let Some((key, oldest)) = oldest else {
            return Ok(false);
        };
        keep.extend(
            images
                .iter()
                .map(|(_, image)| image.manifest)
                .filter(|manifest| *manifest != oldest.manifest),
        );
        self.kept.images.remove(key).await.map_err(stored)?;
        self.sweep(keep, Duration::ZERO).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod wanted_tests {
    use super::*;

    #[test]
    fn what_is_used_or_was_asked_for_stays() {
        let digest = |number| Digest::from_bytes([number; 32]);
        let wanted = Wanted::default();
        wanted.ask(digest(1));
        assert_eq!(wanted.all(), None, "before anything is known nothing goes");
        wanted.use_now(BTreeSet::from([digest(2)]));
        assert_eq!(wanted.all(), Some(BTreeSet::from([digest(1), digest(2)])));
        wanted.use_now(BTreeSet::new());
        assert_eq!(wanted.all(), Some(BTreeSet::from([digest(1)])));
    }
}
