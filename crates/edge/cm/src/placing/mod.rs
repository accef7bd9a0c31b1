//! Where instances run: asks the scheduler, remembers what it said, and gives the Nodes their lists.
//!
//! There is one set of lists at a time ([`Lists`]). An update replaces it ([`Placing::launch`]); between updates
//! [`Placing::follow`] follows the Nodes: one that connects and runs something else is given its list, and when one is
//! lost, paused or changed, what it had is placed again.
//!
//! | module | decides or does |
//! |---|---|
//! | `requests` | tells the scheduler what there is and what is wanted |
//! | `remember` | what becomes of an instance that is wanted no more: cached, then removed |
//! | `overrides` | variables on top of those of the images, each until its time |
//! | `usage` | what Nodes and instances use on average, and which Node is overloaded |
//! | `explain` | why an instance has no place, or not the one it might have |
//! | `sending` | which Node is sent its list, and in which order |
//! | `turns` | whose turn it is while the Nodes are followed: one that hangs holds up nobody else |
//! | `litter` | removes what instances kept on Nodes once nobody needs it |
//! | `prepare` | has images installed before anything is stopped for them |
//! | `follow` | the task that does all that when something changes |

mod allocation;
mod explain;
mod follow;
mod host_ids;
mod lists;
mod litter;
mod overrides;
mod prepare;
mod remember;
mod requests;
mod sending;
mod turns;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use aos_cloud_protocol::{AlertEvent, OverrideEnvVars, OverrideEnvVarsStatus};
use aos_schedule::{Cause, Defaults, Disabled, KnownInstance, Plan, Unplaced, Usage, Why, plan};
use aos_store::{Records, Store};
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, NodeId, SubjectId};
use aos_update::{Failures, Target};
use futures::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use explain::Explained;
pub(crate) use lists::{Lists, Placed};
pub(crate) use sending::runs_elsewhere;
pub(crate) use usage::Usages;

use self::{
    explain::explain,
    lists::Standing,
    overrides::Overrides,
    prepare::Prepared,
    remember::{Keep, Memory, remember},
};
use crate::{
    PlacingOptions,
    contract::{AlertSink, Images, InstanceOrder, Nodes},
    states::States,
    unit_config::UnitConfigs,
    updates::InForce,
    world::{KnownNode, World},
};

/// The one record of the overrides.
const OVERRIDES: &str = "set";

/// Variables of an instance, by name.
type Env = Vec<(String, String)>;

/// What placing is made of.
pub(crate) struct Setup {
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) world: Arc<World>,
    pub(crate) configs: Arc<UnitConfigs>,
    pub(crate) states: Arc<States>,
    /// What the Nodes shall run by the update engine.
    pub(crate) in_force: watch::Receiver<InForce>,
    /// The subjects that the Unit reports.
    pub(crate) subjects: watch::Receiver<Arc<Vec<SubjectId>>>,
    pub(crate) usages: Arc<Usages>,
    pub(crate) alerts: Arc<dyn AlertSink>,
    pub(crate) store: Store,
    pub(crate) options: PlacingOptions,
}

/// The scheduler's shell.
pub(crate) struct Placing {
    nodes: Arc<dyn Nodes>,
    images: Arc<dyn Images>,
    world: Arc<World>,
    configs: Arc<UnitConfigs>,
    subjects: watch::Receiver<Arc<Vec<SubjectId>>>,
    usages: Arc<Usages>,
    alerts: Arc<dyn AlertSink>,
    options: PlacingOptions,
    taken_ids: BTreeSet<u32>,
    records: Records<Placed>,
    states: Arc<States>,
    stored_overrides: Records<Overrides>,
    /// The variables that instances were given last, by those who have some.
    given: Records<Env>,
    /// Every instance that is or was wanted; one plan is made at a time.
    placed: Mutex<Memory>,
    overrides: watch::Sender<Arc<Overrides>>,
    plan: watch::Sender<Arc<Plan>>,
    lists: watch::Sender<Arc<Lists>>,
    /// What each Node was given. Held while a Node is given something, so a Node that hangs holds up nobody else.
    sent: std::sync::Mutex<BTreeMap<NodeId, Arc<Mutex<Sent>>>>,
    /// What is known to be installed on the Nodes, or could not be.
    prepared: std::sync::Mutex<BTreeMap<NodeId, Prepared>>,
    in_force: watch::Receiver<InForce>,
    /// Ends the wait of the lists that follow the Nodes: a launch does not wait behind them.
    following: watch::Sender<CancellationToken>,
    env: std::sync::Mutex<BTreeMap<String, Env>>,
}

