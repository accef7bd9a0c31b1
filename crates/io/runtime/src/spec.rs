use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use aos_types::{Capability, ImageUser, InstanceIdent};

use crate::{InstanceId, Limits};

/// Everything a runtime needs to start one instance. All paths are of the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Its id on this Node.
    pub id: InstanceId,
    /// Who it is; goes into its environment.
    pub ident: InstanceIdent,
    /// Unpacked layers in the image's order: later ones lie on top of earlier ones.
    pub layers: Vec<PathBuf>,
    /// Folders of the Node's own root that lie below the layers (`/usr`, `/bin`, …); empty for images that bring all.
    pub host_base: Vec<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment of the image and the item, in order, later ones win. The `AOS_…` variables are put before them.
    pub env: Vec<(String, String)>,
    /// Working directory inside; `/` if it is empty.
    pub cwd: PathBuf,
    /// Whom it runs as.
    pub user: User,
    /// Whom it runs as in its own eyes, in a user namespace where `user` is what that one is on the Node. Without it,
    /// it is `user` in its own eyes too.
    pub inside: Option<ImageUser>,
    /// What it may do beyond an ordinary user.
    pub capabilities: BTreeSet<Capability>,
    /// It cannot write into its root.
    pub read_only: bool,
    /// Its host name.
    pub hostname: Option<String>,
    /// What it may use.
    pub limits: Limits,
    /// Kernel parameters of its own namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Its network namespace; without it, one with only a loopback.
    pub netns: Option<PathBuf>,
    /// Lines of its `/etc/hosts` besides localhost.
    pub hosts: Vec<HostEntry>,
    /// Name servers of its `/etc/resolv.conf`.
    pub nameservers: Vec<IpAddr>,
    /// Folder mounted at `/storage`.
    pub storage: Option<PathBuf>,
    /// File mounted at `/state.dat`.
    pub state: Option<PathBuf>,
    /// Further mounts, such as those of Node resources.
    pub mounts: Vec<Mount>,
    /// Devices of Node resources.
    pub devices: Vec<Device>,
}

/// Numeric user and groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// More groups, such as those of Node resources.
    pub additional_gids: Vec<u32>,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// Address.
    pub ip: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// A mount inside an instance, in the words of the OCI runtime specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where inside.
    pub destination: PathBuf,
    /// What; a path for `bind`.
    pub source: String,
    /// File system type, `bind` for a bind mount.
    pub kind: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// A device node inside an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The Node's device; a folder stands for all devices in it.
    pub host_path: PathBuf,
    /// Where inside.
    pub path: PathBuf,
    /// Letters of `rwm`.
    pub access: String,
}

/// How much of the Node an instance does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Everything: it has namespaces of its own for processes, network, mounts, names and messages.
    #[default]
    Full,
    /// Only files: it has a root of its own, and shares processes and network with the Node.
    Native,
}

/// How an instance is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPolicy {
    /// The signal that asks it; 15 (`SIGTERM`) by default.
    pub signal: i32,
    /// How long it may take before it is killed.
    pub grace: Duration,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            signal: 15,
            grace: Duration::from_secs(10),
        }
    }
}

impl StopPolicy {
    /// Kill at once.
    pub const KILL: Self = Self {
        signal: 9,
        grace: Duration::ZERO,
    };
}
