use std::collections::{BTreeMap, BTreeSet};

use aos_schedule::{Disabled, Placement, Unplaced};
use aos_time::Timestamp;
use aos_types::{
    AlertRules, Digest, InstanceIdent, ItemConfig, ItemType, NodeId, OwnerId, RuntimeId,
};
use aos_update::Target;
use serde::{Deserialize, Deserializer, Serialize};

use super::explain::Explained;
use crate::contract::InstanceOrder;

/// What an instance is to CM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    /// Wanted, with a place or looking for one.
    #[default]
    Active,
    /// Wanted, and not run because its subject is not there.
    Disabled,
    /// Not wanted any more; it keeps its user id, storage and state for a while.
    Cached,
    /// That while is over; it is forgotten once the Nodes have removed what it kept.
    Removing,
}

/// An instance that is or was wanted, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) ident: InstanceIdent,
    pub(crate) version: String,
    pub(crate) owner: OwnerId,
    pub(crate) priority: u64,
    #[serde(default)]
    pub(crate) standing: Standing,
    /// Node and runtime; `None` if it has no place now.
    pub(crate) place: Option<(NodeId, RuntimeId)>,
    /// It is not run at its place: that Node is paused, and it waits for it.
    #[serde(default)]
    pub(crate) waits: bool,
    pub(crate) manifest: Digest,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// It has a storage.
    pub(crate) storage: bool,
    /// It has a state.
    pub(crate) state: bool,
    /// The Node that has its storage or state.
    #[serde(default)]
    pub(crate) home: Option<NodeId>,
    /// Nodes that have a storage or state of it that nobody needs any more.
    #[serde(default)]
    pub(crate) litter: BTreeSet<NodeId>,
    #[serde(default)]
    pub(crate) alert_rules: Option<AlertRules>,
    /// What it asks of a Node, as it was counted when it was placed.
    #[serde(default, deserialize_with = "demand_if_it_can_be_read")]
    pub(crate) demand: Option<ItemConfig>,
    /// Since when it is cached.
    #[serde(default)]
    pub(crate) unplaced_since: Option<Timestamp>,
}

/// Of a configuration what says where it fits and how much it takes there. It is kept also when the images cannot be read
/// any more, or the Node would be given more than it has room for.
fn demand(config: &ItemConfig) -> ItemConfig {
    ItemConfig {
        skip_resource_limits: config.skip_resource_limits,
        balancing_policy: config.balancing_policy,
        storage_policy: config.storage_policy,
        runtimes: config.runtimes.clone(),
        quotas: config.quotas,
        requested_resources: config.requested_resources,
        resources: config.resources.clone(),
        published_ports: config.published_ports.clone(),
        ..ItemConfig::default()
    }
}

/// Rules for configurations may become stricter; what is placed is known all the same.
fn demand_if_it_can_be_read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ItemConfig>, D::Error> {
    let stored = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(stored.and_then(|stored| serde_json::from_value(stored).ok()))
}

impl Placed {
    /// As it was placed; `old` is what was known of it before.
    pub(crate) fn of(place: &Placement, old: Option<&Self>) -> Self {
        let some = |limit: Option<u64>| limit.is_some_and(|limit| limit > 0);
        let storage = some(place.config.quotas.storage_limit);
        let state = some(place.config.quotas.state_limit);
        let home = (storage || state).then(|| place.node.clone());
        let mut litter = old.map(|old| old.litter.clone()).unwrap_or_default();
        litter.extend(place.leaves_behind.clone());
        // Of a version that kept something, by one that does not.
        let before = old.and_then(|old| old.home.clone());
        litter.extend(before.filter(|_| home.is_none()));
        if let Some(home) = &home {
            litter.remove(home);
        }
        Self {
            ident: place.ident.clone(),
            version: place.version.clone(),
            owner: place.owner.clone(),
            priority: place.priority,
            standing: Standing::Active,
            place: Some((place.node.clone(), place.runtime.clone())),
            waits: false,
            manifest: place.manifest,
            uid: place.uid,
            gid: place.gid,
            storage,
            state,
            home,
            litter,
            alert_rules: place.config.alert_rules.clone(),
            demand: Some(demand(&place.config)),
            unplaced_since: None,
        }
    }

    /// Its place, if it is run there.
    pub(crate) fn runs_at(&self) -> Option<&(NodeId, RuntimeId)> {
        let active = self.standing == Standing::Active && !self.waits;
        self.place.as_ref().filter(|_| active)
    }

    fn order(&self, env: Vec<(String, String)>) -> Option<(NodeId, InstanceOrder)> {
        let (node, runtime) = self.runs_at().cloned()?;
        let InstanceIdent {
            item,
            subject,
            index,
            ..
        } = &self.ident;
        let folder = format!("{item}/{subject}/{index}");
        let order = InstanceOrder {
            ident: self.ident.clone(),
            version: self.version.clone(),
            manifest: self.manifest,
            owner: self.owner.clone(),
            runtime,
            uid: self.uid,
            gid: self.gid,
            priority: self.priority,
            storage_path: if self.storage {
                folder.clone()
            } else {
                String::new()
            },
            state_path: if self.state {
                format!("{folder}/state.dat")
            } else {
                String::new()
            },
            env,
            alert_rules: self.alert_rules.clone(),
        };
        Some((node, order))
    }
}

/// The order for a placement.
pub(crate) fn order(place: &Placement, env: Vec<(String, String)>) -> Option<InstanceOrder> {
    let (_, order) = Placed::of(place, None).order(env)?;
    Some(order)
}

/// What every Node shall run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Lists {
    /// By Node; a Node that is not here shall run nothing.
    pub(crate) by_node: BTreeMap<NodeId, Vec<InstanceOrder>>,
    /// Instances without a place.
    pub(crate) unplaced: Vec<Unplaced>,
    /// Instances that are wanted and not run now.
    pub(crate) disabled: Vec<Disabled>,
    /// Why instances have no place, or not the one they might have: some of them, if they are many.
    pub(crate) explained: Vec<Explained>,
}

impl Lists {
    /// Of what has a place; `env` gives the variables of an instance.
    pub(crate) fn of<'a>(
        placed: impl Iterator<Item = &'a Placed>,
        env: impl Fn(&InstanceIdent) -> Vec<(String, String)>,
    ) -> Self {
        let mut by_node: BTreeMap<NodeId, Vec<InstanceOrder>> = BTreeMap::new();
        for (node, order) in placed.filter_map(|placed| placed.order(env(&placed.ident))) {
            by_node.entry(node).or_default().push(order);
        }
        Self {
            by_node,
            ..Self::default()
        }
    }

    /// What one Node shall run.
    pub(crate) fn on(&self, node: &NodeId) -> &[InstanceOrder] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether `target` asks for everything in them. Components have one instance a runtime, whatever their number.
    pub(crate) fn are_of(&self, target: &Target) -> bool {
        let wanted: BTreeMap<InstanceIdent, String> = target
            .wanted_instances()
            .map(|wanted| (wanted.ident, wanted.version))
            .collect();
        self.placed().all(|(_, order)| {
            let version = match order.ident.item_type {
                ItemType::Component => target.item(&order.ident.item).map(|item| &item.version),
                _ => wanted.get(&order.ident),
            };
            version == Some(&order.version)
        })
    }

    /// All instances that have a place.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&NodeId, &InstanceOrder)> {
        self.by_node
            .iter()
            .flat_map(|(node, orders)| orders.iter().map(move |order| (node, order)))
    }
}
