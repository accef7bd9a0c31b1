use std::{net::SocketAddr, path::PathBuf, time::Duration};

use aos_schedule::IdRange;
use aos_session::{Config as Session, Reconnect};
use serde::Deserialize;

use crate::{GateOptions, images::ImageOptions, monitoring::MonitoringOptions};

/// How CM is set up: the table `[cm]` of `node.toml`, or the whole of `cm.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Folder of the database and the images.
    pub state_dir: PathBuf,
    /// The Unit's root certificate; CM waits until it is there.
    pub ca_cert: PathBuf,
    /// The main Node's IAM, public port: `host:port`.
    #[serde(default = "iam_public")]
    pub iam_public: String,
    /// The main Node's IAM, protected port: `host:port`.
    #[serde(default = "iam_protected")]
    pub iam_protected: String,
    /// Where SMs connect.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// The Unix socket at which programs of this machine ask CM; empty is none.
    #[serde(default = "local_socket")]
    pub local_socket: PathBuf,
    /// The group that may use it beside root, if the machine has it.
    #[serde(default = "local_group")]
    pub local_group: String,
    /// Where SMs fetch blobs.
    #[serde(default = "blob_listen")]
    pub blob_listen: SocketAddr,
    /// The address of `blob_listen` as SMs of all Nodes reach it; `https://<blob_listen>` by default.
    #[serde(default)]
    pub blob_url: Option<String>,
    /// Where to ask for the cloud if the `online` certificate does not say; also gives the path.
    #[serde(default = "service_discovery_url")]
    pub service_discovery_url: String,
    /// Where to ask for the cloud whatever the `online` certificate says.
    #[serde(default)]
    pub override_service_discovery_url: Option<String>,
    /// Networks of the instances.
    #[serde(default)]
    pub network: NetworkOptions,
    /// How images are fetched, kept and served.
    #[serde(default)]
    pub images: ImageOptions,
    /// How long an acknowledgement or answer of the cloud may take, in seconds.
    #[serde(default = "cloud_response_secs")]
    pub cloud_response_secs: u64,
    /// The longest wait between two attempts to reach the cloud, in seconds; waits grow up to it and are spread at random.
    #[serde(default = "reconnect_max_secs")]
    pub reconnect_max_secs: u64,
    /// After how much silence the cloud is pinged, in seconds.
    #[serde(default = "ping_secs")]
    pub ping_secs: u64,
    /// After how much silence the connection counts as dead, in seconds; more than `ping_secs`.
    #[serde(default = "silence_secs")]
    pub silence_secs: u64,
    /// Most messages kept for the cloud while it cannot be reached.
    #[serde(default = "outbox_messages")]
    pub outbox_messages: usize,
    /// Most of them together, in MiB.
    #[serde(default = "outbox_mib")]
    pub outbox_mib: usize,
    /// How long changes are gathered before they are sent as one status, in seconds, counted from the first of them.
    #[serde(default = "status_delay_secs")]
    pub status_delay_secs: u64,
    /// How long a Node may be away before it counts as lost and its instances are placed elsewhere, in seconds.
    #[serde(default = "node_lost_secs")]
    pub node_lost_secs: u64,
    /// How long all changed instances may take to become active, in seconds.
    #[serde(default = "wait_active_secs")]
    pub wait_active_secs: u64,
    /// The pause before a failed update is tried again, in seconds; it doubles with each attempt.
    #[serde(default = "update_retry_secs")]
    pub update_retry_secs: u64,
    /// The longest such pause, in seconds.
    #[serde(default = "update_retry_most_secs")]
    pub update_retry_most_secs: u64,
    /// How often a failed update may touch what runs before it is given up.
    #[serde(default = "update_attempts")]
    pub update_attempts: u32,
    /// How long all changed instances must have been active without interruption before they are committed, in seconds; at
    /// most half of `wait_active_secs`.
    #[serde(default = "settle_secs")]
    pub settle_secs: u64,
    /// How long a Node may take to carry out its list, in seconds.
    #[serde(default = "launch_secs")]
    pub launch_secs: u64,
    /// How long an unused item is kept, in seconds; 30 days by default.
    #[serde(default = "keep_items_secs")]
    pub keep_items_secs: u64,
    /// How instances are placed.
    #[serde(default)]
    pub placing: PlacingOptions,
    /// Most instances a desired state may ask for in one entry.
    #[serde(default = "max_instances")]
    pub max_instances: u64,
    /// Most instances a desired state may ask for in all its entries together.
    #[serde(default = "max_instances_in_all")]
    pub max_instances_in_all: u64,
    /// What holds updates back on this Unit.
    #[serde(default)]
    pub gates: GateOptions,
    /// How usage is told to the cloud.
    #[serde(default)]
    pub monitoring: MonitoringOptions,
}

