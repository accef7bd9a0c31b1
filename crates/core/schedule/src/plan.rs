use std::{fmt, sync::Arc};

use aos_types::{Digest, InstanceIdent, ItemConfig, NodeId, OwnerId, RuntimeId};

use crate::Rule;

/// Most Nodes that one text names.
const NAMED: usize = 8;

/// What spoke for a Node among those that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoke {
    /// No other fits.
    Only,
    /// Its priority is the highest.
    Priority(i64),
    /// It has the fewest instances of the item and subject.
    Spread,
    /// It has the most free CPU.
    Cpu,
    /// It has the most free memory.
    Ram,
    /// Nothing but its name.
    Name,
}

impl fmt::Display for Spoke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("is the only node that fits"),
            Self::Priority(highest) => write!(f, "has the highest priority, {highest}"),
            Self::Spread => f.write_str("has the fewest instances of the item"),
            Self::Cpu => f.write_str("has the most free CPU"),
            Self::Ram => f.write_str("has the most free memory"),
            Self::Name => f.write_str("is as good as others and first by name"),
        }
    }
}

/// Why an instance got its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is there already, and may stay.
    Stays,
    /// It had another place, which does not fit any more; the text says why.
    Moves(String),
    /// It leaves this Node, which is overloaded.
    Relieves(NodeId),
    /// It had none.
    Best(Spoke),
    /// It had none, and less important instances leave this one for it.
    PushesOut,
    /// A component that runs in every runtime that fits.
    EveryRuntime,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stays => f.write_str("stays where it runs"),
            Self::Moves(why) => write!(f, "moves: {why}"),
            Self::Relieves(node) => write!(f, "moves: {node} {}", Rule::Overloaded),
            Self::Best(spoke) => spoke.fmt(f),
            Self::PushesOut => f.write_str("less important instances leave the node for it"),
            Self::EveryRuntime => f.write_str("runs in every runtime that fits"),
        }
    }
}

/// A Node that was not taken, and the rule that stopped it. Named by [`Plan::excluded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    pub(crate) node: u32,
    /// Of several runtimes of the Node the one that came furthest speaks.
    pub rule: Rule,
}

/// Nodes that were not taken. Shared by the instances of which the same is true.
pub type Exclusions = Arc<[Excluded]>;

/// An instance and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// Who owns its item.
    pub owner: OwnerId,
    /// Its priority.
    pub priority: u64,
    /// On which Node.
    pub node: NodeId,
    /// In which runtime of it.
    pub runtime: RuntimeId,
    /// From which image.
    pub manifest: Digest,
    /// What that image's configuration says.
    pub config: Arc<ItemConfig>,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Why there.
    pub why: Why,
    /// Which Nodes were not taken; none if it stays and nobody asked.
    pub excluded: Exclusions,
    /// The Node that has its storage or state, which it leaves behind.
    pub leaves_behind: Option<NodeId>,
}

/// What keeps an instance from having a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No Node fits: see the exclusions.
    Nowhere(&'static str),
    /// Its Node is paused; it waits for it for a while.
    Waits(NodeId),
    /// Its images cannot be used, or it got no number; the text says why.
    Unusable(String),
}

/// An instance without a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// What keeps it from having one.
    pub cause: Cause,
    /// Which Nodes do not fit.
    pub excluded: Exclusions,
    /// For people: the cause, and of some Nodes why they do not fit.
    pub reason: Arc<str>,
}

/// An instance that is wanted and does not run, because its subject is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// Where everything runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Instances with a place.
    pub placed: Vec<Placement>,
    /// Instances without.
    pub unplaced: Vec<Unplaced>,
    /// Instances that are not to run now.
    pub disabled: Vec<Disabled>,
    pub(crate) nodes: Vec<NodeId>,
}

impl Plan {
    /// What runs on one Node.
    pub fn on_node<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Placement> {
        self.placed.iter().filter(move |place| place.node == *node)
    }

    /// Names the Nodes of `exclusions`, each with the rule that stopped it.
    pub fn excluded<'a>(
        &'a self,
        exclusions: &'a [Excluded],
    ) -> impl Iterator<Item = (&'a NodeId, &'a Rule)> {
        exclusions
            .iter()
            .filter_map(|one| Some((self.nodes.get(one.node as usize)?, &one.rule)))
    }
}

/// The headline, and of the first Nodes what they lack.
pub(crate) fn reason(headline: &str, nodes: &[NodeId], excluded: &[Excluded]) -> String {
    let named = excluded.iter().take(NAMED).filter_map(|one| {
        let node = nodes.get(one.node as usize)?;
        Some(format!("{node}: {}", one.rule))
    });
    let mut details: Vec<String> = named.collect();
    if excluded.len() > NAMED {
        details.push(format!("{} more", excluded.len() - NAMED));
    }
    if details.is_empty() {
        headline.into()
    } else {
        format!("{headline} ({})", details.join("; "))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.placed {
            writeln!(
                f,
                "{} {} -> {} in {} as {}:{} ({})",
                place.ident,
                place.version,
                place.node,
                place.runtime,
                place.uid,
                place.gid,
                place.why
            )?;
            if let Some(home) = &place.leaves_behind {
                writeln!(f, "  leaves its storage or state behind on {home}")?;
            }
        }
        for unplaced in &self.unplaced {
            writeln!(
                f,
                "{} {} -> nowhere: {}",
                unplaced.ident, unplaced.version, unplaced.reason
            )?;
        }
        for disabled in &self.disabled {
            writeln!(
                f,
                "{} {} -> disabled: {}",
                disabled.ident, disabled.version, disabled.reason
            )?;
        }
        Ok(())
    }
}
