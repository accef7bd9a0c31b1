//! Usage and alerts on their way from the Nodes to the cloud: few bytes, and nothing lost that matters.

use std::time::Duration;

use aos_cloud_protocol::{
    AlertEvent, Alerts, Body, MessageType, MonitoringData, NodeMonitoring, QuotaState, Usage,
};
use aos_time::{Clock, SystemClock};
use aos_types::NodeId;

use super::{SOON, stage::Stage};
use crate::contract::NodeEvent;

fn measured(cpu: u64, ago: u64) -> NodeEvent {
    NodeEvent::Monitoring(MonitoringData {
        nodes: vec![NodeMonitoring {
            node: NodeId::new("main").unwrap(),
            states: Vec::new(),
            items: vec![Usage {
                timestamp: SystemClock.now() - Duration::from_secs(ago),
                cpu,
                ram: 5 << 20,
                ..Usage::default()
            }],
        }],
        instances: Vec::new(),
    })
}

/// The next message of usage: how much processor each point tells.
async fn told(stage: &mut Stage) -> Vec<u64> {
    let is_usage = |message: &aos_cloud_protocol::Message| {
        message.body.message_type() == MessageType::MonitoringData
    };
    let message = tokio::time::timeout(SOON, stage.cloud.message(is_usage))
        .await
        .unwrap();
    let Body::MonitoringData(data) = message.body else {
        unreachable!()
    };
    data.nodes
        .iter()
        .flat_map(|node| node.items.iter().map(|usage| usage.cpu))
        .collect()
}

#[tokio::test]
async fn changes_go_together_as_one_message_and_what_does_not_change_is_not_told() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.monitoring.delay_secs = 1;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    for ago in [60, 50, 40] {
        stage.node_tells(measured(100, ago)).await;
    }
    stage.node_tells(measured(900, 30)).await;
    stage.node_tells(measured(901, 20)).await;
    // The first, the last one on that level, and the jump; the rest says the same.
    assert_eq!(told(&mut stage).await, [100, 100, 900]);
    // While the cloud is away it is kept here.
    stage.cloud.drop_connection().await;
    stage.node_tells(measured(300, 10)).await;
    assert_eq!(told(&mut stage).await, [901, 300]);
    stage.stop().await;
}

#[tokio::test]
async fn an_alert_is_told_at_once_with_its_state_and_the_time_of_its_node() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    let at = SystemClock.now() - Duration::from_secs(90);
    let alert = |value, state| NodeEvent::Alert {
        at,
        event: AlertEvent::SystemQuota {
            node: NodeId::new("main").unwrap(),
            parameter: "cpu".into(),
            value,
            state: Some(state),
        },
    };
    let began = std::time::Instant::now();
    stage.node_tells(alert(7, QuotaState::Raise)).await;
    stage.node_tells(alert(1, QuotaState::Fall)).await;
    let is_alert = |message: &aos_cloud_protocol::Message| matches!(&message.body, Body::Alerts(_));
    let message = stage.cloud.message(is_alert).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let Body::Alerts(Alerts { items }) = message.body else {
        unreachable!()
    };
    let states: Vec<_> = items
        .iter()
        .filter_map(|alert| match &alert.event {
            AlertEvent::SystemQuota { state, .. } => *state,
            _ => None,
        })
        .collect();
    assert_eq!(states, [QuotaState::Raise, QuotaState::Fall]);
    // The wire has whole seconds or finer; the minute is right.
    assert!(items[0].timestamp.since(at) < Duration::from_secs(1));
    stage.stop().await;
}

#[tokio::test]
async fn a_flood_of_a_node_is_cut_and_told_of_and_a_quota_is_heard_in_it() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.cloud.status(|_| true).await;
    let node = NodeId::new("main").unwrap();
    for number in 0..600 {
        let event = AlertEvent::System {
            node: node.clone(),
            message: format!("disk error {number}"),
        };
        let at = SystemClock.now();
        stage.node_tells(NodeEvent::Alert { at, event }).await;
    }
    let event = AlertEvent::SystemQuota {
        node: node.clone(),
        parameter: "cpu".into(),
        value: 1,
        state: Some(QuotaState::Raise),
    };
    let at = SystemClock.now();
    stage.node_tells(NodeEvent::Alert { at, event }).await;
    let (mut noise, mut quota, mut counted) = (0, 0, false);
    while !counted || quota == 0 {
        let is_alert =
            |message: &aos_cloud_protocol::Message| matches!(&message.body, Body::Alerts(_));
        let message = tokio::time::timeout(SOON, stage.cloud.message(is_alert))
            .await
            .unwrap();
        let Body::Alerts(Alerts { items }) = message.body else {
            unreachable!()
        };
        for alert in items {
            match alert.event {
                AlertEvent::System { .. } => noise += 1,
                AlertEvent::SystemQuota { .. } => quota += 1,
                AlertEvent::Core { message, .. } => {
                    counted |= message.contains("alerts of the log of Node main were left out")
                        || message.contains("alerts were dropped");
                }
                _ => {}
            }
        }
    }
    assert!(noise <= 110, "{noise} alerts of a flood were passed on");
    stage.stop().await;
}
