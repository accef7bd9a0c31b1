use std::{convert::Infallible, time::Duration};

use aos_api::{ChangeAction, ChangeEvent, ChangeTopic, paths};
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::Stream;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::{MissedTickBehavior, interval},
};

use crate::{ApiState, Caller, openapi::Refused};

/// How often it is asked whether the listener's credential is still good.
const RECHECK: Duration = Duration::from_secs(30);
/// Events that wait for a slow listener before it is told to read everything again.
const WAITING: usize = 256;

/// Changes as they happen, as server-sent events
///
/// The event's name is the topic, its data a `ChangeEvent`. It says what to read again. `resync` means that events were
/// missed.
#[utoipa::path(get, path = paths::EVENTS, tag = "events", operation_id = "events",
    responses((status = 200, description = "A stream of changes", body = ChangeEvent, content_type = "text/event-stream"),
    Refused))]
pub(crate) async fn stream(
    State(state): State<ApiState>,
    caller: Caller,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = state.db().changes();
    let (events, mut received) = mpsc::channel(WAITING);
    let tasks = state.tasks().clone();
    tasks.spawn(async move {
        let tenant = caller.actor().tenant();
        let mut recheck = interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // All arms are cancel-safe: a change that is not received stays in the bus, a tick that is lost comes again.
            let event = tokio::select! {
                () = state.stop().cancelled() => break,
                () = events.closed() => break,
                _ = recheck.tick() => {
                    if !caller.is_still_good(&state).await {
                        break;
                    }
                    continue;
                }
                change = changes.recv() => match change {
                    Ok(change) if change.tenant == tenant => change.into(),
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => ChangeEvent {
                        topic: ChangeTopic::Resync,
                        action: ChangeAction::Updated,
                        id: None,
                        at: state.db().now(),
                    },
                    Err(RecvError::Closed) => break,
                },
            };
            if events.send(event).await.is_err() {
                break;
            }
        }
    });
    let stream = futures::stream::poll_fn(move |context| received.poll_recv(context));
    Sse::new(futures::StreamExt::map(stream, |event: ChangeEvent| {
        Ok(named(&event))
    }))
    .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn named(event: &ChangeEvent) -> Event {
    let topic = serde_json::to_value(event.topic)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(topic).data(data)
}
