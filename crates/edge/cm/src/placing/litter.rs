use std::collections::BTreeMap;

use aos_types::{InstanceIdent, InstanceState, NodeId};

use super::{
    Placing,
    remember::{take_over, tidied},
};

impl Placing {
    /// Has Nodes remove what instances kept there and nobody needs any more. A Node that is not one of the Unit any more has
    /// nothing; one that is away is asked when it is back.
    pub(super) async fn tidy(&self) -> Result<(), aos_store::Error> {
        let world = self.world.nodes();
        let lists = self.lists.borrow().clone();
        let mut asked: BTreeMap<NodeId, Vec<InstanceIdent>> = BTreeMap::new();
        let mut gone: Vec<(InstanceIdent, NodeId)> = Vec::new();
        for placed in self.placed.lock().await.values() {
            for id in &placed.litter {
                let Some(node) = world.get(id) else {
                    gone.push((placed.ident.clone(), id.clone()));
                    continue;
                };
                let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
                let runs = reported.is_none_or(|reported| {
                    reported
                        .get(&placed.ident)
                        .is_some_and(|one| one.state != InstanceState::Inactive)
                });
                let wanted = lists.on(id).iter().any(|one| one.ident == placed.ident);
                if !runs && !wanted {
                    asked
                        .entry(id.clone())
                        .or_default()
                        .push(placed.ident.clone());
                }
            }
        }
        for (node, idents) in asked {
            match self.nodes.remove_data(&node, idents.clone()).await {
                Ok(kept) => {
                    for (ident, error) in &kept {
                        tracing::warn!(%node, instance = %ident, %error, "a Node could not remove what an instance kept");
                    }
                    let removed = idents.into_iter().filter(|one| !kept.contains_key(one));
                    gone.extend(removed.map(|ident| (ident, node.clone())));
                }
                Err(error) => {
                    tracing::warn!(%node, %error, "a Node did not remove what instances kept");
                }
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut placed = self.placed.lock().await;
        let next = tidied(&placed, &gone);
        let changes = take_over(&mut placed, next);
        if changes.is_empty() {
            return Ok(());
        }
        self.records.apply(changes).await
    }
}
