use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState, NodeId};
use futures::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Lists, Placing, Sent, turns::Ended};
use crate::{
    contract::{InstanceOrder, InstanceReport, SmNode},
    world::KnownNode,
};

/// How much of its list a Node was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    All,
    /// Some of its instances still run elsewhere.
    Part,
}

/// What one Node is to be sent.
struct Parcel {
    connection: u64,
    list: Vec<InstanceOrder>,
    stop: Vec<InstanceIdent>,
}

impl Placing {
    /// Sends every Node that takes orders its list, if it has another one or runs something else. With `retry` also those
    /// whose instances have failed. Nodes that lose an instance to another one come first, so that it never runs twice. One
    /// that loses some and gets others, which may still run elsewhere, gets those with the second wave.
    ///
    /// `over` ends the wait for the Nodes' answers. A list that was sent stays sent; one that was not comes with the next.
    pub(super) async fn send(
        &self,
        retry: bool,
        over: &CancellationToken,
    ) -> BTreeMap<NodeId, ErrorInfo> {
        let lists = self.lists.borrow().clone();
        let (mut wave, mut second) = (Vec::new(), Vec::new());
        for (id, node) in self.world.nodes() {
            if !node.takes_orders() {
                continue;
            }
            if gives_away(&id, &node, &lists) {
                wave.push(id);
            } else {
                second.push(id);
            }
        }
        let mut failed = BTreeMap::new();
        for parting in [true, false] {
            let sends = std::mem::take(&mut wave).into_iter().map(|id| async move {
                // What is dropped here is not remembered as sent, and a Node carries out the newest list it was given.
                let sent = tokio::select! {
                    biased;
                    () = over.cancelled() => Err(given_up()),
                    sent = self.send_to(&id, retry, parting) => sent,
                };
                (id, sent)
            });
            for (node, sent) in join_all(sends).await {
                match sent {
                    Ok(Sending::All) => {}
                    Ok(Sending::Part) => second.push(node),
                    Err(error) => {
                        failed.insert(node, error);
                    }
                }
            }
            wave = std::mem::take(&mut second);
        }
        failed
    }

    /// One Node while the Nodes are followed: sends it its list if it needs it, and has it remove what nobody needs any more.
    pub(super) async fn errand(
        &self,
        id: &NodeId,
        parting: bool,
    ) -> Result<Ended, aos_store::Error> {
        let ended = match self.send_to(id, false, parting).await {
            Ok(Sending::All) => Ended::Whole,
            Ok(Sending::Part) => Ended::Without(self.still_run_of(id)),
            Err(error) => {
                tracing::warn!(node = %id, %error, "a node did not take its list");
                return Ok(Ended::Failed);
            }
        };
        self.tidy(id).await?;
        Ok(ended)
    }

    /// The other Nodes that still run something of the list of this one.
    fn still_run_of(&self, id: &NodeId) -> BTreeSet<NodeId> {
        let (lists, world) = (self.lists.borrow().clone(), self.world.nodes());
        let others = world.iter().filter(|(other, node)| {
            *other != id && lists.on(id).iter().any(|order| runs_on(node, order))
        });
        others.map(|(other, _)| other.clone()).collect()
    }

