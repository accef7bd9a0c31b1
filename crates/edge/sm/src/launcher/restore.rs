use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aos_launch::Instance;
use aos_runtime::{Exit, InstanceId};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState};

use super::{
    Launcher,
    entry::Entry,
    exits::{end_of, told},
    start::Failed,
};
use crate::{
    images::Installed,
    records::{Finished, Kept},
    restart::Outcome,
};

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
        let finished: BTreeMap<String, Finished> =
            self.setup.kept.finished.all().await?.into_iter().collect();
        // SM may have ended between storing a list and stopping what it replaces: what runs then is the old one.
        let replacing: BTreeMap<String, Instance> =
            self.setup.kept.replacing.all().await?.into_iter().collect();
        // What is left of one that is over goes, and what was about to.
        let going: Vec<&Instance> = stored
            .iter()
            .filter(|instance| {
                let key = Kept::key(&instance.ident);
                !finished.contains_key(&key) && replacing.get(&key) != Some(*instance)
            })
            .collect();
        let mut running: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for (id, runtime) in self.setup.runtimes.all() {
            let own = going.iter().filter(|instance| instance.runtime == *id);
            let own: Vec<InstanceId> = own.map(|one| InstanceId::of(&one.ident)).collect();
            match runtime.adopt(&own, self.setup.stop_policy).await {
                Ok(adopted) => running.extend(adopted.into_iter().map(|one| (one.id, one.pid))),
                Err(error) => {
                    let error = ErrorInfo::from_error(AosCode::Runtime, &error);
                    tracing::error!(%error, "running instances cannot be adopted");
                }
            }
        }
        if !replacing.is_empty() {
            let over = replacing.into_keys().map(|key| (key, None));
            let over = over.collect::<Vec<_>>();
            self.setup.kept.replacing.apply(over).await?;
        }
        let now = SystemClock.now();
        let mut images: BTreeMap<InstanceIdent, Installed> = BTreeMap::new();
        for instance in &stored {
            if let Some(image) = self.setup.images.get(instance.manifest).await {
                self.setup
                    .networks
                    .note_traits(&instance.ident, &image.image)
                    .await;
                if let Some(item) = &image.image.item_config {
                    self.setup.permissions.note(&instance.ident, item).await;
                }
                images.insert(instance.ident.clone(), image);
            }
        }
        let healthy: BTreeMap<String, u32> =
            self.setup.kept.healthy.all().await?.into_iter().collect();
        let offline = self.offline_since().await;
        let mut probed = Vec::new();
        self.change(|entries| {
            for instance in &stored {
                let item = images
                    .get(&instance.ident)
                    .and_then(|image| image.image.item_config.as_ref());
                let mut entry = Entry::due(instance.clone(), item);
                if let Some(&pid) = running.get(&InstanceId::of(&instance.ident)) {
                    entry.pid = Some(pid);
                    entry.held = None;
                    let passed = healthy.get(&Kept::key(&instance.ident)) == Some(&pid);
                    if entry.health_check.is_none() || passed {
                        entry.state = InstanceState::Active;
                        entry.restarts.healthy(now);
                    }
                    probed.push((instance.ident.clone(), pid, passed));
                } else if let Some(finished) = finished.get(&Kept::key(&instance.ident)) {
                    entry.finish(finished.clone());
                } else if offline.is_some_and(|since| entry.is_over_time(now.since(since))) {
                    entry.rest();
                }
                entries.insert(instance.ident.clone(), entry);
            }
        });
        for (ident, pid, passed) in probed {
            self.probe(&ident, pid, passed);
        }
        self.note_unseen_ends().await;
        let mut homeless = self.setup.networks.apply(self.networked()).await;
        let mut due: BTreeSet<InstanceIdent> = self
            .entries()
            .iter()
            .filter(|(_, entry)| entry.held.is_some())
            .map(|(ident, _)| ident.clone())
            .collect();
        tracing::info!(
            adopted = running.len(),
            started = due.len(),
            "the stored set of instances"
        );
        let _turn = self.switching.write().await;
        self.start_due(&mut due, &mut homeless, |instance| {
            // Fetched again once CM is there, by the next attempt to start it.
            images.get(&instance.ident).cloned().ok_or_else(|| {
                let why = "its image is damaged or gone; it is fetched again from CM";
                Failed::from(ErrorInfo::new(AosCode::NotFound, why))
            })
        })
        .await;
        self.launched();
        Ok(())
    }

    /// What was meant to end, and did while nobody was here, is not started again. The keeper knows how it ended.
    async fn note_unseen_ends(self: &Arc<Self>) {
        let may = |entry: &Entry| entry.held.is_some() && entry.restarts.ends();
        if !self.entries().values().any(may) {
            return;
        }
        let mut exits: Vec<Exit> = Vec::new();
        for (_, runtime) in self.setup.runtimes.all() {
            match runtime.exits().await {
                Ok(own) => exits.extend(own),
                Err(error) => {
                    let error = ErrorInfo::from_error(AosCode::Runtime, &error);
                    tracing::error!(%error, "instances that are over may run once more");
                }
            }
        }
        let mut over = Vec::new();
        self.change(|entries| {
            for (ident, entry) in entries.iter_mut().filter(|(_, entry)| may(entry)) {
                let id = InstanceId::of(ident);
                let last = exits
                    .iter()
                    .filter(|exit| exit.id == id)
                    .max_by_key(|exit| exit.seq);
                let Some(exit) = last else { continue };
                let end = end_of(ident, entry.instance.version.clone(), exit);
                let failed = match entry.restarts.outcome(end.code) {
                    Outcome::Again => continue,
                    Outcome::Completed => None,
                    Outcome::Failed => Some(told(exit)),
                };
                let finished = Finished {
                    at: exit.at,
                    failed,
                };
                entry.last_end = Some(end);
                entry.finish(finished.clone());
                over.push((ident.clone(), finished));
            }
        });
        for (ident, finished) in over {
            self.note_finished(&ident, &finished).await;
            let launcher = self.clone();
            self.tasks.spawn(async move { launcher.tidy(ident).await });
        }
    }
}
