use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aos_ipc::{
    convert::{ident_to_proto, time_to_proto},
    proto::servicemanager::v5::{Alert, CoreAlert, InstanceAlert, alert::AlertItem},
};
use aos_time::{Clock, SystemClock};
use aos_types::InstanceIdent;
use tokio::sync::Notify;

/// Alerts that wait for CM; the oldest go first.
const MOST: usize = 64;

/// What people should know, until CM has been told.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    waiting: Mutex<VecDeque<Alert>>,
    news: Notify,
}

impl Alerts {
    /// Something about an instance.
    pub(crate) fn instance(&self, ident: &InstanceIdent, version: &str, message: String) {
        tracing::warn!(%ident, version, message);
        self.add(AlertItem::InstanceAlert(InstanceAlert {
            instance: Some(ident_to_proto(ident)),
            service_version: version.to_owned(),
            message,
        }));
    }

    /// Something about SM itself.
    pub(crate) fn own(&self, message: String) {
        tracing::warn!(message);
        self.add(AlertItem::CoreAlert(CoreAlert {
            core_component: "SM".into(),
            message,
        }));
    }

    fn add(&self, item: AlertItem) {
        let mut waiting = self.waiting();
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(Alert {
            timestamp: Some(time_to_proto(SystemClock.now())),
            alert_item: Some(item),
        });
        drop(waiting);
        self.news.notify_one();
    }

    /// Calls `tell` with each alert for as long as it succeeds. What could not be told waits on.
    pub(crate) async fn follow<Told: Future<Output = Result<(), ()>>>(
        &self,
        tell: impl Fn(Alert) -> Told,
    ) {
        loop {
            let next = self.waiting().pop_front();
            let Some(alert) = next else {
                self.news.notified().await;
                continue;
            };
            if tell(alert.clone()).await.is_err() {
                self.waiting().push_front(alert);
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Alert>> {
        // Changes under this lock are small and whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
