use std::{sync::Arc, time::Duration};

use aos_types::{AosCode, ErrorInfo, NodeState, RuntimeInfo};
use aos_update::{DesiredNode, Effect, EffectId, Failures, Input, Target};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::{DownloadRequest, Iam, Images},
    gates::UnitReadiness,
    node_states,
    placing::Placing,
    unit_config::UnitConfigs,
    world::World,
};

/// Carries out effects of the update engine.
pub(crate) struct Doer {
    pub(crate) images: Arc<dyn Images>,
    pub(crate) iam: Arc<dyn Iam>,
    pub(crate) world: Arc<World>,
    pub(crate) placing: Arc<Placing>,
    pub(crate) configs: Arc<UnitConfigs>,
    pub(crate) readiness: Arc<UnitReadiness>,
    /// Held by what changes something on the Nodes. What the engine no longer waits for may still be at work; what comes
    /// next must not be overtaken by it.
    pub(crate) turn: Mutex<()>,
    /// How long missing Nodes are waited for.
    pub(crate) nodes_wait: Duration,
}

pub(crate) fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Download { .. } => "download",
        Effect::ApplyNodeStates { .. } => "apply node states",
        Effect::ApplyUnitConfig { .. } => "apply unit configuration",
        Effect::InstallOnNodes { .. } => "install on nodes",
        Effect::Launch { .. } => "launch",
        Effect::Commit { .. } => "commit",
        Effect::AskReadiness => "ask readiness",
        Effect::Cancel { .. } => "cancel",
    }
}

impl Doer {
    /// Does it and sends the result, progress first.
    pub(crate) async fn carry_out(
        &self,
        effect: EffectId,
        what: Effect,
        cancel: CancellationToken,
        results: mpsc::Sender<Input>,
    ) {
        let changes_nodes = !matches!(what, Effect::Download { .. } | Effect::AskReadiness);
        let _turn = match changes_nodes {
            true => Some(tokio::select! {
                turn = self.turn.lock() => turn,
                // Nothing was begun, and nobody waits for the answer.
                () = cancel.cancelled() => return,
            }),
            false => None,
        };
        let failures = match what {
            Effect::Download {
                items,
                certificates,
                certificate_chains,
            } => {
                let request = DownloadRequest {
                    items,
                    certificates,
                    certificate_chains,
                    runtimes: self.runtimes().await,
                };
                let failures = self.download(effect, request, cancel, &results).await;
                // The engine's task has ended: CM is stopping.
                let _ = results.send(Input::Downloaded { effect, failures }).await;
                return;
            }
            Effect::ApplyNodeStates { nodes } => self.apply_node_states(&nodes).await,
            Effect::ApplyUnitConfig { config, restore } => {
                let applied = match (config, restore) {
                    (Some(config), false) => self.configs.apply(config).await,
                    (config, _) => self.configs.restore(config).await,
                };
                stored(applied)
            }
            Effect::InstallOnNodes { target } => self.placing.install(&target, &cancel).await,
            Effect::Launch { target } => stored(self.placing.launch(&target, &cancel).await),
            Effect::Commit { target } => self.commit(&target).await,
            Effect::AskReadiness => {
                // Dropping the question ends the command that answers it.
                let readiness = tokio::select! {
                    readiness = self.readiness.ask() => readiness,
                    () = cancel.cancelled() => return,
                };
                let _ = results.send(Input::Readiness { effect, readiness }).await;
                return;
            }
            Effect::Cancel { .. } => return,
        };
        let _ = results.send(Input::Done { effect, failures }).await;
    }

    /// What the Unit's Nodes can run, as far as it is known: only that is fetched. A Node that has not been seen yet could
    /// run anything, so then everything is.
    async fn runtimes(&self) -> Vec<RuntimeInfo> {
        self.world.settled(self.nodes_wait).await;
        let world = self.world.nodes();
        let unknown = world
            .values()
            .any(|node| node.info.state == NodeState::Provisioned && node.runtimes.is_empty());
        if unknown {
            return Vec::new();
        }
        let runtimes = world.into_values().flat_map(|node| node.runtimes);
        runtimes.collect()
    }

    async fn download(
        &self,
        effect: EffectId,
        request: DownloadRequest,
        cancel: CancellationToken,
        results: &mpsc::Sender<Input>,
    ) -> Failures {
        let (progress, mut ended) = mpsc::channel(64);
        let download = self.images.download(request, progress, cancel);
        let tell = async {
            while let Some((item, result)) = ended.recv().await {
                let input = Input::ItemDownloaded {
                    effect,
                    item,
                    error: result.err(),
                };
                let _ = results.send(input).await;
            }
        };
        let (items, ()) = tokio::join!(download, tell);
        Failures {
            items,
            ..Failures::default()
        }
    }

    /// Only Nodes that are in another state are touched. Those that are away or not known are left to
    /// [`NodeStates`](node_states::NodeStates): they follow when they are back.
    async fn apply_node_states(&self, nodes: &[DesiredNode]) -> Failures {
        let mut failures = Failures::default();
        let world = self.world.nodes();
        for wanted in nodes {
            let Some(known) = world.get(&wanted.node) else {
                continue;
            };
            let Some(paused) = node_states::change(wanted.state, known.info.state) else {
                continue;
            };
            match self.iam.set_paused(&wanted.node, paused).await {
                Ok(()) => {}
                // A Node that vanished while it was paused would block every later update: it is moved when it is back.
                Err(error) if known.sm.is_none() => {
                    tracing::warn!(node = %wanted.node, %error, "a node that is away cannot be paused or resumed");
                }
                Err(error) => {
                    failures.nodes.insert(wanted.node.clone(), error);
                }
            }
        }
        failures
    }

    async fn commit(&self, target: &Target) -> Failures {
        match self.images.commit(&target.items).await {
            Ok(()) => Failures::default(),
            Err(error) => Failures::of_step(error),
        }
    }
}

fn stored(result: Result<Failures, aos_store::Error>) -> Failures {
    result.unwrap_or_else(|error| Failures::of_step(ErrorInfo::from_error(AosCode::Failed, &error)))
}
