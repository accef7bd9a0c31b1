use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use aos_launch::{Found, Instance, Plan, Start, Stop, StopReason, plan};
use aos_types::{AosCode, Digest, ErrorInfo, InstanceIdent, InstanceState, ItemType};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{Desired, Launcher, entry::Entry, start::Failed};
use crate::{images::Installed, records::Kept};

/// What can be run, why the rest cannot, and that rest.
type Sorted = (
    Vec<Instance>,
    BTreeMap<InstanceIdent, ErrorInfo>,
    Vec<(Instance, ErrorInfo)>,
);

/// How long a launch waits for those who are told of removed instances.
const LET_GO: Duration = Duration::from_secs(5);

impl Launcher {
    /// Carries out a list. False if it was superseded before all of it was carried out.
    pub(super) async fn launch(
        self: &Arc<Self>,
        desired: &Desired,
        superseded: &CancellationToken,
    ) -> bool {
        let found: Vec<Found> = self.entries().values().map(Entry::found).collect();
        let (wanted, impossible, refused) = self.sort(desired, &found);
        let plan = plan(&wanted, &desired.stops, &found);
        tracing::info!(
            install = plan.install.len(),
            stop = plan.stop.len(),
            start = plan.start.len(),
            keep = plan.keep.len(),
            "a list of instances"
        );
        self.announce(&plan, &impossible);
        let (installed, failed) = self.install_all(&plan, superseded).await;
        if superseded.is_cancelled() {
            return false;
        }
        let switch = plan.switch(&failed);
        let (mut stop, mut start) = (switch.stop, switch.start);
        let mut held: BTreeMap<InstanceIdent, ErrorInfo> = switch
            .kept
            .into_iter()
            .map(|kept| (kept.ident, kept.error))
            .collect();
        let before = self.places_of(&start).await;
        held.extend(self.addresses(&start, &installed, superseded).await);
        if superseded.is_cancelled() {
            return false;
        }
        start.retain(|start| !held.contains_key(&start.instance.ident));
        stop.retain(|stop| stop.after_install.is_none() || !held.contains_key(&stop.ident));
        let turn = self.switching.write().await;
        let homeless = self.prepare(&stop, &start, &installed).await;
        start.retain(|start| !homeless.contains_key(&start.instance.ident));
        stop.retain(|stop| !homeless.contains_key(&stop.ident));
        held.extend(homeless);
        for (ident, had) in before {
            if held.contains_key(&ident) {
                self.setup.networks.put_back(&ident, had).await;
            }
        }
        let wanted: BTreeMap<InstanceIdent, Instance> = wanted
            .into_iter()
            .map(|instance| (instance.ident.clone(), instance))
            .collect();
        self.switch(&wanted, stop, start, held, &installed).await;
        self.refuse(refused);
        drop(turn);
        // Told when the list is carried out whole: only then another Node may run what this one has given away.
        tokio::select! {
            () = self.all_left() => true,
            () = superseded.cancelled() => false,
        }
    }

    /// Tells of instances that cannot run on this Node at all: beside what runs in their place, or as failed.
    fn refuse(&self, refused: Vec<(Instance, ErrorInfo)>) {
        self.change(|entries| {
            let mut told = BTreeMap::new();
            for (instance, mut error) in refused {
                match entries.get_mut(&instance.ident) {
                    Some(entry) => {
                        if entry.pid.is_some() || entry.retry.is_some() {
                            let version = &entry.instance.version;
                            error.message = format!(
                                "{} (version {version} runs on in its place)",
                                error.message
                            );
                        }
                        entry.instead = Some((instance, error));
                    }
                    None => {
                        let mut entry = Entry::new(instance.clone(), None);
                        entry.instead = Some((instance.clone(), error));
                        told.insert(instance.ident, entry.report());
                    }
                }
            }
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = told;
        });
    }

    /// What of a list can be carried out at all, with what stays because its element could not be read; why the rest cannot;
    /// and that rest, as far as it can be read.
    fn sort(&self, desired: &Desired, found: &[Found]) -> Sorted {
        let mut refused = Vec::new();
        let mut impossible = desired.unreadable.clone();
        let mut wanted = Vec::new();
        for instance in &desired.instances {
            let why = if instance.ident.item_type != ItemType::Service {
                Some("this Node has no runtime for components")
            } else if !self.setup.runtimes.knows(&instance.runtime) {
                Some("this Node has no such runtime")
            } else {
                None
            };
            match why {
                None => wanted.push(instance.clone()),
                Some(why) => {
                    let why = format!("{why}: it is ordered to run in `{}`", instance.runtime);
                    let error = ErrorInfo::new(AosCode::NotSupported, why);
                    refused.push((instance.clone(), error.clone()));
                    impossible.insert(instance.ident.clone(), error);
                }
            }
        }
        let named: BTreeSet<&InstanceIdent> = desired.instances.iter().map(|i| &i.ident).collect();
        for known in found {
            let ident = &known.instance.ident;
            let unreadable = impossible.contains_key(ident);
            let spared = desired.keep_others && !named.contains(ident);
            if unreadable || spared {
                wanted.push(known.instance.clone());
            }
        }
        (wanted, impossible, refused)
    }

