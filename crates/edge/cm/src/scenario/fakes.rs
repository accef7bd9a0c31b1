use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::{Arc, Mutex},
    time::Duration,
};

use aos_launch::{Elsewhere, Peer};
use aos_schedule::Image;
use aos_types::{
    AosCode, ArchInfo, Digest, ErrorInfo, InstanceIdent, InstanceState, ItemConfig, ItemId,
    NodeConfig, NodeId, NodeInfo, NodeState, OsInfo, Quotas, RuntimeId, RuntimeInfo, SubjectId,
    UnitConfigState,
};
use aos_update::DesiredItem;
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::SOON;
use crate::contract::{
    BlobReader, DownloadRequest, Guarantee, Iam, IamNodes, Images, InstanceOrder, InstanceReport,
    InstanceRun, Needs, Nodes, NodesView, SmNode,
};

fn node_id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn failed(text: &str) -> ErrorInfo {
    ErrorInfo::new(AosCode::Failed, text)
}

/// Nodes that do at once what they are told.
#[derive(Default)]
struct NodesState {
    calls: Vec<String>,
    broken: BTreeSet<String>,
    looping: BTreeSet<String>,
    stuck: BTreeSet<String>,
    /// Nodes that never answer a list.
    hanging: BTreeSet<NodeId>,
    /// By Node, how many lists it was given: it carries out the newest one.
    lists: BTreeMap<NodeId, u64>,
    /// Nodes do what they are told, and their answers are lost.
    answers_lost: bool,
    refused_config: Option<String>,
    configs: BTreeMap<NodeId, NodeConfig>,
    /// Nodes that take no configuration.
    stubborn: BTreeSet<NodeId>,
    installed: BTreeSet<(NodeId, Digest)>,
    orders: BTreeMap<(NodeId, InstanceIdent), InstanceOrder>,
    started: Vec<String>,
    /// The lists that were given, each as Node and versions.
    given: Vec<(String, Vec<String>)>,
    /// Why no Node takes a state.
    refused_states: Option<ErrorInfo>,
    /// Of these Nodes the next answer to a list is lost.
    silent_once: BTreeSet<NodeId>,
    /// These Nodes take their time with lists.
    slow: BTreeMap<NodeId, Duration>,
    /// These Nodes connect anew after they have installed something, and then install nothing more.
    lose_disk: BTreeSet<NodeId>,
    no_disk: BTreeSet<NodeId>,
}

impl NodesState {
    fn carry_out(&mut self, node: &NodeId, list: &[InstanceOrder]) {
        self.orders
            .retain(|(of, ident), _| of != node || list.iter().any(|one| one.ident == *ident));
        for order in list {
            let key = (node.clone(), order.ident.clone());
            // As SM does: what is ordered as before runs on.
            if self.orders.get(&key) != Some(order) {
                let env: Vec<String> = order
                    .env
                    .iter()
                    .map(|(name, value)| format!(" {name}={value}"))
                    .collect();
                let entry = format!("{} on {node}{}", order.ident, env.concat());
                self.started.push(entry);
                self.orders.insert(key, order.clone());
            }
        }
    }
}

pub(super) struct FakeNodes {
    view: watch::Sender<Arc<NodesView>>,
    state: Arc<Mutex<NodesState>>,
    /// Nodes have the lists they are given in hand and do not begin with them.
    holding: watch::Sender<bool>,
}

fn runtime(node: &str) -> RuntimeInfo {
    RuntimeInfo {
        id: RuntimeId::new(format!("crun-{node}")).unwrap(),
        runtime_type: "crun".into(),
        arch: ArchInfo {
            architecture: "amd64".into(),
            variant: None,
        },
        os: OsInfo {
            os: "linux".into(),
            ..OsInfo::default()
        },
        max_dmips: None,
        allowed_dmips: None,
        total_ram: None,
        allowed_ram: None,
        max_instances: 0,
    }
}

impl FakeNodes {
    pub(super) fn new(names: &[&str]) -> Self {
        let view: NodesView = names
            .iter()
            .map(|name| {
                let node = SmNode {
                    runtimes: vec![runtime(name)],
                    resources: vec![],
                    guarantee: Guarantee::InstallFirst,
                    instances: Some(BTreeMap::new()),
                    runs: None,
                    needs: None,
                    space: None,
                    connection: 1,
                };
                (node_id(name), node)
            })
            .collect();
        Self {
            view: watch::channel(Arc::new(view)).0,
            state: Arc::default(),
            holding: watch::channel(false).0,
        }
    }

