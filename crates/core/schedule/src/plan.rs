use std::fmt;

use aos_types::{Digest, InstanceIdent, ItemConfig, NodeId, OwnerId, RuntimeId};

/// Why an instance got its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is there already, and may stay.
    Stays,
    /// It had another place, which does not fit any more; the text says why.
    Moves(String),
    /// It had none; the text says what spoke for this one.
    Best(String),
    /// A component that runs in every runtime that fits.
    EveryRuntime,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stays => f.write_str("stays where it runs"),
            Self::Moves(why) => write!(f, "moves: {why}"),
            Self::Best(why) => f.write_str(why),
            Self::EveryRuntime => f.write_str("runs in every runtime that fits"),
        }
    }
}

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
    pub config: ItemConfig,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Why there.
    pub why: Why,
}

/// An instance that fits nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// What stopped it, on which Node, for people.
    pub reason: String,
}

/// Where everything runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Instances with a place, in the order they were placed.
    pub placed: Vec<Placement>,
    /// Instances without.
    pub unplaced: Vec<Unplaced>,
}

impl Plan {
    /// What runs on one Node.
    pub fn on_node<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Placement> {
        self.placed.iter().filter(move |place| place.node == *node)
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
        }
        for unplaced in &self.unplaced {
            writeln!(
                f,
                "{} {} -> nowhere: {}",
                unplaced.ident, unplaced.version, unplaced.reason
            )?;
        }
        Ok(())
    }
}
