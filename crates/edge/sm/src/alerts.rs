use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_alert::{Admitted, Change, Flood, Parameter, Tide, Whose};
use aos_ipc::{
    convert::{ident_to_proto, time_to_proto},
    proto::servicemanager::v5::{
        Alert, CoreAlert, InstanceAlert, InstanceQuotaAlert, SystemAlert, SystemQuotaAlert,
        alert::AlertItem,
    },
};
use aos_time::{Clock, SteadyClock, SystemClock, Timestamp};
use aos_types::InstanceIdent;
use tokio::sync::Notify;

/// Alerts that wait for CM; the least important and oldest go first, and are counted.
const MOST: usize = 256;
/// Longest text of one.
const MAX_CHARS: usize = 4_096;
/// What one source may say: who complains all the time is heard once a while.
const TIDE: Tide = Tide {
    burst: 20,
    pause: Duration::from_secs(10),
};

/// Who complains. Quota alerts are bounded by their rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Instance(InstanceIdent),
    Own,
    System,
    Component(String),
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Alert>,
    flood: Flood<Source>,
    dropped: u64,
}

/// What people should know, until CM has been told.
#[derive(Debug)]
pub(crate) struct Alerts {
    state: Mutex<State>,
    clock: SteadyClock,
    news: Notify,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                flood: Flood::new(TIDE),
                dropped: 0,
            }),
            clock: SteadyClock::start(),
            news: Notify::new(),
        }
    }
}

impl Alerts {
    /// Something about an instance.
    pub(crate) fn instance(&self, ident: &InstanceIdent, version: &str, message: String) {
        tracing::warn!(%ident, version, message);
        self.say(Source::Instance(ident.clone()), message, |message| {
            AlertItem::InstanceAlert(InstanceAlert {
                instance: Some(ident_to_proto(ident)),
                service_version: version.to_owned(),
                message,
            })
        });
    }

    /// Something about SM itself.
    pub(crate) fn own(&self, message: String) {
        tracing::warn!(message);
        self.say(Source::Own, message, |message| core("SM", message));
    }

    /// What the machine's log says of a component of AosCore.
    pub(crate) fn component(&self, component: &str, message: String) {
        self.say(
            Source::Component(component.to_owned()),
            message,
            |message| core(component, message),
        );
    }

    /// What the machine's log says.
    pub(crate) fn system(&self, message: String) {
        self.say(Source::System, message, |message| {
            AlertItem::SystemAlert(SystemAlert { message })
        });
    }

    /// The use of something began, goes on or ended to be too much.
    pub(crate) fn quota(&self, alert: &aos_alert::Alert<Whose<InstanceIdent>>) {
        let (parameter, status) = (alert.parameter.to_string(), word(alert.change));
        match alert.change {
            Change::Continue => {}
            _ => tracing::info!(of = ?alert.of, parameter, value = alert.value, status, "quota"),
        }
        let item = match &alert.of {
            Whose::Node => AlertItem::SystemQuotaAlert(SystemQuotaAlert {
                parameter,
                value: alert.value,
                status: status.into(),
            }),
            Whose::Instance(ident) => AlertItem::InstanceQuotaAlert(InstanceQuotaAlert {
                instance: Some(ident_to_proto(ident)),
                parameter,
                value: alert.value,
                status: status.into(),
            }),
        };
        self.add(item);
    }

    /// A rule that cannot be followed.
    pub(crate) fn unfollowed(
        &self,
        of: &Whose<InstanceIdent>,
        version: &str,
        parameter: &Parameter,
        why: &aos_alert::WrongRule,
    ) {
        let message = format!("its alert rule for `{parameter}` is not followed: {why}");
        match of {
            Whose::Node => self.own(format!("of this Node: {message}")),
            Whose::Instance(ident) => self.instance(ident, version, message),
        }
    }

    fn say(&self, source: Source, message: String, item: impl FnOnce(String) -> AlertItem) {
        let admitted = self.state().flood.admit(self.clock.now(), &source);
        let Admitted::Tell { left_out } = admitted else {
            return;
        };
        let mut message: String = message.chars().take(MAX_CHARS).collect();
        if left_out > 0 {
            message.push_str(&format!(
                " ({left_out} alerts before this one were left out: too many at once)"
            ));
        }
        self.add(item(message));
    }

    fn add(&self, item: AlertItem) {
        let mut state = self.state();
        let same = |waiting: &Alert| match (waiting.alert_item.as_ref(), &item) {
            // That it goes on is said once, with the newest value.
            (Some(AlertItem::SystemQuotaAlert(one)), AlertItem::SystemQuotaAlert(other)) => {
                one.status == word(Change::Continue)
                    && other.status == one.status
                    && one.parameter == other.parameter
            }
            (Some(AlertItem::InstanceQuotaAlert(one)), AlertItem::InstanceQuotaAlert(other)) => {
                one.status == word(Change::Continue)
                    && other.status == one.status
                    && one.parameter == other.parameter
                    && one.instance == other.instance
            }
            (one, other) => one == Some(other),
        };
        state.waiting.retain(|waiting| !same(waiting));
        if state.waiting.len() >= MOST {
            let least = state
                .waiting
                .iter()
                .position(|one| !is_of_quota(one))
                .unwrap_or(0);
            state.waiting.remove(least);
            state.dropped = state.dropped.saturating_add(1);
        }
        state.waiting.push_back(Alert {
            timestamp: Some(time_to_proto(SystemClock.now())),
            alert_item: Some(item),
        });
        drop(state);
        self.news.notify_one();
    }

