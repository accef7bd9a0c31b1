use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_store::Records;
use aos_types::{AosCode, ErrorInfo, NodeId, NodeInfo, NodeResource, NodeState, RuntimeInfo};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::contract::{Iam, Nodes, SmNode};

/// A Node with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct KnownNode {
    /// As IAM tells; its state is `error` if the Node is lost.
    pub(crate) info: NodeInfo,
    /// As its SM presents it, while that is connected.
    pub(crate) sm: Option<SmNode>,
    /// The runtimes it has, or had when it was last connected.
    pub(crate) runtimes: Vec<RuntimeInfo>,
    /// The resources it has, or had.
    pub(crate) resources: Vec<NodeResource>,
    /// It is away, and not for long enough to count as lost.
    pub(crate) is_away: bool,
    /// It is paused, and not for long enough for its instances to be placed elsewhere.
    pub(crate) is_paused_shortly: bool,
    /// It counts as lost: as far as IAM knows it is provisioned.
    is_lost: bool,
}

impl KnownNode {
    /// Away for so long that what it ran is placed elsewhere.
    pub(crate) const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Connected, and has said what it runs.
    pub(crate) fn is_ready(&self) -> bool {
        self.info.state == NodeState::Provisioned
            && self.sm.as_ref().is_some_and(|sm| sm.instances.is_some())
    }

    /// Whether orders reach it: also a paused Node is told to stop.
    pub(crate) fn takes_orders(&self) -> bool {
        matches!(self.info.state, NodeState::Provisioned | NodeState::Paused)
            && self.sm.as_ref().is_some_and(|sm| sm.instances.is_some())
    }
}

/// What a Node has, as its SM presented it; stored, so that a Node that is away when CM starts is known all the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Equipment {
    runtimes: Vec<RuntimeInfo>,
    resources: Vec<NodeResource>,
}

/// How long CM has patience with Nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// After this time away a Node counts as lost.
    pub(crate) lost: Duration,
    /// For this time what a paused Node ran waits for it.
    pub(crate) pause: Duration,
}

/// What was seen of a Node's SM.
#[derive(Debug, Clone, Default)]
struct Seen {
    equipment: Equipment,
    /// Since when it is paused.
    paused_since: Option<Instant>,
    /// When it went, or since when we wait for it; `None` while it is connected.
    away_since: Option<Instant>,
}

/// All Nodes, from IAM and from their SMs.
pub(crate) struct World {
    iam: Arc<dyn Iam>,
    nodes: Arc<dyn Nodes>,
    plain_blobs: BTreeSet<NodeId>,
    patience: Patience,
    records: Records<Equipment>,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    changes: watch::Sender<u64>,
}

impl World {
    /// Knows what Nodes had when they were last seen.
    pub(crate) async fn open(
        iam: Arc<dyn Iam>,
        nodes: Arc<dyn Nodes>,
        records: Records<Equipment>,
        patience: Patience,
    ) -> Result<Self, aos_store::Error> {
        let now = Instant::now();
        let stored = records.all().await?.into_iter();
        let seen = stored.filter_map(|(id, equipment)| {
            let seen = Seen {
                equipment,
                away_since: Some(now),
                ..Seen::default()
            };
            Some((NodeId::new(id).ok()?, seen))
        });
        Ok(Self {
            iam,
            nodes,
            plain_blobs: BTreeSet::new(),
            patience,
            records,
            seen: Mutex::new(seen.collect()),
            changes: watch::channel(0).0,
        })
    }

    /// Marks the Nodes that are served blobs by plain HTTP: everybody who looks at them shall see it.
    #[must_use]
    pub(crate) fn marking(mut self, plain_blobs: impl IntoIterator<Item = NodeId>) -> Self {
        self.plain_blobs.extend(plain_blobs);
        self
    }

    /// Tells of every change of any Node, its instances included.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The Nodes as they are now.
    pub(crate) fn nodes(&self) -> BTreeMap<NodeId, KnownNode> {
        let iam = self.iam.nodes().borrow().clone();
        let view = self.nodes.view().borrow().clone();
        let now = Instant::now();
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        iam.values()
            .map(|info| {
                let sm = view.get(&info.id).cloned();
                let seen = seen.entry(info.id.clone()).or_insert_with(|| Seen {
                    away_since: Some(now),
                    ..Seen::default()
                });
                seen.paused_since = match info.state {
                    NodeState::Paused => seen.paused_since.or(Some(now)),
                    _ => None,
                };
                match &sm {
                    Some(sm) => {
                        seen.equipment.runtimes.clone_from(&sm.runtimes);
                        seen.equipment.resources.clone_from(&sm.resources);
                        seen.away_since = None;
                    }
                    None => {
                        seen.away_since.get_or_insert(now);
                    }
                }
                let node = self.known(info, sm, seen, now);
                (info.id.clone(), node)
            })
            .collect()
    }

