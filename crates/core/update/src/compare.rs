use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemId, NodeId, NodeState};

use crate::{DesiredNodeState, Target};

/// How the Unit is, as far as the comparison needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actual {
    /// The state of each known Node.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The version of the unit configuration in force.
    pub unit_config: Option<String>,
    /// The version of every instance that has a place on some Node, whatever its state.
    pub instances: BTreeMap<InstanceIdent, String>,
}

/// One way in which the Unit is not as desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A Node is in another state.
    Node(NodeId),
    /// There is a newer unit configuration.
    UnitConfig(String),
    /// The item, or this version of it, is not installed.
    MissingItem(ItemId),
    /// The item is installed and not desired.
    SurplusItem(ItemId),
    /// The instance does not exist, or not in this version.
    MissingInstance(InstanceIdent),
    /// The instance exists and is not desired.
    SurplusInstance(InstanceIdent),
    /// An instance shall be placed by other rules.
    Placement(ItemId),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node `{node}` is in another state"),
            Self::UnitConfig(version) => write!(f, "unit configuration {version} is not in force"),
            Self::MissingItem(item) => write!(f, "item `{item}` is not installed in this version"),
            Self::SurplusItem(item) => write!(f, "item `{item}` is no longer desired"),
            Self::MissingInstance(ident) => {
                write!(f, "instance `{ident}` does not run in this version")
            }
            Self::SurplusInstance(ident) => write!(f, "instance `{ident}` is no longer desired"),
            Self::Placement(item) => write!(f, "instances of `{item}` are placed by other rules"),
        }
    }
}

/// Why the unit configuration of `target` is not taken: its version must grow with every change.
pub fn downgrade(target: &Target, committed: &Target) -> Option<ErrorInfo> {
    let (new, before) = (
        target.unit_config.as_ref()?,
        committed.unit_config.as_ref()?,
    );
    if new.may_follow(before) {
        return None;
    }
    let what = match new.version == before.version {
        true => format!(
            "another configuration of the same version {} is in force",
            before.version
        ),
        false => format!(
            "version {} is not greater than {}, which is in force",
            new.version, before.version
        ),
    };
    Some(ErrorInfo::new(
        AosCode::WrongState,
        format!("{what}: give the next configuration a greater version"),
    ))
}

/// What an update to `target` would change, given what was committed and how the Unit is (seed 003, change detection).
pub fn differences(target: &Target, committed: &Target, actual: &Actual) -> Vec<Difference> {
    let mut found = Vec::new();
    for node in &target.nodes {
        let wanted = match node.state {
            DesiredNodeState::Provisioned => NodeState::Provisioned,
            DesiredNodeState::Paused => NodeState::Paused,
        };
        // A Node in error or not provisioned yet cannot be moved by an update.
        let movable =
            |state: &NodeState| matches!(state, NodeState::Provisioned | NodeState::Paused);
        if let Some(state) = actual.nodes.get(&node.node)
            && movable(state)
            && *state != wanted
        {
            found.push(Difference::Node(node.node.clone()));
        }
    }
    if let Some(config) = &target.unit_config
        && (actual.unit_config.as_ref() != Some(&config.version)
            || target.unit_config != committed.unit_config)
    {
        found.push(Difference::UnitConfig(config.version.clone()));
    }
    let (wanted_items, have_items) = (target.items_by_id(), committed.items_by_id());
    for item in &target.items {
        let have = have_items.get(&item.id);
        if have.is_none_or(|have| !have.same_content(item)) {
            found.push(Difference::MissingItem(item.id.clone()));
        }
    }
    for item in &committed.items {
        if !wanted_items.contains_key(&item.id) {
            found.push(Difference::SurplusItem(item.id.clone()));
        }
    }
    // A component that shall be everywhere may have any number of instances, of its one version.
    let everywhere: HashMap<_, &str> = target
        .wanted_everywhere()
        .map(|(entry, item)| (entry.key(), item.version.as_str()))
        .collect();
    let mut wanted = HashSet::new();
    for instance in target.wanted_instances() {
        if actual.instances.get(&instance.ident) != Some(&instance.version) {
            found.push(Difference::MissingInstance(instance.ident.clone()));
        }
        wanted.insert(instance.ident);
    }
    for (ident, version) in &actual.instances {
        if ident.preinstalled || wanted.contains(ident) {
            continue;
        }
        match everywhere.get(&(&ident.item, &ident.subject)) {
            Some(shall) if shall == version => {}
            Some(_) => found.push(Difference::MissingInstance(ident.clone())),
            None => found.push(Difference::SurplusInstance(ident.clone())),
        }
    }
    let before: HashMap<_, _> = committed
        .instances
        .iter()
        .map(|entry| (entry.key(), entry))
        .collect();
    for entry in &target.instances {
        let before = before.get(&entry.key());
        if before.is_some_and(|old| (old.priority, &old.labels) != (entry.priority, &entry.labels))
        {
            found.push(Difference::Placement(entry.item.clone()));
        }
    }
    found
}
