use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use aos_quota::Choice;
use serde::Deserialize;

/// How SM of one Node is set up: the table `[sm]` of `node.toml`, or the whole of `sm.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Folder of the database, the images, the writable parts of instances, and the keeper's records.
    pub state_dir: PathBuf,
    /// Folder of bundles and sockets; emptied by a reboot.
    #[serde(default = "runtime_dir")]
    pub runtime_dir: PathBuf,
    /// The Unit's root certificate; SM waits until it is there.
    pub ca_cert: PathBuf,
    /// This Node's IAM, public port: `host:port`.
    #[serde(default = "iam_public")]
    pub iam_public: String,
    /// This Node's IAM, protected port: `host:port`.
    #[serde(default = "iam_protected")]
    pub iam_protected: String,
    /// The Unit's CM: `host:port`.
    #[serde(default = "cm")]
    pub cm: String,
    /// Folder of the instances' storages; `<state_dir>/storages` by default.
    #[serde(default)]
    pub storage_dir: Option<PathBuf>,
    /// Folder of the instances' states; `<state_dir>/states` by default.
    #[serde(default)]
    pub states_dir: Option<PathBuf>,
    /// How storages and states are bounded.
    #[serde(default)]
    pub quota: QuotaOptions,
    /// Cgroup under which the instances' cgroups are made. Two Nodes on one machine need different ones.
    #[serde(default = "cgroup_parent")]
    pub cgroup_parent: String,
    /// Where the OCI runtime keeps its own state; `<runtime_dir>/crun` by default.
    #[serde(default)]
    pub crun_root: Option<PathBuf>,
    /// First letters of this Node's network interfaces, namespaces and tables; 1 to 4 lower-case letters or digits.
    #[serde(default = "interface_prefix")]
    pub interface_prefix: String,
    /// Folder of the named network namespaces.
    #[serde(default = "netns_dir")]
    pub netns_dir: PathBuf,
    /// The instances' networks: how they go on at other Nodes, and what may leave them.
    #[serde(default)]
    pub network: NetworkOptions,
    /// The container runtime.
    #[serde(default)]
    pub runtime: RuntimeOptions,
    /// The runtime for services that share processes and network with the Node.
    #[serde(default)]
    pub native: NativeOptions,
    /// The keeper's socket; `<runtime_dir>/keeper.sock` by default.
    #[serde(default)]
    pub keeper_socket: Option<PathBuf>,
    /// The program that understands `keeper`; by default `aos-keeper` beside the running program, or that itself.
    #[serde(default)]
    pub keeper_program: Option<PathBuf>,
    /// How logs are kept.
    #[serde(default)]
    pub logs: crate::LogOptions,
    /// The Node's resources (`docs/protocol/items.md`, Node resources); none by default.
    #[serde(default)]
    pub resources_file: Option<PathBuf>,
    /// Folders of the Node's root that lie below the layers of items that ask for it.
    #[serde(default = "host_base")]
    pub host_base: Vec<PathBuf>,
    /// Name servers of instances when CM names none; those of the Node by default.
    #[serde(default)]
    pub dns_servers: Vec<Ipv4Addr>,
    /// How long an unused image is kept, in seconds; 30 days by default.
    #[serde(default = "keep_images_secs")]
    pub keep_images_secs: u64,
    /// How often the files of installed images are read and compared with what was installed, in seconds; 0 is never.
    #[serde(default = "check_images_secs")]
    pub check_images_secs: u64,
    /// How long an instance may take to end before it is killed, in seconds.
    #[serde(default = "stop_grace_secs")]
    pub stop_grace_secs: u64,
    /// The shortest time between two reports of a state that an instance writes all the time, in seconds.
    #[serde(default = "state_report_secs")]
    pub state_report_secs: u64,
    /// How many instances are started or stopped at the same time.
    #[serde(default = "parallel")]
    pub parallel: usize,
    /// Longest wait between two attempts to reach CM, in seconds.
    #[serde(default = "reconnect_max_secs")]
    pub reconnect_max_secs: u64,
    /// How the Node and its instances are measured.
    #[serde(default)]
    pub monitoring: MonitoringOptions,
}