/// What CM knows of the list a Node has, with the connection that holds for.
#[derive(Debug, Default)]
enum Sent {
    /// CM has given it none since it started.
    #[default]
    Nothing,
    /// It was given one and has not answered. It may still carry that out, on whatever connection, and until then what it
    /// reports tells nothing of what it will run.
    InDoubt,
    /// It was given none, as it ran what it shall. One of an earlier CM or connection may still come to light.
    Adopted(u64, Vec<InstanceOrder>),
    /// It has carried this one out as far as it can.
    Taken(u64, Vec<InstanceOrder>),
}

impl Placing {
    /// Goes on from what is stored.
    pub(crate) async fn open(setup: Setup) -> Result<Self, aos_store::Error> {
        let records: Records<Placed> = Records::new(setup.store.clone(), "placed");
        let stored_overrides: Records<Overrides> = Records::new(setup.store.clone(), "overrides");
        let given: Records<Env> = Records::new(setup.store, "given_env");
        let stored = records.all().await?;
        let placed: Memory = stored
            .into_iter()
            .map(|(_, placed)| (placed.ident.clone(), placed))
            .collect();
        let overrides = stored_overrides.get(OVERRIDES).await?.unwrap_or_default();
        let env = given.all().await?.into_iter().collect();
        let now = SystemClock.now();
        let lists = Lists::of(placed.values(), |ident| overrides.of(ident, now));
        Ok(Self {
            nodes: setup.nodes,
            images: setup.images,
            world: setup.world,
            configs: setup.configs,
            subjects: setup.subjects,
            usages: setup.usages,
            alerts: setup.alerts,
            options: setup.options,
            taken_ids: host_ids::taken(),
            states: setup.states,
            records,
            stored_overrides,
            given,
            placed: Mutex::new(placed),
            overrides: watch::channel(Arc::new(overrides)).0,
            plan: watch::channel(Arc::default()).0,
            lists: watch::channel(Arc::new(lists)).0,
            sent: std::sync::Mutex::default(),
            prepared: std::sync::Mutex::default(),
            in_force: setup.in_force,
            following: watch::channel(CancellationToken::new()).0,
            env: std::sync::Mutex::new(env),
        })
    }

    /// The lists in force.
    pub(crate) fn lists(&self) -> watch::Receiver<Arc<Lists>> {
        self.lists.subscribe()
    }

    /// The last plan, with the reason of each decision.
    pub(crate) fn plans(&self) -> watch::Receiver<Arc<Plan>> {
        self.plan.subscribe()
    }

    /// Places `target` and has what is new installed and verified where it will run. Changes nothing that runs.
    pub(crate) async fn install(&self, target: &Target, cancel: &CancellationToken) -> Failures {
        self.world.settled(self.options.nodes_wait()).await;
        let plan = {
            let placed = self.placed.lock().await;
            self.plan(&placed, target).await
        };
        let mut failures = unplaced(&plan);
        let world = self.world.nodes();
        let mut installs = Vec::new();
        for (id, node) in &world {
            let orders = plan.on_node(id);
            let orders = orders.filter_map(|place| lists::order(place, Vec::new()));
            let new: Vec<InstanceOrder> = orders
                .filter(|order| !prepare::has_image(node, order))
                .collect();
            if !new.is_empty() && node.sm.is_some() {
                installs.push(self.install_on(id, new, cancel));
            }
        }
        for installed in join_all(installs).await {
            failures.instances.extend(installed.instances);
            failures.nodes.extend(installed.nodes);
        }
        failures
    }

    /// Places `target`, remembers it, and brings it to the Nodes. Returns when they have taken their lists over, or soon after
    /// `cancel`.
    pub(crate) async fn launch(
        &self,
        target: &Target,
        cancel: &CancellationToken,
    ) -> Result<Failures, aos_store::Error> {
        // Waiting changes nothing.
        tokio::select! {
            () = self.world.settled(self.options.nodes_wait()) => {}
            () = cancel.cancelled() => return Ok(Failures::default()),
        }
        let Some(plan) = self.place(target, || true).await? else {
            return Ok(Failures::default());
        };
        let mut failures = unplaced(&plan);
        // Lists that merely follow the Nodes make room.
        self.following.borrow().cancel();
        let sent = self.send(true, cancel, &|| true).await;
        failures.instances.extend(sent.instances);
        for (node, error) in sent.nodes {
            for order in plan.on_node(&node) {
                failures
                    .instances
                    .entry(order.ident.clone())
                    .or_insert_with(|| error.clone());
            }
            failures.nodes.insert(node, error);
        }
        Ok(failures)
    }

