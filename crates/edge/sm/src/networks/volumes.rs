//! How much of its daily volume each instance has used, kept over restarts.

use std::{collections::BTreeMap, time::Duration};

use aos_netstack::Traffic;
use aos_time::{Clock, SystemClock};
use aos_types::InstanceIdent;
use tokio_util::sync::CancellationToken;

use super::{Networks, known::State};
use crate::records::{Kept, Volume};

/// How often it is noted what was used: what a power cut can lose of it.
const NOTE: Duration = Duration::from_secs(30);
const MICROS_A_DAY: i64 = 86_400_000_000;

/// What was used, by stored key.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    used: BTreeMap<String, Volume>,
}

impl Volumes {
    pub(super) fn new(stored: Vec<(String, Volume)>) -> Self {
        Self {
            used: stored.into_iter().collect(),
        }
    }

    /// What an instance used of its volume of that day.
    pub(super) fn used(&self, ident: &InstanceIdent, day: u32) -> Traffic {
        self.of(ident, day)
            .map(|volume| volume.used)
            .unwrap_or_default()
    }

    fn of(&self, ident: &InstanceIdent, day: u32) -> Option<&Volume> {
        let found = self.used.get(&Kept::key(ident));
        found.filter(|volume| volume.day == day)
    }

    pub(super) fn forget(&mut self, ident: &InstanceIdent) {
        self.used.remove(&Kept::key(ident));
    }
}

/// Days since 1970, UTC.
pub(super) fn today() -> u32 {
    u32::try_from(SystemClock.now().as_micros() / MICROS_A_DAY).unwrap_or_default()
}

impl Networks {
    /// Notes what was used, and begins each day anew, until `stop`.
    pub(crate) async fn keep_volumes(&self, stop: CancellationToken) {
        let mut day = today();
        loop {
            // Nothing has begun when the wait is dropped.
            tokio::select! {
                () = tokio::time::sleep(NOTE) => {}
                () = stop.cancelled() => break,
            }
            if day != today() {
                day = today();
                let mut state = self.state.lock().await;
                self.make_again(&mut state).await;
            }
            self.note_volumes(day).await;
        }
        self.note_volumes(day).await;
    }

    async fn note_volumes(&self, day: u32) {
        let bounded = |state: &State| {
            let mut traits = state.traits.values();
            traits.any(|traits| traits.bounds.volume.is_some())
        };
        if !bounded(&*self.state.lock().await) {
            return;
        }
        let counted = match self.stack.traffic().await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::warn!(%error, "what was used of daily volumes cannot be counted");
                return;
            }
        };
        let mut state = self.state.lock().await;
        let mut changes = Vec::new();
        let mut over = Vec::new();
        for (ident, stored) in &state.endpoints {
            let Some(used) = counted.get(&stored.endpoint.id).and_then(|one| one.today) else {
                continue;
            };
            let limit = state
                .traits
                .get(ident)
                .and_then(|traits| traits.bounds.volume)
                .unwrap_or_default();
            let mut told = state.volumes.of(ident, day).is_some_and(|one| one.told);
            for (way, used, limit) in [
                ("download", used.down, limit.down),
                ("upload", used.up, limit.up),
            ] {
                if let Some(limit) = limit.filter(|limit| used >= *limit)
                    && !told
                {
                    told = true;
                    over.push((ident.clone(), format!(
                        "it has used up its {way} of {limit} bytes for today (quotas.{way}Limit): nothing more passes until midnight UTC"
                    )));
                }
            }
            let key = Kept::key(ident);
            let volume = Volume { day, used, told };
            if state.volumes.used.get(&key) != Some(&volume) {
                changes.push((key, Some(volume)));
            }
        }
        for (ident, why) in over {
            self.alerts.instance(&ident, "", why);
        }
        if let Err(error) = self.kept.volumes.apply(changes.clone()).await {
            tracing::warn!(%error, "what was used of daily volumes is not stored");
            return;
        }
        let noted = changes
            .into_iter()
            .filter_map(|(key, volume)| Some((key, volume?)));
        state.volumes.used.extend(noted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yesterday_does_not_count() {
        let ident = InstanceIdent::service("a".parse().unwrap(), "s".parse().unwrap(), 0);
        let used = Traffic { down: 1, up: 2 };
        let volume = Volume {
            day: 5,
            used,
            told: false,
        };
        let stored = vec![(Kept::key(&ident), volume)];
        let mut volumes = Volumes::new(stored);
        assert_eq!(volumes.used(&ident, 5), used);
        assert_eq!(volumes.used(&ident, 6), Traffic::default());
        volumes.forget(&ident);
        assert_eq!(volumes.used(&ident, 5), Traffic::default());
    }
}
