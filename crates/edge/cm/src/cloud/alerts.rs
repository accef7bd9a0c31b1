use std::{sync::atomic::Ordering, time::Duration};

use aos_cloud_protocol::{Alert, AlertEvent, Alerts, Body};
use aos_session::{Lost, Priority};
use aos_time::{Clock, SystemClock};
use aos_types::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Link, Outgoing};

/// How long alerts are gathered, counted from the first.
const GATHER: Duration = Duration::from_millis(500);
/// Most alerts of one message.
const MOST: usize = 64;

/// Gathers alerts and sends them as one message. Of equal ones in a batch the first is kept. Ends with `stop`; what was
/// gathered is handed over first.
pub(crate) async fn gather_alerts(
    link: Link,
    node: NodeId,
    mut events: mpsc::Receiver<AlertEvent>,
    stop: CancellationToken,
) {
    loop {
        // Receiving is cancel-safe.
        let first = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < MOST {
            let next = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(until) => None,
                () = stop.cancelled() => None,
            };
            let Some(next) = next else { break };
            if !batch.contains(&next) {
                batch.push(next);
            }
        }
        let dropped = link.alerts_dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "alerts were dropped: too many at once");
            let text = format!("{dropped} alerts were dropped: too many at once");
            batch.push(own(&node, text));
        }
        let items = batch.into_iter().map(now).collect();
        let body = Body::Alerts(Alerts { items });
        link.send(Outgoing::durable(body, Priority::Normal)).await;
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
