use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use aos_time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::{
    AlertRules, Capabilities, Dependency, EgressRule, HealthCheck, ItemId, RestartPolicy,
    RootAccess, item_rules,
    tolerant::{FieldError, Fields, FromJson, word},
};

/// Longest item or unit configuration we read, in bytes. It is a guard against hostile blobs, far above any real one.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// A configuration blob cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Longer than we are willing to read.
    #[error("the {what} has {bytes} bytes, more than the {max} allowed: make it smaller")]
    TooLong {
        /// Item configuration or unit configuration.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not JSON at all.
    #[error("the {what} is not JSON: publish it again")]
    NotJson {
        /// Item configuration or unit configuration.
        what: &'static str,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
    /// One field is wrong; the text names it.
    #[error("the {what} has a wrong field: {field}")]
    Field {
        /// Item configuration or unit configuration.
        what: &'static str,
        /// Which one, and why.
        field: FieldError,
    },
}

/// Reads a configuration of at most `max` bytes.
pub(crate) fn read_config<T: FromJson>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, ConfigError> {
    if bytes.len() > max {
        return Err(ConfigError::TooLong {
            what,
            bytes: bytes.len(),
            max,
        });
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|source| ConfigError::NotJson { what, source })?;
    T::from_json(&value).map_err(|field| ConfigError::Field { what, field })
}

/// How an instance may be moved when Nodes are balanced again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BalancingPolicy {
    /// It may move.
    #[default]
    Enabled,
    /// It stays on its Node.
    Disabled,
}

impl FromStr for BalancingPolicy {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" | "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err(FieldError::new("expected `enabled` or `disabled`")),
        }
    }
}

/// Whether what an instance keeps on its Node, its storage and state, holds it there. Ours; peers ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoragePolicy {
    /// It runs where its storage is, or not at all.
    #[default]
    Pinned,
    /// It may run elsewhere, with nothing of it, if that Node cannot run it.
    Expendable,
}

impl StoragePolicy {
    fn is_pinned(&self) -> bool {
        *self == Self::Pinned
    }
}

impl FromStr for StoragePolicy {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" | "pinned" => Ok(Self::Pinned),
            "expendable" => Ok(Self::Expendable),
            _ => Err(FieldError::new("expected `pinned` or `expendable`")),
        }
    }
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, meant when nothing is said.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(FieldError::new("expected `tcp` or `udp`")),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// When a stopped instance is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunParameters {
    /// The window in which starts are counted; 5 s by default.
    #[serde(with = "crate::duration")]
    pub start_interval: Duration,
    /// Starts allowed inside the window; 3 by default.
    pub start_burst: u32,
    /// The pause before a start; 1 s by default.
    #[serde(with = "crate::duration")]
    pub restart_interval: Duration,
    /// After which ends it is started again; always by default. Ours.
    #[serde(skip_serializing_if = "RestartPolicy::is_always")]
    pub restart_policy: RestartPolicy,
}

impl Default for RunParameters {
    fn default() -> Self {
        Self {
            start_interval: Duration::from_secs(5),
            start_burst: 3,
            restart_interval: Duration::from_secs(1),
            restart_policy: RestartPolicy::Always,
        }
    }
}

/// The most an instance may use. An absent limit is no limit, except for state and storage: without one there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quotas {
    /// DMIPS.
    #[serde(rename = "cpuDMIPSLimit", skip_serializing_if = "Option::is_none")]
    pub cpu_dmips_limit: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_limit: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_file_limit: Option<u64>,
    /// Bytes of a tmpfs on `/tmp`; without it there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_limit: Option<u64>,
    /// Bytes of the state file; without it there is no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_limit: Option<u64>,
    /// Bytes of the storage folder; without it there is no storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_limit: Option<u64>,
    /// Kilobits per second sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_speed: Option<u64>,
    /// Kilobits per second received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_speed: Option<u64>,
    /// Bytes sent a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_limit: Option<u64>,
    /// Bytes received a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_limit: Option<u64>,
}

/// What the scheduler sets aside for one instance. What is absent is a share of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedResources {
    /// DMIPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<u64>,
}

/// Another item whose instances this one may call: `item/port[:last port][/protocol]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedConnection {
    /// The item called.
    pub item: ItemId,
    /// First port.
    pub first_port: u16,
    /// Last port; the same as the first unless a range was given.
    pub last_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl fmt::Display for AllowedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.item, self.first_port)?;
        if self.last_port != self.first_port {
            write!(f, ":{}", self.last_port)?;
        }
        write!(f, "/{}", self.protocol)
    }
}