    /// Calls `tell` with each alert for as long as it succeeds. What could not be told waits on.
    pub(crate) async fn follow<Told: Future<Output = Result<(), ()>>>(
        &self,
        tell: impl Fn(Alert) -> Told,
    ) {
        loop {
            let Some(alert) = self.next() else {
                self.wait().await;
                continue;
            };
            if tell(alert.clone()).await.is_err() {
                self.state().waiting.push_front(alert);
                return;
            }
        }
    }

    /// The next to tell: first of all how many were lost.
    fn next(&self) -> Option<Alert> {
        let mut state = self.state();
        if state.dropped > 0 {
            let dropped = std::mem::take(&mut state.dropped);
            let message = format!(
                "{dropped} alerts of this Node were dropped because more than {MOST} waited for CM"
            );
            return Some(Alert {
                timestamp: Some(time_to_proto(SystemClock.now())),
                alert_item: Some(core("SM", message)),
            });
        }
        state.waiting.pop_front()
    }

    /// Waits for an alert, or until a flood is over and its end can be told.
    async fn wait(&self) {
        let owes = self.state().flood.owes();
        let news = self.news.notified();
        if !owes {
            return news.await;
        }
        // Waiting for a notice is cancel-safe.
        if tokio::time::timeout(TIDE.pause, news).await.is_ok() {
            return;
        }
        let now: Timestamp = self.clock.now();
        let ebbed = self.state().flood.ebbed(now);
        for (source, left_out) in ebbed {
            let text = format!("{left_out} more alerts were left out: too many at once");
            self.add(match source {
                Source::Instance(ident) => AlertItem::InstanceAlert(InstanceAlert {
                    instance: Some(ident_to_proto(&ident)),
                    service_version: String::new(),
                    message: text,
                }),
                Source::Own => core("SM", text),
                Source::Component(component) => core(&component, text),
                Source::System => AlertItem::SystemAlert(SystemAlert { message: text }),
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changes under this lock are small and whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn core(component: &str, message: String) -> AlertItem {
    AlertItem::CoreAlert(CoreAlert {
        core_component: component.into(),
        message,
    })
}

const fn word(change: Change) -> &'static str {
    match change {
        Change::Raise => "raise",
        Change::Continue => "continue",
        Change::Fall => "fall",
    }
}

fn is_of_quota(alert: &Alert) -> bool {
    matches!(
        alert.alert_item,
        Some(AlertItem::SystemQuotaAlert(_) | AlertItem::InstanceQuotaAlert(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(alerts: &Alerts) -> Vec<AlertItem> {
        std::iter::from_fn(|| alerts.next())
            .filter_map(|alert| alert.alert_item)
            .collect()
    }

    fn quota(
        of: Whose<InstanceIdent>,
        value: u64,
        change: Change,
    ) -> aos_alert::Alert<Whose<InstanceIdent>> {
        aos_alert::Alert {
            of,
            parameter: Parameter::Ram,
            value,
            change,
        }
    }

    #[test]
    fn gap_73_alerts_beyond_what_is_kept_are_counted_and_told_of() {
        let alerts = Alerts::default();
        alerts.quota(&quota(Whose::Node, 1, Change::Raise));
        for number in 0..MOST + 40 {
            alerts.component(&format!("c{number}"), format!("alert {number}"));
        }
        let told = all(&alerts);
        assert_eq!(told.len(), MOST + 1);
        let AlertItem::CoreAlert(first) = &told[0] else {
            panic!("{:?}", told[0])
        };
        assert!(
            first
                .message
                .starts_with("41 alerts of this Node were dropped"),
            "{}",
            first.message
        );
        // What is said of quotas stays: the end of it must not come without its beginning.
        assert!(matches!(&told[1], AlertItem::SystemQuotaAlert(quota) if quota.status == "raise"));
    }

    #[test]
    fn a_flood_of_one_source_is_bounded_and_others_are_heard() {
        let alerts = Alerts::default();
        for number in 0..10_000 {
            alerts.system(format!("disk error {number}"));
        }
        alerts.own("a word of mine".into());
        let told = all(&alerts);
        assert_eq!(told.len(), TIDE.burst as usize + 1);
        assert!(alerts.state().flood.owes());
    }

    #[test]
    fn that_it_goes_on_waits_once_with_the_newest_value() {
        let alerts = Alerts::default();
        alerts.quota(&quota(Whose::Node, 1, Change::Raise));
        for value in 2..50 {
            alerts.quota(&quota(Whose::Node, value, Change::Continue));
        }
        alerts.quota(&quota(Whose::Node, 50, Change::Fall));
        let told: Vec<(u64, String)> = all(&alerts)
            .into_iter()
            .filter_map(|item| match item {
                AlertItem::SystemQuotaAlert(quota) => Some((quota.value, quota.status)),
                _ => None,
            })
            .collect();
        let wanted = [(1, "raise"), (49, "continue"), (50, "fall")];
        assert_eq!(
            told,
            wanted.map(|(value, status)| (value, status.to_owned()))
        );
    }

    #[test]
    fn texts_are_cut() {
        let alerts = Alerts::default();
        alerts.system("x".repeat(100_000));
        let told = all(&alerts);
        assert!(
            matches!(&told[0], AlertItem::SystemAlert(alert) if alert.message.len() == MAX_CHARS)
        );
    }
}
