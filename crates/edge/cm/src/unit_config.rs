//! The unit configuration in force: kept here, checked and applied on the Nodes, and given to those that connect later.

use std::{collections::BTreeMap, future, sync::Arc, time::Duration};

use aos_store::Records;
use aos_types::{ErrorInfo, NodeConfig, NodeId, UnitConfig, UnitConfigState};
use aos_update::Failures;
use futures::future::join_all;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::Nodes,
    world::{KnownNode, World},
};

/// What a Node that does not do as it shall is told again after, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Nodes that are not as they shall be, each with the reason.
pub(crate) type Troubles = Arc<BTreeMap<NodeId, ErrorInfo>>;

/// The part of each Node that it was given last; `None` while it may or may not have taken it.
type Given = BTreeMap<NodeId, Option<NodeConfig>>;

/// Where the configurations are stored.
pub(crate) struct ConfigRecords {
    pub(crate) current: Records<UnitConfig>,
    pub(crate) given: Records<Option<NodeConfig>>,
}

/// The unit configuration in force.
pub(crate) struct UnitConfigs {
    nodes: Arc<dyn Nodes>,
    world: Arc<World>,
    records: ConfigRecords,
    current: watch::Sender<Option<Arc<UnitConfig>>>,
    /// Held while Nodes are given something: whoever comes second finds them as they are.
    given: Mutex<Given>,
    troubles: watch::Sender<Troubles>,
}

const KEY: &str = "current";

impl UnitConfigs {
    pub(crate) async fn open(
        nodes: Arc<dyn Nodes>,
        world: Arc<World>,
        records: ConfigRecords,
    ) -> Result<Self, aos_store::Error> {
        let current = records.current.get(KEY).await?.map(Arc::new);
        let given = records.given.all().await?.into_iter();
        let given = given.filter_map(|(id, part)| Some((NodeId::new(id).ok()?, part)));
        Ok(Self {
            nodes,
            world,
            given: Mutex::new(given.collect()),
            records,
            current: watch::channel(current).0,
            troubles: watch::channel(Arc::default()).0,
        })
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> Option<Arc<UnitConfig>> {
        self.current.borrow().clone()
    }

    /// Tells when another one comes into force.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Arc<UnitConfig>>> {
        self.current.subscribe()
    }

    /// Connected Nodes that did not take their part.
    pub(crate) fn troubles(&self) -> watch::Receiver<Troubles> {
        self.troubles.subscribe()
    }

    /// Checks a configuration with the connected Nodes, then puts it in force. The one in force already is not checked.
    pub(crate) async fn apply(&self, config: UnitConfig) -> Result<Failures, aos_store::Error> {
        if self.current().as_deref() == Some(&config) {
            return Ok(Failures {
                nodes: self.bring_to_nodes().await?,
                ..Failures::default()
            });
        }
        let checks = self.connected().into_iter().map(|(id, node)| {
            let part = config.for_node(&id, &node.info.node_type);
            async move {
                let checked = self.nodes.check_config(&id, &part).await;
                (id, checked)
            }
        });
        for (id, checked) in join_all(checks).await {
            if let Err(error) = checked {
                return Ok(refused(ErrorInfo {
                    message: format!("node `{id}` refuses it: {error}"),
                    ..error
                }));
            }
        }
        self.records.current.put(KEY, &config).await?;
        let nodes = self.bring_into_force(Some(Arc::new(config))).await?;
        let unit_config = nodes.iter().next().map(|(id, error)| ErrorInfo {
            message: format!("node `{id}` could not apply it: {error}"),
            ..error.clone()
        });
        Ok(Failures {
            nodes,
            unit_config,
            ..Failures::default()
        })
    }

    /// Puts an older configuration back, or none: no rule, no check. Nodes that have it already are not given it again.
    pub(crate) async fn restore(
        &self,
        config: Option<UnitConfig>,
    ) -> Result<Failures, aos_store::Error> {
        if self.current().as_deref() != config.as_ref() {
            match &config {
                Some(config) => self.records.current.put(KEY, config).await?,
                None => self.records.current.remove(KEY).await?,
            }
        }
        Ok(Failures {
            nodes: self.bring_into_force(config.map(Arc::new)).await?,
            ..Failures::default()
        })
    }

