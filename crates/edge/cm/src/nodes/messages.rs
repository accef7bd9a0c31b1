//! The messages of a Node's SM and the types of CM.

use aos_ipc::{
    convert::{Unreadable, error_from_proto, ident_from_proto, ident_to_proto},
    proto::{aos::node::v1 as node_pb, servicemanager::v5 as sm},
};
use aos_launch::{Elsewhere, Peer, Progress};
use aos_types::{AlertRule, AlertRules, AosCode, ErrorInfo, UnitConfigState};

use crate::contract::{InstanceOrder, InstanceReport};

/// The configuration of a Node as it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigReport {
    pub state: UnitConfigState,
    pub version: String,
    pub error: Option<ErrorInfo>,
}

pub(super) fn config_report(status: sm::NodeConfigStatus) -> Result<ConfigReport, Unreadable> {
    Ok(ConfigReport {
        state: status.state.parse().map_err(|source| Unreadable::State {
            field: "state",
            source,
        })?,
        version: status.version,
        error: error_from_proto(status.error),
    })
}

pub(super) fn report(status: sm::InstanceStatus) -> Result<InstanceReport, Unreadable> {
    Ok(InstanceReport {
        ident: ident_from_proto(status.instance)?,
        version: status.version,
        runtime: status.runtime_id.parse().map_err(|source| Unreadable::Id {
            field: "runtime_id",
            source,
        })?,
        // A preinstalled component has none.
        manifest: status.manifest_digest.parse().ok(),
        state: status.state.parse().map_err(|source| Unreadable::State {
            field: "state",
            source,
        })?,
        error: error_from_proto(status.error),
    })
}

pub(super) fn order(order: InstanceOrder) -> sm::InstanceInfo {
    sm::InstanceInfo {
        instance: Some(ident_to_proto(&order.ident)),
        version: order.version,
        manifest_digest: order.manifest.to_string(),
        owner_id: order.owner.to_string(),
        runtime_id: order.runtime.to_string(),
        uid: order.uid,
        gid: order.gid,
        priority: order.priority,
        storage_path: order.storage_path,
        state_path: order.state_path,
        env_vars: order
            .env
            .into_iter()
            .map(|(name, value)| sm::EnvVarInfo { name, value })
            .collect(),
        monitoring_parameters: order.alert_rules.map(|rules| sm::MonitoringParameters {
            alert_rules: Some(alert_rules(&rules)),
        }),
    }
}

fn alert_rules(rules: &AlertRules) -> sm::AlertRules {
    sm::AlertRules {
        ram: rules.ram.as_ref().map(percents),
        cpu: rules.cpu.as_ref().map(percents),
        partitions: rules
            .partitions
            .iter()
            .map(|partition| sm::PartitionAlertRule {
                name: partition.name.clone(),
                duration: duration(&partition.rule),
                min_threshold: partition.rule.min_threshold,
                max_threshold: partition.rule.max_threshold,
            })
            .collect(),
        download: rules.download.as_ref().map(points),
        upload: rules.upload.as_ref().map(points),
    }
}

fn percents(rule: &AlertRule) -> sm::AlertRulePercents {
    sm::AlertRulePercents {
        duration: duration(rule),
        min_threshold: rule.min_threshold,
        max_threshold: rule.max_threshold,
    }
}

fn points(rule: &AlertRule) -> sm::AlertRulePoints {
    sm::AlertRulePoints {
        duration: duration(rule),
        min_threshold: whole(rule.min_threshold),
        max_threshold: whole(rule.max_threshold),
    }
}

/// A threshold in whole bytes; a cast from a float saturates at both ends.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating is what is wanted of an absurd threshold"
)]
fn whole(threshold: f64) -> u64 {
    threshold.round() as u64
}

fn duration(rule: &AlertRule) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(rule.min_timeout).ok()
}

/// How items are doing on the Unit.
pub(super) fn elsewhere(news: Elsewhere) -> node_pb::Elsewhere {
    let items = news
        .into_iter()
        .map(|(item, peers)| node_pb::ItemElsewhere {
            item_id: item.to_string(),
            peers: peers.into_iter().map(peer).collect(),
        });
    node_pb::Elsewhere {
        items: items.collect(),
    }
}

fn peer(peer: Peer) -> node_pb::Peer {
    let (progress, reason) = match peer.progress {
        Progress::Unknown => (node_pb::Progress::Unspecified, String::new()),
        Progress::Held { .. } => (node_pb::Progress::Held, String::new()),
        Progress::Starting => (node_pb::Progress::Starting, String::new()),
        Progress::Started => (node_pb::Progress::Started, String::new()),
        Progress::Healthy => (node_pb::Progress::Healthy, String::new()),
        Progress::Completed => (node_pb::Progress::Completed, String::new()),
        Progress::Failed(why) => (node_pb::Progress::Failed, why),
        Progress::Resting => (node_pb::Progress::Resting, String::new()),
    };
    node_pb::Peer {
        node_id: peer.node.map_or_else(String::new, |node| node.to_string()),
        version: peer.version,
        ends: peer.ends,
        progress: progress.into(),
        reason,
    }
}

/// The text of an error with its causes.
pub(super) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    ErrorInfo::from_error(AosCode::InvalidArgument, error).message
}
