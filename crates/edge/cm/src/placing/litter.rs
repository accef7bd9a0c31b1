use aos_types::{InstanceIdent, InstanceState, NodeId};

use super::{
    Placing,
    remember::{take_over, tidied},
};

impl Placing {
    /// What was kept on a Node that is not one of the Unit any more is gone with it.
    pub(super) async fn forget_litter(&self) -> Result<(), aos_store::Error> {
        let world = self.world.nodes();
        let placed = self.placed.lock().await;
        let gone: Vec<(InstanceIdent, NodeId)> = placed
            .values()
            .flat_map(|placed| placed.litter.iter().map(|node| (&placed.ident, node)))
            .filter(|(_, node)| !world.contains_key(*node))
            .map(|(ident, node)| (ident.clone(), node.clone()))
            .collect();
        drop(placed);
        self.tidied(&gone).await
    }

    /// Has a Node remove what instances kept there and nobody needs any more. One that is away is asked when it is back.
    pub(super) async fn tidy(&self, id: &NodeId) -> Result<(), aos_store::Error> {
        // Nothing is placed there meanwhile that would lose what it keeps.
        let sent = self.sent_to(id);
        let _sent = sent.lock().await;
        let asked = self.litter_on(id).await;
        if asked.is_empty() {
            return Ok(());
        }
        let kept = match self.nodes.remove_data(id, asked.clone()).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(node = %id, %error, "a Node did not remove what instances kept");
                return Ok(());
            }
        };
        for (ident, error) in &kept {
            tracing::warn!(node = %id, instance = %ident, %error, "a Node could not remove what an instance kept");
        }
        let removed = asked.into_iter().filter(|one| !kept.contains_key(one));
        let gone: Vec<_> = removed.map(|ident| (ident, id.clone())).collect();
        self.tidied(&gone).await
    }

    /// What instances kept on a Node that neither runs them nor is to.
    async fn litter_on(&self, id: &NodeId) -> Vec<InstanceIdent> {
        let world = self.world.nodes();
        let lists = self.lists.borrow().clone();
        let reported = world
            .get(id)
            .and_then(|node| node.sm.as_ref())
            .and_then(|sm| sm.instances.as_ref());
        let Some(reported) = reported else {
            return Vec::new();
        };
        let placed = self.placed.lock().await;
        let litter = placed.values().filter(|placed| {
            let runs = || {
                let one = reported.get(&placed.ident);
                one.is_some_and(|one| one.state != InstanceState::Inactive)
            };
            let wanted = || lists.on(id).iter().any(|one| one.ident == placed.ident);
            placed.litter.contains(id) && !runs() && !wanted()
        });
        litter.map(|placed| placed.ident.clone()).collect()
    }

    async fn tidied(&self, gone: &[(InstanceIdent, NodeId)]) -> Result<(), aos_store::Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut placed = self.placed.lock().await;
        let next = tidied(&placed, gone);
        let changes = take_over(&mut placed, next);
        if changes.is_empty() {
            return Ok(());
        }
        self.records.apply(changes).await
    }
}
