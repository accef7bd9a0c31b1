use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aos_types::{Digest, InstanceIdent, OwnerId};

use crate::{
    Found, Instance, Run,
    policy::{Policy, Rules},
};

/// One image to have on the Node, verified, before anything is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The image manifest.
    pub manifest: Digest,
    /// The instances that need it.
    pub for_instances: Vec<InstanceIdent>,
}

/// Why an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The list does not have it any more.
    NotWanted,
    /// CM asked for it by name.
    Ordered,
    /// It is replaced by one of another version.
    NewVersion {
        /// The version that runs.
        from: String,
        /// The version that is wanted.
        to: String,
    },
    /// It is replaced by one that is set up differently.
    NewSettings,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("no longer wanted on this Node"),
            Self::Ordered => f.write_str("ordered to stop"),
            Self::NewVersion { from, to } => write!(f, "version {from} is replaced by {to}"),
            Self::NewSettings => f.write_str("its settings have changed"),
        }
    }
}

/// An instance to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub ident: InstanceIdent,
    /// Why.
    pub reason: StopReason,
    /// The image its replacement needs; it is stopped only once that is installed.
    pub after_install: Option<Digest>,
}

/// An instance to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// As it is to be run.
    pub instance: Instance,
    /// Whether something of that name is stopped for it first.
    pub replaces: bool,
}

/// What to do, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Images to have, each once. Images of instances that run on are not among them.
    pub install: Vec<Install>,
    /// Networks that the wanted instances need.
    pub networks: BTreeSet<OwnerId>,
    /// What to stop.
    pub stop: Vec<Stop>,
    /// What to start, highest priority first.
    pub start: Vec<Start>,
    /// What runs on untouched.
    pub keep: Vec<InstanceIdent>,
}

impl Plan {
    /// Whether the Node is as it shall be.
    pub fn is_empty(&self) -> bool {
        self.stop.is_empty() && self.start.is_empty()
    }
}

/// Says how to get from what is `found` on the Node to the complete list `wanted`.
///
/// `ordered_stops` are instances that CM names explicitly. One that is also wanted is restarted. If `wanted` names an
/// instance twice, the last entry counts.
pub fn plan(wanted: &[Instance], ordered_stops: &BTreeSet<InstanceIdent>, found: &[Found]) -> Plan {
    plan_by(&Rules, wanted, ordered_stops, found)
}

/// The same by another policy than [`Rules`]; only a simulator has one.
pub fn plan_by(
    policy: &dyn Policy,
    wanted: &[Instance],
    ordered_stops: &BTreeSet<InstanceIdent>,
    found: &[Found],
) -> Plan {
    let wanted: BTreeMap<&InstanceIdent, &Instance> =
        wanted.iter().map(|i| (&i.ident, i)).collect();
    let found: BTreeMap<&InstanceIdent, &Found> =
        found.iter().map(|f| (&f.instance.ident, f)).collect();
    let mut plan = Plan {
        networks: wanted.values().map(|i| i.owner.clone()).collect(),
        ..Plan::default()
    };
    for (ident, known) in &found {
        let stop = |reason, after_install| Stop {
            ident: (*ident).clone(),
            reason,
            after_install,
        };
        match wanted.get(ident) {
            None if policy.stops_unwanted(known) => {
                plan.stop.push(stop(StopReason::NotWanted, None));
            }
            None => {}
            Some(next) if !policy.runs_on(known, next) => {
                let why = replacement(&known.instance, next);
                let stop = stop(why, policy.stops_after(next));
                plan.stop
                    .extend(policy.stops_replaced(known).then_some(stop));
            }
            Some(next) if policy.is_ordered(ident, ordered_stops) => {
                plan.stop
                    .push(stop(StopReason::Ordered, policy.stops_after(next)));
            }
            Some(_) if known.run == Run::Running => plan.keep.push((*ident).clone()),
            Some(_) => {}
        }
    }
    let kept: BTreeSet<&InstanceIdent> = plan.keep.iter().collect();
    let mut start: Vec<Start> = wanted
        .values()
        .filter(|instance| !kept.contains(&instance.ident))
        .map(|instance| Start {
            instance: (*instance).clone(),
            replaces: found.contains_key(&instance.ident),
        })
        .collect();
    start.sort_by(|a, b| {
        b.instance
            .priority
            .cmp(&a.instance.priority)
            .then(a.instance.ident.cmp(&b.instance.ident))
    });
    let mut install: Vec<Install> = Vec::new();
    for Start { instance, .. } in &start {
        match install.iter_mut().find(|i| i.manifest == instance.manifest) {
            Some(known) => known.for_instances.push(instance.ident.clone()),
            None => install.push(Install {
                manifest: instance.manifest,
                for_instances: vec![instance.ident.clone()],
            }),
        }
    }
    plan.install = install;
    plan.start = start;
    plan
}

fn replacement(old: &Instance, new: &Instance) -> StopReason {
    if old.version == new.version {
        StopReason::NewSettings
    } else {
        StopReason::NewVersion {
            from: old.version.clone(),
            to: new.version.clone(),
        }
    }
}
