use std::collections::{BTreeMap, BTreeSet};

use aos_schedule::{Exclusions, Placement, Plan, Why};
use aos_types::{InstanceIdent, NodeId};

/// Most instances that are explained to others; those without a place come first.
const MOST: usize = 100;
/// Most Nodes that are named for one.
const MOST_NODES: usize = 16;

/// A Node that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excluded {
    pub(crate) node: NodeId,
    /// The rule's stable word.
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// Why an instance has no place, or not the one it might have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) ident: InstanceIdent,
    pub(crate) version: String,
    pub(crate) node: Option<NodeId>,
    pub(crate) reason: String,
    pub(crate) excluded: Vec<Excluded>,
}

/// What is to be explained of a plan. What was decided in an earlier one counts as long as the instance stays where it was
/// put then; `before` are the explanations of that time. `priority` is that of a Node by the unit configuration.
pub(crate) fn explain(
    plan: &Plan,
    priority: impl Fn(&NodeId) -> i64,
    before: &[Explained],
) -> Vec<Explained> {
    let unplaced = plan.unplaced.iter().map(|one| Explained {
        ident: one.ident.clone(),
        version: one.version.clone(),
        node: None,
        reason: one.reason.to_string(),
        excluded: named(plan, &one.excluded),
    });
    let disabled = plan.disabled.iter().map(|one| Explained {
        ident: one.ident.clone(),
        version: one.version.clone(),
        node: None,
        reason: one.reason.clone(),
        excluded: Vec::new(),
    });
    let known: BTreeMap<&InstanceIdent, &Explained> =
        before.iter().map(|one| (&one.ident, one)).collect();
    let elsewhere = plan.placed.iter().filter_map(|place| {
        if place.why == Why::Stays {
            let known = known.get(&place.ident)?;
            let same = known.node.as_ref() == Some(&place.node) && known.version == place.version;
            return same.then(|| (*known).clone());
        }
        is_elsewhere(plan, place, &priority).then(|| Explained {
            ident: place.ident.clone(),
            version: place.version.clone(),
            node: Some(place.node.clone()),
            reason: place.why.to_string(),
            excluded: named(plan, &place.excluded),
        })
    });
    unplaced
        .chain(disabled)
        .chain(elsewhere)
        .take(MOST)
        .collect()
}

/// Whether somebody may ask why it is not on another Node: it was moved, or a Node that is preferred was not taken.
fn is_elsewhere(plan: &Plan, place: &Placement, priority: &impl Fn(&NodeId) -> i64) -> bool {
    let moved = matches!(place.why, Why::Moves(_) | Why::Relieves(_) | Why::PushesOut);
    let own = priority(&place.node);
    moved
        || place.leaves_behind.is_some()
        || plan
            .excluded(&place.excluded)
            .any(|(node, _)| priority(node) > own)
}

fn named(plan: &Plan, exclusions: &Exclusions) -> Vec<Excluded> {
    let mut seen = BTreeSet::new();
    let all = plan.excluded(exclusions);
    all.filter(|(node, _)| seen.insert((*node).clone()))
        .take(MOST_NODES)
        .map(|(node, rule)| Excluded {
            node: node.clone(),
            rule: rule.name(),
            text: rule.to_string(),
        })
        .collect()
}
