use std::collections::BTreeMap;

use aos_api::{ChangeAction, ChangeTopic, OnlineStatus, Severity, TimelineKind};
use aos_types::{
    ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemState, ItemType, NodeId, NodeInfo,
    NodeResource, NodeState, RuntimeId, RuntimeInfo, UnitConfigState,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Db, DbError, Happening, LinkWrite,
    columns::{Columns, big, to_json},
    error::Doing,
    store::Tx,
};

/// What a Unit says of itself. An absent list means: as before. With `delta` the lists hold only what changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnitStatusReport {
    /// Only changed parts.
    pub delta: bool,
    /// Unit configurations: the one in force, and a newer one that failed.
    pub unit_config: Option<Vec<UnitConfigReport>>,
    /// Nodes.
    pub nodes: Option<Vec<NodeReport>>,
    /// Items.
    pub items: Option<Vec<ItemReport>>,
    /// Instances.
    pub instances: Option<Vec<InstanceReport>>,
    /// Codenames of subjects that the Unit itself holds.
    pub subjects: Option<Vec<String>>,
    /// Parts of the message that could not be read. What they name stays as it was; people see them in the timeline.
    pub unreadable: Vec<String>,
}

/// A unit configuration as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConfigReport {
    /// Its version; may be empty.
    pub version: String,
    /// Its state.
    pub state: UnitConfigState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// A Node as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// What it is.
    pub info: NodeInfo,
    /// Its runtimes.
    pub runtimes: Vec<RuntimeInfo>,
    /// Its resources.
    pub resources: Vec<NodeResource>,
    /// Whether the main Node is linked to it.
    pub connected: bool,
}

/// A version of an item as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemReport {
    /// Which.
    pub item: ItemId,
    /// Service or component.
    pub item_type: ItemType,
    /// Version.
    pub version: String,
    /// Its state.
    pub state: ItemState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// An instance as a Unit reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which.
    pub ident: InstanceIdent,
    /// The version it runs.
    pub version: String,
    /// Where.
    pub node: NodeId,
    /// In which runtime; empty text is not valid, so unknown is `None`.
    pub runtime: Option<RuntimeId>,
    /// Its state.
    pub state: InstanceState,
    /// Checksum of its state.
    pub state_checksum: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// What a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusOutcome {
    /// Timeline events written.
    pub events: usize,
    /// Nodes, runtimes or the like changed, so the desired state may be another one now.
    pub recompose: bool,
}

impl Db {
    /// Takes over what a Unit reports, with the session's records, in one transaction; writes to the timeline what
    /// changed. A full status makes the Unit `Online`.
    pub async fn apply_status(
        &self,
        unit: Uuid,
        report: &UnitStatusReport,
        link: &LinkWrite,
    ) -> Result<StatusOutcome, DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let mut events = Vec::new();
        let mut recompose = false;
        let names = tx.service_names(tenant, report).await?;
        if let Some(configs) = &report.unit_config {
            tx.unit_config_status(unit, configs, &mut events).await?;
        }
        if let Some(nodes) = &report.nodes {
            recompose |= tx
                .node_status(unit, nodes, report.delta, &mut events)
                .await?;
        }
        if let Some(items) = &report.items {
            tx.item_status(unit, items, report.delta, &names, &mut events)
                .await?;
        }
        if let Some(instances) = &report.instances {
            tx.instance_status(unit, instances, report.delta, &names, &mut events)
                .await?;
        }
        if let Some(subjects) = &report.subjects {
            tx.subject_status(unit, subjects).await?;
        }
        for text in &report.unreadable {
            events.push(Happening::new(
                TimelineKind::Protocol,
                Severity::Warning,
                format!(
                    "a part of the Unit's status could not be read and was left as it was: {text}"
                ),
            ));
        }
        let now = tx.now.as_micros();
        sqlx::query("UPDATE units SET last_seen_at = $2, updated_at = $2 WHERE id = $1")
            .bind(unit.to_string())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("note that a Unit was heard")?;
        if !report.delta && tx.change_link(unit, OnlineStatus::Online, "").await? {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Link, unit);
        }
        tx.happened(unit, &events).await?;
        tx.summarise(unit).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        if recompose {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Desired, unit);
        }
        tx.commit().await?;
        Ok(StatusOutcome {
            events: events.len(),
            recompose,
        })
    }
}

