use std::collections::BTreeMap;

use aos_types::{Digest, ErrorInfo, InstanceIdent};

use crate::{Plan, Start, Stop};

/// An instance that is not started, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub ident: InstanceIdent,
    /// Whether an older run of it goes on in its place.
    pub old_runs_on: bool,
    /// What failed.
    pub error: ErrorInfo,
}

/// The part of a plan that may be carried out once it is known what could be installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Switch {
    /// What to stop, all before the first start.
    pub stop: Vec<Stop>,
    /// What to start, highest priority first.
    pub start: Vec<Start>,
    /// What stays as it is because its image could not be installed.
    pub kept: Vec<Kept>,
}

impl Plan {
    /// What may be stopped and started when the images in `failed` could not be installed or verified.
    pub fn switch(&self, failed: &BTreeMap<Digest, ErrorInfo>) -> Switch {
        let mut switch = Switch::default();
        for stop in &self.stop {
            if !stop
                .after_install
                .is_some_and(|manifest| failed.contains_key(&manifest))
            {
                switch.stop.push(stop.clone());
            }
        }
        for start in &self.start {
            match failed.get(&start.instance.manifest) {
                None => switch.start.push(start.clone()),
                Some(error) => switch.kept.push(Kept {
                    ident: start.instance.ident.clone(),
                    old_runs_on: start.replaces,
                    error: error.clone(),
                }),
            }
        }
        switch
    }
}
