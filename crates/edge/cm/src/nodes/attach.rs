//! `aos.node.v1` `NodeService`: what servicemanager.v5 cannot say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aos_ipc::{
    convert::{Unreadable, error_from_proto, ident_from_proto, time_from_proto},
    proto::aos::node::v1 as pb,
};
use aos_launch::Progress;
use aos_time::{Clock, SystemClock};
use aos_types::{InstanceIdent, ItemId, NodeId};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{ORDERS, SEND, Shared, caller, link::Installed, networks::Reachable};
use crate::contract::{BlobReader, Guarantee, InstanceRun, LogLines, NodeEvent};

/// Most items a Node may wait for.
const MOST_NEEDS: usize = 1_000;
/// From this protocol on an SM hears of the Unit's networks.
const HEARS_NETWORKS: u32 = 5;
/// Changes of the networks are gathered this long.
const GATHER: Duration = Duration::from_millis(50);

pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl pb::node_service_server::NodeService for Service {
    type AttachStream = ReceiverStream<Result<pb::NodeOrder, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = caller::reader(&request)?;
        let (orders, stream) = mpsc::channel(ORDERS);
        self.shared.tasks.spawn(read(
            self.shared.clone(),
            caller,
            request.into_inner(),
            orders,
        ));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Reads one Node's stream to its end. Only after its `hello` the Node counts as attached.
async fn read(
    shared: Arc<Shared>,
    caller: BlobReader,
    mut reports: Streaming<pb::NodeReport>,
    orders: mpsc::Sender<Result<pb::NodeOrder, Status>>,
) {
    let BlobReader { node, address } = caller;
    let mut number = None;
    let end = loop {
        // All arms are cancel-safe: a report is either taken whole or stays in the stream.
        let report = tokio::select! {
            () = shared.stop.cancelled() => break Status::unavailable("CM stops"),
            () = orders.closed() => break Status::cancelled("the Node has left"),
            report = reports.message() => report,
        };
        match report {
            Ok(Some(report)) => match report.report {
                Some(pb::node_report::Report::Hello(hello)) => {
                    if let Err(refused) = caller::same(&node, &hello.node_id) {
                        break refused;
                    }
                    let protocol = hello.protocol;
                    number = Some(shared.links().attach(&node, orders.clone(), protocol));
                    guarantees(&shared, &node, Guarantee::InstallFirst);
                    shared
                        .networks
                        .note_reachable(&node, reachable(&hello, address));
                    if hello.protocol >= HEARS_NETWORKS {
                        let told = tell_networks(shared.clone(), node.clone(), orders.clone());
                        shared.tasks.spawn(told);
                    }
                }
                Some(report) if number.is_some() => take(&shared, &node, report).await,
                Some(_) => break Status::failed_precondition("the first report must be hello"),
                // A kind of report that a newer SM knows and we do not.
                None => {}
            },
            Ok(None) => break Status::cancelled("the Node has closed its stream"),
            Err(error) => break error,
        }
    };
    // The Node may be gone already; then there is nobody to tell.
    let _ = orders.try_send(Err(end));
    if number.is_some_and(|number| shared.links().detach(&node, number)) {
        guarantees(&shared, &node, Guarantee::PlainV5);
    }
}

/// Where and how a Node can be joined with others.
fn reachable(hello: &pb::Hello, caller: Option<IpAddr>) -> Reachable {
    let told = hello.link_address.parse().ok();
    Reachable {
        // On the same machine it is reached where CM is; which address that is, each Node knows for itself.
        address: told
            .or(caller)
            .map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_loopback()),
        links: hello.links.iter().take(8).cloned().collect(),
    }
}

/// Tells a Node of all networks, and again when something in them has changed, for as long as it is there.
async fn tell_networks(
    shared: Arc<Shared>,
    node: NodeId,
    orders: mpsc::Sender<Result<pb::NodeOrder, Status>>,
) {
    let mut changes = shared.networks.changes();
    let mut told = None;
    loop {
        changes.borrow_and_update();
        let picture = shared.networks.picture(&node).await;
        if told.as_ref() != Some(&picture) {
            told = Some(picture.clone());
            let order = pb::NodeOrder {
                order: Some(pb::node_order::Order::UnitNetwork(picture)),
            };
            if !matches!(timeout(SEND, orders.send(Ok(order))).await, Ok(Ok(()))) {
                // It has left, or does not listen: it is told when it comes back.
                return;
            }
        }
        // Nothing is lost when one of these is dropped.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = orders.closed() => return,
            () = shared.stop.cancelled() => return,
        }
        // Many addresses are given at once when a list is carried out.
        tokio::time::sleep(GATHER).await;
    }
}

fn guarantees(shared: &Shared, node: &NodeId, guarantee: Guarantee) {
    let (runs, needs) = {
        let links = shared.links();
        (links.runs(node), links.needs(node))
    };
    shared.change(|view| {
        if let Some(known) = view.get_mut(node) {
            known.guarantee = guarantee;
            known.needs = needs;
            known.runs = runs;
        }
    });
}