/// How the Node and its instances are measured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitoringOptions {
    /// How often, in seconds; 0 is never.
    pub period_secs: u64,
    /// The window over which averages are taken, in seconds.
    pub window_secs: u64,
    /// Traffic is counted in periods of so many seconds from 1970 on; days of UTC by default.
    pub traffic_period_secs: u64,
    /// Alerts from the machine's log.
    pub log: LogAlerts,
    /// The program that reads the journal.
    pub journalctl: PathBuf,
}

/// Which log of the machine is looked through for alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogAlerts {
    /// The journal if there is one, else the kernel's log.
    Auto,
    /// The journal.
    Journal,
    /// The kernel's log.
    Kernel,
    /// None.
    Off,
}

impl Default for MonitoringOptions {
    fn default() -> Self {
        Self {
            period_secs: 10,
            window_secs: 60,
            traffic_period_secs: 24 * 3_600,
            log: LogAlerts::Auto,
            journalctl: "journalctl".into(),
        }
    }
}

/// The container runtime of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeOptions {
    /// The type that items name: `crun`, `runc`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The program.
    pub executable: PathBuf,
    /// Whether the system calls of instances are filtered; only for a kernel that cannot.
    pub seccomp: bool,
    /// Most instances; 0 is without limit.
    pub max_instances: u64,
    /// DMIPS the runtime may give away, if it is limited.
    pub allowed_dmips: Option<u64>,
    /// Bytes of memory it may give away, if it is limited.
    pub allowed_ram: Option<u64>,
    /// Most bytes an instance may write into its root, of memory; never more than half of its own limit of memory. Of the
    /// runtime `native` too.
    pub root_limit: u64,
}

/// The instances' networks on this Node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkOptions {
    /// How they are joined with those of other Nodes; by default as CM says.
    pub link: LinkOption,
    /// The interface on which VLANs go to other Nodes; that of the default route by default.
    pub uplink: Option<String>,
    /// Where other Nodes reach this one; by default where its connection to CM comes from.
    pub link_address: Option<IpAddr>,
    /// Largest packet inside the networks, in bytes: what the Nodes' own network carries, less 50 for VXLAN.
    pub mtu: u32,
    /// Whether they have an IPv6 side; the same on all Nodes of a Unit.
    pub ipv6: bool,
    /// What instances may reach outside whose item does not say.
    pub egress: EgressDefault,
    /// Addresses and ranges outside that no instance may reach, whatever its item says.
    pub closed: Vec<String>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            link: LinkOption::Auto,
            uplink: None,
            link_address: None,
            mtu: aos_netstack::DEFAULT_MTU,
            ipv6: true,
            egress: EgressDefault::All,
            closed: Vec::new(),
        }
    }
}

/// How this Node's networks are joined with those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkOption {
    /// As CM says.
    #[default]
    Auto,
    /// By VLAN.
    Vlan,
    /// By VXLAN.
    Vxlan,
    /// Not at all.
    None,
}

/// What an item that says nothing may reach outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressDefault {
    /// Everything.
    #[default]
    All,
    /// Nothing.
    None,
}

/// How what instances keep is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaOptions {
    /// What enforces the limits; the best that works by default.
    pub backend: Choice,
    /// Folder of the btrfs image and its mount point; `<state_dir>/kept` by default.
    pub image_dir: Option<PathBuf>,
    /// The image grows to this many bytes at most; in any case it leaves a quarter of what is free.
    pub image_max: Option<u64>,
    /// How often it is looked whether a storage is full, in seconds.
    pub watch_secs: u64,
}

impl Default for QuotaOptions {
    fn default() -> Self {
        Self {
            backend: Choice::Auto,
            image_dir: None,
            image_max: None,
            watch_secs: 10,
        }
    }
}

/// The runtime `native` of a Node: services with a root, cgroup, user and limits of their own, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NativeOptions {
    /// Whether the Node offers it; off by default.
    pub enabled: bool,
    /// Most instances; 0 is without limit.
    pub max_instances: u64,
    /// DMIPS the runtime may give away, if it is limited.
    pub allowed_dmips: Option<u64>,
    /// Bytes of memory it may give away, if it is limited.
    pub allowed_ram: Option<u64>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            kind: "crun".into(),
            executable: "crun".into(),
            seccomp: true,
            max_instances: 0,
            allowed_dmips: None,
            allowed_ram: None,
            root_limit: 64 << 20,
        }
    }
}

