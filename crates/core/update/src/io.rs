use std::{collections::BTreeMap, time::Duration};

use aos_time::Timestamp;
use aos_types::{ErrorInfo, InstanceIdent, InstanceState, ItemId, NodeId, UnitConfig};
use serde::{Deserialize, Serialize};

use crate::{
    Actual, Certificate, CertificateChain, Desired, DesiredItem, DesiredNode, GatePolicy, Note,
    Readiness, Record, Retry, Target, UpdatePart, WaitReason,
    policy::{Policy, Rules},
};

/// Names one effect; a result that carries another id is late and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub u64);

/// The longest each stage may take; after that the update has failed. Counted from the stage's start, whatever happens in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// Fetching and verifying (a day: a Unit may be on a thin line).
    pub downloading: Duration,
    /// Node states, unit configuration, images to the Nodes.
    pub installing: Duration,
    /// The Nodes taking over their lists.
    pub launching: Duration,
    /// The same on the way back, while something newer waits for it.
    pub giving_way: Duration,
    /// All changed instances active (10 min, seed 003).
    pub waiting_active: Duration,
}

/// What the engine is set up with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The longest each stage may take.
    pub deadlines: Deadlines,
    /// The pause before a commit that failed is tried again.
    pub commit_retry: Duration,
    /// How updates are gated on this Unit.
    pub gates: GatePolicy,
    /// How long all changed instances must have been active without interruption before they are committed; at most half
    /// of what they may take to become active.
    pub settle: Duration,
    /// When a failed update is tried again.
    pub retry: Retry,
    /// When a failed way back is tried again: without an end, whatever `attempts` says.
    pub rollback_retry: Retry,
    /// Sets this Unit's jitter apart from that of others.
    pub seed: u64,
    /// How it decides: [`Rules`], unless faults are planted.
    pub policy: &'static dyn Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadlines: Deadlines {
                downloading: Duration::from_secs(24 * 3600),
                installing: Duration::from_secs(1800),
                launching: Duration::from_secs(600),
                giving_way: Duration::from_secs(30),
                waiting_active: Duration::from_secs(600),
            },
            commit_retry: Duration::from_secs(10),
            settle: Duration::from_secs(3),
            gates: GatePolicy::default(),
            retry: Retry {
                first: Duration::from_secs(60),
                most: Duration::from_secs(3600),
                attempts: 10,
            },
            rollback_retry: Retry {
                first: Duration::from_secs(10),
                most: Duration::from_secs(600),
                attempts: u32::MAX,
            },
            seed: 0,
            policy: &Rules,
        }
    }
}

/// What is to be done. Each may be asked for again after a restart, and must then do only what is still missing.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Have every blob of these items here and verified. Answer: [`Input::Downloaded`].
    Download {
        /// All items of the set, those already here too: they are only checked.
        items: Vec<DesiredItem>,
        /// For their signatures.
        certificates: Vec<Certificate>,
        /// For their signatures.
        certificate_chains: Vec<CertificateChain>,
    },
    /// Bring the Nodes into these states, if they are not. Answer: [`Input::Done`].
    ApplyNodeStates {
        /// The wanted states.
        nodes: Vec<DesiredNode>,
    },
    /// Check this unit configuration on the connected Nodes, then put it in force. Answer: [`Input::Done`].
    ApplyUnitConfig {
        /// The configuration; `None` restores that there was none.
        config: Option<UnitConfig>,
        /// It is an older one that comes back: no version rule, no check.
        restore: bool,
    },
    /// Place the instances and have the images of all new ones installed and verified on their Nodes; start and stop
    /// nothing. Answer: [`Input::Done`].
    InstallOnNodes {
        /// The whole set.
        target: Target,
    },
    /// Give every Node its list; answered when the Nodes have taken them over. Answer: [`Input::Done`].
    Launch {
        /// The whole set.
        target: Target,
    },
    /// Make these items the installed ones; all others become removable. Answer: [`Input::Done`].
    Commit {
        /// The set that is in force from now on.
        target: Target,
    },
    /// Ask whether the Unit may be changed now. Answer: [`Input::Readiness`].
    AskReadiness,
    /// Stop what an earlier [`Effect::Download`], [`Effect::InstallOnNodes`], [`Effect::AskReadiness`] or [`Effect::Launch`]
    /// still does, at its next safe point: a list that a Node was sent is not taken back, but nobody waits for its answer
    /// any more. The next effect that touches the Nodes comes after that point. Not answered.
    Cancel {
        /// The effect to stop.
        effect: EffectId,
    },
}

/// What went wrong in one step, by what it belongs to. Empty means that the step succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// By item.
    pub items: BTreeMap<ItemId, ErrorInfo>,
    /// By Node.
    pub nodes: BTreeMap<NodeId, ErrorInfo>,
    /// By instance.
    #[serde(with = "by_instance")]
    pub instances: BTreeMap<InstanceIdent, ErrorInfo>,
    /// Of the unit configuration.
    pub unit_config: Option<ErrorInfo>,
    /// Of the step itself.
    pub step: Option<ErrorInfo>,
    /// How many more there were than a record keeps.
    pub omitted: u64,
}

/// How many failures of one kind a record keeps.
const KEPT: usize = 1000;
/// How many bytes of each.
const KEPT_TEXT: usize = 2048;