    /// New instances are told as activating; impossible ones as failed.
    fn announce(&self, plan: &Plan, impossible: &BTreeMap<InstanceIdent, ErrorInfo>) {
        for (ident, error) in impossible {
            tracing::warn!(%ident, %error, "an instance of the list cannot be run");
        }
        self.change(|entries| {
            for Start { instance, .. } in &plan.start {
                entries
                    .entry(instance.ident.clone())
                    .and_modify(|entry| {
                        if entry.pid.is_none() && entry.retry.is_none() {
                            entry.state = InstanceState::Activating;
                            entry.error = None;
                            entry.unrecoverable = false;
                            entry.instead = None;
                        }
                    })
                    .or_insert_with(|| Entry::new(instance.clone(), None));
            }
        });
    }

    async fn install_all(
        &self,
        plan: &Plan,
        superseded: &CancellationToken,
    ) -> (BTreeMap<Digest, Installed>, BTreeMap<Digest, ErrorInfo>) {
        let work: Vec<_> = plan
            .install
            .iter()
            .map(|install| async move {
                let manifest = install.manifest;
                let result = self.setup.images.install(manifest, superseded).await;
                (manifest, result)
            })
            .collect();
        let results: Vec<_> = stream::iter(work)
            .buffer_unordered(self.parallel())
            .collect()
            .await;
        let mut installed = BTreeMap::new();
        let mut failed = BTreeMap::new();
        for (manifest, result) in results {
            match result {
                Ok(image) => {
                    installed.insert(manifest, image);
                }
                Err(error) => {
                    tracing::warn!(%manifest, %error, "an image cannot be installed");
                    failed.insert(manifest, error);
                }
            }
        }
        (installed, failed)
    }

    /// Addresses for all that is started; gives those that got none.
    async fn addresses(
        &self,
        start: &[Start],
        installed: &BTreeMap<Digest, Installed>,
        superseded: &CancellationToken,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
        let work: Vec<_> = start
            .iter()
            .filter(|start| self.setup.runtimes.has_networks(&start.instance.runtime))
            .filter_map(|start| {
                let installed = installed.get(&start.instance.manifest)?;
                Some((&start.instance, &*installed.image))
            })
            .collect();
        // Nothing was exchanged yet, and addresses that were given are given again.
        tokio::select! {
            failed = self.setup.networks.allocate(&work, self.parallel()) => failed,
            () = superseded.cancelled() => BTreeMap::new(),
        }
    }

    /// Exchanges instances: stored first, then stop, start. The caller holds the lock of exchanges.
    async fn switch(
        self: &Arc<Self>,
        wanted: &BTreeMap<InstanceIdent, Instance>,
        stop: Vec<Stop>,
        mut start: Vec<Start>,
        mut held: BTreeMap<InstanceIdent, ErrorInfo>,
        installed: &BTreeMap<Digest, Installed>,
    ) {
        let mut gone: Vec<InstanceIdent> = stop
            .iter()
            .filter(|stop| stop.reason == StopReason::NotWanted)
            .map(|stop| stop.ident.clone())
            .collect();
        if let Err(error) = self.store(&gone, &start).await {
            // Nothing was exchanged: what ran runs on, and the list is told as failed.
            let error = ErrorInfo::from_error(AosCode::Failed, &error);
            tracing::error!(%error, "the list of instances cannot be stored");
            held.extend(
                start
                    .drain(..)
                    .map(|start| (start.instance.ident, error.clone())),
            );
            self.hold(wanted, held);
            return;
        }
        for (ident, error) in self.end_all(&stop).await {
            tracing::error!(%ident, %error, "an instance cannot be stopped");
            held.insert(ident, error);
        }
        // Who takes longer is dealt with when it is gone.
        let leaving = self.leaving();
        let over = start.iter().filter(|start| start.replaces);
        let over = over.map(|start| &start.instance.ident);
        let over = over.filter(|ident| !held.contains_key(*ident) && !leaving.contains(*ident));
        self.forget_replaced(over).await;
        start.retain(|start| !held.contains_key(&start.instance.ident));
        gone.retain(|ident| !held.contains_key(ident) && !leaving.contains(ident));
        self.part_with_states(&gone).await;
        self.change(|entries| {
            for ident in held.keys() {
                if let Some(entry) = entries.get_mut(ident) {
                    entry.leaving &= leaving.contains(ident);
                }
            }
            for ident in &gone {
                entries.remove(ident);
            }
            for Start { instance, .. } in &start {
                let item = installed
                    .get(&instance.manifest)
                    .and_then(|image| image.image.item_config.as_ref());
                let entry = Entry::due(instance.clone(), item);
                entries.insert(instance.ident.clone(), entry);
            }
        });
        self.hold(wanted, held);
        let present = self.networked();
        let mut homeless = self.setup.networks.apply(present).await;
        let mut due: BTreeSet<InstanceIdent> = start
            .into_iter()
            .map(|start| start.instance.ident)
            .collect();
        self.start_due(&mut due, &mut homeless, |instance| {
            installed.get(&instance.manifest).cloned().ok_or_else(|| {
                let why = "its image was not installed";
                Failed::hopeless(ErrorInfo::new(AosCode::NotFound, why))
            })
        })
        .await;
        self.let_go(gone).await;
    }

