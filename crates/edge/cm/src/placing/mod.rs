//! Where instances run: asks the scheduler, remembers what it said, and gives the Nodes their lists.
//!
//! There is one set of lists at a time ([`Lists`]). An update replaces it ([`Placing::launch`]); between updates
//! [`Placing::reconcile`] follows the Nodes: one that connects and runs something else is given its list, and when one is
//! lost, paused or changed, what it had is placed again.

mod lists;
mod requests;
mod sending;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_schedule::{KnownInstance, Plan, plan};
use aos_store::Records;
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, NodeId};
use aos_update::{Failures, Target};
use futures::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use lists::{Lists, Placed};

use crate::{
    contract::{Images, InstanceOrder, Nodes},
    states::States,
    unit_config::UnitConfigs,
    world::{KnownNode, World},
};

/// How long an instance that has no place is remembered, with its user id: AosEdge keeps it 30 days.
const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The scheduler's shell.
pub(crate) struct Placing {
    nodes: Arc<dyn Nodes>,
    images: Arc<dyn Images>,
    world: Arc<World>,
    configs: Arc<UnitConfigs>,
    records: Records<Placed>,
    states: Arc<States>,
    /// Every instance that has a place or had one; one plan is made at a time.
    placed: Mutex<BTreeMap<InstanceIdent, Placed>>,
    lists: watch::Sender<Arc<Lists>>,
    /// What each Node was given. Held while a Node is given something, so a Node that hangs holds up nobody else.
    sent: std::sync::Mutex<BTreeMap<NodeId, Arc<Mutex<Sent>>>>,
}

/// The list a Node was given, and on which of its connections.
#[derive(Debug, Default)]
struct Sent(Option<(u64, Vec<InstanceOrder>)>);

impl Placing {
    /// Goes on from what is stored.
    pub(crate) async fn open(
        nodes: Arc<dyn Nodes>,
        images: Arc<dyn Images>,
        world: Arc<World>,
        configs: Arc<UnitConfigs>,
        states: Arc<States>,
        records: Records<Placed>,
    ) -> Result<Self, aos_store::Error> {
        let placed: BTreeMap<InstanceIdent, Placed> = records
            .all()
            .await?
            .into_iter()
            .map(|(_, placed)| (placed.ident.clone(), placed))
            .collect();
        let lists = Arc::new(Lists::of(placed.values()));
        Ok(Self {
            nodes,
            images,
            world,
            configs,
            states,
            records,
            placed: Mutex::new(placed),
            lists: watch::channel(lists).0,
            sent: std::sync::Mutex::default(),
        })
    }

    /// The lists in force.
    pub(crate) fn lists(&self) -> watch::Receiver<Arc<Lists>> {
        self.lists.subscribe()
    }

    /// Places `target` and has what is new installed and verified where it will run. Changes nothing that runs.
    pub(crate) async fn install(&self, target: &Target, cancel: &CancellationToken) -> Failures {
        self.world.settled().await;
        let plan = {
            let placed = self.placed.lock().await;
            self.plan(&placed, target).await
        };
        let mut failures = unplaced(&plan);
        let world = self.world.nodes();
        let mut installs = Vec::new();
        for (id, node) in &world {
            let has = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
            let new: Vec<InstanceOrder> = plan
                .on_node(id)
                .map(lists::order)
                .filter(|order| {
                    has.and_then(|has| has.get(&order.ident))
                        .is_none_or(|runs| {
                            runs.version != order.version || runs.manifest != Some(order.manifest)
                        })
                })
                .collect();
            if !new.is_empty() && node.sm.is_some() {
                installs.push(self.install_on(id, new, cancel.clone()));
            }
        }
        for installed in join_all(installs).await {
            failures.instances.extend(installed.instances);
            failures.nodes.extend(installed.nodes);
        }
        failures
    }

    async fn install_on(
        &self,
        node: &NodeId,
        new: Vec<InstanceOrder>,
        cancel: CancellationToken,
    ) -> Failures {
        let idents: Vec<InstanceIdent> = new.iter().map(|order| order.ident.clone()).collect();
        let mut failures = Failures::default();
        match self.nodes.install(node, new, cancel).await {
            Ok(failed) => failures.instances = failed,
            Err(error) => {
                let of_node = ErrorInfo {
                    message: format!("node `{node}` cannot install it: {error}"),
                    ..error.clone()
                };
                failures.nodes.insert(node.clone(), error);
                let each = idents.into_iter().map(|ident| (ident, of_node.clone()));
                failures.instances = each.collect();
            }
        }
        failures
    }

