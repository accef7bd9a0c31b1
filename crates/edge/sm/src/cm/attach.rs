use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aos_ipc::{
    convert::{error_to_proto, ident_from_proto, ident_to_proto, time_from_proto, time_to_proto},
    proto::{
        aos::node::v1::{
            self as pb, node_order::Order, node_report::Report,
            node_service_client::NodeServiceClient,
        },
        servicemanager::v5 as sm,
    },
};
use aos_launch::{Peer, Progress};
use aos_types::{AosCode, Digest, ErrorInfo, InstanceIdent, ItemId, NodeId};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, transport::Channel};

use super::{Link, messages};
use crate::{
    launcher::{self, Launcher, Snapshot, Stage},
    logs::{FollowOrder, Follows, Logs, Selection, What, too_many},
    records::End,
    states::States,
};

/// The protocol we speak.
const PROTOCOL: u32 = 5;
/// Most instances on other Nodes of which one message of CM may tell.
const MOST_PEERS: usize = 65_536;
/// Reports that wait for CM.
const QUEUE: usize = 64;
/// Changes are gathered this long before free space is measured again.
const GATHER: Duration = Duration::from_secs(2);

type Out = mpsc::Sender<pb::NodeReport>;

impl Link {
    /// The channel for what servicemanager.v5 cannot say. A CM that does not have it is served by v5 alone.
    pub(super) async fn attach(&self, channel: Channel) -> String {
        let (out, reports) = mpsc::channel(QUEUE);
        let (links, link_address) = self.networks.reachable();
        let hello = pb::Hello {
            node_id: self.info.node_id.clone(),
            protocol: PROTOCOL,
            links,
            link_address,
        };
        // The channel is new and empty.
        let _ = say(&out, Report::Hello(hello)).await;
        let mut client =
            NodeServiceClient::new(channel).max_decoding_message_size(aos_ipc::MAX_MESSAGE);
        let mut orders = match client.attach(ReceiverStream::new(reports)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!(
                    "CM speaks plain servicemanager.v5: it cannot be told of installs and exits"
                );
                return std::future::pending().await;
            }
            Err(status) => return aos_ipc::reason(&status),
        };
        self.handle.set_attached(true);
        // Installs end with the session: CM asks again.
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let follows = Follows::default();
        let listen = async {
            loop {
                match orders.message().await {
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::Install(install)),
                    })) => {
                        tasks.spawn(carry_out(
                            self.launcher.clone(),
                            install,
                            out.clone(),
                            stop.clone(),
                        ));
                    }
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::SetState(order)),
                    })) => {
                        tasks.spawn(set_state(self.states.clone(), order, out.clone()));
                    }
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::StateKept(kept)),
                    })) => {
                        if let Ok(ident) = ident_from_proto(kept.instance) {
                            self.states.kept(&ident, &kept.checksum).await;
                        }
                    }
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::RemoveData(remove)),
                    })) => {
                        tasks.spawn(remove_data(self.launcher.clone(), remove, out.clone()));
                    }
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::Elsewhere(told)),
                    })) => match elsewhere(told) {
                        Ok(news) => self.launcher.hear(news),
                        Err(why) => {
                            tracing::warn!(why, "CM tells of other Nodes what cannot be read");
                        }
                    },
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::FollowLog(order)),
                    })) => {
                        let id = order.correlation_id.clone();
                        let till = time_from_proto(order.till).unwrap_or_default();
                        match follows.order(&id, till) {
                            FollowOrder::Begin(end) => {
                                let following = follow(self.logs.clone(), order, end, out.clone());
                                tasks.spawn(stop.clone().run_until_cancelled_owned(following));
                            }
                            FollowOrder::Moved => {}
                            FollowOrder::TooMany => {
                                let _ = say(&out, Report::LogLines(too_many(id))).await;
                            }
                        }
                    }
                    Ok(Some(pb::NodeOrder {
                        order: Some(Order::UnitNetwork(told)),
                    })) => {
                        let cm = host_of(&self.address).await;
                        self.networks.take_unit(told, cm).await;
                    }
                    // A kind of order that a newer CM knows and we do not.
                    Ok(Some(_)) => {}
                    Ok(None) => return "CM has closed the stream".to_owned(),
                    Err(status) if status.code() == Code::Unimplemented => {
                        self.handle.set_attached(false);
                        return std::future::pending().await;
                    }
                    Err(status) => return aos_ipc::reason(&status),
                }
            }
        };
        // All end with the stream.
        tokio::select! {
            why = listen => why,
            why = self.tell_ends(&out) => why,
            why = self.tell_states(&out) => why,
            why = self.tell_runs(&out) => why,
            why = self.tell_space(&out) => why,
            why = self.tell_needs(&out) => why,
        }
    }

    /// Tells how the runs of instances went: of all, then of those where it changes.
    async fn tell_runs(&self, out: &Out) -> String {
        let mut snapshots = self.launcher.snapshots();
        // Until the stored set is restored we do not know all.
        let ready = |snapshot: &Snapshot| snapshot.launches > 0;
        if snapshots.wait_for(ready).await.is_err() {
            return "SM stops".into();
        }
        let mut told: Option<Arc<BTreeMap<InstanceIdent, launcher::Report>>> = None;
        loop {
            let now = snapshots.borrow_and_update().instances.clone();
            let news = |(ident, report): &(&InstanceIdent, &launcher::Report)| {
                let before = told.as_ref().and_then(|told| told.get(*ident));
                before.is_none_or(|old| (&old.version, &old.run) != (&report.version, &report.run))
            };
            let instances: Vec<_> = now
                .iter()
                .filter(news)
                .map(|(ident, report)| run(ident, report))
                .collect();
            let complete = told.is_none();
            if complete || !instances.is_empty() {
                let runs = pb::InstanceRuns {
                    instances,
                    complete,
                };
                if say(out, Report::InstanceRuns(runs)).await.is_err() {
                    return "the stream to CM has ended".into();
                }
            }
            told = Some(now);
            if snapshots.changed().await.is_err() {
                return "SM stops".into();
            }
        }
    }

    /// Tells what the instances of this Node wait for elsewhere.
    async fn tell_needs(&self, out: &Out) -> String {
        let mut snapshots = self.launcher.snapshots();
        let mut told = BTreeSet::new();
        loop {
            snapshots.borrow_and_update();
            let needs = self.launcher.needs();
            if needs != told {
                let items = needs.iter().map(ItemId::to_string).collect();
                if say(out, Report::Needs(pb::Needs { items })).await.is_err() {
                    return "the stream to CM has ended".into();
                }
                told = needs;
            }
            if snapshots.changed().await.is_err() {
                return "SM stops".into();
            }
        }
    }

    /// Tells how much space is free, and again when the instances have changed.
    async fn tell_space(&self, out: &Out) -> String {
        let mut changes = self.launcher.snapshots();
        let mut told = None;
        loop {
            changes.borrow_and_update();
            let space = self.launcher.space().await;
            if space.is_some() && space != told {
                if say(out, Report::Space(space.unwrap_or_default()))
                    .await
                    .is_err()
                {
                    return "the stream to CM has ended".into();
                }
                told = space;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            // Many changes come at once when a list is carried out.
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Tells the states that CM does not have.
    async fn tell_states(&self, out: &Out) -> String {
        // CM asks the instances that it knows: before the stored set is restored there are none.
        let mut snapshots = self.launcher.snapshots();
        if snapshots
            .wait_for(|snapshot| snapshot.launches > 0)
            .await
            .is_err()
        {
            return "SM stops".into();
        }
        self.states
            .follow(|changed| {
                say(
                    out,
                    Report::StateReport(pb::StateReport {
                        instance: Some(ident_to_proto(&changed.ident)),
                        checksum: changed.checksum,
                        content: changed.content,
                        first: changed.first,
                    }),
                )
            })
            .await;
        "the stream to CM has ended".into()
    }

    /// Tells how instances ended, also those that ended while CM was away.
    async fn tell_ends(&self, out: &Out) -> String {
        loop {
            let ends = self.launcher.untold_ends().await;
            let mut told = Vec::new();
            for (key, end) in ends {
                let report = Report::InstanceExit(exit(&end));
                if say(out, report).await.is_err() {
                    return "the stream to CM has ended".into();
                }
                told.push(key);
            }
            if !told.is_empty() {
                self.launcher.ends_told(told).await;
            }
            self.launcher.ends().await;
        }
    }
}

fn exit(end: &End) -> pb::InstanceExit {
    pb::InstanceExit {
        instance: Some(ident_to_proto(&end.ident)),
        version: end.version.clone(),
        exit_code: end.code,
        signal: end.signal,
        oom: end.oom,
        at: Some(time_to_proto(end.at)),
    }
}

fn run(ident: &InstanceIdent, report: &launcher::Report) -> pb::InstanceRun {
    pb::InstanceRun {
        instance: Some(ident_to_proto(ident)),
        version: report.version.clone(),
        unrecoverable: report.run.unrecoverable,
        restarts: report.run.restarts,
        last_exit: report.run.last_end.as_ref().map(exit),
        progress: stage(report.run.progress).into(),
        ends: report.run.ends,
    }
}

const fn stage(stage: Stage) -> pb::Progress {
    match stage {
        Stage::Held => pb::Progress::Held,
        Stage::Starting => pb::Progress::Starting,
        Stage::Started => pb::Progress::Started,
        Stage::Healthy => pb::Progress::Healthy,
        Stage::Completed => pb::Progress::Completed,
        Stage::Failed => pb::Progress::Failed,
        Stage::Resting => pb::Progress::Resting,
    }
}

/// What CM tells of instances on other Nodes.
fn elsewhere(told: pb::Elsewhere) -> Result<BTreeMap<ItemId, Vec<Peer>>, String> {
    let count: usize = told.items.iter().map(|item| item.peers.len()).sum();
    if count > MOST_PEERS {
        return Err(format!(
            "it tells of {count} instances, more than {MOST_PEERS}"
        ));
    }
    let items = told.items.into_iter().map(|item| {
        let id: ItemId = item
            .item_id
            .parse()
            .map_err(|error| format!("item_id: {error}"))?;
        let peers = item.peers.into_iter().map(peer).collect::<Result<_, _>>()?;
        Ok((id, peers))
    });
    items.collect()
}

fn peer(peer: pb::Peer) -> Result<Peer, String> {
    let progress = match peer.progress() {
        pb::Progress::Unspecified => Progress::Unknown,
        pb::Progress::Held => Progress::Held { patient: true },
        pb::Progress::Starting => Progress::Starting,
        pb::Progress::Started => Progress::Started,
        pb::Progress::Healthy => Progress::Healthy,
        pb::Progress::Completed => Progress::Completed,
        pb::Progress::Failed => Progress::Failed(peer.reason),
        pb::Progress::Resting => Progress::Resting,
    };
    let node: Option<NodeId> = match peer.node_id.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|error| format!("node_id: {error}"))?),
    };
    Ok(Peer {
        node,
        version: peer.version,
        ends: peer.ends,
        progress,
    })
}

