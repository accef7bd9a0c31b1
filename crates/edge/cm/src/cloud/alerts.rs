use std::time::Duration;

use aos_cloud_protocol::{Alert, AlertEvent, Alerts, Body};
use aos_session::Priority;
use aos_time::{Clock, SystemClock};
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
        let timestamp = SystemClock.now();
        let items = batch
            .into_iter()
            .map(|event| Alert { timestamp, event })
            .collect();
        let body = Body::Alerts(Alerts { items });
        link.send(Outgoing::durable(body, Priority::Normal)).await;
    }
}
