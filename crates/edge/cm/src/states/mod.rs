//! The master copies of the instances' states: kept here, told to the cloud, and given to a Node before it starts an
//! instance whose state it does not have.
//!
//! ```text
//!   Node: StateReport ──► judged by checksum ──► stored ──► StateKept; newState to the cloud until it answers
//!   cloud: updateState ──► stored ──► SetState to the Node that has the instance
//!   an instance goes to another Node ──► SetState there, before it starts
//! ```
//!
//! An instance whose state is not on its Node is not on that Node's list: it is not started without it. The others are not
//! held up. The state is tried again with growing pauses; what a Node does not take for so long is given up, which is told
//! as the reason why the instance has failed, and tried on all the same.
//!
//! A Node that speaks plain servicemanager.v5 neither tells nor takes states; its instances keep theirs where they are.

mod delivery;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use aos_cloud_protocol::{
    AlertEvent, Body, NewState, StateAcceptance, StateRequest, StateResult, UpdateState,
};
use aos_session::{Keep, Priority};
use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, NodeId, state_checksum};
use futures::{StreamExt, future::join_all, stream};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) use delivery::Undelivered;
pub(crate) use verdict::Master;
use verdict::{Open, Verdict, judge};

use crate::{
    cloud::{Link, Outgoing},
    contract::{AlertSink, InstanceOrder, Nodes},
    placing::{Lists, runs_elsewhere},
    world::World,
};

/// The longest state that is kept, in bytes.
const MOST: usize = 1 << 20;

/// How long the states of one Node may take before its list goes out without the instances that wait for theirs.
const ATTEMPT: Duration = Duration::from_secs(10);

/// States a Node is given at the same time.
const AT_ONCE: usize = 4;

/// An instance on a Node.
pub(crate) type There = (NodeId, InstanceIdent);

/// The states that were to be given and are not there.
pub(crate) type Waiting = Arc<BTreeMap<There, Undelivered>>;

/// The states of the whole Unit.
pub(crate) struct States {
    records: Records<Master>,
    masters: std::sync::Mutex<BTreeMap<InstanceIdent, Master>>,
    /// Held while a Node is given a state, so that each is given once.
    giving: std::sync::Mutex<BTreeMap<There, Arc<Mutex<()>>>>,
    waiting: watch::Sender<Waiting>,
    /// How long a Node may fail to take a state before that is told as a failure.
    patience: Duration,
    /// A Node may have to be given something.
    news: watch::Sender<()>,
    nodes: Arc<dyn Nodes>,
    link: Link,
    own: NodeId,
}

impl States {
    /// Goes on from what is stored.
    pub(crate) async fn open(
        records: Records<Master>,
        nodes: Arc<dyn Nodes>,
        link: Link,
        own: NodeId,
        patience: Duration,
    ) -> Result<Self, aos_store::Error> {
        let all = records.all().await?.into_iter();
        let masters = all.map(|(_, master)| (master.ident.clone(), master));
        Ok(Self {
            masters: std::sync::Mutex::new(masters.collect()),
            records,
            giving: std::sync::Mutex::default(),
            waiting: watch::Sender::default(),
            patience,
            news: watch::channel(()).0,
            nodes,
            link,
            own,
        })
    }