type Names = BTreeMap<String, String>;

fn name<'a>(names: &'a Names, item: &'a str) -> &'a str {
    names.get(item).map_or(item, String::as_str)
}

fn because(error: Option<&ErrorInfo>) -> String {
    error.map_or_else(String::new, |error| format!(": {error}"))
}

impl Tx {
    /// Titles of the services a report names, for texts.
    async fn service_names(
        &mut self,
        tenant: Uuid,
        report: &UnitStatusReport,
    ) -> Result<Names, DbError> {
        let items = report.items.iter().flatten().map(|item| item.item.as_str());
        let instances = report
            .instances
            .iter()
            .flatten()
            .map(|instance| instance.ident.item.as_str());
        let mut wanted: Vec<String> = items.chain(instances).map(str::to_owned).collect();
        wanted.sort();
        wanted.dedup();
        let mut names = Names::new();
        for id in wanted {
            let row = sqlx::query(
                "SELECT title, codename FROM services WHERE id = $1 AND tenant_id = $2",
            )
            .bind(id.clone())
            .bind(tenant.to_string())
            .fetch_optional(self.on())
            .await
            .doing("look up a service")?;
            if let Some(row) = row {
                let title = row.text("title")?;
                let name = if title.is_empty() {
                    row.text("codename")?
                } else {
                    title
                };
                names.insert(id, name);
            }
        }
        Ok(names)
    }

    async fn unit_config_status(
        &mut self,
        unit: Uuid,
        configs: &[UnitConfigReport],
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        // Of the one in force and a newer one that failed, the failed one is what people must see.
        let shown = configs
            .iter()
            .find(|config| config.state == UnitConfigState::Failed)
            .or_else(|| configs.last());
        let Some(shown) = shown else { return Ok(()) };
        let error = shown
            .error
            .as_ref()
            .map(|error| to_json("error", error))
            .transpose()?;
        let before = sqlx::query(
            "SELECT config_version, config_state, config_error FROM units WHERE id = $1",
        )
        .bind(unit.to_string())
        .fetch_one(self.on())
        .await
        .doing("read a unit configuration's state")?;
        let same = before.text_or_null("config_version")?.as_deref() == Some(&shown.version)
            && before.text_or_null("config_state")?.as_deref() == Some(shown.state.as_str())
            && before.text_or_null("config_error")? == error;
        if same {
            return Ok(());
        }
        sqlx::query(
            "UPDATE units SET config_version = $2, config_state = $3, config_error = $4 WHERE id = $1",
        )
        .bind(unit.to_string())
        .bind(shown.version.clone())
        .bind(shown.state.as_str())
        .bind(error)
        .execute(self.on())
        .await
        .doing("store a unit configuration's state")?;
        if shown.state != UnitConfigState::Absent {
            let severity = if shown.state == UnitConfigState::Failed {
                Severity::Error
            } else {
                Severity::Info
            };
            events.push(Happening {
                version: Some(shown.version.clone()),
                ..Happening::new(
                    TimelineKind::UnitConfig,
                    severity,
                    format!(
                        "unit configuration {} is {}{}",
                        shown.version,
                        shown.state,
                        because(shown.error.as_ref())
                    ),
                )
            });
        }
        Ok(())
    }

