use std::collections::BTreeMap;

use aos_alert::Usage;
use aos_ipc::{
    convert::{ident_to_proto, time_to_proto},
    proto::servicemanager::v5 as pb,
};
use aos_time::Timestamp;
use aos_types::InstanceIdent;

type Runtimes = BTreeMap<InstanceIdent, String>;

/// What was measured in one pass.
pub(super) fn instant(
    at: Timestamp,
    node: &Usage,
    instances: &BTreeMap<InstanceIdent, Usage>,
    runtimes: &Runtimes,
) -> pb::InstantMonitoring {
    pb::InstantMonitoring {
        node_monitoring: Some(data(at, node)),
        instances_monitoring: of_instances(at, instances, runtimes),
    }
}

/// Averages.
pub(super) fn average(
    at: Timestamp,
    node: &Usage,
    instances: &BTreeMap<InstanceIdent, Usage>,
    runtimes: &Runtimes,
) -> pb::AverageMonitoring {
    pb::AverageMonitoring {
        node_monitoring: Some(data(at, node)),
        instances_monitoring: of_instances(at, instances, runtimes),
    }
}

fn of_instances(
    at: Timestamp,
    instances: &BTreeMap<InstanceIdent, Usage>,
    runtimes: &Runtimes,
) -> Vec<pb::InstanceMonitoring> {
    let one = |(ident, usage): (&InstanceIdent, &Usage)| pb::InstanceMonitoring {
        instance: Some(ident_to_proto(ident)),
        runtime_id: runtimes.get(ident).cloned().unwrap_or_default(),
        monitoring_data: Some(data(at, usage)),
    };
    instances.iter().map(one).collect()
}

fn data(at: Timestamp, usage: &Usage) -> pb::MonitoringData {
    let traffic = usage.traffic.unwrap_or_default();
    let partitions = usage.partitions.iter();
    pb::MonitoringData {
        timestamp: Some(time_to_proto(at)),
        ram: usage.ram,
        cpu: usage.cpu,
        partitions: partitions
            .map(|(name, used)| pb::PartitionUsage {
                name: name.clone(),
                used_size: *used,
            })
            .collect(),
        download: traffic.download,
        upload: traffic.upload,
    }
}