/// Installs what CM names, starts and stops nothing, and says for each instance whether it is ready.
async fn carry_out(
    launcher: Arc<Launcher>,
    install: pb::Install,
    out: Out,
    stop: CancellationToken,
) {
    let mut wanted: Vec<(sm::InstanceInfo, Result<Digest, ErrorInfo>)> = Vec::new();
    for info in install.instances {
        let digest = ident_from_proto(info.instance.clone())
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))
            .and_then(|ident| {
                messages::instance(ident, info.clone())
                    .map(|instance| instance.manifest)
                    .map_err(|why| ErrorInfo::new(AosCode::InvalidArgument, why))
            });
        wanted.push((info, digest));
    }
    let mut manifests: Vec<Digest> = wanted
        .iter()
        .filter_map(|(_, digest)| digest.as_ref().ok().copied())
        .collect();
    manifests.sort_unstable();
    manifests.dedup();
    let work: Vec<_> = manifests
        .into_iter()
        .map(|manifest| {
            let (launcher, stop) = (launcher.clone(), stop.clone());
            async move {
                let result = launcher.images().install(manifest, &stop).await;
                (manifest, result.err())
            }
        })
        .collect();
    let installed = stream::iter(work)
        .buffer_unordered(launcher.parallel())
        .collect::<BTreeMap<_, _>>();
    let results = tokio::select! {
        results = installed => results,
        // What arrived is kept for the next attempt.
        () = stop.cancelled() => return,
    };
    let instances = wanted
        .into_iter()
        .map(|(info, digest)| {
            let error = match digest {
                Ok(digest) => results.get(&digest).cloned().flatten(),
                Err(error) => Some(error),
            };
            if let Some(error) = &error {
                tracing::warn!(manifest = info.manifest_digest, %error, "an image cannot be installed");
            }
            pb::InstanceInstalled {
                instance: info.instance,
                manifest_digest: info.manifest_digest,
                error: error_to_proto(error.as_ref()),
            }
        })
        .collect();
    let result = Report::InstallResult(pb::InstallResult {
        request_id: install.request_id,
        instances,
    });
    // CM may have gone; it asks again.
    let _ = say(&out, result).await;
}