    fn change(&self, change: impl FnOnce(&mut NodesView)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The user ids that instances have.
    pub(super) fn uids(&self) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        let mut uids: Vec<u32> = state.orders.values().map(|order| order.uid).collect();
        uids.sort_unstable();
        uids
    }

    /// What was started since this was last asked, with its variables.
    pub(super) fn started(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().started)
    }

    pub(super) fn break_version(&self, version: &str) {
        self.state.lock().unwrap().broken.insert(version.into());
    }

    /// Instances of this version end right after each start, until their starts are used up.
    pub(super) fn loop_version(&self, version: &str) {
        self.state.lock().unwrap().looping.insert(version.into());
    }

    /// A Node that is to start this version begins with it and never answers.
    pub(super) fn stick_at_version(&self, version: &str) {
        self.state.lock().unwrap().stuck.insert(version.into());
    }

    /// The Node takes no more lists over, and does not answer.
    pub(super) fn hang(&self, node: &str) {
        self.state.lock().unwrap().hanging.insert(node_id(node));
    }

    /// Nodes do nothing of the lists they are given, until they may.
    pub(super) fn hold(&self, holding: bool) {
        self.holding.send_replace(holding);
    }

    /// The lists that a Node was given, each as items with their versions.
    pub(super) fn given(&self, node: &str) -> Vec<Vec<String>> {
        let state = self.state.lock().unwrap();
        let given = state.given.iter().filter(|(to, _)| to == node);
        given.map(|(_, list)| list.clone()).collect()
    }

    /// From now on no Node takes a state, for this reason; or all do.
    pub(super) fn refuse_states(&self, why: Option<ErrorInfo>) {
        self.state.lock().unwrap().refused_states = why;
    }

    pub(super) fn lose_one_answer(&self, node: &str) {
        self.state.lock().unwrap().silent_once.insert(node_id(node));
    }

    pub(super) fn slow_down(&self, node: &str, by: Duration) {
        self.state.lock().unwrap().slow.insert(node_id(node), by);
    }

    /// After its next installation the Node is another one, and cannot install anything until it is mended.
    pub(super) fn lose_disk_after_install(&self, node: &str) {
        self.state.lock().unwrap().lose_disk.insert(node_id(node));
    }

    pub(super) fn mend_disk(&self, node: &str) {
        self.state.lock().unwrap().no_disk.remove(&node_id(node));
    }

    pub(super) fn lose_answers(&self, lost: bool) {
        self.state.lock().unwrap().answers_lost = lost;
    }

    pub(super) fn refuse_config(&self, version: &str) {
        self.state.lock().unwrap().refused_config = Some(version.into());
    }

    pub(super) fn config(&self, node: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        state.configs.get(&node_id(node))?.version.clone()
    }

    pub(super) fn config_labels(&self, node: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let config = state.configs.get(&node_id(node));
        config
            .map(|config| config.labels.clone())
            .unwrap_or_default()
    }

    /// The Node says that it would take a configuration, and does not.
    pub(super) fn take_no_config(&self, node: &str) {
        self.state.lock().unwrap().stubborn.insert(node_id(node));
    }

    pub(super) fn mend_version(&self, version: &str) {
        self.state.lock().unwrap().broken.remove(version);
    }

    /// All instances of the Node say that they are in this state, and why.
    pub(super) fn say(&self, node: &str, state: InstanceState, why: &str) {
        self.change(|view| {
            let node = view.get_mut(&node_id(node)).unwrap();
            for report in node.instances.iter_mut().flat_map(BTreeMap::values_mut) {
                report.state = state;
                report.error = Some(failed(why));
            }
        });
    }

    /// The instances of a Node wait for these items, which are not on it.
    pub(super) fn need(&self, node: &str, items: &[&str]) {
        let items = items.iter().map(|item| ItemId::new(*item).unwrap());
        let items = items.collect();
        self.change(|view| {
            if let Some(node) = view.get_mut(&node_id(node)) {
                let stream = node.connection;
                node.needs = Some(Arc::new(Needs { stream, items }));
            }
        });
    }

    /// Gives the Node as it was, to connect it again.
    pub(super) fn disconnect(&self, node: &str) -> SmNode {
        let mut gone = None;
        self.change(|view| gone = view.remove(&node_id(node)));
        gone.unwrap()
    }

    pub(super) fn connect(&self, name: &str, mut node: SmNode) {
        node.connection += 1;
        self.change(|view| {
            view.insert(node_id(name), node);
        });
    }

    /// All Nodes connect anew and run nothing.
    pub(super) fn reboot(&self) {
        self.change(|view| {
            for node in view.values_mut() {
                node.instances = Some(BTreeMap::new());
                node.connection += 1;
            }
        });
    }

    pub(super) fn running(&self, node: &str) -> Vec<String> {
        let view = self.view.borrow();
        view.get(&node_id(node))
            .and_then(|node| node.instances.as_ref())
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|report| format!("{} {}", report.ident, report.version))
            .collect()
    }

    pub(super) fn all_running(&self) -> Vec<String> {
        let names: Vec<NodeId> = self.view.borrow().keys().cloned().collect();
        let mut all: Vec<String> = names
            .iter()
            .flat_map(|name| self.running(name.as_str()))
            .collect();
        all.sort();
        all
    }

    pub(super) async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        let mut view = self.view.subscribe();
        let wait = async {
            while !wanted(self) {
                view.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(SOON, wait).await.is_err() {
            panic!("not in time; running: {:?}", self.all_running());
        }
    }
}

