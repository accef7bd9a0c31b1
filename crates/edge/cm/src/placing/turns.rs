use std::collections::{BTreeMap, BTreeSet};

use aos_types::NodeId;

/// One Node is to be looked at, and sent its list if it needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) node: NodeId,
    /// Others may still be parting with some of its instances: it gets none that another one still runs.
    pub(super) parting: bool,
}

/// How the turn of a Node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing of its list is left to be given.
    Whole,
    /// It was not given instances that these Nodes still run.
    Without(BTreeSet<NodeId>),
    /// It did not take its list; the next change brings another turn.
    Failed,
}

/// Whose turn it is to be given its list: each Node has its own, so that one that hangs holds up only those that wait for an
/// instance it runs.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Nodes whose turn it is; true if something has changed since it began.
    busy: BTreeMap<NodeId, bool>,
    /// For whom the rest of a list waits: for the turn of these Nodes to end.
    waits: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Turns {
    /// Something has changed: these Nodes are looked at. Gives the turns that begin now.
    pub(super) fn look(&mut self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<Turn> {
        let mut begun = Vec::new();
        for node in nodes {
            self.begin(node, true, &mut begun);
        }
        begun
    }

    /// A turn has ended. Gives those that begin now.
    pub(super) fn ended(&mut self, node: &NodeId, how: Ended) -> Vec<Turn> {
        let again = self.busy.remove(node).unwrap_or_default();
        let mut begun = Vec::new();
        let mut free = Vec::new();
        for (other, waited) in &mut self.waits {
            if waited.remove(node) && waited.is_empty() {
                free.push(other.clone());
            }
        }
        match how {
            Ended::Without(running) => {
                let parting: BTreeSet<NodeId> = running
                    .into_iter()
                    .filter(|other| self.busy.contains_key(other))
                    .collect();
                match parting.is_empty() {
                    true => free.push(node.clone()),
                    false => {
                        self.waits.insert(node.clone(), parting);
                    }
                }
            }
            Ended::Whole | Ended::Failed => {
                self.waits.remove(node);
            }
        }
        for node in free {
            self.waits.remove(&node);
            // They have had their turn: they parted with it, or do not answer.
            self.begin(node, false, &mut begun);
        }
        if again {
            self.begin(node.clone(), true, &mut begun);
        }
        begun
    }

    fn begin(&mut self, node: NodeId, parting: bool, begun: &mut Vec<Turn>) {
        if let Some(again) = self.busy.get_mut(&node) {
            *again = true;
            return;
        }
        self.busy.insert(node.clone(), false);
        begun.push(Turn { node, parting });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn turn(name: &str, parting: bool) -> Turn {
        Turn {
            node: id(name),
            parting,
        }
    }

    #[test]
    fn a_node_that_hangs_holds_up_only_those_that_wait_for_what_it_runs() {
        let mut turns = Turns::default();
        let all = || ["hangs", "heir", "other"].map(id);
        assert_eq!(turns.look(all()).len(), 3);
        let without = || Ended::Without([id("hangs")].into());
        assert_eq!(turns.ended(&id("heir"), without()), []);
        assert_eq!(turns.ended(&id("other"), Ended::Whole), []);
        // Whatever changes next is brought to the others at once.
        assert_eq!(turns.look(all()), [turn("heir", true), turn("other", true)]);
        assert_eq!(turns.ended(&id("heir"), without()), []);
        // The one that hung is looked at again, and what waited for it is given.
        assert_eq!(
            turns.ended(&id("hangs"), Ended::Failed),
            [turn("heir", false), turn("hangs", true)]
        );
        assert_eq!(turns.ended(&id("heir"), Ended::Whole), []);
    }

    #[test]
    fn what_nobody_is_about_to_part_with_is_given_at_once() {
        let mut turns = Turns::default();
        turns.look([id("heir"), id("gone")]);
        assert_eq!(turns.ended(&id("gone"), Ended::Failed), []);
        assert_eq!(
            turns.ended(&id("heir"), Ended::Without([id("gone")].into())),
            [turn("heir", false)]
        );
    }

    #[test]
    fn a_failed_turn_is_not_repeated_by_itself() {
        let mut turns = Turns::default();
        turns.look([id("one")]);
        assert_eq!(turns.ended(&id("one"), Ended::Failed), []);
        assert_eq!(turns.look([id("one")]), [turn("one", true)]);
        assert_eq!(turns.look([id("one")]), []);
        assert_eq!(turns.ended(&id("one"), Ended::Failed), [turn("one", true)]);
    }
}
