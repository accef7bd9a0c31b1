use std::{sync::Arc, time::Duration};

use aos_launch::Instance;
use aos_runtime::{InstanceId, Runtime, Started};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState, ItemConfig};

use super::{Launcher, entry::Entry};
use crate::{
    container::{self, Surroundings},
    images::Installed,
};

/// Why an instance does not run.
#[derive(Debug)]
pub(super) struct Failed {
    error: ErrorInfo,
    /// Another attempt with the same image cannot help.
    hopeless: bool,
}

impl Failed {
    pub(super) const fn hopeless(error: ErrorInfo) -> Self {
        Self {
            error,
            hopeless: true,
        }
    }
}

impl From<ErrorInfo> for Failed {
    fn from(error: ErrorInfo) -> Self {
        Self {
            error,
            hopeless: false,
        }
    }
}

impl Launcher {
    /// Starts one instance whose image is here and whose place in the network is made.
    pub(super) async fn start_one(
        &self,
        instance: &Instance,
        installed: &Installed,
    ) -> Result<Started, Failed> {
        let failed = |why: String| ErrorInfo::new(AosCode::Failed, why);
        let place = match self.setup.runtimes.has_networks(&instance.runtime) {
            true => Some(self.setup.networks.place(&instance.ident).await?),
            false => None,
        };
        let item = installed.image.item_config.as_ref();
        if place.is_none() {
            let asked = item.map(ItemConfig::own_network).unwrap_or_default();
            if !asked.is_empty() {
                return Err(Failed::hopeless(no_network(&asked)));
            }
        }
        let (places, of) = (self.setup.places.clone(), instance.clone());
        let quotas = item.map(|item| item.quotas).unwrap_or_default();
        let (storage, state) = tokio::task::spawn_blocking(move || places.prepare(&of, &quotas))
            .await
            .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?
            .map_err(failed)?;
        let secret = match &installed.image.item_config {
            Some(item) => {
                self.setup
                    .permissions
                    .register(&instance.ident, item)
                    .await?
            }
            None => None,
        };
        let spec = container::spec(
            instance,
            &installed.image,
            Surroundings {
                node: &self.setup.node,
                resources: &self.setup.resources,
                host_base: &self.setup.host_base,
                place: place.as_ref(),
                layers: installed.layers.clone(),
                storage,
                state,
                secret,
            },
        )
        .map_err(|why| Failed::hopeless(failed(why)))?;
        let runtime = self.setup.runtimes.get(&instance.runtime);
        runtime
            .map_err(Failed::hopeless)?
            .start(&spec)
            .await
            .map_err(|error| Failed {
                hopeless: error.is_final(),
                error: ErrorInfo::from_error(AosCode::Runtime, &error),
            })
    }

    /// Notes how a start came out, and plans another one if it failed.
    pub(super) async fn started(
        self: &Arc<Self>,
        ident: &InstanceIdent,
        result: Result<Started, Failed>,
    ) {
        let now = SystemClock.now();
        match result {
            Ok(started) => {
                let early = self.change(|entries| {
                    if let Some(entry) = entries.get_mut(ident) {
                        entry.held = None;
                        entry.pid = Some(started.pid);
                        if let Some((pid, end, error)) = entry.early.take()
                            && pid == started.pid
                        {
                            let code = end.code;
                            entry.last_end = Some(end);
                            return Some((code, error));
                        }
                        entry.retry = None;
                        // With a health check it is what it was until that succeeds.
                        if entry.health_check.is_none() {
                            entry.unrecoverable = false;
                            entry.state = InstanceState::Active;
                            entry.error = None;
                            entry.restarts.healthy(now);
                        }
                    }
                    None
                });
                if let Some((code, error)) = early {
                    self.over(ident, started.pid, code, error).await;
                    return;
                }
                self.probe(ident, started.pid, false);
                self.moved.notify_one();
            }
            Err(failed) => {
                tracing::warn!(%ident, error = %failed.error, "an instance cannot be started");
                self.down(ident, failed);
            }
        }
    }

    /// An instance is not running although it should: it is started again after a pause. Until its starts are used up it
    /// is told as activating, because it may still come up; then, or if it cannot start at all, as failed.
    pub(super) fn down(self: &Arc<Self>, ident: &InstanceIdent, failed: Failed) {
        let now = SystemClock.now();
        let planned = self.change(|entries| {
            let entry: &mut Entry = entries.get_mut(ident)?;
            entry.give_up_retry();
            entry.stopped();
            entry.held = None;
            let next = entry.restarts.ended(now, failed.hopeless);
            entry.state = if next.exhausted {
                InstanceState::Failed
            } else {
                InstanceState::Activating
            };
            entry.unrecoverable = next.exhausted;
            entry.error = Some(failed.error);
            let pause = next.pause;
            let token = self.stop.child_token();
            entry.retry = Some(token.clone());
            Some((pause, token))
        });
        if let Some((pause, token)) = planned {
            let (launcher, ident) = (self.clone(), ident.clone());
            self.tasks
                .spawn(async move { launcher.start_again(ident, pause, token).await });
        }
    }

