use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use aos_schedule::{Handover, Holder, handover};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, InstanceState, NodeId, NodeState};
use aos_update::Failures;
use futures::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Lists, Placing, Sent, turns::Ended};
use crate::{
    contract::{InstanceOrder, InstanceReport, SmNode},
    states::Undelivered,
    world::KnownNode,
};

/// How often is prepared anew because Nodes have come and gone meanwhile.
const ATTEMPTS: usize = 5;

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

/// What did not go well with the lists.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// Nodes that did not take theirs.
    pub(super) nodes: BTreeMap<NodeId, ErrorInfo>,
    /// Instances that cannot start at their place.
    pub(super) instances: BTreeMap<InstanceIdent, ErrorInfo>,
}

impl Placing {
    /// Sends every Node that takes orders its list, if it has another one or runs something else. With `retry` also those
    /// whose instances have failed. First everything new is installed. Then Nodes that lose an instance to another one come
    /// first, so that it never runs twice. One that loses some and gets others, which may still run elsewhere, gets those
    /// with the second wave. A Node with an old
    /// version whose new one cannot start at its place keeps the list it has.
    ///
    /// `over` ends the wait for the Nodes' answers. A list that was sent stays sent; one that was not comes with the next.
    /// Nothing is sent any more once the lists do not `count`.
    pub(super) async fn send(
        &self,
        retry: bool,
        over: &CancellationToken,
        count: &(dyn Fn() -> bool + Sync),
    ) -> Unsent {
        let lists = self.lists.borrow().clone();
        let mut unsent = Unsent::default();
        let mut attempts = 0;
        let (world, missing) = loop {
            let world = self.world.nodes();
            let missing = self
                .prepare(&world, &lists, retry && attempts == 0, over)
                .await;
            if over.is_cancelled() {
                return unsent;
            }
            attempts += 1;
            // A Node that has come meanwhile has nothing yet.
            if connections(&world) == connections(&self.world.nodes()) || attempts == ATTEMPTS {
                break (world, missing);
            }
        };
        let order = waves(&world, &lists, &missing);
        for (node, (instance, to)) in order.kept {
            let failed = missing.get(&to);
            let why = failed.and_then(|failed| failed.instances.get(&instance));
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let text = format!(
                "it keeps the list it has: {instance} runs there and cannot start on node {to}{why}"
            );
            unsent
                .nodes
                .insert(node, ErrorInfo::new(AosCode::WrongState, text));
        }
        for failures in missing.into_values() {
            unsent.instances.extend(failures.instances);
            unsent.nodes.extend(failures.nodes);
        }
        let (mut wave, mut second) = (order.first, order.second);
        let held_back = &order.held_back;
        for parting in [true, false] {
            let sends = std::mem::take(&mut wave).into_iter().map(|id| async move {
                // What is dropped here is not remembered as sent, and a Node carries out the newest list it was given.
                let sent = tokio::select! {
                    biased;
                    () = over.cancelled() => Err(given_up()),
                    sent = self.send_to(&id, retry, parting, held_back.get(&id), count) => sent,
                };
                (id, sent)
            });
            for (node, sent) in join_all(sends).await {
                match sent {
                    Ok(Sending::All) => {}
                    Ok(Sending::Part) => second.push(node),
                    Err(error) => {
                        unsent.nodes.insert(node, error);
                    }
                }
            }
            wave = std::mem::take(&mut second);
        }
        unsent
    }

