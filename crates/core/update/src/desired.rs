use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

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
    /// It may fail alone: then it stays as it is, and the rest of the update goes on.
    #[serde(default)]
    pub independent: bool,
}

impl DesiredItem {
    /// Whether both are the same content; how it is updated does not count.
    pub fn same_content(&self, other: &Self) -> bool {
        (&self.id, self.item_type, &self.version) == (&other.id, other.item_type, &other.version)
            && (&self.index_digest, &self.owner) == (&other.index_digest, &other.owner)
    }
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
    /// Indexes 0 to this, exclusive; 0 for a component: one on every runtime that can run it.
    pub num_instances: u64,
    /// Labels that its Node must have.
    pub labels: Vec<String>,
}

impl DesiredInstances {
    /// What names it in its list.
    pub(crate) const fn key(&self) -> (&ItemId, &SubjectId) {
        (&self.item, &self.subject)
    }
}

/// A Subject and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredSubject {
    /// Which.
    pub id: SubjectId,
    /// Group or user.
    pub subject_type: SubjectType,
    /// It counts only while the Unit itself reports it.
    #[serde(default)]
    pub is_reported_from_unit: bool,
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

    /// The items by id, for whoever looks up many.
    pub(crate) fn items_by_id(&self) -> HashMap<&ItemId, &DesiredItem> {
        self.items.iter().map(|item| (&item.id, item)).collect()
    }

    /// Every instance by name and version. A component with `num_instances` 0 has one instance a runtime, which only the
    /// scheduler can count: see [`Target::wanted_everywhere`].
    pub fn wanted_instances(&self) -> impl Iterator<Item = WantedInstance> + '_ {
        let items = self.items_by_id();
        self.instances.iter().flat_map(move |entry| {
            let item = items.get(&entry.item).copied();
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

    /// The components of which every runtime that can shall have one.
    pub fn wanted_everywhere(&self) -> impl Iterator<Item = (&DesiredInstances, &DesiredItem)> {
        let everywhere = self
            .instances
            .iter()
            .filter(|entry| entry.num_instances == 0);
        everywhere.filter_map(|entry| Some((entry, self.item(&entry.item)?)))
    }

    /// Takes over what is no end in itself: certificates, and when it shall happen.
    pub(crate) fn take_means(&mut self, other: &Self) {
        self.certificates.clone_from(&other.certificates);
        self.certificate_chains
            .clone_from(&other.certificate_chains);
        self.sota_schedule.clone_from(&other.sota_schedule);
        self.fota_schedule.clone_from(&other.fota_schedule);
    }

    /// This set with these items as they are in `committed`.
    pub(crate) fn without(&self, items: &BTreeSet<ItemId>, committed: &Self) -> Self {
        let mut target = self.clone();
        target.items.retain(|item| !items.contains(&item.id));
        target
            .instances
            .retain(|entry| !items.contains(&entry.item));
        let kept = committed
            .items
            .iter()
            .filter(|item| items.contains(&item.id));
        target.items.extend(kept.cloned());
        let kept = committed
            .instances
            .iter()
            .filter(|entry| items.contains(&entry.item));
        target.instances.extend(kept.cloned());
        for subject in &committed.subjects {
            let needed = target
                .instances
                .iter()
                .any(|entry| entry.subject == subject.id);
            if needed && !target.subjects.iter().any(|known| known.id == subject.id) {
                target.subjects.push(subject.clone());
            }
        }
        target
    }

    /// The items whose content or instances differ between the two.
    pub(crate) fn changed_items(&self, other: &Self) -> BTreeSet<ItemId> {
        let mut changed = BTreeSet::new();
        for (one, another) in [(self, other), (other, self)] {
            let items = another.items_by_id();
            let same = |item: &&DesiredItem| {
                let have = items.get(&item.id);
                have.is_none_or(|have| !have.same_content(item))
            };
            changed.extend(one.items.iter().filter(same).map(|item| item.id.clone()));
            let entries: HashMap<_, _> = another
                .instances
                .iter()
                .map(|entry| (entry.key(), entry))
                .collect();
            let differs = |entry: &&DesiredInstances| entries.get(&entry.key()) != Some(entry);
            changed.extend(
                one.instances
                    .iter()
                    .filter(differs)
                    .map(|entry| entry.item.clone()),
            );
        }
        changed
    }

    /// Whether both ask for the same; certificates are means, not ends, and are not compared, nor is when it shall happen.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let content = |one: &&DesiredItem, other: &&DesiredItem| one.same_content(other);
        let equal = |one: &&DesiredInstances, other: &&DesiredInstances| one == other;
        self.unit_config == other.unit_config
            && alike(
                &self.nodes,
                &other.nodes,
                |node| &node.node,
                |one, other| one == other,
            )
            && alike(&self.items, &other.items, |item| &item.id, content)
            && alike(
                &self.instances,
                &other.instances,
                DesiredInstances::key,
                equal,
            )
            && alike(
                &self.subjects,
                &other.subjects,
                |subject| &subject.id,
                |one, other| one == other,
            )
    }
}

/// Whether both lists say the same, in whatever order. No list of a set names anything twice.
fn alike<'a, T, K: Eq + Hash>(
    one: &'a [T],
    other: &'a [T],
    key: impl Fn(&'a T) -> K,
    same: impl Fn(&&'a T, &&'a T) -> bool,
) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let others: HashMap<K, &T> = other
        .iter()
        .map(|element| (key(element), element))
        .collect();
    one.iter().all(|element| {
        let have = others.get(&key(element));
        have.is_some_and(|have| same(&element, have))
    })
}