    pub(super) async fn start_again(
        self: Arc<Self>,
        ident: InstanceIdent,
        pause: Duration,
        token: tokio_util::sync::CancellationToken,
    ) {
        let due = tokio::time::Instant::now() + pause;
        // The pause is used. Not dropped half-way: another start or stop would meet it at work.
        if let Ok(runtime) = self.runtime_of(&ident)
            && let Err(error) = runtime.clear(InstanceId::of(&ident)).await
        {
            tracing::warn!(%ident, %error, "what an ended instance left stays until its next start");
        }
        // Nothing has happened yet when the wait is dropped.
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = token.cancelled() => return,
        }
        let manifest = self.entries().get(&ident).map(|e| e.instance.manifest);
        let Some(manifest) = manifest else {
            return;
        };
        // Usually it is here; a damaged one is fetched again, which may take long and must hold up no launch.
        let installed = tokio::select! {
            installed = self.setup.images.install(manifest, &token) => installed,
            () = token.cancelled() => return,
        };
        let (_own, _turn) = tokio::select! {
            turns = async { (self.turn(&ident).await, self.switching.read().await) } => turns,
            () = token.cancelled() => return,
        };
        // From here on no launch exchanges instances, and only a launch takes a planned start back.
        let leaving = self.leaving();
        let instance = self.change(|entries| {
            let entry = entries.get_mut(&ident)?;
            if leaving.contains(&ident) {
                // Its predecessor has not ended.
                entry.retry = None;
                entry.held.get_or_insert_with(tokio::time::Instant::now);
                return None;
            }
            let planned = !token.is_cancelled()
                && entry.retry.is_some()
                && entry.instance.manifest == manifest;
            planned.then(|| entry.instance.clone())
        });
        let Some(instance) = instance else {
            return;
        };
        let result = async {
            let installed = installed.map_err(Failed::hopeless)?;
            if let Some(item) = &installed.image.item_config {
                self.change(|entries| {
                    if let Some(entry) = entries.get_mut(&ident) {
                        entry.heed(item);
                    }
                });
            }
            if self.setup.runtimes.has_networks(&instance.runtime) {
                self.setup
                    .networks
                    .mend(&instance, &installed.image)
                    .await?;
            }
            self.start_one(&instance, &installed).await
        }
        .await;
        self.started(&ident, result).await;
    }

    /// Does something about an instance that must not run meanwhile, if it is `needed` when its turn has come. If it ran it
    /// is started again afterwards.
    pub(crate) async fn while_stopped<Work: Future<Output = Result<(), ErrorInfo>>>(
        self: &Arc<Self>,
        ident: &InstanceIdent,
        needed: impl FnOnce() -> bool,
        work: impl FnOnce() -> Work,
    ) -> Result<(), ErrorInfo> {
        let _own = self.turn(ident).await;
        if !needed() {
            return Ok(());
        }
        let ran = {
            // Whoever is starting instances has done so.
            let _turn = self.switching.read().await;
            self.entries().get(ident).and_then(|entry| entry.pid)
        };
        if ran.is_some() {
            // It may take its time; nobody else waits for it.
            self.stop_one(ident).await?;
        }
        let _turn = self.switching.read().await;
        // A list may want another one in its place by now.
        let same = ran.is_some()
            && self.change(|entries| {
                let entry = entries.get_mut(ident).filter(|entry| entry.pid == ran);
                let entry = entry.filter(|entry| !entry.leaving);
                if let Some(entry) = entry {
                    entry.stopped();
                    entry.state = InstanceState::Activating;
                    return true;
                }
                false
            });
        let result = work().await;
        if same {
            self.again(ident);
        }
        result
    }

    /// Plans the start of an instance that was stopped for a moment.
    fn again(self: &Arc<Self>, ident: &InstanceIdent) {
        let planned = self.change(|entries| {
            let entry: &mut Entry = entries.get_mut(ident)?;
            entry.give_up_retry();
            let token = self.stop.child_token();
            entry.retry = Some(token.clone());
            Some(token)
        });
        if let Some(token) = planned {
            let (launcher, ident) = (self.clone(), ident.clone());
            self.tasks
                .spawn(async move { launcher.start_again(ident, Duration::ZERO, token).await });
        }
    }

    /// Ends an instance and takes it away.
    pub(super) async fn stop_one(&self, ident: &InstanceIdent) -> Result<(), ErrorInfo> {
        let manifest = self.entries().get(ident).map(|e| e.instance.manifest);
        let image = match manifest {
            Some(manifest) => self.setup.images.get(manifest).await,
            None => None,
        };
        // An image that is damaged by now has no wishes.
        let policy = image.map_or(self.setup.stop_policy, |installed| {
            container::stop_policy(&installed.image, self.setup.stop_policy)
        });
        self.runtime_of(ident)?
            .stop(InstanceId::of(ident), policy)
            .await
            .map_err(|error| ErrorInfo::from_error(AosCode::Runtime, &error))
    }

    /// Where an instance runs, or shall run.
    pub(super) fn runtime_of(&self, ident: &InstanceIdent) -> Result<&dyn Runtime, ErrorInfo> {
        let runtime = self
            .entries()
            .get(ident)
            .map(|entry| entry.instance.runtime.clone());
        let gone = || ErrorInfo::new(AosCode::NotFound, "the instance is not on this Node");
        self.setup.runtimes.get(&runtime.ok_or_else(gone)?)
    }
}

fn no_network(asked: &[&str]) -> ErrorInfo {
    let fields = asked.join("`, `");
    ErrorInfo::new(
        AosCode::InvalidArgument,
        format!(
            "its runtime gives it the network and the names of the Node, and it asks for its own with `{fields}`: run it in \
             a container, or remove that from its configuration"
        ),
    )
}
