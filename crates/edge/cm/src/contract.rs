//! What the parts of CM expect of each other.
//!
//! The shell of the update engine, the status and the cloud link speak to the Nodes and to the images only through the
//! traits here, so each part can be built and tested by itself, with a fake of the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use aos_cloud_protocol::{BlobUrls, KeyReceiver};
use aos_launch::{Elsewhere, Progress};
use aos_pki::KeyWrap;
use aos_time::Timestamp;
use aos_types::{
    Digest, ErrorInfo, InstanceIdent, InstanceState, ItemId, NodeConfig, NodeId, NodeInfo,
    NodeResource, OwnerId, RuntimeId, RuntimeInfo, SubjectId, UnitConfigState,
};
use aos_update::{Certificate, CertificateChain, DesiredItem};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// An instance as CM orders it of a Node (servicemanager.v5 `InstanceInfo`). The values of its variables may be secrets, so
/// `{:?}` shows their names only.
#[derive(Clone, PartialEq)]
pub struct InstanceOrder {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// The image manifest the scheduler chose.
    pub manifest: Digest,
    /// Who owns the item; also names the network.
    pub owner: OwnerId,
    /// In which runtime of the Node.
    pub runtime: RuntimeId,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Higher is started first.
    pub priority: u64,
    /// Relative path of its storage; empty if it has none.
    pub storage_path: String,
    /// Relative path of its state file; empty if it has none.
    pub state_path: String,
    /// Variables on top of those of the image, in order.
    pub env: Vec<(String, String)>,
    /// When its usage raises an alert.
    pub alert_rules: Option<aos_types::AlertRules>,
}

impl std::fmt::Debug for InstanceOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("InstanceOrder")
            .field("ident", &self.ident)
            .field("version", &self.version)
            .field("manifest", &self.manifest)
            .field("runtime", &self.runtime)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

/// An instance as its Node reports it (servicemanager.v5 `InstanceStatus`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// In which runtime.
    pub runtime: RuntimeId,
    /// From which image; `None` for a preinstalled one.
    pub manifest: Option<Digest>,
    /// Its state.
    pub state: InstanceState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// How the runs of an instance went (`aos.node.v1` `InstanceRun`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRun {
    /// Of which version.
    pub version: String,
    /// It is not expected to come up.
    pub unrecoverable: bool,
    /// How often it was to be started again.
    pub restarts: u32,
    /// How it ended last, for people.
    pub last_exit: Option<String>,
    /// How far it is, if its Node tells.
    pub progress: Option<Progress>,
    /// Whether it is meant to end by itself, if its Node tells how far it is.
    pub ends: bool,
}

/// The items that instances of a Node wait for and that are not on it (`aos.node.v1` `Needs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The stream on which that was said.
    pub stream: u64,
    /// Which.
    pub items: BTreeSet<ItemId>,
}

/// What a Node can promise about an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// It installs and verifies without starting (`aos.node.v1`): nothing is stopped anywhere before everything is there.
    InstallFirst,
    /// It speaks plain servicemanager.v5: it installs when it is given the new list.
    PlainV5,
}

impl Guarantee {
    /// The value of the Node attribute `AosGuarantee`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InstallFirst => "install-first",
            Self::PlainV5 => "plain-v5",
        }
    }
}

/// A Node as its SM presents it.
#[derive(Debug, Clone, PartialEq)]
pub struct SmNode {
    /// Where instances can run.
    pub runtimes: Vec<RuntimeInfo>,
    /// What instances can ask for.
    pub resources: Vec<NodeResource>,
    /// What it can promise.
    pub guarantee: Guarantee,
    /// All its instances, wanted or not; `None` until its first `NodeInstancesStatus`. When SM disconnects the Node goes
    /// from the view, and its instances with it.
    pub instances: Option<BTreeMap<InstanceIdent, InstanceReport>>,
    /// How the runs of its instances went; `None` if it does not tell: then one that is `failed` has failed for good.
    pub runs: Option<Arc<BTreeMap<InstanceIdent, InstanceRun>>>,
    /// What its instances wait for elsewhere, if it has told.
    pub needs: Option<Arc<Needs>>,
    /// What is free for storages and states, if it has told.
    pub space: Option<aos_schedule::Space>,
    /// The present stream: another number means that SM has connected anew.
    pub connection: u64,
}

impl SmNode {
    /// How the runs of an instance went, if its Node tells.
    pub fn run_of(&self, report: &InstanceReport) -> Option<&InstanceRun> {
        let run = self.runs.as_ref()?.get(&report.ident)?;
        (run.version == report.version).then_some(run)
    }

