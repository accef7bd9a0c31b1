//! What of the usage of Nodes and instances the cloud is told.
//!
//! Nodes measure every few seconds; the core (`aos-alert`, `Uplink`) keeps what changed and what was not told for long. It
//! waits a little for more, then goes as one message. While the cloud is away it waits here, bounded, and not on the disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aos_alert::{Grain, Point, Thrift, Traffic, Uplink, Usage};
use aos_cloud_protocol::{
    Body, InstanceMonitoring, MonitoringData, NodeMonitoring, PartitionUsage, Usage as Told,
};
use aos_session::{Keep, Priority};
use aos_time::{Clock, SteadyClock, SystemClock, Timestamp};
use aos_types::{InstanceIdent, NodeId, NodeInfo};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{Answer, Link, Outgoing},
    world::World,
};

/// A Node's clock that is further from ours than this is not believed.
const ASTRAY: Duration = Duration::from_secs(300);
/// Below these a change of an instance is no news, whatever it is in percent.
const LEAST_RAM: u64 = 1 << 20;
const LEAST_DISK: u64 = 4 << 20;
const LEAST_TRAFFIC: u64 = 4 << 20;

/// How usage is told to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitoringOptions {
    /// How long news are gathered before they are sent as one message, in seconds.
    pub delay_secs: u64,
    /// How often usage that does not change is told all the same, in seconds.
    pub heartbeat_secs: u64,
    /// Most points kept for the cloud while it cannot be reached, and in one message.
    pub points: usize,
}

impl Default for MonitoringOptions {
    fn default() -> Self {
        Self {
            delay_secs: 30,
            heartbeat_secs: 600,
            points: 512,
        }
    }
}

impl MonitoringOptions {
    fn thrift(&self) -> Thrift {
        let default = Thrift::default();
        Thrift {
            delay: Duration::from_secs(self.delay_secs),
            heartbeat: Duration::from_secs(self.heartbeat_secs.max(1)),
            most: self.points.max(1),
            burst: u32::try_from(self.points.saturating_mul(4)).unwrap_or(default.burst),
            ..default
        }
    }
}

/// Whose usage it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Node(NodeId),
    Instance(InstanceIdent, NodeId),
}

/// Takes in what Nodes measure and tells the cloud, until `stop`.
pub(crate) async fn run(
    options: MonitoringOptions,
    mut measured: mpsc::Receiver<MonitoringData>,
    world: Arc<World>,
    link: Link,
    stop: CancellationToken,
) {
    let clock = SteadyClock::start();
    let mut uplink = Uplink::new(options.thrift());
    let mut connected = link.connected.clone();
    loop {
        let online = *connected.borrow_and_update();
        let wait = uplink
            .due()
            .filter(|_| online)
            .map(|due| due.since(clock.now()));
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        // Each arm is cancel-safe: a message stays in its channel, the others are states.
        tokio::select! {
            () = stop.cancelled() => return,
            data = measured.recv() => match data {
                Some(data) => take(&mut uplink, clock.now(), data, &world),
                None => return stop.cancelled().await,
            },
            changed = connected.changed() => if changed.is_err() {
                return stop.cancelled().await;
            },
            () = due => {
                if let Some(points) = uplink.send(clock.now()) {
                    send(&mut uplink, points, &link, &stop).await;
                }
            }
        }
    }
}

/// Sends them; what was lost with the connection goes with the next message.
async fn send(
    uplink: &mut Uplink<Of>,
    points: Vec<(Of, Point)>,
    link: &Link,
    stop: &CancellationToken,
) {
    let left_out = uplink.left_out();
    if left_out > 0 {
        tracing::info!(
            left_out,
            "usage that found no room while the cloud was away"
        );
    }
    let mut message = Outgoing::durable(Body::MonitoringData(data(&points)), Priority::Low);
    message.keep = Keep::Connection;
    let answer = link.send_and_watch(message).await;
    // A session repeats what is not acknowledged, so this ends with the connection at the latest.
    let answer = tokio::select! {
        answer = answer => answer,
        () = stop.cancelled() => return,
    };
    if !matches!(answer, Ok(Answer::Acked)) {
        uplink.put_back(points);
    }
}

