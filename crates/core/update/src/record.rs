use std::{collections::BTreeMap, fmt};

use aos_time::Timestamp;
use aos_types::{ErrorInfo, ItemId};
use serde::{Deserialize, Serialize};

use crate::{Failures, Gates, Target};

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
    /// The whole set that was asked for, if `target` is only a part of it or the way back before it: the rest follows when
    /// this cycle has ended well, unless there is something newer.
    #[serde(default)]
    pub asked: Option<Target>,
    /// To something new, or back.
    pub direction: Direction,
    /// Where it stands.
    pub state: UpdateState,
    /// When the present stage has failed, if it is bounded; absolute, so that neither events nor restarts move it.
    pub deadline: Option<Timestamp>,
    /// Something on the Nodes may differ from the committed set, so a failure must bring that back.
    pub touched: bool,
    /// Items whose download has ended, with the error if it failed.
    #[serde(default)]
    pub downloaded: BTreeMap<ItemId, Option<ErrorInfo>>,
    /// A newer set that waits for the step in hand.
    #[serde(default)]
    pub next: Option<Target>,
}

impl Cycle {
    /// The set this update leads to in the end; none on the way back, unless an update waits for it.
    pub fn whole(&self) -> Option<&Target> {
        let forward = (self.direction == Direction::Forward).then_some(&self.target);
        self.asked.as_ref().or(forward)
    }

    /// The whole set that was asked for.
    pub fn asked(&self) -> &Target {
        self.asked.as_ref().unwrap_or(&self.target)
    }
}

/// Why the last update did not happen. Kept until one succeeds.
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
}
