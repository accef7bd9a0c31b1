use std::time::Duration;

use aos_launch::{Found, Instance, Run};
use aos_types::{Digest, ErrorInfo, InstanceState, ItemConfig};
use tokio_util::sync::CancellationToken;

use super::Report;
use crate::restart::Restarts;

/// One instance of this Node.
pub(super) struct Entry {
    /// As it runs, or shall run.
    pub(super) instance: Instance,
    pub(super) state: InstanceState,
    pub(super) error: Option<ErrorInfo>,
    /// Its first process, if it runs.
    pub(super) pid: Option<u32>,
    pub(super) restarts: Restarts,
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
        Self {
            instance,
            state: InstanceState::Activating,
            error: None,
            pid: None,
            restarts: Restarts::new(item.map(|item| item.run_parameters).unwrap_or_default()),
            offline_ttl: item
                .and_then(|item| item.offline_ttl)
                .filter(|ttl| !ttl.is_zero()),
            retry: None,
            instead: None,
            resting: false,
        }
    }

    pub(super) fn found(&self) -> Found {
        let running = self.pid.is_some() || self.retry.is_some() || self.resting;
        Found {
            instance: self.instance.clone(),
            run: if running { Run::Running } else { Run::Down },
        }
    }

    pub(super) fn report(&self) -> Report {
        let (instance, state, error) = match &self.instead {
            Some((wanted, error)) => (wanted, InstanceState::Failed, Some(error.clone())),
            None => (&self.instance, self.state, self.error.clone()),
        };
        Report {
            version: instance.version.clone(),
            runtime: instance.runtime.clone(),
            manifest: instance.manifest,
            state,
            error,
            env: instance.env.iter().map(|(name, _)| name.clone()).collect(),
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