fn peer_text(peer: &Peer) -> String {
    let node = peer.node.as_ref().map_or("nowhere", NodeId::as_str);
    format!("{} on {node} is {:?}", peer.version, peer.progress)
}

/// Three runs that end after a moment; then the Node says that it expects nothing more.
async fn crash_loop(view: watch::Sender<Arc<NodesView>>, node: NodeId, order: InstanceOrder) {
    for restarts in 1..=3_u32 {
        for state in [InstanceState::Active, InstanceState::Activating] {
            let down = state == InstanceState::Activating;
            let unrecoverable = down && restarts == 3;
            view.send_modify(|view| {
                let Some(node) = Arc::make_mut(view).get_mut(&node) else {
                    return;
                };
                let Some(report) = node
                    .instances
                    .as_mut()
                    .and_then(|all| all.get_mut(&order.ident))
                else {
                    return;
                };
                if report.version != order.version {
                    return;
                }
                report.state = if unrecoverable {
                    InstanceState::Failed
                } else {
                    state
                };
                report.error = down.then(|| failed("it ended by itself with exit code 7"));
                let run = InstanceRun {
                    version: order.version.clone(),
                    unrecoverable,
                    restarts,
                    last_exit: Some("ended with exit code 7".into()),
                    progress: None,
                    ends: false,
                };
                let runs = node.runs.get_or_insert_default();
                Arc::make_mut(runs).insert(order.ident.clone(), run);
            });
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
}

#[async_trait]
impl Nodes for FakeNodes {
    fn view(&self) -> watch::Receiver<Arc<NodesView>> {
        self.view.subscribe()
    }

    async fn install(
        &self,
        node: &NodeId,
        instances: Vec<InstanceOrder>,
        _cancel: CancellationToken,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut state = self.state.lock().unwrap();
        state
            .calls
            .push(format!("install on {node} {}", instances.len()));
        if state.no_disk.contains(node) {
            let each = instances.into_iter();
            let each = each.map(|order| (order.ident, failed("its disk is full")));
            return Ok(each.collect());
        }
        for order in instances {
            state.installed.insert((node.clone(), order.manifest));
        }
        if state.lose_disk.remove(node) {
            state.no_disk.insert(node.clone());
            drop(state);
            self.change(|view| view.get_mut(node).unwrap().connection += 1);
        }
        Ok(BTreeMap::new())
    }

    async fn update_instances(
        &self,
        node: &NodeId,
        start: Vec<InstanceOrder>,
        stop: Vec<InstanceIdent>,
    ) -> Result<(), ErrorInfo> {
        let newest = {
            let mut state = self.state.lock().unwrap();
            state
                .calls
                .push(format!("update {node} +{} -{}", start.len(), stop.len()));
            let list = start.iter();
            let list = list.map(|order| format!("{} {}", order.ident.item, order.version));
            let list = (node.to_string(), list.collect());
            state.given.push(list);
            let newest = state.lists.entry(node.clone()).or_default();
            *newest += 1;
            *newest
        };
        // Whoever waits for calls looks again.
        self.view.send_modify(|_| {});
        let hangs = self.state.lock().unwrap().hanging.contains(node);
        if hangs {
            future::pending::<()>().await;
        }
        let list = start.clone();
        // The Node goes on by itself, also when CM is killed in the middle.
        let (view, id) = (self.view.clone(), node.clone());
        let (state, mut holding) = (self.state.clone(), self.holding.subscribe());
        let slow = self.state.lock().unwrap().slow.get(node).copied();
        let work = tokio::spawn(async move {
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
            let held = holding.wait_for(|holding| !holding).await.is_err();
            let (sticks, broken) = {
                let mut state = state.lock().unwrap();
                if held || state.lists.get(&id) != Some(&newest) {
                    // It has a newer one.
                    return;
                }
                state.carry_out(&id, &start);
                let mut versions = start.iter().map(|order| &order.version);
                let sticks = versions.any(|version| state.stuck.contains(version));
                (sticks, state.broken.clone())
            };
            let show = |state: &dyn Fn(&InstanceOrder) -> (InstanceState, Option<ErrorInfo>)| {
                let reports = start.iter().map(|order| {
                    let (state, error) = state(order);
                    let report = InstanceReport {
                        ident: order.ident.clone(),
                        version: order.version.clone(),
                        runtime: order.runtime.clone(),
                        manifest: Some(order.manifest),
                        state,
                        error,
                    };
                    (order.ident.clone(), report)
                });
                let reports: BTreeMap<_, _> = reports.collect();
                view.send_modify(|view| {
                    if let Some(node) = Arc::make_mut(view).get_mut(&id) {
                        node.instances = Some(reports);
                    }
                });
            };
            show(&|_| (InstanceState::Activating, None));
            if sticks {
                future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            show(&|order| {
                if broken.contains(&order.version) {
                    let why = failed(&format!("version {} is broken", order.version));
                    (InstanceState::Failed, Some(why))
                } else {
                    (InstanceState::Active, None)
                }
            });
        });
        work.await.unwrap();
        let looping = self.state.lock().unwrap().looping.clone();
        let looping = list
            .into_iter()
            .filter(|order| looping.contains(&order.version));
        for order in looping {
            tokio::spawn(crash_loop(self.view.clone(), node.clone(), order));
        }
        let mut state = self.state.lock().unwrap();
        if state.silent_once.remove(node) || state.answers_lost {
            return Err(failed("the connection is gone"));
        }
        Ok(())
    }

    async fn set_state(
        &self,
        node: &NodeId,
        order: &InstanceOrder,
        text: &str,
    ) -> Result<bool, ErrorInfo> {
        let mut state = self.state.lock().unwrap();
        state
            .calls
            .push(format!("state on {node} {}: {text}", order.ident));
        let refused = state.refused_states.clone();
        drop(state);
        // Whoever waits for calls looks again.
        self.view.send_modify(|_| {});
        refused.map_or(Ok(true), Err)
    }

    async fn state_kept(
        &self,
        node: &NodeId,
        ident: &InstanceIdent,
        checksum: String,
    ) -> Result<(), ErrorInfo> {
        let mut state = self.state.lock().unwrap();
        state
            .calls
            .push(format!("kept on {node} {ident}: {checksum}"));
        drop(state);
        self.view.send_modify(|_| {});
        Ok(())
    }

    async fn remove_data(
        &self,
        node: &NodeId,
        instances: Vec<InstanceIdent>,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        let mut state = self.state.lock().unwrap();
        for ident in instances {
            state.calls.push(format!("remove {ident} on {node}"));
        }
        Ok(BTreeMap::new())
    }

    fn tell_elsewhere(&self, node: &NodeId, news: Elsewhere) -> Result<(), ErrorInfo> {
        let mut state = self.state.lock().unwrap();
        for (item, peers) in news {
            let peers: Vec<String> = peers.iter().map(peer_text).collect();
            state
                .calls
                .push(format!("{node} hears of {item}: {}", peers.join(", ")));
        }
        drop(state);
        self.view.send_modify(|_| {});
        Ok(())
    }

    async fn keep_only(&self, _nodes: BTreeSet<NodeId>) {}

    async fn check_config(&self, _node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo> {
        let state = self.state.lock().unwrap();
        if state.refused_config.is_some() && state.refused_config == config.version {
            return Err(failed("no such partition"));
        }
        Ok(())
    }

    async fn set_config(&self, node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo> {
        let mut state = self.state.lock().unwrap();
        if state.stubborn.contains(node) {
            return Err(failed("its disk is full"));
        }
        if config.version.as_deref() == Some("") {
            state.configs.remove(node);
        } else {
            state.configs.insert(node.clone(), config.clone());
        }
        Ok(())
    }

    async fn config_status(
        &self,
        node: &NodeId,
    ) -> Result<(UnitConfigState, String, Option<ErrorInfo>), ErrorInfo> {
        let state = self.state.lock().unwrap();
        Ok(match state.configs.get(node) {
            Some(config) => (
                UnitConfigState::Installed,
                config.version.clone().unwrap_or_default(),
                None,
            ),
            None => (UnitConfigState::Absent, String::new(), None),
        })
    }

    fn set_cloud_connected(&self, _connected: bool) {}

    async fn request_log(
        &self,
        node: &NodeId,
        correlation_id: String,
        request: aos_cloud_protocol::RequestLog,
    ) -> Result<(), ErrorInfo> {
        let live = match request.upload_options {
            Some(_) => "follow",
            None => "log",
        };
        self.state
            .lock()
            .unwrap()
            .calls
            .push(format!("{live} on {node} for {correlation_id}"));
        self.view.send_modify(|_| {});
        Ok(())
    }
}

/// Images that are there as soon as they are asked for, survive restarts, and can be told to fail.
#[derive(Default)]
pub(super) struct FakeImages {
    state: Mutex<ImagesState>,
}

#[derive(Default)]
struct ImagesState {
    here: BTreeSet<String>,
    refused: BTreeSet<String>,
    hanging: BTreeSet<String>,
    unreadable: BTreeSet<String>,
    committed: Vec<String>,
    config: ItemConfig,
}

fn key(item: &DesiredItem) -> String {
    format!("{} {}", item.id, item.version)
}

impl FakeImages {
    pub(super) fn refuse(&self, item: &str, version: &str) {
        let mut state = self.state.lock().unwrap();
        state.refused.insert(format!("{item} {version}"));
    }

    pub(super) fn hang(&self, item: &str, version: &str) {
        let mut state = self.state.lock().unwrap();
        state.hanging.insert(format!("{item} {version}"));
    }

    /// What was downloaded of it cannot be read.
    pub(super) fn spoil(&self, item: &str, version: &str) {
        let mut state = self.state.lock().unwrap();
        state.unreadable.insert(format!("{item} {version}"));
    }

    /// From now on all items are configured so.
    pub(super) fn configure(&self, config: ItemConfig) {
        self.state.lock().unwrap().config = config;
    }

    pub(super) fn committed(&self) -> Vec<String> {
        self.state.lock().unwrap().committed.clone()
    }
}

#[async_trait]
impl Images for FakeImages {
    async fn download(
        &self,
        request: DownloadRequest,
        progress: mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>,
        cancel: CancellationToken,
    ) -> BTreeMap<ItemId, ErrorInfo> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut failures = BTreeMap::new();
        for item in request.items {
            let (refused, hanging) = {
                let mut state = self.state.lock().unwrap();
                let refused = state.refused.contains(&key(&item));
                if !refused {
                    state.here.insert(key(&item));
                }
                (refused, state.hanging.contains(&key(&item)))
            };
            if hanging {
                cancel.cancelled().await;
            }
            let result = if refused {
                failures.insert(item.id.clone(), failed("its signature is wrong"));
                Err(failed("its signature is wrong"))
            } else {
                Ok(())
            };
            let _ = progress.send((item.id, result)).await;
        }
        failures
    }

    async fn commit(&self, items: &[DesiredItem]) -> Result<(), ErrorInfo> {
        self.state.lock().unwrap().committed = items.iter().map(key).collect();
        Ok(())
    }

    async fn images_of(&self, item: &DesiredItem) -> Result<Vec<Image>, ErrorInfo> {
        let state = self.state.lock().unwrap();
        if !state.here.contains(&key(item)) || state.unreadable.contains(&key(item)) {
            return Err(failed("it is not here"));
        }
        Ok(vec![Image {
            manifest: item.index_digest,
            architecture: "amd64".into(),
            variant: String::new(),
            os: "linux".into(),
            os_version: String::new(),
            os_features: vec![],
            config: Arc::new(ItemConfig {
                quotas: match item.id.as_str().starts_with("stateful") {
                    true => Quotas {
                        state_limit: Some(65_536),
                        ..state.config.quotas
                    },
                    false => state.config.quotas,
                },
                ..state.config.clone()
            }),
        }])
    }

    async fn blob_urls(
        &self,
        _reader: &BlobReader,
        _digests: &[Digest],
    ) -> Result<Vec<String>, ErrorInfo> {
        Err(failed("no blobs here"))
    }
}

/// An IAM that knows some Nodes.
pub(super) struct FakeIam {
    nodes: watch::Sender<Arc<IamNodes>>,
    subjects: watch::Sender<Arc<Vec<SubjectId>>>,
    calls: Mutex<Vec<String>>,
    /// Nodes whose IAM is not connected.
    unreachable: Mutex<BTreeSet<NodeId>>,
}

impl FakeIam {
    pub(super) fn new(names: &[&str]) -> Self {
        let nodes = names.iter().map(|name| {
            let attrs = if *name == "main" {
                [("MainNode".to_owned(), String::new())].into()
            } else {
                BTreeMap::new()
            };
            let info = NodeInfo {
                id: node_id(name),
                node_type: format!("{name}-type"),
                title: String::new(),
                max_dmips: 1000,
                total_ram: 1 << 30,
                physical_ram: None,
                os: OsInfo::default(),
                cpus: vec![],
                partitions: vec![],
                attrs,
                state: NodeState::Provisioned,
                error: None,
            };
            (info.id.clone(), info)
        });
        Self {
            nodes: watch::channel(Arc::new(nodes.collect())).0,
            subjects: watch::channel(Arc::default()).0,
            calls: Mutex::default(),
            unreachable: Mutex::default(),
        }
    }

    /// What was asked of it.
    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn report(&self, subjects: &[&str]) {
        let subjects = subjects.iter().map(|one| SubjectId::new(*one).unwrap());
        self.subjects.send_replace(Arc::new(subjects.collect()));
    }

    pub(super) fn pause(&self, node: &str, paused: bool) {
        self.nodes.send_modify(|nodes| {
            if let Some(info) = Arc::make_mut(nodes).get_mut(&node_id(node)) {
                info.state = match paused {
                    true => NodeState::Paused,
                    false => NodeState::Provisioned,
                };
            }
        });
    }

    pub(super) fn reach(&self, node: &str, reached: bool) {
        let mut unreachable = self.unreachable.lock().unwrap();
        match reached {
            true => unreachable.remove(&node_id(node)),
            false => unreachable.insert(node_id(node)),
        };
    }

    /// The Node is none of the Unit any more.
    pub(super) fn forget(&self, node: &str) -> NodeInfo {
        let mut gone = None;
        self.nodes
            .send_modify(|nodes| gone = Arc::make_mut(nodes).remove(&node_id(node)));
        gone.unwrap()
    }

    pub(super) fn know(&self, info: NodeInfo) {
        self.nodes.send_modify(|nodes| {
            Arc::make_mut(nodes).insert(info.id.clone(), info);
        });
    }

    pub(super) fn state(&self, node: &str) -> NodeState {
        self.nodes.borrow()[&node_id(node)].state
    }
}

#[async_trait]
impl Iam for FakeIam {
    fn nodes(&self) -> watch::Receiver<Arc<IamNodes>> {
        self.nodes.subscribe()
    }

    fn subjects(&self) -> watch::Receiver<Arc<Vec<SubjectId>>> {
        self.subjects.subscribe()
    }

    async fn create_key(
        &self,
        node: &NodeId,
        kind: &str,
        _secret: &str,
    ) -> Result<String, ErrorInfo> {
        Ok(format!("csr of {kind} on {node}"))
    }

    async fn apply_cert(
        &self,
        _node: &NodeId,
        kind: &str,
        _chain: &str,
    ) -> Result<String, ErrorInfo> {
        Err(failed(&format!("no {kind} here")))
    }

    async fn set_paused(&self, node: &NodeId, paused: bool) -> Result<(), ErrorInfo> {
        if self.unreachable.lock().unwrap().contains(node) {
            return Err(failed("its IAM is not connected"));
        }
        let call = format!("{} {node}", if paused { "pause" } else { "resume" });
        self.calls.lock().unwrap().push(call);
        self.nodes.send_modify(|nodes| {
            if let Some(info) = Arc::make_mut(nodes).get_mut(node) {
                info.state = if paused {
                    NodeState::Paused
                } else {
                    NodeState::Provisioned
                };
            }
        });
        Ok(())
    }
}
