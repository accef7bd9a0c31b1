use std::{collections::BTreeMap, sync::Arc};

use aos_store::Records;
use aos_types::{ErrorInfo, NodeId, UnitConfig, UnitConfigState};
use aos_update::Failures;
use tokio::sync::watch;

use crate::{contract::Nodes, world::World};

/// The unit configuration in force: kept here, checked and applied on the Nodes.
pub(crate) struct UnitConfigs {
    nodes: Arc<dyn Nodes>,
    world: Arc<World>,
    records: Records<UnitConfig>,
    current: watch::Sender<Option<Arc<UnitConfig>>>,
}

const KEY: &str = "current";

impl UnitConfigs {
    pub(crate) async fn open(
        nodes: Arc<dyn Nodes>,
        world: Arc<World>,
        records: Records<UnitConfig>,
    ) -> Result<Self, aos_store::Error> {
        let current = records.get(KEY).await?.map(Arc::new);
        Ok(Self {
            nodes,
            world,
            records,
            current: watch::channel(current).0,
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

    /// Checks a configuration with the connected Nodes, then puts it in force. The one in force already succeeds at once.
    pub(crate) async fn apply(&self, config: UnitConfig) -> Result<Failures, aos_store::Error> {
        let current = self.current();
        if current.is_some_and(|current| current.version == config.version) {
            return Ok(Failures {
                nodes: self.bring_to_nodes().await,
                ..Failures::default()
            });
        }
        for (id, node) in self.world.nodes() {
            if node.sm.is_none() {
                continue;
            }
            let part = config.for_node(&id, &node.info.node_type);
            if let Err(error) = self.nodes.check_config(&id, &part).await {
                return Ok(refused(ErrorInfo {
                    message: format!("node `{id}` refuses it: {error}"),
                    ..error
                }));
            }
        }
        self.records.put(KEY, &config).await?;
        self.current.send_replace(Some(Arc::new(config)));
        let nodes = self.bring_to_nodes().await;
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

    /// Puts an older configuration back, or none: no rule, no check.
    pub(crate) async fn restore(
        &self,
        config: Option<UnitConfig>,
    ) -> Result<Failures, aos_store::Error> {
        if self.current().as_deref() == config.as_ref() {
            return Ok(Failures::default());
        }
        match &config {
            Some(config) => self.records.put(KEY, config).await?,
            None => self.records.remove(KEY).await?,
        }
        self.current.send_replace(config.map(Arc::new));
        Ok(Failures {
            nodes: self.bring_to_nodes().await,
            ..Failures::default()
        })
    }

    /// Gives every connected Node that has another version its part. Gives those that did not take it.
    pub(crate) async fn bring_to_nodes(&self) -> BTreeMap<NodeId, ErrorInfo> {
        let mut failed = BTreeMap::new();
        let Some(config) = self.current() else {
            return failed;
        };
        for (id, node) in self.world.nodes() {
            if node.sm.is_none() {
                continue;
            }
            let status = self.nodes.config_status(&id).await;
            let has = status.as_ref().is_ok_and(|(state, version, error)| {
                *state == UnitConfigState::Installed
                    && *version == config.version
                    && error.is_none()
            });
            if has {
                continue;
            }
            let part = config.for_node(&id, &node.info.node_type);
            if let Err(error) = self.nodes.set_config(&id, &part).await {
                tracing::warn!(node = %id, %error, "a node did not take its configuration");
                failed.insert(id, error);
            }
        }
        failed
    }
}

fn refused(error: ErrorInfo) -> Failures {
    Failures {
        unit_config: Some(error),
        ..Failures::default()
    }
}
