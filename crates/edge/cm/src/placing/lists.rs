use std::collections::BTreeMap;

use aos_schedule::{Placement, Unplaced};
use aos_time::Timestamp;
use aos_types::{AlertRules, Digest, InstanceIdent, NodeId, OwnerId, RuntimeId};
use serde::{Deserialize, Serialize};

use crate::contract::InstanceOrder;

/// An instance with its place, or one that had one, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) ident: InstanceIdent,
    pub(crate) version: String,
    pub(crate) owner: OwnerId,
    pub(crate) priority: u64,
    /// Node and runtime; `None` if it has no place now.
    pub(crate) place: Option<(NodeId, RuntimeId)>,
    pub(crate) manifest: Digest,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// It has a storage.
    pub(crate) storage: bool,
    /// It has a state.
    pub(crate) state: bool,
    #[serde(default)]
    pub(crate) alert_rules: Option<AlertRules>,
    #[serde(default)]
    pub(crate) unplaced_since: Option<Timestamp>,
}

impl Placed {
    pub(crate) fn of(place: &Placement) -> Self {
        Self {
            ident: place.ident.clone(),
            version: place.version.clone(),
            owner: place.owner.clone(),
            priority: place.priority,
            place: Some((place.node.clone(), place.runtime.clone())),
            manifest: place.manifest,
            uid: place.uid,
            gid: place.gid,
            storage: place
                .config
                .quotas
                .storage_limit
                .is_some_and(|limit| limit > 0),
            state: place
                .config
                .quotas
                .state_limit
                .is_some_and(|limit| limit > 0),
            alert_rules: place.config.alert_rules.clone(),
            unplaced_since: None,
        }
    }

    fn order(&self) -> Option<(NodeId, InstanceOrder)> {
        let (node, runtime) = self.place.clone()?;
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
            env: Vec::new(),
            alert_rules: self.alert_rules.clone(),
        };
        Some((node, order))
    }
}

/// The order for a placement.
pub(crate) fn order(place: &Placement) -> InstanceOrder {
    let placed = Placed::of(place);
    match placed.order() {
        Some((_, order)) => order,
        // A placement has a place; this keeps the two in one function all the same.
        None => InstanceOrder {
            ident: placed.ident,
            version: placed.version,
            manifest: placed.manifest,
            owner: placed.owner,
            runtime: place.runtime.clone(),
            uid: placed.uid,
            gid: placed.gid,
            priority: placed.priority,
            storage_path: String::new(),
            state_path: String::new(),
            env: Vec::new(),
            alert_rules: placed.alert_rules,
        },
    }
}

/// What every Node shall run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Lists {
    /// By Node; a Node that is not here shall run nothing.
    pub(crate) by_node: BTreeMap<NodeId, Vec<InstanceOrder>>,
    /// Instances without a place.
    pub(crate) unplaced: Vec<Unplaced>,
}

impl Lists {
    pub(crate) fn of<'a>(placed: impl Iterator<Item = &'a Placed>) -> Self {
        let mut by_node: BTreeMap<NodeId, Vec<InstanceOrder>> = BTreeMap::new();
        for (node, order) in placed.filter_map(Placed::order) {
            by_node.entry(node).or_default().push(order);
        }
        Self {
            by_node,
            unplaced: Vec::new(),
        }
    }

    /// What one Node shall run.
    pub(crate) fn on(&self, node: &NodeId) -> &[InstanceOrder] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// All instances that have a place.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&NodeId, &InstanceOrder)> {
        self.by_node
            .iter()
            .flat_map(|(node, orders)| orders.iter().map(move |order| (node, order)))
    }
}