    /// A Node tells the state of an instance; `first`: it knows of no state of it that anybody has.
    pub(crate) async fn told(
        &self,
        node: NodeId,
        ident: InstanceIdent,
        content: Vec<u8>,
        first: bool,
    ) -> Result<(), aos_store::Error> {
        let checksum = state_checksum(&content);
        let state = match String::from_utf8(content) {
            Ok(state) if state.len() <= MOST => state,
            Ok(_) | Err(_) => {
                self.complain(format!(
                    "the state of {ident} stays on Node {node} alone: a state must be text of at most {MOST} bytes"
                ));
                self.kept(&node, &ident, checksum).await;
                return Ok(());
            }
        };
        let mut master = self.master(&ident);
        if first {
            match master {
                // It had the master copy and has lost it: whatever it has instead began from nothing.
                Some(master)
                    if !master.state.is_empty()
                        && master.node.as_ref().is_none_or(|has| *has == node)
                        && master.checksum != checksum =>
                {
                    self.complain(format!(
                        "Node {node} has lost the state of {ident} and is given it again"
                    ));
                    self.store(Master {
                        node: None,
                        ..master
                    })
                    .await?;
                    self.kept(&node, &ident, checksum).await;
                    self.news.send_replace(());
                    return Ok(());
                }
                // Nothing was written yet. Whether there is one elsewhere is asked when the instance is placed.
                _ if state.is_empty() => {
                    self.kept(&node, &ident, checksum).await;
                    return Ok(());
                }
                _ => {}
            }
        }
        let mut verdict = judge(master.as_ref(), &node, &checksum);
        if verdict == Verdict::Stale {
            // It may have been given the master copy this very moment, and have gone on from it.
            let turn = self.turn(&node, &ident);
            let _turn = turn.lock().await;
            master = self.master(&ident);
            verdict = judge(master.as_ref(), &node, &checksum);
        }
        match verdict {
            Verdict::Known => {
                if let Some(master) = master.filter(|master| master.node.is_none()) {
                    self.store(Master {
                        node: Some(node.clone()),
                        ..master
                    })
                    .await?;
                }
            }
            Verdict::New => {
                let master = Master {
                    ident: ident.clone(),
                    state,
                    checksum: checksum.clone(),
                    node: Some(node.clone()),
                    open: Open::Acceptance,
                };
                self.store(master.clone()).await?;
                self.say(&master).await;
            }
            Verdict::Stale => self.complain(format!(
                "the state that Node {node} has of {ident} is not taken over: the Unit went on with another one while they were apart"
            )),
        }
        self.kept(&node, &ident, checksum).await;
        Ok(())
    }

    /// The cloud answers a new state.
    pub(crate) async fn judged(&self, answer: StateAcceptance) -> Result<(), aos_store::Error> {
        let Some(master) = self.master(&answer.instance) else {
            return Ok(());
        };
        // Of a state that was written over meanwhile: the newer one has its own answer coming.
        if !master.checksum.eq_ignore_ascii_case(&answer.checksum) || master.open == Open::Answer {
            return Ok(());
        }
        let open = match answer.result {
            StateResult::Accepted => Open::Nothing,
            StateResult::Rejected => {
                self.complain(format!(
                    "the cloud has rejected the state of {}: {}",
                    answer.instance, answer.reason
                ));
                Open::Answer
            }
        };
        let master = Master { open, ..master };
        self.store(master.clone()).await?;
        self.say(&master).await;
        Ok(())
    }

    /// The cloud gives the state that an instance shall have.
    pub(crate) async fn ordered(&self, order: UpdateState) -> Result<(), aos_store::Error> {
        let ident = order.instance;
        let checksum = state_checksum(order.state.as_bytes());
        if !checksum.eq_ignore_ascii_case(&order.checksum) || order.state.len() > MOST {
            self.complain(format!(
                "the cloud's state of {ident} is not taken over: its checksum is another one, or it is longer than {MOST} bytes"
            ));
            return Ok(());
        }
        let before = self.master(&ident);
        let node = match &before {
            Some(before) if before.checksum == checksum => before.node.clone(),
            Some(before) if before.open == Open::Acceptance => {
                self.complain(format!(
                    "the state of {ident} that the cloud had not accepted yet is replaced by the cloud's"
                ));
                None
            }
            _ => None,
        };
        self.store(Master {
            ident,
            state: order.state,
            checksum,
            node,
            open: Open::Nothing,
        })
        .await?;
        self.news.send_replace(());
        Ok(())
    }

    /// The states that were to be given and are not there.
    pub(crate) fn waiting(&self) -> watch::Receiver<Waiting> {
        self.waiting.subscribe()
    }