    /// One Node while the Nodes are followed: sends it its list if it needs it, and has it remove what nobody needs any more.
    pub(super) async fn errand(
        &self,
        id: &NodeId,
        parting: bool,
    ) -> Result<Ended, aos_store::Error> {
        let now = self.in_force.borrow().clone();
        let still = || self.in_force.borrow().is_still(&now);
        let (lists, world) = (self.lists.borrow().clone(), self.world.nodes());
        // Old versions whose new ones start on other Nodes: those must have them first.
        let mut heirs = world.clone();
        heirs.retain(|heir, _| inherits_old(heir, &world, &lists));
        let over = CancellationToken::new();
        let missing = self.prepare(&heirs, &lists, false, &over).await;
        let order = waves(&world, &lists, &missing);
        if let Some((instance, to)) = order.kept.get(id) {
            tracing::warn!(node = %id, %instance, %to, "a node keeps the list it has: what it runs cannot start on the other one");
            return Ok(Ended::Failed);
        }
        let held_back = order.held_back.get(id);
        let ended = match self.send_to(id, false, parting, held_back, &still).await {
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
            *other != id && lists.on(id).iter().any(|order| runs_on(node, &order.ident))
        });
        others.map(|(other, _)| other.clone()).collect()
    }

    /// What a Node was given. Held while it is given something.
    pub(super) fn sent_to(&self, id: &NodeId) -> Arc<Mutex<Sent>> {
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.clone()).or_default())
    }

    /// One Node after what it was given before; by then the newest lists count. What is `held_back` still runs on a Node that
    /// keeps its list. While Nodes are `parting` with instances, it gets none that another one still runs.
    async fn send_to(
        &self,
        id: &NodeId,
        retry: bool,
        parting: bool,
        held_back: Option<&BTreeSet<InstanceIdent>>,
        count: &(dyn Fn() -> bool + Sync),
    ) -> Result<Sending, ErrorInfo> {
        let sent = self.sent_to(id);
        let mut sent = sent.lock().await;
        let lists = self.lists.borrow().clone();
        let world = self.world.nodes();
        let Some(node) = world.get(id).filter(|node| node.takes_orders()) else {
            return Ok(Sending::All);
        };
        let mut list = lists.on(id).to_vec();
        list.retain(|order| held_back.is_none_or(|held| !held.contains(&order.ident)));
        let all = list.len();
        if parting {
            list.retain(|order| {
                runs_on(node, &order.ident) || !runs_elsewhere(id, &world, &order.ident)
            });
        }
        let extent = match list.len() == all {
            true => Sending::All,
            false => Sending::Part,
        };
        let brought = self.states.bring(id, &list).await;
        let waiting = brought.map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
        without_those_that_wait(&mut list, &waiting, node, &sent);
        // Variables are not reported: what was given last counts.
        let env_fits = list
            .iter()
            .all(|order| self.given_env(id, &order.ident) == order.env);
        let Some(parcel) = parcel(node, list, &mut sent, retry, env_fits) else {
            return Ok(extent);
        };
        if !count() {
            return Err(given_up());
        }
        let list = parcel.list.clone();
        // Until it has answered nobody knows what it has, also when nobody waits for the answer any more.
        *sent = Sent::InDoubt;
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

/// The streams of the Nodes that take orders.
fn connections(world: &BTreeMap<NodeId, KnownNode>) -> BTreeMap<&NodeId, u64> {
    let open = world.iter().filter(|(_, node)| node.takes_orders());
    open.filter_map(|(id, node)| Some((id, node.sm.as_ref()?.connection)))
        .collect()
}

/// Whether a Node shall run something of which another Node runs an old version.
fn inherits_old(heir: &NodeId, world: &BTreeMap<NodeId, KnownNode>, lists: &Lists) -> bool {
    let others = || world.iter().filter(|(other, _)| *other != heir);
    lists.on(heir).iter().any(|order| {
        others().any(|(_, node)| {
            running(node).any(|one| one.ident == order.ident && one.version != order.version)
        })
    })
}

/// In which order the Nodes that take orders are given their lists.
fn waves(
    world: &BTreeMap<NodeId, KnownNode>,
    lists: &Lists,
    missing: &BTreeMap<NodeId, Failures>,
) -> Handover<NodeId, InstanceIdent> {
    let wanted: BTreeMap<&InstanceIdent, &str> = lists
        .placed()
        .map(|(_, order)| (&order.ident, order.version.as_str()))
        .collect();
    let holders = world
        .iter()
        .filter(|(_, node)| node.takes_orders())
        .map(|(id, node)| {
            let failed = missing.get(id).into_iter();
            let holder = Holder {
                runs: running(node).map(|one| one.ident.clone()).collect(),
                old: running(node)
                    .filter(|one| wanted.get(&one.ident) != Some(&one.version.as_str()))
                    .map(|one| one.ident.clone())
                    .collect(),
                unready: failed
                    .flat_map(|failed| failed.instances.keys().cloned())
                    .collect(),
                must_part: node.info.state != NodeState::Provisioned,
            };
            (id.clone(), holder)
        });
    let mut places: BTreeMap<InstanceIdent, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, order) in lists.placed() {
        let places = places.entry(order.ident.clone()).or_default();
        places.insert(node.clone());
    }
    handover(&holders.collect(), &places)
}

/// What a Node says that it runs.
fn running(node: &KnownNode) -> impl Iterator<Item = &InstanceReport> {
    let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
    let running = reported.into_iter().flat_map(BTreeMap::values);
    running.filter(|one| one.state != InstanceState::Inactive)
}

/// Whether a Node says that it runs this instance.
fn runs_on(node: &KnownNode, ident: &InstanceIdent) -> bool {
    let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
    reported
        .and_then(|reported| reported.get(ident))
        .is_some_and(|one| one.state != InstanceState::Inactive)
}

/// Whether another Node says that it runs this instance.
pub(crate) fn runs_elsewhere(
    id: &NodeId,
    world: &BTreeMap<NodeId, KnownNode>,
    ident: &InstanceIdent,
) -> bool {
    world
        .iter()
        .any(|(other, node)| other != id && runs_on(node, ident))
}

/// An instance whose state is not on its Node is not started. One that runs there all the same, with an older state, runs on
/// as it is.
fn without_those_that_wait(
    list: &mut Vec<InstanceOrder>,
    waiting: &BTreeMap<InstanceIdent, Undelivered>,
    node: &KnownNode,
    sent: &Sent,
) {
    let before: &[InstanceOrder] = match sent {
        Sent::Taken(_, before) | Sent::Adopted(_, before) => before,
        Sent::Nothing | Sent::InDoubt => &[],
    };
    list.retain_mut(|order| {
        if !waiting.contains_key(&order.ident) {
            return true;
        }
        if !runs_on(node, &order.ident) {
            return false;
        }
        if let Some(old) = before.iter().find(|old| old.ident == order.ident) {
            *order = old.clone();
        }
        true
    });
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