    /// Whether an instance that is not up may still come up by itself, as far as its Node tells.
    pub fn recovers(&self, report: &InstanceReport) -> bool {
        match self.runs {
            None => report.state != InstanceState::Failed,
            Some(_) => self.run_of(report).is_none_or(|run| !run.unrecoverable),
        }
    }
}

/// All Nodes whose SM is connected.
pub type NodesView = BTreeMap<NodeId, SmNode>;

/// Lines of a live log of one Node.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLines {
    /// Of which Node.
    pub node: NodeId,
    /// Whose request.
    pub correlation_id: String,
    /// A gzip stream of its own; may be empty.
    pub content: Vec<u8>,
    /// There will be no more.
    pub end: bool,
    /// Why.
    pub error: Option<ErrorInfo>,
}

/// What a Node tells besides its instances.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeEvent {
    /// An alert for the cloud.
    Alert {
        /// When it arose.
        at: Timestamp,
        /// What happened, with the Node of the stream filled in.
        event: aos_cloud_protocol::AlertEvent,
    },
    /// Usage of the Node and its instances (servicemanager.v5 `InstantMonitoring`).
    Monitoring(aos_cloud_protocol::MonitoringData),
    /// A part of a log that was asked for.
    Log {
        /// Whose request.
        correlation_id: String,
        /// The part.
        part: aos_cloud_protocol::PushLog,
    },
    /// Lines of a live log (`aos.node.v1`).
    LogLines(LogLines),
    /// An instance wrote its state (`aos.node.v1`).
    State {
        /// On which Node.
        node: NodeId,
        /// Which.
        ident: InstanceIdent,
        /// The whole state.
        content: Vec<u8>,
        /// The Node knows of no state of it that anybody has.
        first: bool,
    },
    /// How an instance ended (`aos.node.v1`).
    Exit {
        /// On which Node.
        node: NodeId,
        /// Which.
        ident: InstanceIdent,
        /// Of which version.
        version: String,
        /// For people: code, signal, out of memory, unknown.
        how: String,
        /// When.
        at: Timestamp,
    },
}

