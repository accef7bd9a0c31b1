use std::time::Duration;

use aos_launch::{Found, Instance, Member, Progress, Standstill};
use aos_types::{
    AlertRules, AosCode, Dependency, Digest, ErrorInfo, HealthCheck, InstanceState, ItemConfig,
    Quotas,
};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Report, Run, elsewhere::Stage};
use crate::{
    records::{End, Finished},
    restart::Restarts,
};

/// How long an instance waits to be told of items on other Nodes. Then it is started without, because a Node that is cut
/// off shall run what it has.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// When its use is an alert.
    pub(super) alert_rules: Option<AlertRules>,
    /// It is stopped when the Unit is offline for so long.
    pub(super) offline_ttl: Option<Duration>,
    /// A start is planned; cancelled if it is not wanted any more.
    pub(super) retry: Option<CancellationToken>,
    /// What CM wants instead of what runs, and why that could not be had.
    pub(super) instead: Option<(Instance, ErrorInfo)>,
    /// Its process is being ended for a list that does not want it, or not like this.
    pub(super) leaving: bool,
    /// It is being ended because the Unit is offline for too long.
    pub(super) pausing: bool,
    /// Stopped because the Unit was offline too long.
    pub(super) resting: bool,
    /// What its item says of others.
    pub(super) dependencies: Vec<Dependency>,
    /// Since when its start is due, as far as others allow it; nothing once it was tried.
    pub(super) held: Option<Instant>,
    /// It was meant to end, and has.
    pub(super) finished: Option<Finished>,
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
            alert_rules: None,
            offline_ttl: None,
            retry: None,
            instead: None,
            leaving: false,
            pausing: false,
            resting: false,
            dependencies: Vec::new(),
            held: None,
            finished: None,
        };
        if let Some(item) = item {
            entry.heed(item);
        }
        entry
    }

    /// An instance whose image is here and which shall start as soon as others allow it.
    pub(super) fn due(instance: Instance, item: Option<&ItemConfig>) -> Self {
        Self {
            held: Some(Instant::now()),
            ..Self::new(instance, item)
        }
    }

    /// Takes over what the item says, once its image is here.
    pub(super) fn heed(&mut self, item: &ItemConfig) {
        self.restarts.set(item.run_parameters);
        self.health_check.clone_from(&item.health_check);
        self.quotas = item.quotas;
        self.alert_rules.clone_from(&item.alert_rules);
        self.dependencies.clone_from(&item.dependencies);
        self.offline_ttl = item.offline_ttl.filter(|ttl| !ttl.is_zero());
    }

    /// Its process is gone.
    pub(super) fn stopped(&mut self) {
        self.pid = None;
        self.probing = None;
    }

    pub(super) fn found(&self) -> Found {
        let running = self.pid.is_some()
            || self.retry.is_some()
            || self.resting
            || self.held.is_some()
            || self.finished.is_some();
        Found {
            instance: self.instance.clone(),
            run: if running && !self.leaving {
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
                progress: Stage::of(&self.progress(None)),
                ends: self.restarts.ends(),
            },
        }
    }

    /// As others see it that depend on its item. Whatever it waits for on other Nodes, it has patience from `since` on at
    /// the earliest: until then it was told of them.
    pub(super) fn member(&self, since: Option<Instant>) -> Member {
        Member {
            ident: self.instance.ident.clone(),
            version: self.instance.version.clone(),
            priority: self.instance.priority,
            dependencies: self.dependencies.clone(),
            ends: self.restarts.ends(),
            progress: self.progress(since),
        }
    }

    fn progress(&self, since: Option<Instant>) -> Progress {
        let why = || {
            self.error
                .as_ref()
                .map_or_else(String::new, ToString::to_string)
        };
        if let Some(finished) = &self.finished {
            return match &finished.failed {
                None => Progress::Completed,
                Some(error) => Progress::Failed(error.to_string()),
            };
        }
        if self.leaving {
            return Progress::Starting;
        }
        if self.resting {
            return Progress::Resting;
        }
        if let Some(held) = self.held {
            let patient = since.map_or(held, |since| since.max(held)).elapsed() < PATIENCE;
            return Progress::Held { patient };
        }
        match self.pid {
            Some(_) if self.state == InstanceState::Active => Progress::Healthy,
            // A failing health check has used its starts up.
            Some(_) if self.unrecoverable => Progress::Failed(why()),
            Some(_) => Progress::Started,
            None if self.unrecoverable => Progress::Failed(why()),
            None => Progress::Starting,
        }
    }

    /// When its patience with other Nodes ends.
    pub(super) fn impatient(&self, since: Option<Instant>) -> Option<Instant> {
        let needs = self.dependencies.iter().any(|one| one.condition.requires());
        let held = self.held.filter(|_| needs && !self.resting)?;
        let end = since.map_or(held, |since| since.max(held)) + PATIENCE;
        (end > Instant::now()).then_some(end)
    }

    /// It is not started because of others.
    pub(super) fn stands_still(&mut self, why: Standstill) {
        let (state, code, text) = match why {
            Standstill::Waits(why) => (InstanceState::Activating, AosCode::WrongState, why),
            Standstill::InVain(why) => (InstanceState::Failed, AosCode::Failed, why),
        };
        self.state = state;
        self.unrecoverable = state == InstanceState::Failed;
        self.error = Some(ErrorInfo::new(code, text));
    }

    /// It has ended, as it was meant to, and is not started again.
    pub(super) fn finish(&mut self, finished: Finished) {
        self.give_up_retry();
        self.stopped();
        self.held = None;
        self.state = match &finished.failed {
            None => InstanceState::Inactive,
            Some(_) => InstanceState::Failed,
        };
        self.unrecoverable = finished.failed.is_some();
        self.error.clone_from(&finished.failed);
        self.finished = Some(finished);
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