impl Options {
    /// Folder of the instances' storages.
    pub fn storage_dir(&self) -> PathBuf {
        self.storage_dir
            .clone()
            .unwrap_or_else(|| self.state_dir.join("storages"))
    }

    /// Folder of the instances' states.
    pub fn states_dir(&self) -> PathBuf {
        self.states_dir
            .clone()
            .unwrap_or_else(|| self.state_dir.join("states"))
    }

    /// What no instance may reach outside.
    pub(crate) fn closed(&self) -> Result<Vec<aos_netstack::Range>, crate::Error> {
        let ranges = self.network.closed.iter().map(|text| {
            let range = aos_types::address_range(text);
            range
                .map(|(address, length)| aos_netstack::Range { address, length })
                .map_err(|why| crate::Error::Option {
                    field: "network.closed",
                    why: format!("has `{text}`, which {why}"),
                })
        });
        ranges.collect()
    }

    /// Where storages and states are, and what shall bound them.
    pub(crate) fn quota_setup(&self) -> aos_quota::Setup {
        aos_quota::Setup {
            storages: self.storage_dir(),
            states: self.states_dir(),
            image_dir: self
                .quota
                .image_dir
                .clone()
                .unwrap_or_else(|| self.state_dir.join("kept")),
            image_max: self.quota.image_max,
            choice: self.quota.backend,
        }
    }

    /// Where the OCI runtime keeps its own state.
    pub fn crun_root(&self) -> PathBuf {
        self.crun_root
            .clone()
            .unwrap_or_else(|| self.runtime_dir.join("crun"))
    }

    /// The keeper's socket.
    pub fn keeper_socket(&self) -> PathBuf {
        self.keeper_socket
            .clone()
            .unwrap_or_else(|| self.runtime_dir.join("keeper.sock"))
    }

    /// The file of this program's log.
    pub fn own_log(&self) -> PathBuf {
        self.logs
            .own
            .clone()
            .unwrap_or_else(|| self.state_dir.join("aos.log"))
    }

    /// How long an unused image is kept.
    pub fn keep_images(&self) -> Duration {
        Duration::from_secs(self.keep_images_secs)
    }
}

fn runtime_dir() -> PathBuf {
    "/run/aos/runtime".into()
}

fn iam_public() -> String {
    "127.0.0.1:8090".into()
}

fn iam_protected() -> String {
    "127.0.0.1:8089".into()
}

fn cm() -> String {
    "127.0.0.1:8093".into()
}

fn cgroup_parent() -> String {
    "/aos".into()
}

fn interface_prefix() -> String {
    "aos".into()
}

fn netns_dir() -> PathBuf {
    "/run/netns".into()
}

fn host_base() -> Vec<PathBuf> {
    ["/bin", "/sbin", "/lib", "/lib64", "/usr"]
        .into_iter()
        .map(PathBuf::from)
        .collect()
}

const fn check_images_secs() -> u64 {
    24 * 3_600
}

const fn keep_images_secs() -> u64 {
    30 * 24 * 3_600
}

const fn state_report_secs() -> u64 {
    10
}

const fn stop_grace_secs() -> u64 {
    10
}

const fn parallel() -> usize {
    8
}

const fn reconnect_max_secs() -> u64 {
    10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_are_enough() {
        let options: Options =
            toml::from_str("state_dir = '/var/lib/aos/sm'\nca_cert = '/var/lib/aos/ca.pem'")
                .unwrap();
        assert_eq!(options.cm, "127.0.0.1:8093");
        assert_eq!(
            options.storage_dir(),
            PathBuf::from("/var/lib/aos/sm/storages")
        );
        assert_eq!(options.crun_root(), PathBuf::from("/run/aos/runtime/crun"));
        assert_eq!(options.runtime.kind, "crun");
        assert!(toml::from_str::<Options>("state_dir = '/a'\nca_cert = '/b'\nmore = 1").is_err());
        let options: Options = toml::from_str(
            "state_dir = '/a'\nca_cert = '/b'\n[runtime]\ntype = 'runc'\nexecutable = 'runc'",
        )
        .unwrap();
        assert_eq!(options.runtime.kind, "runc");
    }
}