impl FromStr for AllowedConnection {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = |why: String| {
            FieldError::new(format!(
                "`{}` is not `item/port[/tcp|udp]`: {why}",
                text.chars().take(80).collect::<String>()
            ))
        };
        let mut parts = text.split('/');
        let item = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|error: crate::InvalidId| bad(error.to_string()))?;
        let ports = parts.next().unwrap_or_default();
        let protocol = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|error: FieldError| bad(error.to_string()))?;
        if parts.next().is_some() {
            return Err(bad("too many slashes".into()));
        }
        let port = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|&port| port != 0)
                .ok_or_else(|| bad("a port is a number from 1 to 65535".into()))
        };
        let (first_port, last_port) = match ports.split_once(':') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(ports)?, port(ports)?),
        };
        if last_port < first_port {
            return Err(bad("the last port is below the first".into()));
        }
        Ok(Self {
            item,
            first_port,
            last_port,
            protocol,
        })
    }
}

/// A resource of the Node that the instance needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemResource {
    /// Its name on the Node.
    pub name: String,
    /// Device access in cgroup letters, such as `rwm`.
    pub mode: String,
}

/// A port of the instance that is reachable on the Node's own address. Ours; peers ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// The Node's port: an exclusive resource of the Node.
    pub host_port: u16,
    /// The instance's port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// How an item is run: the blob that a manifest's `aosItemConfig` names (`docs/protocol/items.md`, item configuration).
///
/// It is read by [`ItemConfig::from_slice`]: keys match whatever their case, unknown keys are ignored. It is written by
/// serde with the key names AosCore reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemConfig {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The scheduler sets nothing aside for it.
    #[serde(skip_serializing_if = "is_false")]
    pub skip_resource_limits: bool,
    /// Host name inside the instance, and its DNS name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whether it may move.
    pub balancing_policy: BalancingPolicy,
    /// Whether its storage and state hold it on their Node. Ours.
    #[serde(skip_serializing_if = "StoragePolicy::is_pinned")]
    pub storage_policy: StoragePolicy,
    /// Runtime types it can run on; empty means `crun` and `runc`.
    #[serde(serialize_with = "codenames", skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
    /// When it is started again.
    pub run_parameters: RunParameters,
    /// How it is found out whether it is healthy; without it, it is as long as it runs. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// What must be so with other items before it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Stop it when the Unit was offline this long; absent or zero: never.
    #[serde(
        rename = "offlineTTL",
        with = "crate::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub offline_ttl: Option<Duration>,
    /// Upper limits.
    pub quotas: Quotas,
    /// What to set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_resources: Option<RequestedResources>,
    /// Which other items it may call.
    #[serde(
        serialize_with = "connection_keys",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub allowed_connections: Vec<AllowedConnection>,
    /// Node resources it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ItemResource>,
    /// Rights by functional server and function.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub permissions: BTreeMap<String, BTreeMap<String, String>>,
    /// When its usage raises an alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_rules: Option<AlertRules>,
    /// Ports reachable on the Node's address. Ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published_ports: Vec<PublishedPort>,
    /// Where it may connect to outside the Unit's networks: nowhere if empty, as the Node allows if absent. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
    /// Whether the Node's own folders lie under the item's layers (default), or only the layers count. Ours.
    pub base_layer_is_node_rootfs: bool,
    /// How long it may take to end after it was asked to, before it is killed; the Node's own time if absent. Ours.
    #[serde(
        with = "crate::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stop_grace_period: Option<Duration>,
    /// Whether it may write into its root. Ours.
    #[serde(skip_serializing_if = "RootAccess::is_default")]
    pub rootfs: RootAccess,
    /// Rights besides or instead of the default ones. Ours.
    #[serde(skip_serializing_if = "Capabilities::is_default")]
    pub capabilities: Capabilities,
    /// Whether it has a user namespace of its own; absent: if its image names a user. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<bool>,
}

impl Default for ItemConfig {
    fn default() -> Self {
        Self {
            created: None,
            author: String::new(),
            skip_resource_limits: false,
            hostname: None,
            balancing_policy: BalancingPolicy::default(),
            storage_policy: StoragePolicy::default(),
            runtimes: Vec::new(),
            run_parameters: RunParameters::default(),
            health_check: None,
            dependencies: Vec::new(),
            sysctl: BTreeMap::new(),
            offline_ttl: None,
            quotas: Quotas::default(),
            requested_resources: None,
            allowed_connections: Vec::new(),
            resources: Vec::new(),
            permissions: BTreeMap::new(),
            alert_rules: None,
            published_ports: Vec::new(),
            egress: None,
            base_layer_is_node_rootfs: true,
            stop_grace_period: None,
            rootfs: RootAccess::default(),
            capabilities: Capabilities::default(),
            user_namespace: None,
        }
    }
}