impl Failures {
    /// A failure of the step itself.
    pub fn of_step(error: ErrorInfo) -> Self {
        Self {
            step: Some(error),
            ..Self::default()
        }
    }

    /// No more of it than may be stored and reported: the first ones of each kind, with bounded texts.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        fn cut<K: Ord>(map: &mut BTreeMap<K, ErrorInfo>) -> u64 {
            let over = map.len().saturating_sub(KEPT);
            for _ in 0..over {
                map.pop_last();
            }
            map.values_mut().for_each(shorten);
            over as u64
        }
        self.omitted += cut(&mut self.items) + cut(&mut self.nodes) + cut(&mut self.instances);
        self.unit_config.iter_mut().for_each(shorten);
        self.step.iter_mut().for_each(shorten);
        self
    }

    /// Takes in what another step says; what is known already stays.
    pub fn merge(&mut self, other: Self) {
        for (id, error) in other.items {
            self.items.entry(id).or_insert(error);
        }
        for (id, error) in other.nodes {
            self.nodes.entry(id).or_insert(error);
        }
        for (id, error) in other.instances {
            self.instances.entry(id).or_insert(error);
        }
        self.unit_config = self.unit_config.take().or(other.unit_config);
        self.step = self.step.take().or(other.step);
        self.omitted += other.omitted;
    }

    /// Whether nothing went wrong.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first error with what it belongs to, for a person's first look.
    pub fn summary(&self) -> Option<String> {
        let item = self.items.iter().next();
        let instance = self.instances.iter().next();
        let node = self.nodes.iter().next();
        item.map(|(id, error)| format!("item `{id}`: {error}"))
            .or_else(|| instance.map(|(id, error)| format!("instance `{id}`: {error}")))
            .or_else(|| node.map(|(id, error)| format!("node `{id}`: {error}")))
            .or_else(|| {
                let error = self.unit_config.as_ref();
                error.map(|error| format!("unit configuration: {error}"))
            })
            .or_else(|| self.step.as_ref().map(ToString::to_string))
    }
}

fn shorten(error: &mut ErrorInfo) {
    if error.message.len() > KEPT_TEXT {
        let mut end = KEPT_TEXT;
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        error.message.truncate(end);
        error.message.push('…');
    }
}

/// JSON has no map with structured keys: a list of pairs.
mod by_instance {
    use super::{BTreeMap, Deserialize, ErrorInfo, InstanceIdent, Serialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<InstanceIdent, ErrorInfo>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, D::Error> {
        Ok(
            Vec::<(InstanceIdent, ErrorInfo)>::deserialize(deserializer)?
                .into_iter()
                .collect(),
        )
    }
}

/// What a Node says of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Its version.
    pub version: String,
    /// Its state.
    pub state: InstanceState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// It has failed, and its Node still tries to bring it up. Without it a failure is final: its image cannot start, or its
    /// restarts are used up.
    pub recovers: bool,
    /// How often it was started again, as far as its Node tells: another number means that it was down in between.
    pub restarts: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one exists at a time; a box would burden whoever makes a desired state"
)]
pub enum Input {
    /// The cloud sent a desired state.
    Desired {
        /// What it says.
        desired: Desired,
        /// How the Unit is at this moment.
        actual: Actual,
    },
    /// One item is here and verified, or cannot be, while others are still on their way.
    ItemDownloaded {
        /// The [`Effect::Download`] it belongs to.
        effect: EffectId,
        /// Which.
        item: ItemId,
        /// Why it cannot be used.
        error: Option<ErrorInfo>,
    },
    /// A download has ended; items that are not named succeeded.
    Downloaded {
        /// The [`Effect::Download`] it answers.
        effect: EffectId,
        /// What went wrong.
        failures: Failures,
    },
    /// Another effect has ended.
    Done {
        /// The effect it answers.
        effect: EffectId,
        /// What went wrong.
        failures: Failures,
    },
    /// What all Nodes say of all instances. Given whenever it changes, and right before [`Effect::Launch`] is answered:
    /// what was said before that effect was asked for is forgotten.
    Instances(BTreeMap<InstanceIdent, InstanceView>),
    /// Whether the Unit may be changed now.
    Readiness {
        /// The [`Effect::AskReadiness`] it answers.
        effect: EffectId,
        /// What the Unit says.
        readiness: Readiness,
    },
    /// Something that holds a gate shut may have changed: the rules of local time, the Unit's readiness. Harmless at any
    /// time.
    LookAgain,
    /// The time asked for by [`Output::WakeAt`] has come. Harmless at any time.
    Wake,
}

/// What should be told to the cloud now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A full status: a cycle has ended, or nothing had to be done.
    Full,
    /// The states of items or of the unit configuration have changed: they belong into the next delta.
    Changed,
    /// Things people should read.
    Notes(Vec<Note>),
    /// A part of the update waits at its gate, for something else than before.
    Waits {
        /// Which part.
        part: UpdatePart,
        /// For what.
        reason: WaitReason,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "a handful exist at a time; a box would burden every match on an effect"
)]
pub enum Output {
    /// Replace the stored record by this one, before anything that follows.
    Persist(Box<Record>),
    /// Do this and answer with its id.
    Do(EffectId, Effect),
    /// Call with [`Input::Wake`] at this time; replaces the time given before.
    WakeAt(Timestamp),
    /// Tell the cloud.
    Report(Report),
}
