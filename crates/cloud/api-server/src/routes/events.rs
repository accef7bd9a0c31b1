use std::{convert::Infallible, time::Duration};

use aos_api::{ChangeAction, ChangeEvent, ChangeTopic, paths};
use aos_db::Change;
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::Stream;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
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
    let (events, mut received) = mpsc::channel(WAITING);
    let changes = state.db().changes();
    let tasks = state.tasks().clone();
    tasks.spawn(follow(state, caller, changes, events, RECHECK));
    let stream = futures::stream::poll_fn(move |context| received.poll_recv(context));
    Sse::new(futures::StreamExt::map(stream, |event: ChangeEvent| {
        Ok(named(&event))
    }))
    .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// Hands on the changes of the caller's organisation until the caller goes, its credential ends, or the cloud stops.
async fn follow(
    state: ApiState,
    caller: Caller,
    mut changes: broadcast::Receiver<Change>,
    events: mpsc::Sender<ChangeEvent>,
    recheck: Duration,
) {
    let tenant = caller.actor().tenant();
    let mut recheck = interval(recheck);
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
        // A slow listener must not keep a stopping cloud waiting.
        tokio::select! {
            () = state.stop().cancelled() => break,
            sent = events.send(event) => if sent.is_err() { break },
        }
    }
}

fn named(event: &ChangeEvent) -> Event {
    let topic = serde_json::to_value(event.topic)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(topic).data(data)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aos_db::{Db, hash_secret};
    use aos_image::BlobStore;
    use aos_pki::Authority;
    use aos_time::{Clock, SystemClock};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{ApiOptions, Credential};

    #[tokio::test]
    async fn a_stream_ends_when_its_session_does() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db"), Arc::new(SystemClock))
            .await
            .unwrap();
        let state = ApiState::new(
            ApiOptions {
                db: db.clone(),
                authority: Arc::new(Authority::in_memory("test", SystemClock.now()).unwrap()),
                blobs: BlobStore::open(folder.path().join("blobs")).unwrap(),
                scratch: folder.path().to_owned(),
                organisation: "Test".into(),
                domain: "localhost".into(),
                people_url: String::new(),
                discovery_urls: vec![],
                caps: aos_bundle::Caps::default(),
            },
            CancellationToken::new(),
        )
        .unwrap();
        db.put_owner_token("token").await.unwrap();
        let user = db
            .set_up_owner("token", "Test", "ada", "hash")
            .await
            .unwrap()
            .unwrap();
        let session = hash_secret("session");
        db.begin_session(&user, &session).await.unwrap();
        let caller = Caller {
            user,
            credential: Credential::Session(session.clone()),
        };
        let (events, mut received) = mpsc::channel(1);
        let task = tokio::spawn(follow(
            state,
            caller,
            db.changes(),
            events,
            Duration::from_millis(10),
        ));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!task.is_finished());
        db.end_session(&session).await.unwrap();
        task.await.unwrap();
        assert!(received.recv().await.is_none());
    }
}