/// Gives an instance another state and says how that went.
async fn set_state(states: Arc<States>, order: pb::SetState, out: Out) {
    let result = match ident_from_proto(order.instance) {
        Ok(ident) => {
            let owner = (order.uid, order.gid);
            states
                .set(&ident, &order.state_path, owner, order.content)
                .await
        }
        Err(error) => Err(ErrorInfo::from_error(AosCode::InvalidArgument, &error)),
    };
    if let Err(error) = &result {
        tracing::warn!(%error, "a state cannot be replaced");
    }
    let answer = Report::StateSet(pb::StateSet {
        request_id: order.request_id,
        error: error_to_proto(result.err().as_ref()),
    });
    // CM may have gone; it asks again.
    let _ = say(&out, answer).await;
}

/// Tells the lines of a log as they come.
async fn follow(
    logs: Arc<Logs>,
    order: pb::FollowLog,
    end: tokio::sync::watch::Receiver<aos_time::Timestamp>,
    out: Out,
) {
    let what = match order.system {
        true => What::System,
        false => What::Instances(Selection::read(order.filter)),
    };
    let from = time_from_proto(order.from);
    let say = |lines| say(&out, Report::LogLines(lines));
    logs.follow(order.correlation_id, what, from, end, say)
        .await;
}

/// Removes what instances kept, and says for each whether that went well.
async fn remove_data(launcher: Arc<Launcher>, remove: pb::RemoveData, out: Out) {
    let mut instances = Vec::new();
    for wire in remove.instances {
        let error = match ident_from_proto(Some(wire.clone())) {
            Ok(ident) => launcher.remove_data(&ident).await.err(),
            Err(error) => Some(ErrorInfo::from_error(AosCode::InvalidArgument, &error)),
        };
        instances.push(pb::InstanceRemoved {
            instance: Some(wire),
            error: error_to_proto(error.as_ref()),
        });
    }
    let result = Report::DataRemoved(pb::DataRemoved {
        request_id: remove.request_id,
        instances,
    });
    // CM may have gone; it asks again.
    let _ = say(&out, result).await;
}

/// Where CM is; nothing if it is on this machine.
async fn host_of(address: &str) -> Option<IpAddr> {
    let mut found = tokio::net::lookup_host(address).await.ok()?;
    let ip = found.next()?.ip().to_canonical();
    Some(ip).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

async fn say(out: &Out, report: Report) -> Result<(), ()> {
    out.send(pb::NodeReport {
        report: Some(report),
    })
    .await
    .map_err(|_| ())
}
