//! What a Unit tells of its usage, as it is kept.

use aos_api::UsagePoint;
use aos_cloud_protocol::{MonitoringData, Usage};
use aos_db::NewPoint;

/// Most points of one message that are kept: the newest of each Node and instance first.
const MOST: usize = 4_096;
/// Most partitions of one point.
const PARTITIONS: usize = 64;

/// The points of a message.
pub(crate) fn points(data: MonitoringData) -> Vec<NewPoint> {
    let nodes = data.nodes.into_iter().flat_map(|node| {
        let id = node.node.to_string();
        node.items.into_iter().map(move |usage| NewPoint {
            node: id.clone(),
            instance: None,
            point: point(usage),
        })
    });
    let instances = data.instances.into_iter().flat_map(|one| {
        let id = one.node.to_string();
        one.items.into_iter().map(move |usage| NewPoint {
            node: id.clone(),
            instance: Some(one.instance.clone()),
            point: point(usage),
        })
    });
    let mut points: Vec<NewPoint> = nodes.chain(instances).collect();
    if points.len() > MOST {
        points.sort_by_key(|one| std::cmp::Reverse(one.point.at));
        points.truncate(MOST);
    }
    points
}

fn point(usage: Usage) -> UsagePoint {
    UsagePoint {
        at: usage.timestamp,
        cpu: usage.cpu,
        ram: usage.ram,
        download: usage.download,
        upload: usage.upload,
        partitions: usage
            .partitions
            .into_iter()
            .take(PARTITIONS)
            .map(|one| (one.name.chars().take(100).collect(), one.used_size))
            .collect(),
    }
}
