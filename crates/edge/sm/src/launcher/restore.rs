use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aos_launch::Instance;
use aos_runtime::InstanceId;
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};
use futures::{StreamExt, stream};

use super::{Launcher, entry::Entry, start::Failed};
use crate::{images::Installed, records::Kept};

impl Launcher {
    /// Adopts what runs of the stored set and starts the rest, without CM if it is away.
    pub(super) async fn restore(self: &Arc<Self>) -> Result<(), aos_store::Error> {
        let mut stored: Vec<Instance> = self
            .setup
            .kept
            .instances
            .all()
            .await?
            .into_iter()
            .map(|(_, instance)| instance)
            .collect();
        stored.sort_by(|a, b| {
            b.priority
                .cmp(&a.priority)
                .then_with(|| a.ident.cmp(&b.ident))
        });
        self.setup.networks.restore(&stored).await?;
        let ids: Vec<InstanceId> = stored.iter().map(|i| InstanceId::of(&i.ident)).collect();
        let running: BTreeMap<InstanceId, u32> = match self.setup.runtime.adopt(&ids).await {
            Ok(running) => running.into_iter().map(|one| (one.id, one.pid)).collect(),
            Err(error) => {
                let error = ErrorInfo::from_error(AosCode::Runtime, &error);
                tracing::error!(%error, "running instances cannot be adopted");
                BTreeMap::new()
            }
        };
        let now = SystemClock.now();
        let mut images: BTreeMap<InstanceIdent, Installed> = BTreeMap::new();
        for instance in &stored {
            if let Some(image) = self.setup.images.get(instance.manifest).await {
                self.setup
                    .networks
                    .note_published(&instance.ident, &image.image)
                    .await;
                images.insert(instance.ident.clone(), image);
            }
        }
        let healthy: BTreeMap<String, u32> =
            self.setup.kept.healthy.all().await?.into_iter().collect();
        let mut probed = Vec::new();
        self.change(|entries| {
            for instance in &stored {
                let item = images
                    .get(&instance.ident)
                    .and_then(|image| image.image.item_config.as_ref());
                let mut entry = Entry::new(instance.clone(), item);
                if let Some(&pid) = running.get(&InstanceId::of(&instance.ident)) {
                    entry.pid = Some(pid);
                    let passed = healthy.get(&Kept::key(&instance.ident)) == Some(&pid);
                    if entry.health_check.is_none() || passed {
                        entry.state = InstanceState::Active;
                        entry.restarts.healthy(now);
                    }
                    probed.push((instance.ident.clone(), pid, passed));
                }
                entries.insert(instance.ident.clone(), entry);
            }
        });
        for (ident, pid, passed) in probed {
            self.probe(&ident, pid, passed);
        }
        let present: BTreeSet<InstanceIdent> = stored.iter().map(|i| i.ident.clone()).collect();
        let mut homeless = self.setup.networks.apply(present).await;
        let missing: Vec<Instance> = stored
            .into_iter()
            .filter(|instance| !running.contains_key(&InstanceId::of(&instance.ident)))
            .collect();
        tracing::info!(
            adopted = running.len(),
            started = missing.len(),
            "the stored set of instances"
        );
        let _turn = self.switching.write().await;
        let work: Vec<_> = missing
            .into_iter()
            .map(|instance| {
                let refused = homeless.remove(&instance.ident);
                let image = images.remove(&instance.ident);
                async move {
                    let result = match (refused, image) {
                        (Some(error), _) => Err(error.into()),
                        (None, Some(image)) => self.start_one(&instance, &image).await,
                        // Fetched again once CM is there, by the next attempt to start it.
                        (None, None) => Err(Failed::from(ErrorInfo::new(
                            AosCode::NotFound,
                            "its image is damaged or gone; it is fetched again from CM",
                        ))),
                    };
                    self.started(&instance.ident, result);
                }
            })
            .collect();
        stream::iter(work)
            .buffered(self.parallel())
            .collect::<Vec<()>>()
            .await;
        self.launched();
        Ok(())
    }
}
