use std::{collections::BTreeMap, sync::Arc};

use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, NodeId, UnitConfig, UnitConfigState};
use aos_update::Failures;
use semver::Version;
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
        if let Some(current) = self.current() {
            if current.version == config.version {
                return Ok(Failures {
                    nodes: self.bring_to_nodes().await,
                    ..Failures::default()
                });
            }
            if let Err(error) = grows(&current.version, &config.version) {
                return Ok(refused(error));
            }
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

/// Versions only grow; what is no semantic version is compared as text and only has to differ.
fn grows(current: &str, new: &str) -> Result<(), ErrorInfo> {
    let (Ok(have), Ok(want)) = (Version::parse(current), Version::parse(new)) else {
        return Ok(());
    };
    if want > have {
        return Ok(());
    }
    Err(ErrorInfo::new(
        AosCode::WrongState,
        format!(
            "version {new} is not greater than {current}, which is in force: give the next configuration a greater version"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_grow() {
        assert!(grows("1.9.0", "1.10.0").is_ok());
        assert!(grows("1.10.0", "1.9.0").is_err());
        assert!(grows("1.0.0", "1.0.0").is_err());
        assert!(grows("one", "two").is_ok());
    }
}