    /// Gives the Nodes what they have to be given, whenever something changes, until `stop`.
    pub(crate) async fn settle(
        &self,
        world: &World,
        mut lists: watch::Receiver<Arc<Lists>>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let (mut changes, mut news) = (world.changes(), self.news.subscribe());
        let mut waiting = self.waiting.subscribe();
        loop {
            changes.borrow_and_update();
            news.borrow_and_update();
            waiting.borrow_and_update();
            let now = lists.borrow_and_update().clone();
            let nodes = world.nodes();
            let settled: BTreeMap<NodeId, Vec<InstanceOrder>> = nodes
                .iter()
                .filter(|(_, node)| node.takes_orders())
                .map(|(id, _)| {
                    let orders = now.on(id).iter();
                    // As long as it runs elsewhere it goes on writing there.
                    let settled = orders.filter(|order| !runs_elsewhere(id, &nodes, &order.ident));
                    (id.clone(), settled.cloned().collect())
                })
                .collect();
            self.forget_all_but(|(node, ident)| {
                let orders = settled.get(node);
                orders.is_some_and(|orders| orders.iter().any(|order| order.ident == *ident))
            });
            // Side by side: a Node that hangs holds up no other.
            let work = settled
                .iter()
                .map(|(node, orders)| self.bring(node, orders));
            for brought in join_all(work).await {
                brought?;
            }
            let next = self.waiting.borrow().values().map(Undelivered::next).min();
            // Waiting for a state is cancel-safe.
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = lists.changed() => {}
                Ok(()) = news.changed() => {}
                Ok(()) = waiting.changed() => {}
                () = until(next) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Gives a Node the states of these instances that it does not have, and says which of them it still does not have, each
    /// with the reason. Call it before they start, and for as long as they run: an answer of the cloud may have come
    /// meanwhile. What could not be given is tried again when its pause is over.
    pub(crate) async fn bring(
        &self,
        node: &NodeId,
        orders: &[InstanceOrder],
    ) -> Result<BTreeMap<InstanceIdent, Undelivered>, aos_store::Error> {
        let deadline = Instant::now() + ATTEMPT;
        let work = orders.iter().filter(|order| !order.state_path.is_empty());
        let work: Vec<_> = work.map(|order| self.give(node, order, deadline)).collect();
        let given: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        given.into_iter().collect::<Result<(), _>>()?;
        let waiting = self.waiting.borrow().clone();
        let of_node = orders.iter().filter_map(|order| {
            let there = (node.clone(), order.ident.clone());
            Some((order.ident.clone(), waiting.get(&there)?.clone()))
        });
        Ok(of_node.collect())
    }

    /// Gives a Node one state, if it is to have one that it does not have.
    async fn give(
        &self,
        node: &NodeId,
        order: &InstanceOrder,
        deadline: Instant,
    ) -> Result<(), aos_store::Error> {
        let there = (node.clone(), order.ident.clone());
        let turn = self.turn(node, &order.ident);
        let Ok(_turn) = timeout_at(deadline, turn.lock()).await else {
            self.not_given(there, order, late());
            return Ok(());
        };
        match self.master(&order.ident) {
            Some(master) if master.node.as_ref() == Some(node) => self.forget(&there),
            Some(master) => {
                let connection = self.connection(node);
                let known = self.waiting.borrow().get(&there).cloned();
                if known.is_some_and(|known| !known.is_due(connection, Instant::now())) {
                    return Ok(());
                }
                // What comes of an attempt that is given up is found out by the next one.
                let given = self.nodes.set_state(node, order, &master.state);
                match timeout_at(deadline, given)
                    .await
                    .unwrap_or_else(|_| Err(late()))
                {
                    Ok(true) => {
                        // It may have been replaced while it was given; then the next call gives the newer one.
                        if self.master(&order.ident).as_ref() == Some(&master) {
                            let node = Some(node.clone());
                            self.store(Master { node, ..master }).await?;
                        }
                        self.forget(&there);
                    }
                    // Plain servicemanager.v5.
                    Ok(false) => self.forget(&there),
                    Err(error) => self.not_given(there, order, error),
                }
            }
            // Never seen: the cloud may know it from an earlier life of this Unit.
            None => {
                let master = Master {
                    ident: order.ident.clone(),
                    state: String::new(),
                    checksum: state_checksum(b""),
                    node: Some(node.clone()),
                    open: Open::Answer,
                };
                self.store(master.clone()).await?;
                self.say(&master).await;
            }
        }
        Ok(())
    }

    /// The checksums of the states that Nodes have, each with its Node and instance.
    pub(crate) fn checksums(&self) -> BTreeMap<There, String> {
        let masters = self.lock();
        let there = masters.values().filter_map(|master| {
            let there = (master.node.clone()?, master.ident.clone());
            Some((there, master.checksum.clone()))
        });
        there.collect()
    }

    fn turn(&self, node: &NodeId, ident: &InstanceIdent) -> Arc<Mutex<()>> {
        let mut giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are of no more use.
        giving.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = giving.entry((node.clone(), ident.clone()));
        Arc::clone(turn.or_default())
    }

    /// The stream that a Node has now.
    fn connection(&self, node: &NodeId) -> u64 {
        let view = self.nodes.view();
        let view = view.borrow();
        view.get(node).map_or(0, |node| node.connection)
    }

    fn not_given(&self, there: There, order: &InstanceOrder, error: ErrorInfo) {
        let (now, connection) = (Instant::now(), self.connection(&there.0));
        let before = self.waiting.borrow().get(&there).cloned();
        let next = Undelivered::after(before.as_ref(), connection, now, error, self.patience);
        let why = next.why();
        tracing::warn!(node = %there.0, instance = %there.1, %why, "a state cannot be given to a Node now");
        if next.given_up && !before.is_some_and(|before| before.given_up) {
            self.link.alert(AlertEvent::UpdateItemInstance {
                instance: order.ident.clone(),
                version: order.version.clone(),
                message: format!("on node {} {}", there.0, why.message),
            });
        }
        self.waiting.send_modify(|waiting| {
            Arc::make_mut(waiting).insert(there, next);
        });
    }

    fn forget(&self, there: &There) {
        self.forget_all_but(|one| one != there);
    }

    fn forget_all_but(&self, keep: impl Fn(&There) -> bool) {
        self.waiting.send_if_modified(|waiting| {
            let gone = waiting.keys().any(|one| !keep(one));
            if gone {
                Arc::make_mut(waiting).retain(|one, _| keep(one));
            }
            gone
        });
    }

    /// Says what is open whenever the cloud is connected anew, until `stop`.
    pub(crate) async fn remind(&self, stop: CancellationToken) {
        let mut connected: watch::Receiver<bool> = self.link.connected.clone();
        loop {
            if *connected.borrow_and_update() {
                for master in self.all() {
                    self.say(&master).await;
                }
            }
            // Waiting for a state is cancel-safe.
            tokio::select! {
                changed = connected.changed() => if changed.is_err() {
                    stop.cancelled().await;
                    return;
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Says what is open about a state. For this connection only: the record outlives it, so nothing waits twice.
    async fn say(&self, master: &Master) {
        let instance = master.ident.clone();
        let body = match master.open {
            Open::Nothing => return,
            Open::Acceptance => Body::NewState(NewState {
                instance,
                checksum: master.checksum.clone(),
                state: master.state.clone(),
            }),
            Open::Answer => Body::StateRequest(StateRequest {
                instance,
                default: false,
            }),
        };
        if self.link.is_connected() {
            let mut message = Outgoing::durable(body, Priority::Normal);
            message.keep = Keep::Connection;
            self.link.send(message).await;
        }
    }

    async fn kept(&self, node: &NodeId, ident: &InstanceIdent, checksum: String) {
        // A Node that is gone tells it again.
        if let Err(error) = self.nodes.state_kept(node, ident, checksum).await {
            tracing::debug!(%node, %ident, %error, "a Node does not hear that its state is kept");
        }
    }

    async fn store(&self, master: Master) -> Result<(), aos_store::Error> {
        self.records.put(master.ident.to_string(), &master).await?;
        self.lock().insert(master.ident.clone(), master);
        Ok(())
    }

    fn master(&self, ident: &InstanceIdent) -> Option<Master> {
        self.lock().get(ident).cloned()
    }

    fn all(&self) -> Vec<Master> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceIdent, Master>> {
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, message: String) {
        tracing::warn!("{message}");
        self.link.alert(AlertEvent::Core {
            node: self.own.clone(),
            component: "CM".into(),
            message,
        });
    }
}

fn late() -> ErrorInfo {
    ErrorInfo::new(
        AosCode::Timeout,
        format!("it did not answer within {} s", ATTEMPT.as_secs()),
    )
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
