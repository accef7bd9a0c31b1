//! Requests for logs through the whole of CM.

use std::time::Duration;

use aos_cloud_protocol::{
    Body, LogFilter, LogStatus, LogType, PushLog, RequestLog, UploadOptions, UploadType,
};
use aos_time::{Clock, SystemClock};
use aos_types::NodeId;

use super::stage::Stage;
use crate::contract::{LogLines, NodeEvent};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn request(nodes: &[&str]) -> Body {
    Body::RequestLog(RequestLog {
        log_type: LogType::Instance,
        filter: LogFilter {
            nodes: nodes.iter().map(|name| node(name)).collect(),
            ..LogFilter::default()
        },
        upload_options: None,
    })
}

fn live(till: Duration) -> Body {
    Body::RequestLog(RequestLog {
        log_type: LogType::System,
        filter: LogFilter {
            nodes: vec![node("main")],
            till: Some(SystemClock.now() + till),
            ..LogFilter::default()
        },
        upload_options: Some(UploadOptions {
            upload_type: UploadType::Wss,
            url: None,
            bearer_token: None,
            bearer_token_ttl: None,
        }),
    })
}

/// What is answered next for this request.
async fn answer(stage: &mut Stage, id: &str) -> PushLog {
    let message = stage
        .cloud
        .message(|message| {
            message.correlation_id.as_deref() == Some(id)
                && matches!(message.body, Body::PushLog(_))
        })
        .await;
    match message.body {
        Body::PushLog(part) => part,
        other => panic!("{other:?}"),
    }
}

async fn asked(stage: &Stage, call: &str) {
    let wanted = call.to_owned();
    stage
        .nodes
        .until(|nodes| nodes.calls().contains(&wanted))
        .await;
}

async fn tells(stage: &Stage, of: &str, id: &str, part: u64, parts_count: u64) {
    let part = PushLog {
        node: node(of),
        part,
        parts_count,
        content: format!("{of} {part}").into_bytes(),
        status: LogStatus::Ok,
        error: None,
    };
    stage
        .node_tells(NodeEvent::Log {
            correlation_id: id.into(),
            part,
        })
        .await;
}

#[tokio::test]
async fn gap_70_every_node_answers_or_is_answered_for() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;

    // No Node is named: all are asked.
    stage.cloud.ask("all", request(&[])).await;
    asked(&stage, "log on main for all").await;
    asked(&stage, "log on second for all").await;
    tells(&stage, "main", "all", 2, 2).await;
    tells(&stage, "main", "all", 1, 2).await;
    let first = answer(&mut stage, "all").await;
    assert_eq!((first.part, first.content.as_slice()), (2, &b"main 2"[..]));
    answer(&mut stage, "all").await;
    // One goes before it has told all.
    tells(&stage, "second", "all", 1, 9).await;
    answer(&mut stage, "all").await;
    let second = stage.nodes.disconnect("second");
    let cut = answer(&mut stage, "all").await;
    assert_eq!((cut.node, cut.status), (node("second"), LogStatus::Failed));
    assert!(cut.error.unwrap().message.contains("left before"));

    // One that is away, and one that nobody knows.
    stage
        .cloud
        .ask("some", request(&["second", "nobody"]))
        .await;
    let mut said = [
        answer(&mut stage, "some").await,
        answer(&mut stage, "some").await,
    ];
    said.sort_by_key(|part| part.node.clone());
    assert_eq!(said[0].status, LogStatus::Absent);
    assert!(
        said[0]
            .error
            .as_ref()
            .unwrap()
            .message
            .contains("no Node nobody")
    );
    assert_eq!(said[1].status, LogStatus::Failed);
    assert!(
        said[1]
            .error
            .as_ref()
            .unwrap()
            .message
            .contains("not connected")
    );
    stage.nodes.connect("second", second);

    // CM is killed while a Node gathers its log: the next one answers for it.
    stage.cloud.ask("cut", request(&["main"])).await;
    asked(&stage, "log on main for cut").await;
    stage.kill().await;
    stage.start().await;
    let cut = answer(&mut stage, "cut").await;
    assert_eq!(cut.status, LogStatus::Failed);
    assert!(cut.error.unwrap().message.contains("started anew"));
    stage.stop().await;
}

#[tokio::test]
async fn a_live_log_passes_as_long_as_the_cloud_takes_it() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    stage.cloud.ask("live", live(Duration::from_secs(60))).await;
    asked(&stage, "follow on main for live").await;
    let lines = |content: &[u8], end| {
        NodeEvent::LogLines(LogLines {
            node: node("main"),
            correlation_id: "live".into(),
            content: content.to_vec(),
            end,
            error: None,
        })
    };
    stage.node_tells(lines(b"one", false)).await;
    let part = answer(&mut stage, "live").await;
    assert_eq!(
        (part.part, part.parts_count, part.status),
        (1, 0, LogStatus::Ok)
    );
    stage.node_tells(lines(b"two", false)).await;
    assert_eq!(answer(&mut stage, "live").await.content, b"two");
    // It is ended early: the Node is told, and says goodbye.
    stage.cloud.ask("live", live(Duration::ZERO)).await;
    stage
        .nodes
        .until(|nodes| {
            let calls = nodes.calls();
            calls
                .iter()
                .filter(|call| *call == "follow on main for live")
                .count()
                == 2
        })
        .await;
    stage.node_tells(lines(b"", true)).await;
    let last = answer(&mut stage, "live").await;
    assert_eq!(
        (last.part, last.parts_count, last.status),
        (3, 3, LogStatus::Empty)
    );
    stage.stop().await;
}