    fn known(&self, info: &NodeInfo, sm: Option<SmNode>, seen: &Seen, now: Instant) -> KnownNode {
        let mut info = info.clone();
        let away = seen
            .away_since
            .map(|since| now.saturating_duration_since(since));
        let lost = away.is_some_and(|away| away >= self.patience.lost);
        let is_lost = lost && runs_sm(&info) && info.state == NodeState::Provisioned;
        if is_lost {
            info.state = NodeState::Error;
            info.error = Some(ErrorInfo::new(
                AosCode::Timeout,
                format!(
                    "its SM has not been connected for {} s; look at the Node and its network",
                    self.patience.lost.as_secs()
                ),
            ));
        }
        if self.plain_blobs.contains(&info.id) {
            info.attrs
                .insert("AosBlobTransfer".into(), "plain-http".into());
        }
        if let Some(sm) = &sm {
            let guarantee = sm.guarantee.as_str().to_owned();
            info.attrs.insert("AosGuarantee".into(), guarantee);
        }
        let waiting = sm.as_ref().is_none_or(|sm| sm.instances.is_none());
        let paused = seen
            .paused_since
            .map(|since| now.saturating_duration_since(since));
        KnownNode {
            is_away: waiting && !lost && runs_sm(&info),
            is_lost,
            is_paused_shortly: paused.is_some_and(|paused| paused < self.patience.pause),
            info,
            runtimes: seen.equipment.runtimes.clone(),
            resources: seen.equipment.resources.clone(),
            sm,
        }
    }

    /// When our patience with the next Node ends.
    fn next_end(&self) -> Option<Instant> {
        let now = Instant::now();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let losses = seen
            .values()
            .filter_map(|seen| Some(seen.away_since? + self.patience.lost));
        let pauses = seen
            .values()
            .filter_map(|seen| Some(seen.paused_since? + self.patience.pause));
        losses.chain(pauses).filter(|at| *at > now).min()
    }

    /// Stores what Nodes have, if it has changed, and forgets Nodes that are none any more.
    async fn store(
        &self,
        stored: &mut BTreeMap<NodeId, Equipment>,
    ) -> Result<(), aos_store::Error> {
        let known = self.iam.nodes().borrow().clone();
        let now: BTreeMap<NodeId, Equipment> = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter()
                .filter(|(id, seen)| {
                    let is_node = known.is_empty() || known.contains_key(*id);
                    is_node && seen.equipment != Equipment::default()
                })
                .map(|(id, seen)| (id.clone(), seen.equipment.clone()))
                .collect()
        };
        let gone = stored
            .keys()
            .filter(|id| !now.contains_key(*id))
            .map(|id| (id.to_string(), None));
        let changed = now
            .iter()
            .filter(|(id, equipment)| stored.get(*id) != Some(*equipment))
            .map(|(id, equipment)| (id.to_string(), Some(equipment.clone())));
        let changes: Vec<_> = gone.chain(changed).collect();
        *stored = now;
        if changes.is_empty() {
            return Ok(());
        }
        self.records.apply(changes).await
    }

    /// Watches until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) -> Result<(), aos_store::Error> {
        let mut iam = self.iam.nodes();
        let mut view = self.nodes.view();
        let mut stored = BTreeMap::new();
        loop {
            self.nodes();
            self.store(&mut stored).await?;
            self.changes.send_modify(|count| *count += 1);
            let end = self.next_end();
            // Every arm only waits for a state; nothing is lost when one is dropped.
            tokio::select! {
                Ok(()) = iam.changed() => {}
                Ok(()) = view.changed() => {}
                () = until(end) => {}
                () = stop.cancelled() => return Ok(()),
            }
            iam.borrow_and_update();
            view.borrow_and_update();
        }
    }

    /// Waits until no Node is away any more: each is connected or counts as lost. `most` bounds it.
    pub(crate) async fn settled(&self, most: Duration) {
        let mut changes = self.changes();
        let deadline = Instant::now() + most;
        loop {
            changes.borrow_and_update();
            let nodes = self.nodes();
            // IAM has not answered yet if there is no Node at all: this one is one.
            let waiting = nodes.is_empty()
                || nodes
                    .values()
                    .any(|node| node.is_away && node.info.state == NodeState::Provisioned);
            if !waiting {
                return;
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }
}

/// Whether a Node has an SM, as its attribute `AosComponents` tells; all have if it does not say.
fn runs_sm(info: &NodeInfo) -> bool {
    info.attrs.get("AosComponents").is_none_or(|components| {
        components
            .split(',')
            .any(|component| component.trim().eq_ignore_ascii_case("sm"))
    })
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
