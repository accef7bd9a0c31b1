use std::collections::{BTreeMap, BTreeSet};

use aos_types::{ErrorInfo, InstanceIdent, InstanceState, NodeId};
use futures::future::join_all;

use super::{Lists, Placing, State};
use crate::{
    contract::{InstanceOrder, InstanceReport, SmNode},
    world::KnownNode,
};

/// What one Node is to be sent.
struct Parcel {
    node: NodeId,
    connection: u64,
    list: Vec<InstanceOrder>,
    stop: Vec<InstanceIdent>,
    /// Instances it loses to another Node.
    gives_away: bool,
}

impl Placing {
    /// Sends every Node that takes orders its list, if it has another one or runs something else. With `retry` also those
    /// whose instances have failed. Nodes that lose an instance to another one come first, so that it never runs twice.
    pub(super) async fn send(&self, state: &mut State, retry: bool) -> BTreeMap<NodeId, ErrorInfo> {
        let lists = self.lists.borrow().clone();
        let world = self.world.nodes();
        let parcels: Vec<Parcel> = world
            .iter()
            .filter(|(_, node)| node.takes_orders())
            .filter_map(|(id, node)| parcel(id, node, &lists, state, retry))
            .collect();
        let (first, second): (Vec<Parcel>, Vec<Parcel>) =
            parcels.into_iter().partition(|parcel| parcel.gives_away);
        let mut failed = BTreeMap::new();
        for wave in [first, second] {
            let sends = wave.into_iter().map(|parcel| async move {
                let sent = self
                    .nodes
                    .update_instances(&parcel.node, parcel.list.clone(), parcel.stop)
                    .await;
                (parcel.node, parcel.connection, parcel.list, sent)
            });
            for (node, connection, list, sent) in join_all(sends).await {
                match sent {
                    Ok(()) => {
                        state.sent.insert(node, (connection, list));
                    }
                    Err(error) => {
                        state.sent.remove(&node);
                        failed.insert(node, error);
                    }
                }
            }
        }
        failed
    }
}

fn parcel(
    id: &NodeId,
    node: &KnownNode,
    lists: &Lists,
    state: &mut State,
    retry: bool,
) -> Option<Parcel> {
    let sm: &SmNode = node.sm.as_ref()?;
    let reported = sm.instances.as_ref()?;
    let list = lists.on(id).to_vec();
    let sent = state.sent.get(id);
    let sent = sent.filter(|(connection, _)| *connection == sm.connection);
    let sent_before = sent.is_some_and(|(_, sent)| *sent == list);
    let sent_other = sent.is_some_and(|(_, sent)| *sent != list);
    let as_wanted = runs_as_wanted(reported, &list);
    let failed = retry
        && reported
            .values()
            .any(|one| one.state == InstanceState::Failed);
    if !failed && as_wanted && !sent_other {
        // Adopted as it is: nothing is sent to a Node that runs what it shall.
        state.sent.insert(id.clone(), (sm.connection, list));
        return None;
    }
    if sent_before && !retry {
        return None;
    }
    let wanted: BTreeMap<&InstanceIdent, &InstanceOrder> =
        list.iter().map(|order| (&order.ident, order)).collect();
    let stop: Vec<InstanceIdent> = reported
        .values()
        .filter(|one| !one.ident.preinstalled && one.state != InstanceState::Inactive)
        .filter(|one| {
            wanted
                .get(&one.ident)
                .is_none_or(|order| order.version != one.version || order.runtime != one.runtime)
        })
        .map(|one| one.ident.clone())
        .collect();
    let elsewhere: BTreeSet<&InstanceIdent> = lists
        .placed()
        .filter(|(other, _)| *other != id)
        .map(|(_, order)| &order.ident)
        .collect();
    let gives_away = stop.iter().any(|ident| elsewhere.contains(ident));
    Some(Parcel {
        node: id.clone(),
        connection: sm.connection,
        list,
        stop,
        gives_away,
    })
}

/// Whether the Node has exactly the instances of the list, of these versions and images, whatever their state.
fn runs_as_wanted(
    reported: &BTreeMap<InstanceIdent, InstanceReport>,
    list: &[InstanceOrder],
) -> bool {
    let own = reported
        .values()
        .filter(|one| !one.ident.preinstalled && one.state != InstanceState::Inactive)
        .count();
    own == list.len()
        && list.iter().all(|order| {
            reported.get(&order.ident).is_some_and(|one| {
                one.version == order.version
                    && one.runtime == order.runtime
                    && one.manifest == Some(order.manifest)
            })
        })
}
