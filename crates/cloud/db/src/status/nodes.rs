use std::collections::BTreeMap;

use aos_api::{Severity, TimelineKind};
use aos_types::NodeState;
use uuid::Uuid;

use super::{NodeReport, because};
use crate::{
    DbError, Happening,
    columns::{Columns, to_json},
    error::Doing,
    store::Tx,
};

impl Tx {
    pub(super) async fn node_status(
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
}
