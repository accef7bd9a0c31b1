//! Reads the files of installed images now and then: a disk that changes what it holds tells nobody.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{alerts::Alerts, launcher::Launcher};

/// The first look comes so long after the start at the latest.
const FIRST: Duration = Duration::from_secs(300);

/// Looks after the content of images.
pub(crate) struct Integrity {
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) interval: Duration,
}

impl Integrity {
    /// Never ends; dropping it is safe.
    pub(crate) async fn run(self) {
        let mut told = BTreeSet::new();
        tokio::time::sleep(self.interval.min(FIRST)).await;
        loop {
            self.look(&mut told).await;
            tokio::time::sleep(self.interval).await;
        }
    }

    async fn look(&self, told: &mut BTreeSet<String>) {
        let mut checked = BTreeSet::new();
        let mut bad_now = BTreeSet::new();
        for (instance, _) in self.launcher.kept() {
            let read = self
                .launcher
                .images()
                .read_all(instance.manifest, &mut checked)
                .await;
            let bad = match read {
                Ok(bad) => bad,
                Err(error) => {
                    tracing::debug!(ident = %instance.ident, %error, "its image cannot be looked at");
                    continue;
                }
            };
            for layer in bad {
                let key = format!("{} {layer}", instance.ident);
                if !told.contains(&key) {
                    self.alerts.instance(
                        &instance.ident,
                        &instance.version,
                        format!(
                            "files of its image (layer {layer}) have changed on this Node since they were installed. It runs on; \
                             when it is started next they are fetched again. Look at the disk of the Node"
                        ),
                    );
                }
                bad_now.insert(key);
            }
        }
        *told = bad_now;
    }
}
