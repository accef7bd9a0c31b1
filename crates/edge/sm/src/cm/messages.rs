//! Between the words of servicemanager.v5 and the launcher's.

use std::collections::{BTreeMap, BTreeSet};

use aos_ipc::{
    convert::{
        ident_from_proto, ident_to_proto, resource_to_proto, runtime_to_proto,
        status_error_to_proto,
    },
    proto::servicemanager::v5 as pb,
};
use aos_launch::Instance;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, NodeId, NodeResource, RuntimeInfo};

use crate::launcher::{Desired, Report, Snapshot};
use crate::node_config::ConfigStatus;

/// How the Node presents itself.
pub(crate) fn info(
    node: &NodeId,
    runtimes: &[RuntimeInfo],
    resources: &[NodeResource],
) -> pb::SmInfo {
    pb::SmInfo {
        node_id: node.to_string(),
        runtimes: runtimes.iter().map(runtime_to_proto).collect(),
        resources: resources.iter().map(resource_to_proto).collect(),
    }
}

/// Reads a list. What cannot be read never means that something is removed.
pub(super) fn desired(list: pb::UpdateInstances) -> Desired {
    let mut desired = Desired::default();
    for element in list.start_instances {
        match ident_from_proto(element.instance.clone()) {
            Err(error) => {
                let error = ErrorInfo::from_error(AosCode::InvalidArgument, &error);
                tracing::error!(%error, "an instance of the list cannot be told; none is stopped for being absent");
                desired.keep_others = true;
            }
            Ok(ident) => match instance(ident.clone(), element) {
                Ok(instance) => desired.instances.push(instance),
                Err(why) => {
                    let error = ErrorInfo::new(AosCode::InvalidArgument, why);
                    desired.unreadable.insert(ident, error);
                }
            },
        }
    }
    desired.stops = list
        .stop_instances
        .into_iter()
        .filter_map(|ident| ident_from_proto(Some(ident)).ok())
        .collect::<BTreeSet<InstanceIdent>>();
    desired
}

/// Reads one element of a list.
pub(super) fn instance(ident: InstanceIdent, info: pb::InstanceInfo) -> Result<Instance, String> {
    let bad = |field: &str, error: &dyn std::fmt::Display| {
        format!("CM's order of {ident} has a bad `{field}`: {error}")
    };
    Ok(Instance {
        manifest: info
            .manifest_digest
            .parse()
            .map_err(|error| bad("manifest_digest", &error))?,
        owner: info
            .owner_id
            .parse()
            .map_err(|error| bad("owner_id", &error))?,
        runtime: info
            .runtime_id
            .parse()
            .map_err(|error| bad("runtime_id", &error))?,
        version: info.version,
        uid: info.uid,
        gid: info.gid,
        priority: info.priority,
        storage_path: info.storage_path,
        state_path: info.state_path,
        env: info
            .env_vars
            .into_iter()
            .map(|var| (var.name, var.value))
            .collect(),
        ident,
    })
}

fn status(ident: &InstanceIdent, report: &Report) -> pb::InstanceStatus {
    pb::InstanceStatus {
        instance: Some(ident_to_proto(ident)),
        version: report.version.clone(),
        runtime_id: report.runtime.to_string(),
        manifest_digest: report.manifest.to_string(),
        env_vars: report
            .env
            .iter()
            .map(|name| pb::EnvVarStatus {
                name: name.clone(),
                error: status_error_to_proto(None),
            })
            .collect(),
        state: report.state.to_string(),
        error: status_error_to_proto(report.error.as_ref()),
    }
}

/// All instances of the Node.
pub(super) fn complete(snapshot: &Snapshot) -> pb::sm_outgoing_messages::SmOutgoingMessage {
    let instances = snapshot
        .instances
        .iter()
        .map(|(ident, report)| status(ident, report))
        .collect();
    pb::sm_outgoing_messages::SmOutgoingMessage::NodeInstancesStatus(pb::NodeInstancesStatus {
        instances,
    })
}

/// The instances that are doing otherwise than before; nothing if there are none.
pub(super) fn changed(
    before: &BTreeMap<InstanceIdent, Report>,
    now: &BTreeMap<InstanceIdent, Report>,
) -> Option<pb::sm_outgoing_messages::SmOutgoingMessage> {
    let instances: Vec<_> = now
        .iter()
        .filter(|(ident, report)| before.get(ident) != Some(report))
        .map(|(ident, report)| status(ident, report))
        .collect();
    if instances.is_empty() {
        return None;
    }
    Some(
        pb::sm_outgoing_messages::SmOutgoingMessage::UpdateInstancesStatus(
            pb::UpdateInstancesStatus { instances },
        ),
    )
}

pub(super) fn config_status(status: ConfigStatus) -> pb::sm_outgoing_messages::SmOutgoingMessage {
    pb::sm_outgoing_messages::SmOutgoingMessage::NodeConfigStatus(pb::NodeConfigStatus {
        state: status.state.to_string(),
        version: status.version,
        error: status_error_to_proto(status.error.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_ipc::proto::common::v2 as common;

    fn element(index: u64) -> pb::InstanceInfo {
        pb::InstanceInfo {
            instance: Some(common::InstanceIdent {
                item_id: "item".into(),
                subject_id: "subject".into(),
                instance: index,
                ..Default::default()
            }),
            version: "1.0.0".into(),
            manifest_digest: format!("sha256:{}", "ab".repeat(32)),
            owner_id: "owner".into(),
            runtime_id: "runtime".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_cannot_be_read_never_means_remove() {
        let mut bad_digest = element(1);
        bad_digest.manifest_digest = "sha256:../../etc/passwd".into();
        let list = pb::UpdateInstances {
            start_instances: vec![element(0), bad_digest],
            stop_instances: vec![common::InstanceIdent::default()],
        };
        let read = desired(list);
        assert_eq!(read.instances.len(), 1);
        assert_eq!(read.unreadable.len(), 1);
        assert!(!read.keep_others && read.stops.is_empty());

        let mut nobody = element(2);
        nobody.instance = None;
        let read = desired(pb::UpdateInstances {
            start_instances: vec![nobody],
            stop_instances: vec![],
        });
        assert!(read.keep_others);
    }
}