    /// What a Node was given. Held while it is given something.
    pub(super) fn sent_to(&self, id: &NodeId) -> Arc<Mutex<Sent>> {
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.clone()).or_default())
    }

    /// One Node after what it was given before; by then the newest lists count. While Nodes are `parting` with instances, it
    /// gets none that another one still runs.
    async fn send_to(&self, id: &NodeId, retry: bool, parting: bool) -> Result<Sending, ErrorInfo> {
        let sent = self.sent_to(id);
        let mut sent = sent.lock().await;
        let lists = self.lists.borrow().clone();
        let world = self.world.nodes();
        let Some(node) = world.get(id).filter(|node| node.takes_orders()) else {
            return Ok(Sending::All);
        };
        let mut list = lists.on(id).to_vec();
        let all = list.len();
        if parting {
            list.retain(|order| runs_on(node, order) || !runs_elsewhere(id, &world, order));
        }
        let extent = match list.len() == all {
            true => Sending::All,
            false => Sending::Part,
        };
        // Variables are not reported: what was given last counts.
        let env_fits = list
            .iter()
            .all(|order| self.given_env(id, &order.ident) == order.env);
        let Some(parcel) = parcel(node, list, &mut sent, retry, env_fits) else {
            return Ok(extent);
        };
        let list = parcel.list.clone();
        // Until it has answered nobody knows what it has, also when nobody waits for the answer any more.
        *sent = Sent::InDoubt;
        if let Err(error) = self.states.bring(id, &list).await {
            return Err(ErrorInfo::from_error(AosCode::Failed, &error));
        }
        let failed = |error: aos_store::Error| ErrorInfo::from_error(AosCode::Failed, &error);
        let asked = self.remember_env(id, &parcel.list, false).await;
        asked.map_err(failed)?;
        let result = self.nodes.update_instances(id, list, parcel.stop).await;
        if result.is_ok() {
            let taken = self.remember_env(id, &parcel.list, true).await;
            taken.map_err(failed)?;
        }
        result?;
        *sent = Sent::Taken(parcel.connection, parcel.list);
        Ok(extent)
    }
}

fn given_up() -> ErrorInfo {
    ErrorInfo::new(AosCode::Canceled, "it was given up for something newer")
}

/// Whether a Node runs something that another Node shall run from now on.
fn gives_away(id: &NodeId, node: &KnownNode, lists: &Lists) -> bool {
    let Some(reported) = node.sm.as_ref().and_then(|sm| sm.instances.as_ref()) else {
        return false;
    };
    lists.placed().any(|(other, order)| {
        other != id
            && reported
                .get(&order.ident)
                .is_some_and(|one| one.state != InstanceState::Inactive)
    })
}

/// Whether a Node says that it runs this instance.
fn runs_on(node: &KnownNode, order: &InstanceOrder) -> bool {
    let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
    reported
        .and_then(|reported| reported.get(&order.ident))
        .is_some_and(|one| one.state != InstanceState::Inactive)
}

fn runs_elsewhere(id: &NodeId, world: &BTreeMap<NodeId, KnownNode>, order: &InstanceOrder) -> bool {
    world
        .iter()
        .any(|(other, node)| other != id && runs_on(node, order))
}

fn parcel(
    node: &KnownNode,
    list: Vec<InstanceOrder>,
    before: &mut Sent,
    retry: bool,
    env_fits: bool,
) -> Option<Parcel> {
    let sm: &SmNode = node.sm.as_ref()?;
    let reported = sm.instances.as_ref()?;
    // What it runs may be about to change if a list is in doubt; then only another one makes it certain.
    let (sent_before, sent_other) = match &*before {
        Sent::InDoubt => (false, true),
        Sent::Taken(connection, sent) if *connection == sm.connection => {
            (*sent == list, *sent != list)
        }
        Sent::Adopted(connection, sent) if *connection == sm.connection => (false, *sent != list),
        Sent::Nothing | Sent::Taken(..) | Sent::Adopted(..) => (false, false),
    };
    let as_wanted = env_fits && runs_as_wanted(reported, &list);
    let failed = retry
        && reported
            .values()
            .any(|one| one.state == InstanceState::Failed);
    if !failed && as_wanted && !sent_other {
        // Adopted as it is: nothing is sent to a Node that runs what it shall. What it took over stays taken over.
        if !sent_before {
            *before = Sent::Adopted(sm.connection, list);
        }
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
    Some(Parcel {
        connection: sm.connection,
        list,
        stop,
    })
}

/// Whether the Node has exactly the instances of the list, of these versions and images, whatever their state.
fn runs_as_wanted(
    reported: &BTreeMap<InstanceIdent, InstanceReport>,
    list: &[InstanceOrder],
) -> bool {
    // One that is inactive counts if it is wanted: it rests by a rule of its item, or has completed.
    let wanted: BTreeSet<&InstanceIdent> = list.iter().map(|order| &order.ident).collect();
    let own = reported
        .values()
        .filter(|one| !one.ident.preinstalled)
        .filter(|one| one.state != InstanceState::Inactive || wanted.contains(&one.ident))
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