    /// Gives Nodes their part when they connect, until `stop`. One that does not take it is asked again after a pause.
    pub(crate) async fn follow(&self, stop: CancellationToken) -> Result<(), aos_store::Error> {
        let mut changes = self.world.changes();
        let mut connections = BTreeMap::new();
        let (mut pause, mut again) = (RETRY.0, None);
        loop {
            changes.borrow_and_update();
            let now: BTreeMap<NodeId, u64> = self
                .connected()
                .into_iter()
                .filter_map(|(id, node)| Some((id, node.sm?.connection)))
                .collect();
            let fresh = now != connections;
            if fresh || again.is_some_and(|at| at <= Instant::now()) {
                connections = now;
                let failed = tokio::select! {
                    failed = self.bring_to_nodes() => failed?,
                    () = stop.cancelled() => return Ok(()),
                };
                pause = match fresh {
                    true => RETRY.0,
                    false => (pause * 2).min(RETRY.1),
                };
                again = (!failed.is_empty()).then(|| Instant::now() + pause);
            }
            // Every arm waits for a state; nothing is lost when one is dropped.
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = until(again) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    fn connected(&self) -> BTreeMap<NodeId, KnownNode> {
        let mut nodes = self.world.nodes();
        nodes.retain(|_, node| node.sm.is_some());
        nodes
    }

    /// Gives the Nodes their parts of a configuration that is stored already. Only when all were asked it is the one in
    /// force: until then nobody is told that it is installed.
    async fn bring_into_force(
        &self,
        config: Option<Arc<UnitConfig>>,
    ) -> Result<BTreeMap<NodeId, ErrorInfo>, aos_store::Error> {
        let mut given = self.given.lock().await;
        let stored = InForce(&self.current, config.clone());
        let failed = self.give_out(&mut given, config.as_deref()).await;
        drop(stored);
        failed
    }

    /// Gives every connected Node that has another one its part of the one in force. Gives those that did not take it.
    async fn bring_to_nodes(&self) -> Result<BTreeMap<NodeId, ErrorInfo>, aos_store::Error> {
        let mut given = self.given.lock().await;
        let config = self.current();
        self.give_out(&mut given, config.as_deref()).await
    }

    async fn give_out(
        &self,
        given: &mut BTreeMap<NodeId, Option<NodeConfig>>,
        config: Option<&UnitConfig>,
    ) -> Result<BTreeMap<NodeId, ErrorInfo>, aos_store::Error> {
        let asked = self.connected().into_iter().filter_map(|(id, node)| {
            let before = given.get(&id).cloned();
            let part = match config {
                Some(config) => config.for_node(&id, &node.info.node_type),
                // Without one, only what a Node was given is taken back: an empty part, of no version.
                None => {
                    before.as_ref()?;
                    UnitConfig::default().for_node(&id, &node.info.node_type)
                }
            };
            Some((id, part, before))
        });
        let asked: Vec<_> = asked.collect();
        let told = join_all(asked.iter().map(|(id, part, before)| async {
            match self.has(id, part, before.as_ref()).await {
                true => Ok(None),
                false => self.set(id, part).await.map(Some),
            }
        }))
        .await;
        let mut failed = BTreeMap::new();
        for ((id, part, before), told) in asked.into_iter().zip(told) {
            let told = told?;
            if let Some(Err(error)) = told {
                tracing::warn!(node = %id, %error, "a node did not take its configuration");
                failed.insert(id.clone(), error);
                given.insert(id, None);
            } else if config.is_none() {
                self.records.given.remove(id.as_str()).await?;
                given.remove(&id);
            } else if before.flatten().as_ref() != Some(&part) {
                let part = Some(part);
                self.records.given.put(id.as_str(), &part).await?;
                given.insert(id, part);
            }
        }
        self.troubles.send_if_modified(|current| {
            let differs = **current != failed;
            if differs {
                *current = Arc::new(failed.clone());
            }
            differs
        });
        Ok(failed)
    }

    /// Whether the Node has this part. It tells its version only: of the same one it may have been given another.
    async fn has(
        &self,
        id: &NodeId,
        part: &NodeConfig,
        given: Option<&Option<NodeConfig>>,
    ) -> bool {
        if given.is_some_and(|given| given.as_ref() != Some(part)) {
            return false;
        }
        let status = self.nodes.config_status(id).await;
        status.is_ok_and(|(state, version, error)| {
            state == UnitConfigState::Installed && Some(version) == part.version && error.is_none()
        })
    }

    /// Until the Node has answered nobody knows what it has, also after a restart.
    async fn set(
        &self,
        id: &NodeId,
        part: &NodeConfig,
    ) -> Result<Result<(), ErrorInfo>, aos_store::Error> {
        self.records.given.put(id.as_str(), &None).await?;
        Ok(self.nodes.set_config(id, part).await)
    }
}

/// What is stored is in force when this goes, also when whoever gives it out is stopped on the way.
struct InForce<'a>(
    &'a watch::Sender<Option<Arc<UnitConfig>>>,
    Option<Arc<UnitConfig>>,
);

impl Drop for InForce<'_> {
    fn drop(&mut self) {
        let config = self.1.take();
        self.0.send_if_modified(|current| {
            let differs = *current != config;
            *current = config;
            differs
        });
    }
}

fn refused(error: ErrorInfo) -> Failures {
    Failures {
        unit_config: Some(error),
        ..Failures::default()
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
