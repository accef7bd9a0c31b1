use aos_types::{InstanceIdent, NodeId};
use serde::{Deserialize, Serialize};

/// The master copy of an instance's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Master {
    /// Whose.
    pub(crate) ident: InstanceIdent,
    /// The state itself: text, as it travels to the cloud.
    pub(crate) state: String,
    /// Its checksum.
    pub(crate) checksum: String,
    /// The Node that has it; `None` while none has.
    pub(crate) node: Option<NodeId>,
    /// What the cloud still has to hear or say about it.
    pub(crate) open: Open,
}

/// What is open between Unit and cloud about a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Open {
    /// Nothing: the cloud has it, or gave it.
    Nothing,
    /// The cloud has not accepted it yet.
    Acceptance,
    /// The cloud is asked for the one it keeps.
    Answer,
}

/// What to make of a state that a Node tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the master copy.
    Known,
    /// It becomes the master copy.
    New,
    /// Another Node has the instance, or this one was not yet given what it shall have: who was apart has no say.
    Stale,
}

/// Decides by checksum, and by who has the master copy. Clocks of Nodes that were apart say nothing.
pub(super) fn judge(master: Option<&Master>, node: &NodeId, checksum: &str) -> Verdict {
    match master {
        None => Verdict::New,
        Some(master) if master.checksum == checksum => Verdict::Known,
        Some(master) if master.node.as_ref() == Some(node) => Verdict::New,
        Some(_) => Verdict::Stale,
    }
}

#[cfg(test)]
mod tests {
    use aos_types::{ItemType, state_checksum};

    use super::*;

    fn master(node: Option<&str>) -> Master {
        Master {
            ident: InstanceIdent {
                item: "web".parse().unwrap(),
                subject: "s".parse().unwrap(),
                index: 0,
                item_type: ItemType::Service,
                preinstalled: false,
            },
            state: "one".into(),
            checksum: state_checksum(b"one"),
            node: node.map(|node| node.parse().unwrap()),
            open: Open::Nothing,
        }
    }

    #[test]
    fn only_the_node_that_has_the_master_copy_can_change_it() {
        let (one, two) = (state_checksum(b"one"), state_checksum(b"two"));
        let a: NodeId = "a".parse().unwrap();
        for (master, told, verdict) in [
            (None, &two, Verdict::New),
            (Some(master(Some("a"))), &one, Verdict::Known),
            (Some(master(Some("a"))), &two, Verdict::New),
            (Some(master(Some("b"))), &one, Verdict::Known),
            (Some(master(Some("b"))), &two, Verdict::Stale),
            (Some(master(None)), &two, Verdict::Stale),
        ] {
            assert_eq!(judge(master.as_ref(), &a, told), verdict, "{master:?}");
        }
    }
}