    /// Places `target`, remembers it, and brings it to the Nodes. Returns when they have taken their lists over.
    pub(crate) async fn launch(&self, target: &Target) -> Result<Failures, aos_store::Error> {
        self.world.settled().await;
        let plan = self.place(target).await?;
        let mut failures = unplaced(&plan);
        for (node, error) in self.send(true).await {
            for order in plan.on_node(&node) {
                failures
                    .instances
                    .insert(order.ident.clone(), error.clone());
            }
            failures.nodes.insert(node, error);
        }
        Ok(failures)
    }

    /// Follows the Nodes: places `target` again and gives its list to each Node that has another one or runs something
    /// else. An instance that runs and fits stays where it is.
    pub(crate) async fn reconcile(&self, target: &Target) -> Result<(), aos_store::Error> {
        let world = self.world.nodes();
        // Before IAM has told of any Node, nothing can be said about places.
        if world.is_empty() {
            return Ok(());
        }
        // Nor can it about a Node that has not shown itself since CM started: what it runs stays there until it is lost.
        let unknown = |node: &KnownNode| node.is_away && node.runtimes.is_empty();
        if !world.values().any(unknown) {
            self.place(target).await?;
        }
        for (node, error) in self.send(false).await {
            tracing::warn!(%node, %error, "a node did not take its list");
        }
        Ok(())
    }

    async fn plan(&self, placed: &BTreeMap<InstanceIdent, Placed>, target: &Target) -> Plan {
        let world = self.world.nodes();
        let config = self.configs.current();
        let known = placed
            .values()
            .map(|placed| KnownInstance {
                ident: placed.ident.clone(),
                place: placed.place.clone(),
                uid: placed.uid,
                gid: placed.gid,
            })
            .collect();
        plan(&aos_schedule::Input {
            nodes: requests::nodes(&world, config.as_deref()),
            requests: requests::requests(target, self.images.as_ref(), placed).await,
            known,
            ..aos_schedule::Input::default()
        })
    }

    /// Makes a plan and stores it before anybody hears of it.
    async fn place(&self, target: &Target) -> Result<Plan, aos_store::Error> {
        let mut placed = self.placed.lock().await;
        let plan = self.plan(&placed, target).await;
        let now = SystemClock.now();
        let changes = remember(&mut placed, &plan, now);
        if !changes.is_empty() {
            self.records.apply(changes).await?;
        }
        let mut lists = Lists::of(placed.values());
        lists.unplaced.clone_from(&plan.unplaced);
        self.lists.send_if_modified(|current| {
            let differs = **current != lists;
            if differs {
                for unplaced in &lists.unplaced {
                    tracing::info!(instance = %unplaced.ident, reason = unplaced.reason, "an instance has no place");
                }
                *current = Arc::new(lists);
            }
            differs
        });
        Ok(plan)
    }
}

/// Takes a plan over into what is remembered; gives the changes to store.
fn remember(
    placed: &mut BTreeMap<InstanceIdent, Placed>,
    plan: &Plan,
    now: Timestamp,
) -> Vec<(String, Option<Placed>)> {
    let mut changes = Vec::new();
    let mut next: BTreeMap<InstanceIdent, Placed> = plan
        .placed
        .iter()
        .map(|place| (place.ident.clone(), Placed::of(place)))
        .collect();
    for (ident, old) in placed.iter() {
        if next.contains_key(ident) {
            continue;
        }
        let since = old.unplaced_since.unwrap_or(now);
        if now.since(since) >= REMEMBER {
            changes.push((ident.to_string(), None));
            continue;
        }
        let mut cached = old.clone();
        cached.place = None;
        cached.unplaced_since = Some(since);
        next.insert(ident.clone(), cached);
    }
    for (ident, new) in &next {
        if placed.get(ident) != Some(new) {
            changes.push((ident.to_string(), Some(new.clone())));
        }
    }
    *placed = next;
    changes
}

fn unplaced(plan: &Plan) -> Failures {
    Failures {
        instances: plan
            .unplaced
            .iter()
            .map(|one| {
                let error = ErrorInfo::new(AosCode::NotFound, one.reason.clone());
                (one.ident.clone(), error)
            })
            .collect(),
        ..Failures::default()
    }
}
