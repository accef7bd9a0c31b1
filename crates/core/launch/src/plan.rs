use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aos_types::{Digest, InstanceIdent};

/// An instance that shall run. `T` is whatever the shell needs to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<T> {
    /// Which.
    pub ident: InstanceIdent,
    /// Of which version.
    pub version: String,
    /// The image it runs from.
    pub manifest: Digest,
    /// Differs if and only if a running instance must be started again to be as wanted.
    pub fingerprint: String,
    /// What the shell needs to start it.
    pub spec: T,
}

/// An instance as it was found on the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version it runs.
    pub version: String,
    /// The [`Wanted::fingerprint`] it was started with; empty if that is not known.
    pub fingerprint: String,
}

/// Why an instance is stopped or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is not wanted any more.
    Removed,
    /// It does not run.
    New,
    /// It runs in this version, or with other settings.
    Replaced {
        /// The version that runs.
        from: String,
    },
    /// It is as wanted and was asked to be started again.
    Restarted,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("is not wanted any more"),
            Self::New => f.write_str("does not run yet"),
            Self::Replaced { from } => write!(f, "takes the place of {from}"),
            Self::Restarted => f.write_str("is started again as asked"),
        }
    }
}

/// What has to happen, phase by phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<T> {
    /// 1. Images to install and verify, with the instances that need them.
    pub install: BTreeMap<Digest, Vec<InstanceIdent>>,
    /// 2. Instances whose network is to be prepared: those of phase 4.
    pub networks: Vec<InstanceIdent>,
    /// 3. Instances to stop.
    pub stop: Vec<(InstanceIdent, Change)>,
    /// 4. Instances to start.
    pub start: Vec<(Wanted<T>, Change)>,
    /// Instances that run as wanted.
    pub keep: Vec<InstanceIdent>,
}

impl<T> fmt::Display for Plan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ident in &self.keep {
            writeln!(f, "keep {ident}")?;
        }
        for (digest, idents) in &self.install {
            let names: Vec<String> = idents.iter().map(ToString::to_string).collect();
            let short: String = digest.hex().chars().take(8).collect();
            writeln!(f, "1 install {short} for {}", names.join(", "))?;
        }
        for ident in &self.networks {
            writeln!(f, "2 network {ident}")?;
        }
        for (ident, change) in &self.stop {
            writeln!(f, "3 stop {ident}: {change}")?;
        }
        for (wanted, change) in &self.start {
            writeln!(f, "4 start {} {}: {change}", wanted.ident, wanted.version)?;
        }
        Ok(())
    }
}

/// Compares what is wanted with what was found. `restart` names instances to start again even if they are as wanted; of
/// two wanted entries with the same name the last counts.
pub fn plan<T: Clone>(
    wanted: &[Wanted<T>],
    found: &BTreeMap<InstanceIdent, Found>,
    installed: &BTreeSet<Digest>,
    restart: &BTreeSet<InstanceIdent>,
) -> Plan<T> {
    let wanted: BTreeMap<&InstanceIdent, &Wanted<T>> =
        wanted.iter().map(|one| (&one.ident, one)).collect();
    let mut plan = Plan {
        install: BTreeMap::new(),
        networks: Vec::new(),
        stop: Vec::new(),
        start: Vec::new(),
        keep: Vec::new(),
    };
    for (ident, one) in &wanted {
        let change = match found.get(*ident) {
            None => Change::New,
            Some(runs) if runs.fingerprint != one.fingerprint => Change::Replaced {
                from: runs.version.clone(),
            },
            Some(_) if restart.contains(*ident) => Change::Restarted,
            Some(_) => {
                plan.keep.push((*ident).clone());
                continue;
            }
        };
        if !installed.contains(&one.manifest) {
            let needs = plan.install.entry(one.manifest).or_default();
            needs.push((*ident).clone());
        }
        if change != Change::New {
            plan.stop.push(((*ident).clone(), change.clone()));
        }
        plan.networks.push((*ident).clone());
        plan.start.push(((*one).clone(), change));
    }
    for ident in found.keys() {
        if !wanted.contains_key(ident) {
            plan.stop.push((ident.clone(), Change::Removed));
        }
    }
    plan
}

impl<T> Plan<T> {
    /// The plan without one instance's change: what runs of it goes on running.
    pub fn leave_as_is(&mut self, ident: &InstanceIdent) {
        self.networks.retain(|have| have != ident);
        self.stop
            .retain(|(have, change)| have != ident || *change == Change::Removed);
        self.start.retain(|(have, _)| have.ident != *ident);
    }

    /// Whether nothing has to happen.
    pub fn is_empty(&self) -> bool {
        self.install.is_empty() && self.stop.is_empty() && self.start.is_empty()
    }
}