/// Networks of the instances.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkOptions {
    /// The addresses from which each owner's network is taken, as CIDR.
    pub pool: String,
    /// The prefix length of one network.
    pub prefix: u8,
    /// Name servers for what the Unit does not know; those of each Node if empty.
    pub dns: Vec<std::net::IpAddr>,
    /// How the Nodes' networks are joined.
    pub link: NodeLinks,
}

/// How the networks of different Nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeLinks {
    /// By VLAN if all Nodes can, else by VXLAN.
    #[default]
    Auto,
    /// By VLAN, which the Nodes' own network has to carry.
    Vlan,
    /// By VXLAN.
    Vxlan,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            // 64 owners with 4,094 addresses each.
            pool: "172.28.0.0/14".into(),
            prefix: 20,
            dns: Vec::new(),
            link: NodeLinks::Auto,
        }
    }
}

/// How instances are placed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacingOptions {
    /// How long a new set waits for Nodes that are missing before it is placed without them, in seconds.
    pub nodes_wait_secs: u64,
    /// How long what a paused Node ran waits for it before it is placed elsewhere, in seconds.
    pub pause_grace_secs: u64,
    /// How long an instance that is not wanted any more keeps its user id, storage and state, in seconds.
    pub keep_instances_secs: u64,
    /// Most instances that are kept so; of more the oldest go.
    pub max_cached_instances: usize,
    /// DMIPS that are set aside for an instance with neither a request nor a quota.
    pub default_cpu_dmips: u64,
    /// Bytes of memory that are set aside for an instance with neither a request nor a quota.
    pub default_ram_bytes: u64,
    /// The window over which usage is averaged before a Node counts as overloaded, in seconds.
    pub usage_window_secs: u64,
    /// How long a Node may fail to take the state of an instance before that instance is told as failed, in seconds.
    pub state_wait_secs: u64,
    /// The numbers instances get as user and group ids.
    pub ids: Ids,
}

/// A range of user and group ids, both ends included. It is the same on all Nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "IdsAsWritten")]
pub struct Ids {
    first: u32,
    last: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdsAsWritten {
    first: u32,
    last: u32,
}

impl TryFrom<IdsAsWritten> for Ids {
    type Error = String;

    /// Numbers below 1000 are those of the system's own users; the highest ones have meanings of their own.
    fn try_from(IdsAsWritten { first, last }: IdsAsWritten) -> Result<Self, String> {
        const LOWEST: u32 = 1000;
        const HIGHEST: u32 = i32::MAX as u32;
        if !(LOWEST..=last).contains(&first) || last > HIGHEST {
            return Err(format!(
                "placing.ids: {first} to {last} is no range of ids for instances: they lie from {LOWEST} to {HIGHEST}, the first not above the last"
            ));
        }
        Ok(Self { first, last })
    }
}

impl Default for Ids {
    fn default() -> Self {
        let range = IdRange::default();
        Self {
            first: range.first,
            last: range.last,
        }
    }
}

impl Ids {
    /// For the scheduler.
    pub const fn range(self) -> IdRange {
        IdRange {
            first: self.first,
            last: self.last,
        }
    }
}

impl Default for PlacingOptions {
    fn default() -> Self {
        let defaults = aos_schedule::Defaults::default();
        Self {
            nodes_wait_secs: 60,
            pause_grace_secs: 60,
            keep_instances_secs: 30 * 24 * 3600,
            max_cached_instances: 256,
            default_cpu_dmips: defaults.cpu,
            default_ram_bytes: defaults.ram,
            usage_window_secs: 300,
            state_wait_secs: 120,
            ids: Ids::default(),
        }
    }
}

impl PlacingOptions {
    /// How long missing Nodes are waited for.
    pub fn nodes_wait(&self) -> Duration {
        Duration::from_secs(self.nodes_wait_secs)
    }