fn take(uplink: &mut Uplink<Of>, now: Timestamp, data: MonitoringData, world: &World) {
    let nodes = world.nodes();
    let grain = |node: &NodeId, fine: bool| {
        let info = nodes.get(node).map(|known| &known.info);
        if fine {
            instance_grain(info)
        } else {
            node_grain(info)
        }
    };
    for node in data.nodes {
        let grain = grain(&node.node, false);
        for usage in node.items {
            uplink.take(now, &Of::Node(node.node.clone()), point(usage), grain);
        }
    }
    for one in data.instances {
        let grain = grain(&one.node, true);
        for usage in one.items {
            let of = Of::Instance(one.instance.clone(), one.node.clone());
            uplink.take(now, &of, point(usage), grain);
        }
    }
}

/// Of a Node a twentieth of its processors and a hundredth of its memory and partitions is news.
fn node_grain(info: Option<&NodeInfo>) -> Grain {
    let (dmips, ram) = info.map_or((0, 0), |info| (info.max_dmips, info.total_ram));
    let largest = info.and_then(|info| info.partitions.iter().map(|one| one.total_size).max());
    Grain {
        cpu: dmips / 20,
        ram: ram / 100,
        partition: (largest.unwrap_or(0) / 100).max(LEAST_DISK),
        traffic: LEAST_TRAFFIC,
        percent: 0,
    }
}

/// Of an instance it is a fifth of what it was, unless that is next to nothing for the Node.
fn instance_grain(info: Option<&NodeInfo>) -> Grain {
    let dmips = info.map_or(0, |info| info.max_dmips);
    Grain {
        cpu: dmips / 100,
        ram: LEAST_RAM,
        partition: LEAST_DISK,
        traffic: LEAST_TRAFFIC,
        percent: 20,
    }
}

/// The moment that a Node names, or now if its clock is astray.
pub(crate) fn believable(at: Timestamp) -> Timestamp {
    let now = SystemClock.now();
    if at.since(now).max(now.since(at)) > ASTRAY {
        return now;
    }
    at
}

fn point(usage: Told) -> Point {
    let traffic = usage.download.or(usage.upload).map(|_| Traffic {
        download: usage.download.unwrap_or(0),
        upload: usage.upload.unwrap_or(0),
    });
    Point {
        at: believable(usage.timestamp),
        usage: Usage {
            cpu: usage.cpu,
            ram: usage.ram,
            partitions: usage
                .partitions
                .into_iter()
                .map(|one| (one.name, one.used_size))
                .collect(),
            traffic,
        },
    }
}

fn told(point: &Point) -> Told {
    let partitions = point.usage.partitions.iter();
    Told {
        timestamp: point.at,
        ram: point.usage.ram,
        cpu: point.usage.cpu,
        download: point.usage.traffic.map(|traffic| traffic.download),
        upload: point.usage.traffic.map(|traffic| traffic.upload),
        partitions: partitions
            .map(|(name, used)| PartitionUsage {
                name: name.clone(),
                used_size: *used,
            })
            .collect(),
    }
}

