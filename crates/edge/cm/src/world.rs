use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_types::{AosCode, ErrorInfo, NodeId, NodeInfo, NodeResource, NodeState, RuntimeInfo};
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
}

impl KnownNode {
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

/// What was seen of a Node's SM.
#[derive(Debug, Clone)]
struct Seen {
    runtimes: Vec<RuntimeInfo>,
    resources: Vec<NodeResource>,
    /// When it went, or since when we wait for it; `None` while it is connected.
    away_since: Option<Instant>,
}

/// All Nodes, from IAM and from their SMs.
pub(crate) struct World {
    iam: Arc<dyn Iam>,
    nodes: Arc<dyn Nodes>,
    lost_after: Duration,
    plain_blobs: BTreeSet<NodeId>,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    changes: watch::Sender<u64>,
}

impl World {
    pub(crate) fn new(iam: Arc<dyn Iam>, nodes: Arc<dyn Nodes>, lost_after: Duration) -> Self {
        Self {
            iam,
            nodes,
            lost_after,
            plain_blobs: BTreeSet::new(),
            seen: Mutex::default(),
            changes: watch::channel(0).0,
        }
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
                    runtimes: Vec::new(),
                    resources: Vec::new(),
                    away_since: Some(now),
                });
                match &sm {
                    Some(sm) => {
                        seen.runtimes.clone_from(&sm.runtimes);
                        seen.resources.clone_from(&sm.resources);
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
        let lost = away.is_some_and(|away| away >= self.lost_after);
        if lost && runs_sm(&info) && info.state == NodeState::Provisioned {
            info.state = NodeState::Error;
            info.error = Some(ErrorInfo::new(
                AosCode::Timeout,
                format!(
                    "its SM has not been connected for {} s; look at the Node and its network",
                    self.lost_after.as_secs()
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
        KnownNode {
            is_away: waiting && !lost && runs_sm(&info),
            info,
            runtimes: seen.runtimes.clone(),
            resources: seen.resources.clone(),
            sm,
        }
    }

    /// When the next Node that is away counts as lost.
    fn next_loss(&self) -> Option<Instant> {
        let now = Instant::now();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values()
            .filter_map(|seen| Some(seen.away_since? + self.lost_after))
            .filter(|at| *at > now)
            .min()
    }

    /// Watches until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut iam = self.iam.nodes();
        let mut view = self.nodes.view();
        loop {
            self.nodes();
            self.changes.send_modify(|count| *count += 1);
            let loss = self.next_loss();
            // Every arm only waits for a state; nothing is lost when one is dropped.
            tokio::select! {
                Ok(()) = iam.changed() => {}
                Ok(()) = view.changed() => {}
                () = until(loss) => {}
                () = stop.cancelled() => return,
            }
            iam.borrow_and_update();
            view.borrow_and_update();
        }
    }

    /// Waits until no Node is away any more: each is connected or counts as lost. Bounded by the time after which a Node is
    /// lost.
    pub(crate) async fn settled(&self) {
        let mut changes = self.changes();
        let deadline = Instant::now() + self.lost_after + Duration::from_secs(1);
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
