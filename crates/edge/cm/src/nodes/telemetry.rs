//! Alerts, usage and logs of a Node, in the words of the cloud.

use aos_cloud_protocol::{
    AlertEvent, InstanceMonitoring, LogStatus, MonitoringData, NodeMonitoring, PartitionUsage,
    PushLog, Usage,
};
use aos_ipc::{
    convert::{Unreadable, error_from_proto, ident_from_proto, time_from_proto},
    proto::servicemanager::v5 as sm,
};
use aos_time::Timestamp;
use aos_types::NodeId;

use crate::contract::NodeEvent;

/// An alert; one without a time is taken for one of now.
pub(super) fn alert(
    node: &NodeId,
    alert: sm::Alert,
    now: Timestamp,
) -> Result<NodeEvent, Unreadable> {
    use sm::alert::AlertItem;
    let at = time_from_proto(alert.timestamp).unwrap_or(now);
    let node = node.clone();
    let event = match alert.alert_item.ok_or(Unreadable::Missing {
        field: "alert_item",
    })? {
        AlertItem::SystemQuotaAlert(quota) => AlertEvent::SystemQuota {
            node,
            parameter: quota.parameter,
            value: quota.value,
            state: quota.status.parse().ok(),
        },
        AlertItem::InstanceQuotaAlert(quota) => AlertEvent::InstanceQuota {
            instance: ident_from_proto(quota.instance)?,
            parameter: quota.parameter,
            value: quota.value,
            state: quota.status.parse().ok(),
        },
        AlertItem::ResourceAllocateAlert(alert) => AlertEvent::ResourceAllocate {
            instance: ident_from_proto(alert.instance)?,
            node,
            device: alert.resource,
            message: alert.message,
        },
        AlertItem::SystemAlert(alert) => AlertEvent::System {
            node,
            message: alert.message,
        },
        AlertItem::CoreAlert(alert) => AlertEvent::Core {
            node,
            component: alert.core_component,
            message: alert.message,
        },
        AlertItem::InstanceAlert(alert) => AlertEvent::UpdateItemInstance {
            instance: ident_from_proto(alert.instance)?,
            version: alert.service_version,
            message: alert.message,
        },
    };
    Ok(NodeEvent::Alert { at, event })
}

/// A part of a log.
pub(super) fn log(node: &NodeId, log: sm::LogData) -> NodeEvent {
    let error = error_from_proto(log.error);
    // An unknown word with an error is a failure; without one the data counts.
    let status = log.status.parse().unwrap_or(if error.is_some() {
        LogStatus::Failed
    } else {
        LogStatus::Ok
    });
    NodeEvent::Log {
        correlation_id: log.correlation_id,
        part: PushLog {
            node: node.clone(),
            part: log.part,
            parts_count: log.part_count,
            content: log.data,
            status,
            error,
        },
    }
}

/// What a Node and its instances use now.
pub(super) fn monitoring(
    node: &NodeId,
    data: sm::InstantMonitoring,
) -> Result<MonitoringData, Unreadable> {
    let instances = data
        .instances_monitoring
        .into_iter()
        .map(|one| {
            Ok(InstanceMonitoring {
                instance: ident_from_proto(one.instance)?,
                node: node.clone(),
                states: Vec::new(),
                items: one.monitoring_data.map(usage).into_iter().collect(),
            })
        })
        .collect::<Result<_, Unreadable>>()?;
    let nodes = vec![NodeMonitoring {
        node: node.clone(),
        states: Vec::new(),
        items: data.node_monitoring.map(usage).into_iter().collect(),
    }];
    Ok(MonitoringData { nodes, instances })
}

fn usage(data: sm::MonitoringData) -> Usage {
    Usage {
        timestamp: time_from_proto(data.timestamp).unwrap_or_default(),
        ram: data.ram,
        cpu: data.cpu,
        download: Some(data.download),
        upload: Some(data.upload),
        partitions: data
            .partitions
            .into_iter()
            .map(|partition| PartitionUsage {
                name: partition.name,
                used_size: partition.used_size,
            })
            .collect(),
    }
}