    /// Starts those of `due` that may start, and what may start then, in order and several at a time. What waits for more
    /// than a start stays, and is told why.
    pub(super) async fn start_due(
        self: &Arc<Self>,
        due: &mut BTreeSet<InstanceIdent>,
        homeless: &mut BTreeMap<InstanceIdent, ErrorInfo>,
        image: impl Fn(&Instance) -> Result<Installed, Failed>,
    ) {
        loop {
            let ready = self.ready();
            let ready: Vec<Instance> = ready
                .into_iter()
                .filter(|instance| due.remove(&instance.ident))
                .collect();
            if ready.is_empty() {
                return;
            }
            let work: Vec<_> = ready
                .into_iter()
                .map(|instance| {
                    let refused = homeless.remove(&instance.ident);
                    let image = image(&instance);
                    async move {
                        let result = match (refused, image) {
                            (Some(error), _) => Err(error.into()),
                            (None, Ok(image)) => self.start_one(&instance, &image).await,
                            (None, Err(failed)) => Err(failed),
                        };
                        self.started(&instance.ident, result).await;
                    }
                })
                .collect();
            stream::iter(work)
                .buffered(self.parallel())
                .collect::<Vec<()>>()
                .await;
        }
    }

    /// The instances that have a place in the network.
    pub(super) fn networked(&self) -> BTreeSet<InstanceIdent> {
        let runtimes = &self.setup.runtimes;
        let entries = self.entries();
        let instances = entries.values().map(|entry| &entry.instance);
        instances
            .filter(|instance| runtimes.has_networks(&instance.runtime))
            .map(|instance| instance.ident.clone())
            .collect()
    }

    /// The set that shall run, as it is after this exchange.
    async fn store(&self, gone: &[InstanceIdent], start: &[Start]) -> Result<(), aos_store::Error> {
        let begun = start.iter().map(|start| &start.instance.ident);
        self.setup.kept.begin_anew(gone.iter().chain(begun)).await?;
        // Before the list: of one without the other nothing follows.
        let replacing = start.iter().filter(|start| start.replaces).map(|start| {
            (
                Kept::key(&start.instance.ident),
                Some(start.instance.clone()),
            )
        });
        self.setup
            .kept
            .replacing
            .apply(replacing.collect::<Vec<_>>())
            .await?;
        let removed = gone.iter().map(|ident| (Kept::key(ident), None));
        let put = start.iter().map(|start| {
            (
                Kept::key(&start.instance.ident),
                Some(start.instance.clone()),
            )
        });
        let changes: Vec<_> = removed.chain(put).collect();
        self.setup.kept.instances.apply(changes).await
    }

    /// Notes what could not be had: beside what runs in its place, or as failed.
    fn hold(
        &self,
        wanted: &BTreeMap<InstanceIdent, Instance>,
        held: BTreeMap<InstanceIdent, ErrorInfo>,
    ) {
        self.change(|entries| {
            for entry in entries.values_mut() {
                if !held.contains_key(&entry.instance.ident) {
                    entry.instead = None;
                }
            }
            for (ident, mut error) in held {
                let Some(instance) = wanted.get(&ident) else {
                    continue;
                };
                let Some(entry) = entries.get_mut(&ident) else {
                    continue;
                };
                if (entry.pid.is_some() || entry.retry.is_some()) && !entry.leaving {
                    error.message = format!(
                        "{} (version {} runs on in its place)",
                        error.message, entry.instance.version
                    );
                    entry.instead = Some((instance.clone(), error));
                } else {
                    entry.instance = instance.clone();
                    entry.held = None;
                    entry.finished = None;
                    entry.leaving = false;
                    entry.pid = None;
                    entry.state = InstanceState::Failed;
                    entry.error = Some(error);
                    // Only another list brings another attempt.
                    entry.unrecoverable = true;
                }
            }
        });
    }

    /// Tells those who kept something for instances that are gone. Within the launch, so that an instance which comes
    /// back in the next list asks after it was let go.
    pub(super) async fn let_go(&self, gone: Vec<InstanceIdent>) {
        if gone.is_empty() {
            return;
        }
        for ident in &gone {
            self.setup.permissions.take_back(ident).await;
        }
        let told = self.setup.networks.release(&gone);
        if tokio::time::timeout(LET_GO, told).await.is_err() {
            tracing::info!(
                "not everybody was told of removed instances; CM learns it at the next connection"
            );
        }
    }
}
