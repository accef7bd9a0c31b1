//! Tells Nodes how instances on other Nodes are doing, as far as their own wait for those (`aos.node.v1`, `elsewhere`).
//!
//! A Node names the items it waits for. It is told at once how they are doing on the Unit, and again whenever something of
//! that changes; of no others. An item that is wanted nowhere is told as one without instances, so nobody waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aos_launch::{Peer, Progress};
use aos_schedule::Cause;
use aos_types::{InstanceState, ItemId, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    contract::{InstanceReport, Nodes, SmNode},
    placing::Lists,
    world::{KnownNode, World},
};

/// Most instances of one item of which a Node is told. Those that are furthest from ready count.
const MOST: usize = 64;
/// Longest reason, in characters.
const LONGEST: usize = 256;
/// A Node whose stream has no room is told after this pause.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes are gathered this long.
const GATHER: Duration = Duration::from_millis(50);

/// What was told on one stream.
#[derive(Default)]
struct Told {
    stream: u64,
    items: BTreeMap<ItemId, Vec<Peer>>,
}

/// Tells all Nodes what they have asked about, until `stop`.
pub(crate) async fn run(
    world: Arc<World>,
    nodes: Arc<dyn Nodes>,
    mut lists: watch::Receiver<Arc<Lists>>,
    stop: CancellationToken,
) {
    let mut changes = world.changes();
    let mut told: BTreeMap<NodeId, Told> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let now = lists.borrow_and_update().clone();
        let all = world.nodes();
        told.retain(|node, _| all.contains_key(node));
        let mut again = false;
        for (id, node) in &all {
            let needs = node.sm.as_ref().and_then(|sm| sm.needs.as_ref());
            let Some(needs) = needs else { continue };
            let told = told.entry(id.clone()).or_default();
            if told.stream != needs.stream {
                *told = Told {
                    stream: needs.stream,
                    ..Told::default()
                };
            }
            told.items.retain(|item, _| needs.items.contains(item));
            let news: BTreeMap<ItemId, Vec<Peer>> = facts(&needs.items, &all, &now)
                .into_iter()
                .filter(|(item, peers)| told.items.get(item) != Some(peers))
                .collect();
            if news.is_empty() {
                continue;
            }
            match nodes.tell_elsewhere(id, news.clone()) {
                Ok(()) => told.items.extend(news),
                Err(error) => {
                    tracing::debug!(node = %id, %error, "a Node is told later how others are doing");
                    again = true;
                }
            }
        }
        let retry = async {
            match again {
                true => tokio::time::sleep(AGAIN).await,
                false => std::future::pending().await,
            }
        };
        // Waiting for a state is cancel-safe.
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = lists.changed() => {}
            () = retry => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// How the instances of these items are doing on the whole Unit.
fn facts(
    needs: &BTreeSet<ItemId>,
    world: &BTreeMap<NodeId, KnownNode>,
    lists: &Lists,
) -> BTreeMap<ItemId, Vec<Peer>> {
    let mut facts: BTreeMap<ItemId, Vec<Peer>> = needs
        .iter()
        .map(|item| (item.clone(), Vec::new()))
        .collect();
    let mut add = |item: &ItemId, peer: Peer| {
        if let Some(peers) = facts.get_mut(item) {
            // Of many that are the same one is enough.
            let known = |one: &Peer| {
                (&one.node, &one.version, one.ends) == (&peer.node, &peer.version, peer.ends)
                    && rank(&one.progress) == rank(&peer.progress)
            };
            if !peers.iter().any(known) {
                peers.push(peer);
            }
        }
    };
    for (node, order) in lists.placed() {
        if !needs.contains(&order.ident.item) {
            continue;
        }
        let sm = world.get(node).and_then(|known| known.sm.as_ref());
        let report = sm.and_then(|sm| Some((sm, sm.instances.as_ref()?.get(&order.ident)?)));
        let report = report.filter(|(_, report)| report.version == order.version);
        let (progress, ends) = match (sm, report) {
            (None, _) => (Progress::Unknown, false),
            (Some(_), None) => (Progress::Starting, true),
            (_, Some((sm, report))) => progress(sm, report),
        };
        let peer = Peer {
            node: Some(node.clone()),
            version: order.version.clone(),
            ends,
            progress,
        };
        add(&order.ident.item, peer);
    }
    for one in &lists.unplaced {
        let (node, progress) = match &one.cause {
            Cause::Waits(node) => (Some(node.clone()), Progress::Resting),
            _ => (None, Progress::Failed(bounded(&one.reason))),
        };
        let peer = Peer {
            node,
            version: one.version.clone(),
            ends: true,
            progress,
        };
        add(&one.ident.item, peer);
    }
    for one in &lists.disabled {
        let peer = Peer {
            node: None,
            version: one.version.clone(),
            ends: true,
            progress: Progress::Failed(bounded(&one.reason)),
        };
        add(&one.ident.item, peer);
    }
    for peers in facts.values_mut() {
        peers.sort_by_key(|peer| rank(&peer.progress));
        peers.truncate(MOST);
    }
    facts
}

/// How far an instance is, and whether it is meant to end, as its Node tells. One that does not tell says less.
fn progress(sm: &SmNode, report: &InstanceReport) -> (Progress, bool) {
    let why = || {
        let error = report.error.as_ref();
        bounded(&error.map_or_else(String::new, ToString::to_string))
    };
    let run = sm.run_of(report);
    let told = run.and_then(|run| run.progress.clone().map(|progress| (progress, run.ends)));
    if let Some((progress, ends)) = told {
        let progress = match progress {
            Progress::Failed(_) => Progress::Failed(why()),
            progress => progress,
        };
        return (progress, ends);
    }
    let progress = match report.state {
        InstanceState::Active => Progress::Healthy,
        InstanceState::Activating => Progress::Starting,
        InstanceState::Inactive if report.error.is_none() => Progress::Completed,
        InstanceState::Inactive => Progress::Resting,
        InstanceState::Failed => Progress::Failed(why()),
    };
    // It may be meant to end; then it is worth waiting.
    (progress, true)
}

/// Those furthest from ready first.
const fn rank(progress: &Progress) -> u8 {
    match progress {
        Progress::Failed(_) => 0,
        Progress::Unknown => 1,
        Progress::Held { .. } => 2,
        Progress::Resting => 3,
        Progress::Starting => 4,
        Progress::Started => 5,
        Progress::Healthy => 6,
        Progress::Completed => 7,
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