    /// How long a Node may fail to take a state.
    pub fn state_wait(&self) -> Duration {
        Duration::from_secs(self.state_wait_secs)
    }

    /// How long an instance that is not wanted any more is kept.
    pub fn keep_instances(&self) -> Duration {
        Duration::from_secs(self.keep_instances_secs)
    }
}

impl Options {
    /// The address of the blobs as SMs reach it, without a slash at its end.
    pub fn blob_url(&self) -> String {
        match &self.blob_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}", self.blob_listen),
        }
    }

    /// How long an acknowledgement or answer of the cloud may take.
    pub fn cloud_response(&self) -> Duration {
        Duration::from_secs(self.cloud_response_secs)
    }

    /// How the cloud link behaves.
    pub fn session(&self) -> Session {
        let calling = Session::calling();
        let longest = Duration::from_secs(self.reconnect_max_secs.max(1));
        let ping_after = Duration::from_secs(self.ping_secs.max(1));
        let silence = Duration::from_secs(self.silence_secs);
        Session {
            ack_wait: self.cloud_response(),
            reconnect: calling.reconnect.map(|reconnect| Reconnect {
                longest,
                ..reconnect
            }),
            ping_after,
            // Time for one ping to be answered, whatever is configured.
            dead_after: silence.max(ping_after + Duration::from_secs(1)),
            max_messages: self.outbox_messages,
            max_bytes: self.outbox_mib.saturating_mul(1 << 20),
            ..calling
        }
    }

    /// How long changes are gathered.
    pub fn status_delay(&self) -> Duration {
        Duration::from_secs(self.status_delay_secs)
    }

    /// How long a Node may be away.
    pub fn node_lost(&self) -> Duration {
        Duration::from_secs(self.node_lost_secs)
    }

    /// How long a Node may take to carry out its list.
    pub fn launch(&self) -> Duration {
        Duration::from_secs(self.launch_secs)
    }
}

fn iam_public() -> String {
    "127.0.0.1:8090".into()
}

fn iam_protected() -> String {
    "127.0.0.1:8089".into()
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8093))
}

fn blob_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8094))
}

fn service_discovery_url() -> String {
    "https://aoscloud.io:9000/sd/v7/".into()
}

const fn cloud_response_secs() -> u64 {
    10
}

const fn reconnect_max_secs() -> u64 {
    600
}

// Later than our cloud pings: then its ping is answered and ours is not needed, which halves what an idle link costs.
const fn ping_secs() -> u64 {
    50
}

const fn silence_secs() -> u64 {
    120
}

const fn outbox_messages() -> usize {
    4096
}

const fn outbox_mib() -> usize {
    64
}

const fn status_delay_secs() -> u64 {
    1
}

const fn node_lost_secs() -> u64 {
    60
}

const fn wait_active_secs() -> u64 {
    600
}

const fn update_retry_secs() -> u64 {
    60
}

const fn update_retry_most_secs() -> u64 {
    3600
}

const fn update_attempts() -> u32 {
    10
}

const fn settle_secs() -> u64 {
    3
}

fn local_socket() -> PathBuf {
    "/run/aos/cm.sock".into()
}

fn local_group() -> String {
    "aos".into()
}

const fn launch_secs() -> u64 {
    600
}

const fn keep_items_secs() -> u64 {
    30 * 24 * 3600
}

const fn max_instances() -> u64 {
    1000
}

/// As many as there are user ids by default.
const fn max_instances_in_all() -> u64 {
    5000
}
