use aos_cloud_protocol::DesiredNodeState;
use aos_types::{NodeId, NodeState};

use crate::{
    Node, Unit, Version,
    version::{missing_platform, platforms, runtimes},
};

/// A rule that keeps an instance off a Node. The words are stable: UI and command line show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exclusion {
    /// The Node is paused, is to pause, or does not take part.
    State,
    /// The main Node is not linked to it.
    Link,
    /// It has no runtime of a type that is asked for.
    Runtime,
    /// No image is for the platform of such a runtime.
    Platform,
    /// It lacks a label.
    Labels,
    /// It lacks a resource.
    Resources,
}

impl Exclusion {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Link => "link",
            Self::Runtime => "runtime",
            Self::Platform => "platform",
            Self::Labels => "labels",
            Self::Resources => "resources",
        }
    }
}

/// Whether an instance may be on a Node, as far as the cloud can tell. The Unit's scheduler also looks at what is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    /// The Node.
    pub node: NodeId,
    /// The first rule that keeps it off; `None`: it may be there.
    pub excluded_by: Option<Exclusion>,
    /// What was found.
    pub text: String,
}

/// For each Node of the Unit whether instances of `version` with these labels may be on it, in the order of the Nodes.
pub fn verdicts(unit: &Unit, version: &Version, labels: &[String]) -> Vec<NodeVerdict> {
    unit.nodes
        .iter()
        .map(|node| {
            let (excluded_by, text) = match exclusion(unit, node, version, labels) {
                Some((rule, text)) => (Some(rule), text),
                None => (None, "it may be here".to_owned()),
            };
            NodeVerdict {
                node: node.id.clone(),
                excluded_by,
                text,
            }
        })
        .collect()
}

fn exclusion(
    unit: &Unit,
    node: &Node,
    version: &Version,
    labels: &[String],
) -> Option<(Exclusion, String)> {
    if node.wanted == Some(DesiredNodeState::Paused) {
        let text = "the Node is ordered to pause".to_owned();
        return Some((Exclusion::State, text));
    }
    if node.state != NodeState::Provisioned {
        return Some((Exclusion::State, format!("the Node is {}", node.state)));
    }
    if !node.connected {
        let text = "the main Node is not linked to it".to_owned();
        return Some((Exclusion::Link, text));
    }
    let wanted = runtimes(version);
    let fitting: Vec<_> = node
        .runtimes
        .iter()
        .filter(|runtime| wanted.contains(&runtime.runtime_type.as_str()))
        .collect();
    if fitting.is_empty() {
        let text = format!("it has no runtime {}", wanted.join(" or "));
        return Some((Exclusion::Runtime, text));
    }
    if fitting
        .iter()
        .all(|runtime| missing_platform(version, runtime))
    {
        let text = format!("no runtime of it is for {}", platforms(version));
        return Some((Exclusion::Platform, text));
    }
    let known = unit
        .unit_config
        .as_ref()
        .map(|config| config.for_node(&node.id, &node.node_type).labels)
        .unwrap_or_default();
    let lacking = |wanted: &[String], has: &[String]| -> Vec<String> {
        wanted
            .iter()
            .filter(|name| !has.contains(name))
            .cloned()
            .collect()
    };
    let labels = lacking(labels, &known);
    if !labels.is_empty() {
        let text = format!("it has no label {}", labels.join(", "));
        return Some((Exclusion::Labels, text));
    }
    let resources = lacking(&version.resources, &node.resources);
    if !resources.is_empty() {
        let text = format!("it has no resource {}", resources.join(", "));
        return Some((Exclusion::Resources, text));
    }
    None
}