    async fn node_status(
        &mut self,
        unit: Uuid,
        nodes: &[NodeReport],
        delta: bool,
        events: &mut Vec<Happening>,
    ) -> Result<bool, DbError> {
        let mut before = BTreeMap::new();
        for row in sqlx::query("SELECT node_id, document FROM unit_nodes WHERE unit_id = $1")
            .bind(unit.to_string())
            .fetch_all(self.on())
            .await
            .doing("read the Nodes of a Unit")?
        {
            before.insert(row.text("node_id")?, row.text("document")?);
        }
        let mut changed = false;
        for node in nodes {
            let id = node.info.id.to_string();
            let document = to_json("Node", node)?;
            let old = before.remove(&id);
            if old.as_deref() == Some(document.as_str()) {
                continue;
            }
            let old: Option<NodeReport> = old.and_then(|text| serde_json::from_str(&text).ok());
            sqlx::query(
                "INSERT INTO unit_nodes (unit_id, node_id, connected, document) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (unit_id, node_id) DO UPDATE SET connected = excluded.connected, document = excluded.document",
            )
            .bind(unit.to_string())
            .bind(id.clone())
            .bind(i64::from(node.connected))
            .bind(document)
            .execute(self.on())
            .await
            .doing("store a Node")?;
            changed = true;
            let text = match &old {
                None => Some((
                    Severity::Info,
                    format!("Node {id} ({}) joined", node.info.node_type),
                )),
                Some(old) if old.connected != node.connected => Some(if node.connected {
                    (Severity::Info, format!("Node {id} is linked"))
                } else {
                    (
                        Severity::Warning,
                        format!("Node {id} is not linked any more"),
                    )
                }),
                Some(old) if old.info.state != node.info.state => {
                    let severity = if node.info.state == NodeState::Error {
                        Severity::Error
                    } else {
                        Severity::Info
                    };
                    Some((
                        severity,
                        format!(
                            "Node {id} is {} (was {}){}",
                            node.info.state,
                            old.info.state,
                            because(node.info.error.as_ref())
                        ),
                    ))
                }
                Some(_) => None,
            };
            if let Some((severity, text)) = text {
                events.push(Happening {
                    node_id: Some(id),
                    ..Happening::new(TimelineKind::Node, severity, text)
                });
            }
        }
        if !delta {
            for gone in before.into_keys() {
                sqlx::query("DELETE FROM unit_nodes WHERE unit_id = $1 AND node_id = $2")
                    .bind(unit.to_string())
                    .bind(gone.clone())
                    .execute(self.on())
                    .await
                    .doing("drop a Node")?;
                changed = true;
                events.push(Happening {
                    node_id: Some(gone.clone()),
                    ..Happening::new(
                        TimelineKind::Node,
                        Severity::Warning,
                        format!("Node {gone} is not part of the Unit any more"),
                    )
                });
            }
        }
        Ok(changed)
    }

    async fn item_status(
        &mut self,
        unit: Uuid,
        items: &[ItemReport],
        delta: bool,
        names: &Names,
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        let mut before = BTreeMap::new();
        for row in sqlx::query(
            "SELECT item_type, item_id, version, state, error FROM unit_items WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the items of a Unit")?
        {
            before.insert(
                (
                    row.text("item_type")?,
                    row.text("item_id")?,
                    row.text("version")?,
                ),
                (row.text("state")?, row.text_or_null("error")?),
            );
        }
        for item in items {
            let key = (
                item.item_type.to_string(),
                item.item.to_string(),
                item.version.clone(),
            );
            let error = item
                .error
                .as_ref()
                .map(|error| to_json("error", error))
                .transpose()?;
            let old = before.remove(&key);
            let removed = item.state == ItemState::Removed;
            let new = (item.state.as_str().to_owned(), error);
            if old.as_ref() == Some(&new) || (old.is_none() && removed) {
                continue;
            }
            if removed {
                self.drop_item(unit, &key).await?;
            } else {
                sqlx::query(
                    "INSERT INTO unit_items (unit_id, item_type, item_id, version, state, error, changed_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)
                     ON CONFLICT (unit_id, item_type, item_id, version) DO UPDATE SET state = excluded.state,
                     error = excluded.error, changed_at = excluded.changed_at",
                )
                .bind(unit.to_string())
                .bind(key.0.clone())
                .bind(key.1.clone())
                .bind(key.2.clone())
                .bind(new.0.clone())
                .bind(new.1.clone())
                .bind(now)
                .execute(self.on())
                .await
                .doing("store an item")?;
            }
            let was = old.map_or_else(String::new, |(state, _)| {
                if state == new.0 {
                    String::new()
                } else {
                    format!(" (was {state})")
                }
            });
            let severity = if item.state == ItemState::Failed {
                Severity::Error
            } else {
                Severity::Info
            };
            events.push(Happening {
                item_id: Some(key.1.clone()),
                version: Some(item.version.clone()),
                ..Happening::new(
                    TimelineKind::Item,
                    severity,
                    format!(
                        "{} {} is {}{was}{}",
                        name(names, &key.1),
                        item.version,
                        item.state,
                        because(item.error.as_ref())
                    ),
                )
            });
        }
        if !delta {
            for key in before.into_keys() {
                self.drop_item(unit, &key).await?;
                events.push(Happening {
                    item_id: Some(key.1.clone()),
                    version: Some(key.2.clone()),
                    ..Happening::info(
                        TimelineKind::Item,
                        format!("{} {} is gone", name(names, &key.1), key.2),
                    )
                });
            }
        }
        Ok(())
    }

