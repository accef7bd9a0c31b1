use std::time::Duration;

use aos_launch::{Found, Instance};
use aos_types::{Digest, ErrorInfo, HealthCheck, InstanceState, ItemConfig, Quotas};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Report, Run};
use crate::{records::End, restart::Restarts};

/// One instance of this Node.
pub(super) struct Entry {
    /// As it runs, or shall run.
    pub(super) instance: Instance,
    pub(super) state: InstanceState,
    pub(super) error: Option<ErrorInfo>,
    /// Its first process, if it runs.
    pub(super) pid: Option<u32>,
    pub(super) restarts: Restarts,
    /// It is not expected to come up: it cannot start, or its starts are used up.
    pub(super) unrecoverable: bool,
    /// How it ended last.
    pub(super) last_end: Option<End>,
    /// The end of a process that is not known to be its own: its start may be told after its end.
    pub(super) early: Option<(u32, End, ErrorInfo)>,
    /// How it is found out whether it is healthy.
    pub(super) health_check: Option<HealthCheck>,
    /// Probes go on for as long as this is here.
    pub(super) probing: Option<DropGuard>,
    /// How much it may use and keep.
    pub(super) quotas: Quotas,
    /// It is stopped when the Unit is offline for so long.
    pub(super) offline_ttl: Option<Duration>,
    /// A start is planned; cancelled if it is not wanted any more.
    pub(super) retry: Option<CancellationToken>,
    /// What CM wants instead of what runs, and why that could not be had.
    pub(super) instead: Option<(Instance, ErrorInfo)>,
    /// Stopped because the Unit was offline too long.
    pub(super) resting: bool,
}

impl Entry {
    /// An instance that is about to start; `item` is nothing as long as its image is not here.
    pub(super) fn new(instance: Instance, item: Option<&ItemConfig>) -> Self {
        let mut entry = Self {
            instance,
            state: InstanceState::Activating,
            error: None,
            pid: None,
            restarts: Restarts::new(Default::default()),
            unrecoverable: false,
            last_end: None,
            early: None,
            health_check: None,
            probing: None,
            quotas: Quotas::default(),
            offline_ttl: None,
            retry: None,
            instead: None,
            resting: false,
        };
        if let Some(item) = item {
            entry.heed(item);
        }
        entry
    }

    /// Takes over what the item says, once its image is here.
    pub(super) fn heed(&mut self, item: &ItemConfig) {
        self.restarts.set(item.run_parameters);
        self.health_check.clone_from(&item.health_check);
        self.quotas = item.quotas;
        self.offline_ttl = item.offline_ttl.filter(|ttl| !ttl.is_zero());
    }

    /// Its process is gone.
    pub(super) fn stopped(&mut self) {
        self.pid = None;
        self.probing = None;
    }

    pub(super) fn found(&self) -> Found {
        let running = self.pid.is_some() || self.retry.is_some() || self.resting;
        Found {
            instance: self.instance.clone(),
            run: if running {
                aos_launch::Run::Running
            } else {
                aos_launch::Run::Down
            },
        }
    }

    pub(super) fn report(&self) -> Report {
        let (instance, state, error, unrecoverable) = match &self.instead {
            Some((wanted, error)) => (wanted, InstanceState::Failed, Some(error.clone()), true),
            None => (
                &self.instance,
                self.state,
                self.error.clone(),
                self.unrecoverable,
            ),
        };
        Report {
            version: instance.version.clone(),
            runtime: instance.runtime.clone(),
            manifest: instance.manifest,
            state,
            error,
            env: instance.env.iter().map(|(name, _)| name.clone()).collect(),
            run: Run {
                unrecoverable,
                restarts: self.restarts.count(),
                last_end: self.last_end.clone(),
            },
        }
    }

    /// The images it needs.
    pub(super) fn manifests(&self) -> impl Iterator<Item = Digest> + '_ {
        std::iter::once(self.instance.manifest)
            .chain(self.instead.iter().map(|(wanted, _)| wanted.manifest))
    }

    pub(super) fn give_up_retry(&mut self) {
        if let Some(retry) = self.retry.take() {
            retry.cancel();
        }
    }
}
