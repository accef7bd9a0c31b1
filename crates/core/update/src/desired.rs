use aos_types::{
    Digest, InstanceIdent, ItemId, ItemType, NodeId, OwnerId, Schedule, SubjectId, SubjectType,
    UnitConfig,
};
use serde::{Deserialize, Serialize};

/// What the cloud wants a Node to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredNodeState {
    /// Takes part.
    Provisioned,
    /// Idle on purpose.
    Paused,
}

/// The wanted state of one Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNode {
    /// Which.
    pub node: NodeId,
    /// The state.
    pub state: DesiredNodeState,
}

/// One version of a Deployable Item that shall be on the Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredItem {
    /// Which.
    pub id: ItemId,
    /// Service or component.
    pub item_type: ItemType,
    /// Its version.
    pub version: String,
    /// The digest of its image index.
    pub index_digest: Digest,
    /// Who owns it.
    pub owner: OwnerId,
}

/// How often an item shall run for a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredInstances {
    /// What runs.
    pub item: ItemId,
    /// For whom.
    pub subject: SubjectId,
    /// Higher is placed first.
    pub priority: u64,
    /// Indexes 0 to this, exclusive.
    pub num_instances: u64,
    /// Labels that its Node must have.
    pub labels: Vec<String>,
}

/// A Subject and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredSubject {
    /// Which.
    pub id: SubjectId,
    /// Group or user.
    pub subject_type: SubjectType,
}

/// A certificate that verifies items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its DER bytes.
    pub der: Vec<u8>,
    /// How chains name it.
    pub fingerprint: String,
}

/// A chain of such certificates: the signer first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateChain {
    /// How signatures name it.
    pub name: String,
    /// Its members.
    pub fingerprints: Vec<String>,
}

/// A list of the desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "named as the fields of `Desired`")]
pub enum Part {
    Nodes,
    UnitConfig,
    Items,
    Instances,
    Subjects,
    Certificates,
    CertificateChains,
    SotaSchedule,
    FotaSchedule,
}

/// Something in the desired state that could not be read. It never removes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The list it stood in.
    pub part: Part,
    /// What it names (an item, a node, a subject id), if that could be told. Otherwise the whole list stays as it is.
    pub name: Option<String>,
    /// What is wrong with it, for people.
    pub error: String,
}

/// The desired state as it came. `None` means that the list was absent: leave it as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// Node states.
    pub nodes: Option<Vec<DesiredNode>>,
    /// A new unit configuration.
    pub unit_config: Option<UnitConfig>,
    /// All items.
    pub items: Option<Vec<DesiredItem>>,
    /// All instances.
    pub instances: Option<Vec<DesiredInstances>>,
    /// All subjects.
    pub subjects: Option<Vec<DesiredSubject>>,
    /// Certificates for the items' signatures.
    pub certificates: Option<Vec<Certificate>>,
    /// Their chains.
    pub certificate_chains: Option<Vec<CertificateChain>>,
    /// When the software part may be carried out; absent: at once, whatever was asked for before.
    pub sota_schedule: Option<Schedule>,
    /// When the firmware part may be carried out.
    pub fota_schedule: Option<Schedule>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// A whole set to reach: [`Desired`] with everything it left out taken from what is in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Node states.
    pub nodes: Vec<DesiredNode>,
    /// The unit configuration, once there was one.
    pub unit_config: Option<UnitConfig>,
    /// All items.
    pub items: Vec<DesiredItem>,
    /// All instances.
    pub instances: Vec<DesiredInstances>,
    /// All subjects.
    pub subjects: Vec<DesiredSubject>,
    /// Certificates for the items' signatures.
    pub certificates: Vec<Certificate>,
    /// Their chains.
    pub certificate_chains: Vec<CertificateChain>,
    /// When the software part may be carried out; absent: at once.
    pub sota_schedule: Option<Schedule>,
    /// When the firmware part may be carried out.
    pub fota_schedule: Option<Schedule>,
}

/// One instance that a [`Target`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedInstance {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
}

impl Target {
    /// The item with this id.
    pub fn item(&self, id: &ItemId) -> Option<&DesiredItem> {
        self.items.iter().find(|item| item.id == *id)
    }

    /// Every service instance by name and version. Components have one instance a runtime, which only the scheduler can
    /// count when `num_instances` is 0.
    pub fn wanted_instances(&self) -> impl Iterator<Item = WantedInstance> + '_ {
        self.instances.iter().flat_map(move |entry| {
            let item = self.item(&entry.item);
            (0..entry.num_instances).filter_map(move |index| {
                item.map(|item| WantedInstance {
                    ident: InstanceIdent {
                        item: entry.item.clone(),
                        subject: entry.subject.clone(),
                        index,
                        item_type: item.item_type,
                        preinstalled: false,
                    },
                    version: item.version.clone(),
                })
            })
        })
    }

    /// Whether both ask for the same; certificates are means, not ends, and are not compared, nor is when it shall happen.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.unit_config == other.unit_config
            && self.items == other.items
            && self.instances == other.instances
            && self.subjects == other.subjects
    }
}