/// The runtime types of an item that names none: those whose instances are containers.
pub const CONTAINERS: [&str; 3] = ["crun", "runc", "youki"];

impl ItemConfig {
    /// Reads a configuration blob of at most [`MAX_CONFIG_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ConfigError> {
        read_config("item configuration", bytes, MAX_CONFIG_BYTES)
    }

    /// The runtime types it can run on: those it names, or [`CONTAINERS`].
    pub fn runtime_types(&self) -> Vec<&str> {
        if self.runtimes.is_empty() {
            CONTAINERS.to_vec()
        } else {
            self.runtimes.iter().map(String::as_str).collect()
        }
    }

    /// Fields that it sets and that only an instance with a network and names of its own can have.
    pub fn own_network(&self) -> Vec<&'static str> {
        let quotas = &self.quotas;
        let set = [
            ("hostname", self.hostname.is_some()),
            ("allowedConnections", !self.allowed_connections.is_empty()),
            ("publishedPorts", !self.published_ports.is_empty()),
            ("egress", self.egress.is_some()),
            ("sysctl", !self.sysctl.is_empty()),
            ("userNamespace", self.user_namespace == Some(true)),
            ("quotas.uploadSpeed", quotas.upload_speed.is_some()),
            ("quotas.downloadSpeed", quotas.download_speed.is_some()),
            ("quotas.uploadLimit", quotas.upload_limit.is_some()),
            ("quotas.downloadLimit", quotas.download_limit.is_some()),
        ];
        set.into_iter()
            .filter_map(|(field, set)| set.then_some(field))
            .collect()
    }
}

impl<'de> Deserialize<'de> for ItemConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct Codename<'a> {
    codename: &'a str,
}

fn codenames<S: Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(|codename| Codename { codename }))
}

fn connection_keys<S: Serializer>(
    connections: &[AllowedConnection],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let empty = Map::new();
    serializer.collect_map(connections.iter().map(|key| (key.to_string(), &empty)))
}

impl FromJson for RunParameters {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let default = Self::default();
        Ok(Self {
            start_interval: fields
                .opt("startInterval")?
                .unwrap_or(default.start_interval),
            start_burst: fields.opt("startBurst")?.unwrap_or(default.start_burst),
            restart_interval: fields
                .opt("restartInterval")?
                .unwrap_or(default.restart_interval),
            restart_policy: fields
                .get("restartPolicy")
                .map(|value| word(value).map_err(|error: FieldError| error.at("restartPolicy")))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl FromJson for Quotas {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cpu_dmips_limit: fields.opt("cpuDMIPSLimit")?,
            ram_limit: fields.opt("ramLimit")?,
            pids_limit: fields.opt("pidsLimit")?,
            no_file_limit: fields.opt("noFileLimit")?,
            tmp_limit: fields.opt("tmpLimit")?,
            state_limit: fields.opt("stateLimit")?,
            storage_limit: fields.opt("storageLimit")?,
            upload_speed: fields.opt_any(&["uploadSpeed", "uploadSpeedLimit"])?,
            download_speed: fields.opt_any(&["downloadSpeed", "downloadSpeedLimit"])?,
            upload_limit: fields.opt("uploadLimit")?,
            download_limit: fields.opt("downloadLimit")?,
        })
    }
}

impl FromJson for RequestedResources {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cpu: fields.opt("cpu")?,
            ram: fields.opt("ram")?,
            storage: fields.opt("storage")?,
            state: fields.opt("state")?,
        })
    }
}

impl FromJson for ItemResource {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        if let Value::String(name) = value {
            return Ok(Self {
                name: name.clone(),
                mode: "r".into(),
            });
        }
        let fields = Fields::of(value)?;
        Ok(Self {
            name: fields.req("name")?,
            mode: fields.opt("mode")?.unwrap_or_else(|| "r".into()),
        })
    }
}

