use std::time::Duration;

use aos_api::paths;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::bench::{As, Bench};

/// Waits for the next event of a stream: its name and data.
async fn next(body: &mut axum::body::Body) -> Option<(String, Value)> {
    let mut text = String::new();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
            .await
            .unwrap()?
            .unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref()?).unwrap());
        if text.starts_with(':') {
            text.clear();
            continue;
        }
        if text.ends_with("\n\n") {
            let part = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap()
                    .trim()
                    .to_owned()
            };
            return Some((
                part("event:"),
                serde_json::from_str(&part("data:")).unwrap(),
            ));
        }
    }
}

async fn listen(bench: &Bench, who: &As) -> axum::body::Body {
    let request = bench.request(
        who,
        Method::GET,
        paths::EVENTS,
        None,
        axum::body::Body::empty(),
    );
    let response = bench.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let mut stream = listen(&bench, &owner).await;
    let made = bench
        .post(&owner, paths::SUBJECTS, json!({"label": "s"}))
        .await
        .expect(201);
    let (name, event) = next(&mut stream).await.unwrap();
    assert_eq!(name, "subject");
    assert_eq!(event["topic"], "subject");
    assert_eq!(event["action"], "created");
    assert_eq!(event["id"], made["id"]);
    bench.stop.cancel();
    assert!(
        next(&mut stream).await.is_none(),
        "the stream ends with the cloud"
    );
    bench.state.stopped().await;
}
