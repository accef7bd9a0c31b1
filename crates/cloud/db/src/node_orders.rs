//! What people order Nodes to be.

use std::collections::BTreeMap;

use aos_api::{ChangeAction, ChangeTopic, Node, TimelineKind, WantedNodeState};
use sqlx::{Any, Executor};
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening,
    columns::{Columns, to_word},
    error::Doing,
};

/// What the Nodes of a Unit are ordered to be, by Node.
pub(crate) async fn wanted_nodes<'c>(
    on: impl Executor<'c, Database = Any>,
    unit: Uuid,
) -> Result<BTreeMap<String, WantedNodeState>, DbError> {
    sqlx::query("SELECT node_id, state FROM node_orders WHERE unit_id = $1")
        .bind(unit.to_string())
        .fetch_all(on)
        .await
        .doing("read what Nodes are ordered to be")?
        .iter()
        .map(|row| Ok((row.text("node_id")?, row.word("state")?)))
        .collect()
}

impl Db {
    /// Orders a Node of a Unit to pause or to take part again.
    pub async fn order_node(
        &self,
        actor: &Actor,
        unit: &str,
        node: &str,
        wanted: WantedNodeState,
    ) -> Result<Node, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let find = async || {
            let nodes = self.unit_nodes(actor, &id.to_string()).await?.items;
            nodes
                .into_iter()
                .find(|known| known.node_id == node)
                .ok_or_else(|| DbError::not_found("Node", node))
        };
        let known = find().await?;
        if known.wanted_state == Some(wanted) {
            return Ok(known);
        }
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO node_orders (unit_id, node_id, state) VALUES ($1, $2, $3)
             ON CONFLICT (unit_id, node_id) DO UPDATE SET state = excluded.state",
        )
        .bind(id.to_string())
        .bind(node.to_owned())
        .bind(to_word("wanted state", &wanted)?)
        .execute(tx.on())
        .await
        .doing("order a Node's state")?;
        let (action, text) = match wanted {
            WantedNodeState::Paused => ("node.pause", "ordered it to pause"),
            WantedNodeState::Provisioned => ("node.resume", "ordered it to take part again"),
        };
        tx.happened(
            id,
            &[Happening {
                node_id: Some(node.to_owned()),
                ..Happening::info(
                    TimelineKind::Node,
                    format!("Node {node}: {} {text}", actor.name()),
                )
            }],
        )
        .await?;
        tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Desired, id);
        tx.audit(actor, action, format!("unit:{id}"), format!("node:{node}"))
            .await?;
        tx.commit().await?;
        find().await
    }
}
