use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aos_time::Timestamp;
use aos_types::{ErrorInfo, ItemId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{Failures, Gates, Target, UnitConfigStatus};

/// Where an update stands (seed 003). [`UpdateState::None`] is never stored: then there is no cycle.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum UpdateState {
    /// Nothing to do.
    #[default]
    None,
    /// Blobs are fetched and verified.
    Downloading,
    /// Everything is here; gates are asked.
    Pending,
    /// Node states, unit configuration, images to the Nodes.
    Installing,
    /// The Nodes take over their lists.
    Launching,
    /// Changed instances become active.
    WaitingActive,
    /// The new set becomes the committed one.
    Finalizing,
}

impl fmt::Display for UpdateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Downloading => "downloading",
            Self::Pending => "pending",
            Self::Installing => "installing",
            Self::Launching => "launching",
            Self::WaitingActive => "waiting for active",
            Self::Finalizing => "finalizing",
        })
    }
}

/// Where a cycle leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// To a new set.
    Forward,
    /// To the committed set, after a failure.
    Back,
}

/// An update under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// The set it leads to.
    pub target: Target,
    /// The whole set that was asked for, if `target` is only a part of it: the rest follows when this is committed, unless
    /// there is something newer.
    #[serde(default)]
    pub asked: Option<Target>,
    /// To something new, or back.
    pub direction: Direction,
    /// Where it stands.
    pub state: UpdateState,
    /// When the present stage has failed, if it is bounded; absolute, so that neither events nor restarts move it.
    pub deadline: Option<Timestamp>,
    /// What must be undone if it fails; `None` while nothing on the Nodes differs from the committed set.
    #[serde(default)]
    pub undo: Option<Undo>,
    /// Independent items that failed: `target` has their previous versions.
    #[serde(default)]
    pub aside: Option<Aside>,
    /// On the way back: what went wrong so far.
    #[serde(default)]
    pub trouble: Failures,
    /// On the way back: the state of a Node, or the unit configuration on one, could not be restored.
    #[serde(default)]
    pub unrestored: bool,
    /// Items whose download has ended, with the error if it failed.
    #[serde(default)]
    pub downloaded: BTreeMap<ItemId, Option<ErrorInfo>>,
    /// A newer set that waits for the step in hand.
    #[serde(default)]
    pub next: Option<Target>,
}

impl Cycle {
    pub(crate) fn new(target: Target, direction: Direction, state: UpdateState) -> Self {
        Self {
            target,
            asked: None,
            direction,
            state,
            deadline: None,
            undo: None,
            aside: None,
            trouble: Failures::default(),
            unrestored: false,
            downloaded: BTreeMap::new(),
            next: None,
        }
    }

    /// The set this update leads to in the end; none on the way back.
    pub fn whole(&self) -> Option<&Target> {
        (self.direction == Direction::Forward).then(|| self.asked())
    }

    /// The whole set that was asked for.
    pub fn asked(&self) -> &Target {
        self.asked.as_ref().unwrap_or(&self.target)
    }
}

/// What an update has changed on the Nodes and the committed set does not say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Undo {
    /// Items of which instances were changed: when it is undone, those of the committed set must be active again.
    pub items: BTreeSet<ItemId>,
    /// Nodes that were paused and of which the committed set says nothing.
    pub paused: BTreeSet<NodeId>,
    /// A newer set is on its way and nothing else leads out of the half-done one: from this time on it is undone first.
    pub by: Option<Timestamp>,
}

/// Independent items that failed and stay as they are in the committed set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Aside {
    /// The stage in which the last of them failed.
    pub state: UpdateState,
    /// Why, by item, and by instance where it was one.
    pub failures: Failures,
}

/// Why the last update did not happen, or not wholly. Kept until one succeeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The stage that failed.
    pub state: UpdateState,
    /// When.
    pub at: Timestamp,
    /// The set it was to lead to.
    pub target: Target,
    /// What went wrong, by what it belongs to.
    pub failures: Failures,
    /// Its gate stayed shut too long: it is tried again only by something newer, or when somebody starts it.
    #[serde(default)]
    pub expired: bool,
    /// How often it was tried.
    #[serde(default = "once")]
    pub attempts: u32,
    /// When it is tried again; `None` while it is being tried, when something newer came, and when it was given up.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
}

const fn once() -> u32 {
    1
}

/// A way back that has failed: not all committed instances of the items in question became active again within the
/// deadline, or the state of a Node or its unit configuration could not be restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// When it failed last.
    pub at: Timestamp,
    /// What went wrong.
    pub failures: Failures,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// What is to be undone.
    pub undo: Undo,
}

/// All that the engine keeps, as one record: it is replaced whole, so it is never half.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Counts stored changes; effects are numbered by it.
    pub generation: u64,
    /// The set the Unit goes back to: the last one that became active.
    pub committed: Target,
    /// A set that was given to the Nodes and is not committed.
    pub launched: Option<Target>,
    /// The update under way.
    pub cycle: Option<Cycle>,
    /// Why the last update did not happen.
    pub failure: Option<Failure>,
    /// The gates of the newest update.
    pub gates: Option<Gates>,
    /// The committed set could not be brought back; kept until it is, or another one is committed.
    pub rollback: Option<Rollback>,
    /// A unit configuration that was asked for last and may not follow the committed one; the rest goes on without it.
    pub refused_config: Option<UnitConfigStatus>,
}