impl FromJson for PublishedPort {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let port = |key| match fields.req(key)? {
            0 => Err(FieldError::new("a port is a number from 1 to 65535").at(key)),
            port => Ok(port),
        };
        Ok(Self {
            host_port: port("hostPort")?,
            port: port("port")?,
            protocol: fields
                .get("protocol")
                .map(|value| word(value).map_err(|error| error.at("protocol")))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

/// A runtime type: `{"codename": …}`, or the older bare text.
struct RuntimeType(String);

impl FromJson for RuntimeType {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        match value {
            Value::String(name) => Ok(Self(name.clone())),
            other => Fields::of(other)?.req("codename").map(Self),
        }
    }
}

fn connections(value: &Value) -> Result<Vec<AllowedConnection>, FieldError> {
    match value {
        Value::Object(map) => map.keys().map(|key| key.parse()).collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(index, value)| word(value).map_err(|error: FieldError| error.at_index(index)))
            .collect(),
        _ => Err(FieldError::new(
            "expected an object whose keys are `item/port[/protocol]`",
        )),
    }
}

/// Most dependencies of an item.
const MAX_DEPENDENCIES: usize = 64;

fn dependencies(fields: &Fields<'_>) -> Result<Vec<Dependency>, FieldError> {
    let read: Vec<Dependency> = fields.or_default("dependencies")?;
    if read.len() > MAX_DEPENDENCIES {
        let why = format!("has more than {MAX_DEPENDENCIES} entries");
        return Err(FieldError::new(why).at("dependencies"));
    }
    Ok(read)
}

impl FromJson for ItemConfig {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let config = Self {
            created: fields.opt("created")?,
            author: fields.or_default("author")?,
            skip_resource_limits: fields.or_default("skipResourceLimits")?,
            hostname: fields
                .opt("hostname")?
                .filter(|name: &String| !name.is_empty()),
            balancing_policy: fields
                .get("balancingPolicy")
                .map(|value| word(value).map_err(|error: FieldError| error.at("balancingPolicy")))
                .transpose()?
                .unwrap_or_default(),
            storage_policy: fields
                .get("storagePolicy")
                .map(|value| word(value).map_err(|error: FieldError| error.at("storagePolicy")))
                .transpose()?
                .unwrap_or_default(),
            runtimes: fields
                .opt_any::<Vec<RuntimeType>>(&["runtimes", "runners"])?
                .unwrap_or_default()
                .into_iter()
                .map(|runtime| runtime.0)
                .collect(),
            run_parameters: fields.or_default("runParameters")?,
            health_check: fields.opt("healthCheck")?,
            dependencies: dependencies(&fields)?,
            sysctl: fields.or_default("sysctl")?,
            offline_ttl: fields
                .opt("offlineTTL")?
                .filter(|ttl: &Duration| !ttl.is_zero()),
            quotas: fields.or_default("quotas")?,
            requested_resources: fields.opt("requestedResources")?,
            allowed_connections: fields
                .get("allowedConnections")
                .map(|value| connections(value).map_err(|error| error.at("allowedConnections")))
                .transpose()?
                .unwrap_or_default(),
            resources: fields.or_default("resources")?,
            permissions: fields.or_default("permissions")?,
            alert_rules: fields.opt("alertRules")?,
            published_ports: fields.or_default("publishedPorts")?,
            egress: fields.opt("egress")?,
            base_layer_is_node_rootfs: fields.opt("baseLayerIsNodeRootfs")?.unwrap_or(true),
            stop_grace_period: fields.opt("stopGracePeriod")?,
            rootfs: fields
                .get("rootfs")
                .map(|value| word(value).map_err(|error: FieldError| error.at("rootfs")))
                .transpose()?
                .unwrap_or_default(),
            capabilities: fields.or_default("capabilities")?,
            user_namespace: fields.opt("userNamespace")?,
        };
        item_rules::check(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn full() -> Value {
        json!({
            "created": "2026-01-31T12:00:00Z", "author": "me", "SKIPRESOURCELIMITS": true, "hostname": "web",
            "balancingPolicy": "disabled", "runtimes": [{"codename": "crun"}, "runc"],
            "runParameters": {"startInterval": "10s", "startBurst": 7, "restartInterval": 2, "restartPolicy": "on-failure"},
            "dependencies": [{"identifier": "db", "condition": "healthy", "versions": ">=2"}, {"identifier": "log"}],
            "healthcheck": {"http": {"port": 80, "path": "/health"}, "startPeriod": "30s", "retries": 2},
            "sysctl": {"net.core.somaxconn": "128"}, "offlineTtl": "P1D",
            "quotas": {"cpuDmipsLimit": 100, "ramLimit": 1e6, "uploadSpeed": 5, "unknown": {}},
            "requestedResources": {"ram": 10},
            "allowedConnections": {"db/5432": {}, "dns/53/udp": {}, "many/1000:1010/tcp": {}},
            "resources": [{"name": "camera", "mode": "rwm"}, "gps"],
            "permissions": {"vis": {"Signal.*": "rw"}},
            "alertRules": {"cpu": {"minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90.5},
                           "partitions": [{"name": "states", "minTimeout": 1, "maxThreshold": 80}]},
            "publishedPorts": [{"hostPort": 8080, "port": 80}],
            "baseLayerIsNodeRootfs": false,
            "stopGracePeriod": "1m", "rootfs": "readOnly", "userNamespace": true,
            "capabilities": {"add": ["setuid"], "drop": ["CAP_NET_BIND_SERVICE"]}
        })
    }

    #[test]
    fn an_item_that_names_no_runtime_runs_in_any_container() {
        let types = ItemConfig::default();
        for runtime in ["crun", "runc", "youki"] {
            assert!(types.runtime_types().contains(&runtime), "{runtime}");
        }
        assert!(!types.runtime_types().contains(&"native"));
    }

    #[test]
    fn every_key_is_read() {
        let config = ItemConfig::from_slice(full().to_string().as_bytes()).unwrap();
        assert!(config.skip_resource_limits && !config.base_layer_is_node_rootfs);
        assert_eq!(config.balancing_policy, BalancingPolicy::Disabled);
        assert_eq!(config.runtime_types(), ["crun", "runc"]);
        assert_eq!(config.run_parameters.start_burst, 7);
        assert!(config.run_parameters.restart_policy.ends());
        assert_eq!(config.dependencies.len(), 2);
        assert_eq!(config.health_check.as_ref().unwrap().retries, 2);
        assert_eq!(config.offline_ttl, Some(Duration::from_secs(86_400)));
        assert_eq!(config.quotas.ram_limit, Some(1_000_000));
        assert_eq!(config.quotas.cpu_dmips_limit, Some(100));
        let connections: Vec<_> = config
            .allowed_connections
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            connections,
            ["db/5432/tcp", "dns/53/udp", "many/1000:1010/tcp"]
        );
        assert_eq!(config.resources[1].mode, "r");
        assert_eq!(config.published_ports[0].host_port, 8080);
        assert_eq!(config.stop_grace_period, Some(Duration::from_secs(60)));
        assert_eq!(config.rootfs, RootAccess::ReadOnly);
        assert_eq!(config.user_namespace, Some(true));
        assert_eq!(
            config.capabilities.granted(),
            [crate::Capability::Setuid].into()
        );
        let rules = config.alert_rules.as_ref().unwrap();
        assert_eq!(rules.cpu.unwrap().max_threshold, 90.5);
        assert_eq!(rules.partitions[0].rule.min_timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = ItemConfig::from_slice(full().to_string().as_bytes()).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(ItemConfig::from_slice(text.as_bytes()).unwrap(), config);
        assert_eq!(serde_json::from_str::<ItemConfig>(&text).unwrap(), config);
        assert!(text.contains(r#""runtimes":[{"codename":"crun"},{"codename":"runc"}]"#));
        assert!(text.contains(r#""offlineTTL":"P1D""#));
    }

    #[test]
    fn an_empty_object_means_the_defaults() {
        assert_eq!(
            ItemConfig::from_slice(b"{}").unwrap(),
            ItemConfig::default()
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (bad, text) in [
            (json!({"quotas": {"ramLimit": -5}}), "`quotas.ramLimit`"),
            (
                json!({"publishedPorts": [{"hostPort": 0, "port": 1}]}),
                "`publishedPorts[0].hostPort`",
            ),
            (
                json!({"allowedConnections": {"a/b": {}}}),
                "`allowedConnections`",
            ),
            (
                json!({"runParameters": {"startInterval": "soon"}}),
                "`runParameters.startInterval`",
            ),
            (
                json!({"runParameters": {"restartPolicy": "sometimes"}}),
                "`runParameters.restartPolicy`: must be `always`",
            ),
            (
                json!({"dependencies": [{"identifier": "x", "condition": "up"}]}),
                "`dependencies[0].condition`",
            ),
            (
                json!({"dependencies": vec![json!({"identifier": "x"}); 65]}),
                "`dependencies`: has more than 64",
            ),
            (json!([]), "expected an object"),
        ] {
            let error = ItemConfig::from_slice(bad.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(matches!(
            ItemConfig::from_slice(&vec![b' '; MAX_CONFIG_BYTES + 1]),
            Err(ConfigError::TooLong { .. })
        ));
        assert!(matches!(
            ItemConfig::from_slice(b"{"),
            Err(ConfigError::NotJson { .. })
        ));
    }
}
