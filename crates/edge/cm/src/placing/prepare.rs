use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::Duration,
};

use aos_types::{Digest, ErrorInfo, InstanceIdent, InstanceState, NodeId};
use aos_update::Failures;
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Lists, Placing};
use crate::{contract::InstanceOrder, world::KnownNode};

/// For so long a Node is taken to have what it said it has installed. It keeps what nobody uses for longer than that.
const GOOD: Duration = Duration::from_secs(1_800);
/// The pause before a Node is asked again, by lists that merely follow the Nodes, for what it could not install.
const PAUSE: Duration = Duration::from_secs(30);

/// What is known of the images on one Node, besides those of what it runs.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The connection all this holds for.
    connection: u64,
    here: BTreeMap<Digest, Instant>,
    failed: BTreeMap<Digest, (Instant, ErrorInfo)>,
}

/// Whether a Node has run an instance from this image. One that is on its way, or has failed, may still want for it.
pub(super) fn has_image(node: &KnownNode, order: &InstanceOrder) -> bool {
    let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
    reported
        .and_then(|reported| reported.get(&order.ident))
        .is_some_and(|runs| {
            runs.version == order.version
                && runs.manifest == Some(order.manifest)
                && matches!(runs.state, InstanceState::Active | InstanceState::Inactive)
        })
}

impl Placing {
    /// Has everything installed that the lists bring to Nodes: nothing is stopped anywhere before what takes its place can
    /// start. Gives what is not there, by Node. `insist`: also what could not be installed a moment ago is tried.
    pub(super) async fn prepare(
        &self,
        world: &BTreeMap<NodeId, KnownNode>,
        lists: &Lists,
        insist: bool,
        over: &CancellationToken,
    ) -> BTreeMap<NodeId, Failures> {
        let now = Instant::now();
        let mut missing: BTreeMap<NodeId, Failures> = BTreeMap::new();
        let mut installs = Vec::new();
        for (id, node) in world.iter().filter(|(_, node)| node.takes_orders()) {
            let Some(sm) = &node.sm else { continue };
            let mut new = Vec::new();
            self.prepared(id, sm.connection, |prepared| {
                for order in lists.on(id).iter().filter(|order| !has_image(node, order)) {
                    let good = prepared.here.get(&order.manifest);
                    let failed = prepared.failed.get(&order.manifest);
                    match failed.filter(|(at, _)| !insist && now - *at < PAUSE) {
                        _ if good.is_some_and(|at| now - *at < GOOD) => {}
                        None => new.push(order.clone()),
                        Some((_, error)) => {
                            let failures = missing.entry(id.clone()).or_default();
                            let failed = &mut failures.instances;
                            failed.insert(order.ident.clone(), error.clone());
                        }
                    }
                }
            });
            if !new.is_empty() {
                installs.push(async move { (id.clone(), self.install_on(id, new, over).await) });
            }
        }
        for (id, failures) in join_all(installs).await {
            if !failures.instances.is_empty() {
                let known = missing.entry(id).or_default();
                known.instances.extend(failures.instances);
                known.nodes.extend(failures.nodes);
            }
        }
        missing
    }

    /// Has images installed on one Node, and remembers how that went.
    pub(super) async fn install_on(
        &self,
        node: &NodeId,
        new: Vec<InstanceOrder>,
        cancel: &CancellationToken,
    ) -> Failures {
        let connection = self.connection(node);
        let wanted: Vec<(InstanceIdent, Digest)> = new
            .iter()
            .map(|order| (order.ident.clone(), order.manifest))
            .collect();
        let mut failures = Failures::default();
        match self.nodes.install(node, new, cancel.clone()).await {
            Ok(failed) => failures.instances = failed,
            Err(error) => {
                let of_node = ErrorInfo {
                    message: format!("node `{node}` cannot install it: {error}"),
                    ..error.clone()
                };
                failures.nodes.insert(node.clone(), error);
                let each = wanted.iter();
                let each = each.map(|(ident, _)| (ident.clone(), of_node.clone()));
                failures.instances = each.collect();
            }
        }
        // On another connection by now, it may be another disk.
        if cancel.is_cancelled() || self.connection(node) != connection {
            return failures;
        }
        let now = Instant::now();
        self.prepared(node, connection, |prepared| {
            for (ident, manifest) in &wanted {
                match failures.instances.get(ident) {
                    None => {
                        prepared.failed.remove(manifest);
                        prepared.here.insert(*manifest, now);
                    }
                    Some(error) => {
                        prepared.here.remove(manifest);
                        prepared.failed.insert(*manifest, (now, error.clone()));
                    }
                }
            }
        });
        failures
    }

    /// When lists that follow the Nodes may ask again for what could not be installed.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = self.lists.borrow().clone();
        let failed = all.iter().flat_map(|(node, prepared)| {
            let wanted: BTreeSet<Digest> = lists.on(node).iter().map(|one| one.manifest).collect();
            let failed = prepared.failed.iter();
            failed.filter_map(move |(manifest, (at, _))| wanted.contains(manifest).then_some(*at))
        });
        // What is past was looked at, and did not matter: only a pause that still runs is waited for.
        let now = Instant::now();
        failed.map(|at| at + PAUSE).filter(|next| *next > now).min()
    }

    fn connection(&self, node: &NodeId) -> u64 {
        let view = self.nodes.view();
        let view = view.borrow();
        view.get(node).map_or(0, |node| node.connection)
    }

    fn prepared<T>(
        &self,
        node: &NodeId,
        connection: u64,
        work: impl FnOnce(&mut Prepared) -> T,
    ) -> T {
        // Plain data, whole at every moment: a panic elsewhere does not spoil it.
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = all.entry(node.clone()).or_default();
        if prepared.connection != connection {
            *prepared = Prepared {
                connection,
                ..Prepared::default()
            };
        }
        let now = Instant::now();
        prepared.here.retain(|_, at| now - *at < GOOD);
        work(prepared)
    }
}