    async fn drop_item(
        &mut self,
        unit: Uuid,
        key: &(String, String, String),
    ) -> Result<(), DbError> {
        sqlx::query(
            "DELETE FROM unit_items WHERE unit_id = $1 AND item_type = $2 AND item_id = $3 AND version = $4",
        )
        .bind(unit.to_string())
        .bind(key.0.clone())
        .bind(key.1.clone())
        .bind(key.2.clone())
        .execute(self.on())
        .await
        .doing("drop an item")?;
        Ok(())
    }

    async fn instance_status(
        &mut self,
        unit: Uuid,
        instances: &[InstanceReport],
        delta: bool,
        names: &Names,
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        type Key = (String, String, String, i64);
        type Row = (
            String,
            String,
            String,
            String,
            Option<String>,
            Option<String>,
        );
        let now = self.now.as_micros();
        let mut before: BTreeMap<Key, Row> = BTreeMap::new();
        for row in sqlx::query(
            "SELECT item_type, item_id, subject_id, instance, version, state, node_id, runtime_id, state_checksum, error
             FROM unit_instances WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the instances of a Unit")?
        {
            before.insert(
                (
                    row.text("item_type")?,
                    row.text("item_id")?,
                    row.text("subject_id")?,
                    row.int("instance")?,
                ),
                (
                    row.text("version")?,
                    row.text("state")?,
                    row.text("node_id")?,
                    row.text("runtime_id")?,
                    row.text_or_null("state_checksum")?,
                    row.text_or_null("error")?,
                ),
            );
        }
        // While a version is replaced a Unit may report the same instance twice; the one that is not inactive counts.
        let mut newest: BTreeMap<Key, &InstanceReport> = BTreeMap::new();
        for instance in instances {
            let key = (
                instance.ident.item_type.to_string(),
                instance.ident.item.to_string(),
                instance.ident.subject.to_string(),
                big(instance.ident.index),
            );
            let keep = newest
                .get(&key)
                .is_none_or(|_| instance.state != InstanceState::Inactive);
            if keep {
                newest.insert(key, instance);
            }
        }
        for (key, instance) in newest {
            let error = instance
                .error
                .as_ref()
                .map(|error| to_json("error", error))
                .transpose()?;
            let new: Row = (
                instance.version.clone(),
                instance.state.as_str().to_owned(),
                instance.node.to_string(),
                instance
                    .runtime
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                instance.state_checksum.clone(),
                error,
            );
            let old = before.remove(&key);
            if old.as_ref() == Some(&new) {
                continue;
            }
            sqlx::query(
                "INSERT INTO unit_instances (unit_id, item_type, item_id, subject_id, instance, version, state, node_id,
                 runtime_id, preinstalled, state_checksum, error, changed_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (unit_id, item_type, item_id, subject_id, instance) DO UPDATE SET version = excluded.version,
                 state = excluded.state, node_id = excluded.node_id, runtime_id = excluded.runtime_id,
                 preinstalled = excluded.preinstalled, state_checksum = excluded.state_checksum, error = excluded.error,
                 changed_at = excluded.changed_at",
            )
            .bind(unit.to_string())
            .bind(key.0.clone())
            .bind(key.1.clone())
            .bind(key.2.clone())
            .bind(key.3)
            .bind(new.0.clone())
            .bind(new.1.clone())
            .bind(new.2.clone())
            .bind(new.3.clone())
            .bind(i64::from(instance.ident.preinstalled))
            .bind(new.4.clone())
            .bind(new.5.clone())
            .bind(now)
            .execute(self.on())
            .await
            .doing("store an instance")?;
            let same_but_checksum = old.as_ref().is_some_and(|old| {
                (&old.0, &old.1, &old.2, &old.5) == (&new.0, &new.1, &new.2, &new.5)
            });
            if same_but_checksum {
                continue;
            }
            let mut was = Vec::new();
            if let Some(old) = &old {
                if old.1 != new.1 {
                    was.push(old.1.clone());
                }
                if old.0 != new.0 {
                    was.push(format!("version {}", old.0));
                }
                if old.2 != new.2 {
                    was.push(format!("on Node {}", old.2));
                }
            }
            let was = if was.is_empty() {
                String::new()
            } else {
                format!(" (was {})", was.join(", "))
            };
            let severity = if instance.state == InstanceState::Failed {
                Severity::Error
            } else {
                Severity::Info
            };
            events.push(Happening {
                node_id: Some(new.2.clone()),
                item_id: Some(key.1.clone()),
                subject_id: Some(key.2.clone()),
                instance: Some(instance.ident.index),
                version: Some(instance.version.clone()),
                ..Happening::new(
                    TimelineKind::Instance,
                    severity,
                    format!(
                        "instance {} of {} {} on Node {} is {}{was}{}",
                        instance.ident.index,
                        name(names, &key.1),
                        instance.version,
                        new.2,
                        instance.state,
                        because(instance.error.as_ref())
                    ),
                )
            });
        }
        if !delta {
            for (key, old) in before {
                sqlx::query(
                    "DELETE FROM unit_instances WHERE unit_id = $1 AND item_type = $2 AND item_id = $3 AND subject_id = $4
                     AND instance = $5",
                )
                .bind(unit.to_string())
                .bind(key.0.clone())
                .bind(key.1.clone())
                .bind(key.2.clone())
                .bind(key.3)
                .execute(self.on())
                .await
                .doing("drop an instance")?;
                events.push(Happening {
                    node_id: Some(old.2.clone()),
                    item_id: Some(key.1.clone()),
                    subject_id: Some(key.2.clone()),
                    instance: u64::try_from(key.3).ok(),
                    version: Some(old.0.clone()),
                    ..Happening::info(
                        TimelineKind::Instance,
                        format!(
                            "instance {} of {} {} is gone from Node {}",
                            key.3,
                            name(names, &key.1),
                            old.0,
                            old.2
                        ),
                    )
                });
            }
        }
        Ok(())
    }

    async fn subject_status(&mut self, unit: Uuid, subjects: &[String]) -> Result<(), DbError> {
        sqlx::query("DELETE FROM unit_subjects WHERE unit_id = $1")
            .bind(unit.to_string())
            .execute(self.on())
            .await
            .doing("drop reported subjects")?;
        let mut sorted = subjects.to_vec();
        sorted.sort();
        sorted.dedup();
        for subject in sorted {
            sqlx::query("INSERT INTO unit_subjects (unit_id, subject) VALUES ($1, $2)")
                .bind(unit.to_string())
                .bind(subject)
                .execute(self.on())
                .await
                .doing("store a reported subject")?;
        }
        Ok(())
    }
}