    /// Places the set `in force` again as the Nodes are now; an instance that runs and fits stays where it is. Gives whether
    /// the lists are such that the Nodes can be given them. What is not in force any more by then is not placed.
    async fn reconcile(&self, in_force: &InForce) -> Result<bool, aos_store::Error> {
        let world = self.world.nodes();
        // Before IAM has told of any Node, nothing can be said about places.
        if world.is_empty() {
            return Ok(false);
        }
        let target = &in_force.target;
        let still = || self.in_force.borrow().is_still(in_force);
        // Nor can it about a Node that was never seen: what it runs stays there until it is lost.
        let unknown = |node: &KnownNode| node.is_away && node.runtimes.is_empty();
        if !world.values().any(unknown) {
            if self.place(target, still).await?.is_none() {
                return Ok(false);
            }
        } else if !self.lists.borrow().are_of(target) {
            // The lists are those of a set that counts no more. The Nodes run on with what they have.
            return Ok(false);
        }
        self.forget_litter().await?;
        Ok(true)
    }

    /// Takes a set of overrides of the cloud over; gives how each went.
    pub(crate) async fn override_env(
        &self,
        message: OverrideEnvVars,
    ) -> Result<OverrideEnvVarsStatus, aos_store::Error> {
        let placed = self.placed.lock().await;
        let wanted = placed
            .values()
            .filter(|placed| placed.standing == Standing::Active)
            .map(|placed| placed.ident.clone());
        let known: Vec<InstanceIdent> = wanted.collect();
        let (overrides, status) = Overrides::read(message, &known, SystemClock.now());
        if let Some(overrides) = overrides {
            self.override_by(overrides, &placed).await?;
        }
        Ok(status)
    }

    /// Drops variables whose time is over. Gives when the next one ends.
    async fn end_overrides(&self) -> Result<Option<Timestamp>, aos_store::Error> {
        let overrides = self.overrides.borrow().clone();
        if let Some(left) = overrides.without_ended(SystemClock.now()) {
            let placed = self.placed.lock().await;
            self.override_by(left, &placed).await?;
        }
        let next = self.overrides.borrow().next_end();
        Ok(next)
    }

    async fn override_by(
        &self,
        overrides: Overrides,
        placed: &Memory,
    ) -> Result<(), aos_store::Error> {
        self.stored_overrides.put(OVERRIDES, &overrides).await?;
        self.overrides.send_replace(Arc::new(overrides));
        self.publish(placed);
        Ok(())
    }

    async fn plan(&self, placed: &Memory, target: &Target) -> Plan {
        let world = self.world.nodes();
        let config = self.configs.current();
        let now = SystemClock.now();
        let idents: Vec<InstanceIdent> = placed.keys().cloned().collect();
        let usages = self.usages.instances(&idents, now);
        let known: Vec<KnownInstance> = placed
            .values()
            .map(|placed| KnownInstance {
                ident: placed.ident.clone(),
                place: placed.place.clone(),
                version: placed.version.clone(),
                manifest: placed.manifest,
                // A state goes along: its master copy is here.
                home: placed.home.clone().filter(|_| placed.storage),
                uid: placed.uid,
                gid: placed.gid,
                usage: usages.get(&placed.ident).copied().unwrap_or_default(),
            })
            .collect();
        // What all instances of a Node use, if all were measured.
        let mut used: BTreeMap<&NodeId, Option<Usage>> = BTreeMap::new();
        for one in &known {
            if let Some((node, _)) = &one.place {
                let sum = used.entry(node).or_insert(Some(Usage::default()));
                *sum = sum
                    .filter(|_| usages.contains_key(&one.ident))
                    .map(|sum| Usage {
                        cpu: sum.cpu.saturating_add(one.usage.cpu),
                        ram: sum.ram.saturating_add(one.usage.ram),
                        ..sum
                    });
            }
        }
        let nodes = requests::nodes(&world, config.as_deref(), |node, rules| {
            let used = used.get(&node.id).copied().flatten();
            let overload = self.usages.overload(node, rules, used, now);
            let sm = world.get(&node.id).and_then(|node| node.sm.as_ref());
            // What the Node itself says is free counts first.
            let told = sm.and_then(|sm| sm.space);
            (told.unwrap_or_else(|| self.usages.space(node)), overload)
        });
        let subjects = self.subjects.borrow().clone();
        let requests = requests::requests(target, self.images.as_ref(), placed, &subjects).await;
        plan(&aos_schedule::Input {
            nodes,
            requests,
            known,
            defaults: Defaults {
                cpu: self.options.default_cpu_dmips,
                ram: self.options.default_ram_bytes,
            },
            ids: self.options.ids.range(),
            taken_ids: self.taken_ids.clone(),
        })
    }