/// The connected Nodes. `crate::nodes` serves SMService, NetworkService and `aos.node.v1` and implements this.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// The Nodes as they are; changes with every message that changes anything in it.
    fn view(&self) -> watch::Receiver<Arc<NodesView>>;

    /// Has these instances' images installed and verified on the Node; starts and stops nothing. Gives the instances for
    /// which that failed. A Node that cannot ([`Guarantee::PlainV5`]) succeeds at once.
    async fn install(
        &self,
        node: &NodeId,
        instances: Vec<InstanceOrder>,
        cancel: CancellationToken,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo>;

    /// Sends the complete list with explicit stops, and returns when the Node has answered with `NodeInstancesStatus`
    /// (which is in the view by then). An error if it is not connected, or disconnects, or takes too long.
    async fn update_instances(
        &self,
        node: &NodeId,
        start: Vec<InstanceOrder>,
        stop: Vec<InstanceIdent>,
    ) -> Result<(), ErrorInfo>;

    /// Gives an instance of a Node this state; one that runs is started again with it. Returns when it is on the Node's
    /// disk; false if the Node does not take states ([`Guarantee::PlainV5`]).
    async fn set_state(
        &self,
        node: &NodeId,
        order: &InstanceOrder,
        state: &str,
    ) -> Result<bool, ErrorInfo>;

    /// Tells a Node that the state of this checksum need not be told again.
    async fn state_kept(
        &self,
        node: &NodeId,
        ident: &InstanceIdent,
        checksum: String,
    ) -> Result<(), ErrorInfo>;

    /// Has what these instances kept on the Node, storage and state, removed. Gives those for which that failed. A Node that
    /// cannot be asked ([`Guarantee::PlainV5`]) succeeds at once.
    async fn remove_data(
        &self,
        node: &NodeId,
        instances: Vec<InstanceIdent>,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo>;

    /// Tells a Node how these items are doing on the Unit. Never blocks; an error if it is not there or has no room.
    fn tell_elsewhere(&self, node: &NodeId, news: Elsewhere) -> Result<(), ErrorInfo>;

    /// These are the Nodes of the Unit: addresses of all others are free.
    async fn keep_only(&self, nodes: BTreeSet<NodeId>);

    /// Asks the Node whether it would take this configuration.
    async fn check_config(&self, node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo>;

    /// Puts this configuration in force on the Node.
    async fn set_config(&self, node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo>;

    /// Which configuration the Node has.
    async fn config_status(
        &self,
        node: &NodeId,
    ) -> Result<(UnitConfigState, String, Option<ErrorInfo>), ErrorInfo>;

    /// Tells all Nodes, and those that connect later, whether the cloud is reachable.
    fn set_cloud_connected(&self, connected: bool);

    /// Asks a Node for a log; the parts come back as [`NodeEvent::Log`], those of a live one as [`NodeEvent::LogLines`].
    async fn request_log(
        &self,
        node: &NodeId,
        correlation_id: String,
        request: aos_cloud_protocol::RequestLog,
    ) -> Result<(), ErrorInfo>;
}

/// What is to be fetched for an update.
#[derive(Debug, Clone, PartialEq)]
pub struct DownloadRequest {
    /// All items of the set; those already here are verified again.
    pub items: Vec<DesiredItem>,
    /// For their signatures.
    pub certificates: Vec<Certificate>,
    /// For their signatures.
    pub certificate_chains: Vec<CertificateChain>,
    /// All runtimes of the Unit's Nodes: of an index, only manifests that one of them can run are fetched. Empty if none is
    /// known: then all are.
    pub runtimes: Vec<RuntimeInfo>,
}

/// The Node whose SM asks for blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReader {
    /// Which, by its certificate.
    pub node: NodeId,
    /// Where its connection comes from.
    pub address: Option<IpAddr>,
}

/// The Unit's keys, as far as content is encrypted for them. `crate::identity` implements this.
#[async_trait]
pub trait ContentKeys: Send + Sync {
    /// Unwraps a content key with the key of the `offline` certificate that is named, or of the present one.
    async fn unwrap_key(
        &self,
        wrap: KeyWrap,
        wrapped: &[u8],
        receiver: Option<&KeyReceiver>,
    ) -> Result<Zeroizing<Vec<u8>>, ErrorInfo>;
}

/// The store of items and their blobs. `crate::images` implements this.
#[async_trait]
pub trait Images: Send + Sync {
    /// Fetches and verifies everything that is missing. Sends each item as it ends to `progress`, and returns the items
    /// that failed. Fetches side by side, asks for all missing digests at once, resumes. Verifies nothing over the network:
    /// intact blobs are not asked for again. While the cloud cannot be reached it waits; `cancel` ends it.
    async fn download(
        &self,
        request: DownloadRequest,
        progress: mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>,
        cancel: CancellationToken,
    ) -> BTreeMap<ItemId, ErrorInfo>;

    /// Makes these items the installed ones. What no item of them needs becomes removable, the oldest first.
    async fn commit(&self, items: &[DesiredItem]) -> Result<(), ErrorInfo>;

    /// The images of an item that is here, in the order of its index, for the scheduler: those whose blobs are here.
    async fn images_of(&self, item: &DesiredItem) -> Result<Vec<aos_schedule::Image>, ErrorInfo>;

    /// Where this SM can fetch these blobs: `https://…/blobs/sha256/<hex>`, in the same order; for a Node that can do plain
    /// HTTP only, a pass that ends soon. An error names the first digest that is not here.
    async fn blob_urls(
        &self,
        reader: &BlobReader,
        digests: &[Digest],
    ) -> Result<Vec<String>, ErrorInfo>;
}

/// The cloud, as the image store needs it. The cloud link implements this.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// Asks the cloud where these blobs are. An error if it does not answer in time or cannot be reached; the caller
    /// tries again. Digests the cloud does not know are missing in the answer.
    async fn blob_urls(&self, digests: Vec<Digest>) -> Result<BlobUrls, ErrorInfo>;

    /// Whether the cloud is connected; to wait for it.
    fn connected(&self) -> watch::Receiver<bool>;
}

/// Nodes as IAM knows them.
pub type IamNodes = BTreeMap<NodeId, NodeInfo>;

/// What CM learns from IAM and asks of it. `crate::identity` implements this.
#[async_trait]
pub trait Iam: Send + Sync {
    /// All Nodes of the Unit.
    fn nodes(&self) -> watch::Receiver<Arc<IamNodes>>;

    /// The subjects the Unit itself reports.
    fn subjects(&self) -> watch::Receiver<Arc<Vec<SubjectId>>>;

    /// Pauses or resumes a Node.
    async fn set_paused(&self, node: &NodeId, paused: bool) -> Result<(), ErrorInfo>;

    /// Has a Node make a key for a certificate of this type; `secret` opens its key store. Gives the request in PEM.
    async fn create_key(
        &self,
        node: &NodeId,
        kind: &str,
        secret: &str,
    ) -> Result<String, ErrorInfo>;

    /// Gives a Node the certificate for such a key, with its chain in PEM. Gives the serial in hex when it is in use.
    async fn apply_cert(&self, node: &NodeId, kind: &str, chain: &str)
    -> Result<String, ErrorInfo>;
}

/// Alerts for the cloud. The cloud link implements this; they are kept while it is offline.
pub trait AlertSink: Send + Sync {
    /// Hands an alert over. Never blocks; of equal ones still waiting only the first is kept.
    fn alert(&self, event: aos_cloud_protocol::AlertEvent);
}
