use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use aos_alert::{Admitted, Flood, Tide};
use aos_cloud_protocol::{Alert, AlertEvent, Alerts, Body};
use aos_session::{Lost, Priority};
use aos_time::{Clock, SteadyClock, SystemClock};
use aos_types::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Link, Outgoing};

/// How long alerts are gathered, counted from the first.
const GATHER: Duration = Duration::from_millis(500);
/// Most alerts of one message.
const MOST: usize = 64;
/// What one source may say: far above what a sound Node does.
const TIDE: Tide = Tide {
    burst: 100,
    pause: Duration::from_secs(2),
};

/// What keeps alerts within bounds before they wait for anything: who floods neither drowns the others nor ends in silence.
#[derive(Debug)]
pub(super) struct Gate {
    node: NodeId,
    clock: SteadyClock,
    flood: Mutex<Flood<String>>,
}

impl Gate {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            clock: SteadyClock::start(),
            flood: Mutex::new(Flood::new(TIDE)),
        }
    }

    /// What is to be told of it: nothing if its source says too much; before it perhaps how much was left out.
    pub(super) fn admit(&self, alert: Alert) -> impl Iterator<Item = Alert> {
        let source = source(&alert.event);
        let admitted = self.flood().admit(self.clock.now(), &source);
        let (before, alert) = match admitted {
            Admitted::LeaveOut => (None, None),
            Admitted::Tell { left_out: 0 } => (None, Some(alert)),
            Admitted::Tell { left_out } => (Some(self.left_out(&source, left_out)), Some(alert)),
        };
        before.into_iter().chain(alert)
    }

    fn owes(&self) -> bool {
        self.flood().owes()
    }

    /// What was left out of those that are silent again.
    fn ebbed(&self) -> Vec<Alert> {
        let ebbed = self.flood().ebbed(self.clock.now());
        let told = ebbed
            .into_iter()
            .map(|(source, count)| self.left_out(&source, count));
        told.collect()
    }

    fn left_out(&self, source: &str, count: u64) -> Alert {
        let text = format!("{count} alerts of {source} were left out: too many at once");
        now(own(&self.node, text))
    }

    fn flood(&self) -> MutexGuard<'_, Flood<String>> {
        // Changes under this lock are small and whole.
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gathers alerts and sends them as one message. Of equal ones in a batch the first is kept. Ends with `stop`; what was
/// gathered is handed over first.
pub(crate) async fn gather_alerts(
    link: Link,
    node: NodeId,
    mut alerts: mpsc::Receiver<Alert>,
    stop: CancellationToken,
) {
    loop {
        let ebb = async {
            match link.gate.owes() {
                true => tokio::time::sleep(TIDE.pause * 2).await,
                false => std::future::pending().await,
            }
        };
        let mut batch: Vec<Alert> = Vec::new();
        // Receiving is cancel-safe.
        let mut next = tokio::select! {
            alert = alerts.recv() => match alert {
                Some(alert) => Some(alert),
                None => return,
            },
            () = stop.cancelled() => return,
            () = ebb => None,
        };
        let until = tokio::time::Instant::now() + GATHER;
        while let Some(alert) = next {
            if !batch.iter().any(|one| one.event == alert.event) {
                batch.push(alert);
            }
            if batch.len() >= MOST {
                break;
            }
            next = tokio::select! {
                alert = alerts.recv() => alert,
                () = tokio::time::sleep_until(until) => None,
                () = stop.cancelled() => None,
            };
        }
        batch.extend(link.gate.ebbed());
        let dropped = link.alerts_dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "alerts were dropped: too many at once");
            let text = format!("{dropped} alerts were dropped: too many at once");
            batch.push(now(own(&node, text)));
        }
        if batch.is_empty() {
            continue;
        }
        let body = Body::Alerts(Alerts { items: batch });
        link.send(Outgoing::durable(body, Priority::Normal)).await;
    }
}

/// Whom a flood is laid to. That a quota is exceeded must not drown in texts, so it has a source of its own.
fn source(event: &AlertEvent) -> String {
    match event {
        AlertEvent::System { node, .. } => format!("the log of Node {node}"),
        AlertEvent::Core {
            node, component, ..
        } => format!("{component} of Node {node}"),
        AlertEvent::SystemQuota {
            node, parameter, ..
        } => format!("the quota of {parameter} of Node {node}"),
        AlertEvent::InstanceQuota {
            instance,
            parameter,
            ..
        } => format!("the quota of {parameter} of instance {instance}"),
        AlertEvent::DownloadProgress { digest, .. } => format!("the download of {digest}"),
        AlertEvent::ResourceAllocate { instance, .. } => {
            format!("resources of instance {instance}")
        }
        AlertEvent::UpdateItemInstance { instance, .. } => format!("instance {instance}"),
    }
}

/// Says why a message of the cloud, or a part of one, was of no use.
pub(super) fn refused_alert(node: &NodeId, why: &str) -> AlertEvent {
    own(
        node,
        format!("a message of the cloud cannot be used: {why}"),
    )
}

/// Says how many messages the outbox has dropped, and how to give it more room.
pub(super) fn lost_alert(node: &NodeId, lost: Lost, messages: usize, bytes: usize) -> Body {
    let text = format!(
        "{} messages for the cloud were dropped because more waited than are kept ({messages} messages, {} MiB; \
         `outbox_messages`, `outbox_mib`): {} of logs and usage, {} of alerts, {} of all else",
        lost.total(),
        bytes >> 20,
        lost.low,
        lost.normal,
        lost.high,
    );
    Body::Alerts(Alerts {
        items: vec![now(own(node, text))],
    })
}

fn own(node: &NodeId, message: String) -> AlertEvent {
    AlertEvent::Core {
        node: node.clone(),
        component: "CM".into(),
        message,
    }
}

fn now(event: AlertEvent) -> Alert {
    Alert {
        timestamp: SystemClock.now(),
        event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_quotas_are_heard_all_the_same() {
        let node = NodeId::new("main").unwrap();
        let gate = Gate::new(node.clone());
        let system = |number: u32| {
            now(AlertEvent::System {
                node: node.clone(),
                message: format!("disk error {number}"),
            })
        };
        let told = (0..5_000)
            .flat_map(|number| gate.admit(system(number)))
            .count();
        // A little time goes by.
        let burst = TIDE.burst as usize;
        assert!((burst..burst + 20).contains(&told), "{told}");
        assert!(gate.owes());
        let quota = now(AlertEvent::SystemQuota {
            node: node.clone(),
            parameter: "cpu".into(),
            value: 1,
            state: None,
        });
        assert_eq!(gate.admit(quota.clone()).collect::<Vec<_>>(), [quota]);
    }
}
