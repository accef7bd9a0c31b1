//! The master copies of the instances' states: kept here, told to the cloud, and given to a Node before it starts an
//! instance whose state it does not have.
//!
//! ```text
//!   Node: StateReport ──► judged by checksum ──► stored ──► StateKept; newState to the cloud until it answers
//!   cloud: updateState ──► stored ──► SetState to the Node that has the instance
//!   an instance goes to another Node ──► SetState there, before it starts
//! ```
//!
//! A Node that speaks plain servicemanager.v5 neither tells nor takes states; its instances keep theirs where they are.

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
use aos_types::{InstanceIdent, NodeId, state_checksum};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use verdict::Master;
use verdict::{Open, Verdict, judge};

use crate::{
    cloud::{Link, Outgoing},
    contract::{AlertSink, InstanceOrder, Nodes},
    placing::Lists,
    world::World,
};

/// The longest state that is kept, in bytes.
const MOST: usize = 1 << 20;

/// The pause before a Node is given again what it could not take.
const AGAIN: Duration = Duration::from_secs(60);

/// The states of the whole Unit.
pub(crate) struct States {
    records: Records<Master>,
    masters: std::sync::Mutex<BTreeMap<InstanceIdent, Master>>,
    /// Held while Nodes are given states, so that each is given once.
    giving: Mutex<()>,
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
    ) -> Result<Self, aos_store::Error> {
        let all = records.all().await?.into_iter();
        let masters = all.map(|(_, master)| (master.ident.clone(), master));
        Ok(Self {
            masters: std::sync::Mutex::new(masters.collect()),
            records,
            giving: Mutex::new(()),
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
            let _turn = self.giving.lock().await;
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

    /// Gives the Nodes what they have to be given, whenever something changes, until `stop`.
    pub(crate) async fn settle(
        &self,
        world: &World,
        mut lists: watch::Receiver<Arc<Lists>>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let (mut changes, mut news) = (world.changes(), self.news.subscribe());
        loop {
            changes.borrow_and_update();
            news.borrow_and_update();
            let now = lists.borrow_and_update().clone();
            for (id, node) in world.nodes() {
                if node.takes_orders() {
                    self.bring(&id, now.on(&id)).await?;
                }
            }
            // Waiting for a state is cancel-safe. What a Node could not take is tried again when anything changes, and
            // in any case after a while.
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = lists.changed() => {}
                Ok(()) = news.changed() => {}
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Gives a Node the states of these instances that it does not have. Call it before they start, and for as long as
    /// they run: an answer of the cloud may have come meanwhile. Of what cannot be given now the next call takes care.
    pub(crate) async fn bring(
        &self,
        node: &NodeId,
        orders: &[InstanceOrder],
    ) -> Result<(), aos_store::Error> {
        let _turn = self.giving.lock().await;
        for order in orders.iter().filter(|order| !order.state_path.is_empty()) {
            match self.master(&order.ident) {
                Some(master) if master.node.as_ref() == Some(node) => {}
                Some(master) => match self.nodes.set_state(node, order, &master.state).await {
                    Ok(true) => {
                        // It may have been replaced while it was given; then the next call gives the newer one.
                        if self.master(&order.ident).as_ref() == Some(&master) {
                            let node = Some(node.clone());
                            self.store(Master { node, ..master }).await?;
                        }
                    }
                    // Plain servicemanager.v5.
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%node, ident = %order.ident, %error, "a state cannot be given to a Node now");
                    }
                },
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
        }
        Ok(())
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