/// One message of them, each Node and instance once.
fn data(points: &[(Of, Point)]) -> MonitoringData {
    let mut all: BTreeMap<&Of, Vec<Told>> = BTreeMap::new();
    for (of, point) in points {
        all.entry(of).or_default().push(told(point));
    }
    let mut data = MonitoringData::default();
    for (of, items) in all {
        match of {
            Of::Node(node) => data.nodes.push(NodeMonitoring {
                node: node.clone(),
                states: Vec::new(),
                items,
            }),
            Of::Instance(instance, node) => data.instances.push(InstanceMonitoring {
                instance: instance.clone(),
                node: node.clone(),
                states: Vec::new(),
                items,
            }),
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_cloud_protocol::{Header, Message};
    use aos_types::SystemId;

    /// A day of a Unit of two Nodes, and of instances, that do nothing but breathe; in bytes as its link is charged.
    fn day(instances: u64, breath: u64) -> (usize, usize) {
        // WebSocket and TLS around a message; IP and TCP of its packets; and of the acknowledgement of the cloud's answer.
        const AROUND: usize = 8 + 22;
        const PACKET: usize = 20 + 32;
        const SEGMENT: usize = 1_448;
        let mut uplink = Uplink::new(MonitoringOptions::default().thrift());
        let of_node = Grain {
            cpu: 1_000,
            ram: 40 << 20,
            partition: 300 << 20,
            traffic: LEAST_TRAFFIC,
            percent: 0,
        };
        let of_instance = Grain {
            cpu: 200,
            ram: LEAST_RAM,
            partition: LEAST_DISK,
            traffic: LEAST_TRAFFIC,
            percent: 20,
        };
        let node = |name| NodeId::new(name).unwrap();
        let ident = |index| {
            let item = "0b6a9f3e-9f6d-4a44-9f0d-5a4f3f6f2a11".parse().unwrap();
            InstanceIdent::service(
                item,
                "1f0f8c1e-73ab-4a3e-8d5c-0a7c5d1f9b42".parse().unwrap(),
                index,
            )
        };
        let (mut bytes, mut messages) = (0, 0);
        for second in (0..86_400_i64).step_by(10) {
            let now = Timestamp::from_secs(1_800_000_000 + second);
            let wave = (second as u64 / 10 * 7_919) % breath;
            let point = |cpu: u64, ram: u64| Point {
                at: now,
                usage: Usage {
                    cpu: cpu + wave,
                    ram: ram + wave * 1_000,
                    partitions: [("aos".to_owned(), 4_123_456_789)].into(),
                    traffic: Some(Traffic {
                        download: second as u64 * 4,
                        upload: second as u64 * 5,
                    }),
                },
            };
            for name in ["main", "secondary"] {
                uplink.take(now, &Of::Node(node(name)), point(300, 512 << 20), of_node);
            }
            for index in 0..instances {
                let of = Of::Instance(ident(index), node("main"));
                uplink.take(now, &of, point(0, 3 << 20), of_instance);
            }
            let Some(points) = uplink.send(now) else {
                continue;
            };
            let message = Message {
                header: Header {
                    system_id: SystemId::new("0b6a9f3e-9f6d-4a44-9f0d-5a4f3f6f2a11").unwrap(),
                    created_at: now,
                    txn: uuid::Uuid::new_v4().to_string(),
                },
                correlation_id: None,
                body: Body::MonitoringData(data(&points)),
            };
            let length = message.encode().len() + AROUND;
            bytes += length + length.div_ceil(SEGMENT) * PACKET + PACKET;
            messages += 1;
        }
        (bytes, messages)
    }

    #[test]
    fn an_idle_unit_costs_less_than_500_kb_a_day() {
        // The cloud pings after 40 s of silence, and its pings are answered: a frame in TLS in a packet.
        const PONGS: usize = 86_400 / 40 * (6 + 22 + 52);
        let (bytes, messages) = day(0, 100);
        let all = bytes + PONGS;
        assert!(all < 500_000, "{all} bytes in {messages} messages");
        assert_eq!(messages, 144);
        // Fifty instances that sleep are fifty more lines every ten minutes.
        let (with_instances, messages) = day(50, 100);
        assert_eq!(messages, 144);
        assert!(with_instances < 4_000_000, "{with_instances}");
    }

    #[test]
    fn a_unit_that_is_never_at_rest_is_bounded_too() {
        // Every measurement of all is news.
        let (bytes, messages) = day(50, 20_000);
        assert!(messages <= 86_400 / 30 + 1, "{messages}");
        assert!(bytes < 40_000_000, "{bytes}");
    }

    #[test]
    fn a_clock_that_is_astray_is_not_believed() {
        let now = SystemClock.now();
        assert_eq!(
            believable(now - Duration::from_secs(60)),
            now - Duration::from_secs(60)
        );
        for wrong in [Timestamp::from_secs(0), now + Duration::from_secs(86_400)] {
            assert!(believable(wrong).since(now) < Duration::from_secs(5));
            assert!(now.since(believable(wrong)) < Duration::from_secs(5));
        }
    }
}