    /// Makes a plan and stores it before anybody hears of it; nothing if `target` does not count any more.
    async fn place(
        &self,
        target: &Target,
        counts: impl Fn() -> bool,
    ) -> Result<Option<Arc<Plan>>, aos_store::Error> {
        let mut placed = self.placed.lock().await;
        let plan = Arc::new(self.plan(&placed, target).await);
        if !counts() {
            return Ok(None);
        }
        let keep = Keep {
            ttl: self.options.keep_instances(),
            most: self.options.max_cached_instances,
        };
        let mut next = placed.clone();
        let changes = remember(&mut next, &plan, SystemClock.now(), keep);
        if !changes.is_empty() {
            self.records.apply(changes).await?;
        }
        for place in &plan.placed {
            if let Some(home) = &place.leaves_behind {
                self.report_loss(place, home);
            }
            if let Why::Relieves(node) = &place.why {
                tracing::info!(instance = %place.ident, from = %node, to = %place.node, "an instance leaves an overloaded node");
                self.usages.begin_anew(node);
            }
        }
        *placed = next;
        self.plan.send_replace(plan.clone());
        self.publish(&placed);
        Ok(Some(plan))
    }

    fn report_loss(&self, place: &aos_schedule::Placement, home: &NodeId) {
        tracing::warn!(instance = %place.ident, node = %place.node, left = %home, "an instance starts without its storage and state");
        self.alerts.alert(AlertEvent::UpdateItemInstance {
            instance: place.ident.clone(),
            version: place.version.clone(),
            message: format!(
                "it runs on node {} now, without the storage and state it left on node {home}",
                place.node
            ),
        });
    }

    /// Makes the lists of what is remembered and the last plan.
    fn publish(&self, placed: &Memory) {
        let (overrides, plan) = (self.overrides.borrow().clone(), self.plan.borrow().clone());
        let now = SystemClock.now();
        let mut lists = Lists::of(placed.values(), |ident| overrides.of(ident, now));
        lists.unplaced.clone_from(&plan.unplaced);
        lists.disabled.clone_from(&plan.disabled);
        let (world, config) = (self.world.nodes(), self.configs.current());
        let priority = |id: &NodeId| {
            let node = world.get(id).zip(config.as_deref());
            node.map_or(0, |(node, config)| {
                config.for_node(id, &node.info.node_type).priority
            })
        };
        lists.explained = explain(&plan, priority, &self.lists.borrow().explained);
        self.lists.send_if_modified(|current| {
            let differs = **current != lists;
            if differs {
                for unplaced in &lists.unplaced {
                    let Unplaced { ident, reason, .. } = unplaced;
                    tracing::info!(instance = %ident, %reason, "an instance has no place");
                    let known = |one: &Unplaced| one.ident == *ident && one.reason == *reason;
                    if !current.unplaced.iter().any(known)
                        && let Some(alert) = allocation::alert(&plan, unplaced)
                    {
                        self.alerts.alert(alert);
                    }
                }
                for Disabled { ident, reason, .. } in &lists.disabled {
                    tracing::info!(instance = %ident, reason, "an instance is disabled");
                }
                *current = Arc::new(lists);
            }
            differs
        });
    }

    /// The variables that an instance was given last on this Node. Another Node may still run it with others.
    fn given_env(&self, node: &NodeId, ident: &InstanceIdent) -> Env {
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        let env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        env.get(&given_key(node, ident))
            .cloned()
            .unwrap_or_default()
    }

    /// Remembers which variables a Node is about to be given with its list, or has taken over. In between nobody knows
    /// which it has: its answer may be lost.
    async fn remember_env(
        &self,
        node: &NodeId,
        list: &[InstanceOrder],
        answered: bool,
    ) -> Result<(), aos_store::Error> {
        let changes: Vec<(String, Option<Env>)> = {
            let mut env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
            let mut changes = Vec::new();
            for order in list {
                let key = given_key(node, &order.ident);
                if env.get(&key).map_or(&[][..], Vec::as_slice) == order.env {
                    continue;
                }
                let next = match answered {
                    true => order.env.clone(),
                    // No variable is without a name, so this is like no set there can be.
                    false => vec![Default::default()],
                };
                if next.is_empty() {
                    env.remove(&key);
                    changes.push((key, None));
                } else {
                    env.insert(key.clone(), next.clone());
                    changes.push((key, Some(next)));
                }
            }
            changes
        };
        if changes.is_empty() {
            return Ok(());
        }
        self.given.apply(changes).await
    }
}

/// An id has no slash in it.
fn given_key(node: &NodeId, ident: &InstanceIdent) -> String {
    format!("{node}/{ident}")
}

/// Instances that fit nowhere. One that waits for its Node is not among them: nothing is wrong with it.
fn unplaced(plan: &Plan) -> Failures {
    Failures {
        instances: plan
            .unplaced
            .iter()
            .filter(|one| !matches!(one.cause, Cause::Waits(_)))
            .map(|one| {
                let error = ErrorInfo::new(AosCode::NotFound, &*one.reason);
                (one.ident.clone(), error)
            })
            .collect(),
        ..Failures::default()
    }
}