fn run(told: pb::InstanceRun) -> Result<(InstanceIdent, InstanceRun), Unreadable> {
    let progress = match told.progress() {
        pb::Progress::Unspecified => None,
        pb::Progress::Held => Some(Progress::Held { patient: true }),
        pb::Progress::Starting => Some(Progress::Starting),
        pb::Progress::Started => Some(Progress::Started),
        pb::Progress::Healthy => Some(Progress::Healthy),
        pb::Progress::Completed => Some(Progress::Completed),
        // Why is told with its state.
        pb::Progress::Failed => Some(Progress::Failed(String::new())),
        pb::Progress::Resting => Some(Progress::Resting),
    };
    let ident = ident_from_proto(told.instance)?;
    let run = InstanceRun {
        version: told.version,
        unrecoverable: told.unrecoverable,
        restarts: told.restarts,
        last_exit: told.last_exit.as_ref().map(how),
        progress,
        ends: told.ends,
    };
    Ok((ident, run))
}

async fn take(shared: &Shared, node: &NodeId, report: pb::node_report::Report) {
    match report {
        pb::node_report::Report::Hello(_) => {}
        pb::node_report::Report::InstallResult(result) => {
            let failed: Installed = result
                .instances
                .into_iter()
                .filter_map(|one| {
                    Some((
                        ident_from_proto(one.instance).ok()?,
                        error_from_proto(one.error)?,
                    ))
                })
                .collect();
            shared.links().answered(node, &result.request_id, failed);
        }
        pb::node_report::Report::DataRemoved(result) => {
            let failed: Installed = result
                .instances
                .into_iter()
                .filter_map(|one| {
                    Some((
                        ident_from_proto(one.instance).ok()?,
                        error_from_proto(one.error)?,
                    ))
                })
                .collect();
            shared.links().answered(node, &result.request_id, failed);
        }
        pb::node_report::Report::Space(space) => {
            let space = aos_schedule::Space {
                storage: Some(space.storage_free),
                state: Some(space.state_free).filter(|_| !space.shared),
                shared: space.shared,
            };
            shared.links().tell_space(node, space);
            shared.change(|view| {
                if let Some(known) = view.get_mut(node) {
                    known.space = Some(space);
                }
            });
        }
        pb::node_report::Report::StateReport(report) => match ident_from_proto(report.instance) {
            Ok(ident) => {
                shared
                    .tell(NodeEvent::State {
                        node: node.clone(),
                        ident,
                        content: report.content,
                        first: report.first,
                    })
                    .await;
            }
            Err(error) => {
                tracing::warn!(%node, %error, "a Node told the state of an unknown instance")
            }
        },
        pb::node_report::Report::StateSet(set) => {
            let error = error_from_proto(set.error);
            shared.links().state_set(node, &set.request_id, error);
        }
        pb::node_report::Report::LogLines(lines) => {
            let lines = LogLines {
                node: node.clone(),
                correlation_id: lines.correlation_id,
                content: lines.data,
                end: lines.end,
                error: error_from_proto(lines.error),
            };
            shared.tell(NodeEvent::LogLines(lines)).await;
        }
        pb::node_report::Report::InstanceRuns(runs) => {
            let mut told = BTreeMap::new();
            for one in runs.instances {
                match run(one) {
                    Ok((ident, run)) => {
                        told.insert(ident, run);
                    }
                    Err(error) => {
                        tracing::warn!(%node, %error, "a Node told of the runs of an unknown instance");
                    }
                }
            }
            let runs = shared.links().tell_runs(node, told, runs.complete);
            shared.change(|view| {
                if let Some(known) = view.get_mut(node) {
                    known.runs = runs;
                }
            });
        }
        pb::node_report::Report::Needs(told) => {
            let items = told.items.iter().take(MOST_NEEDS);
            let items: BTreeSet<ItemId> = items.filter_map(|id| id.parse().ok()).collect();
            if items.len() < told.items.len() {
                tracing::warn!(%node, told = told.items.len(), read = items.len(), "a Node waits for items that cannot be read, or for too many");
            }
            shared.links().tell_needs(node, items);
            let needs = shared.links().needs(node);
            shared.change(|view| {
                if let Some(known) = view.get_mut(node) {
                    known.needs = needs;
                }
            });
        }
        pb::node_report::Report::InstanceExit(exit) => {
            let how = how(&exit);
            match ident_from_proto(exit.instance) {
                Ok(ident) => {
                    let at = time_from_proto(exit.at).unwrap_or_else(|| SystemClock.now());
                    shared
                        .tell(NodeEvent::Exit {
                            node: node.clone(),
                            ident,
                            version: exit.version,
                            how,
                            at,
                        })
                        .await;
                }
                Err(error) => {
                    tracing::warn!(%node, %error, "a Node reported the end of an unknown instance")
                }
            }
        }
    }
}

/// How an instance ended, for people.
fn how(exit: &pb::InstanceExit) -> String {
    match (exit.oom, exit.exit_code, exit.signal) {
        (true, _, _) => "ended because it wanted more memory than it may have".to_owned(),
        (false, Some(code), _) => format!("ended with exit code {code}"),
        (false, None, Some(signal)) => format!("ended by signal {signal}"),
        (false, None, None) => "ended; how is not known".to_owned(),
    }
}
