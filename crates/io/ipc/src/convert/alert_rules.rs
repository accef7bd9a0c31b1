use aos_types::{AlertRule, AlertRules, PartitionAlertRule};

use super::{duration_from_proto, duration_to_proto};
use crate::proto::servicemanager::v5 as pb;

/// Reads alert rules.
pub fn alert_rules_from_proto(rules: pb::AlertRules) -> AlertRules {
    AlertRules {
        ram: rules.ram.map(from_percents),
        cpu: rules.cpu.map(from_percents),
        partitions: rules
            .partitions
            .into_iter()
            .map(|partition| PartitionAlertRule {
                name: partition.name,
                rule: AlertRule {
                    min_timeout: duration_from_proto(partition.duration),
                    min_threshold: partition.min_threshold,
                    max_threshold: partition.max_threshold,
                },
            })
            .collect(),
        download: rules.download.map(from_points),
        upload: rules.upload.map(from_points),
    }
}

/// Writes alert rules.
pub fn alert_rules_to_proto(rules: &AlertRules) -> pb::AlertRules {
    pb::AlertRules {
        ram: rules.ram.map(percents),
        cpu: rules.cpu.map(percents),
        partitions: rules
            .partitions
            .iter()
            .map(|partition| pb::PartitionAlertRule {
                name: partition.name.clone(),
                duration: Some(duration_to_proto(partition.rule.min_timeout)),
                min_threshold: partition.rule.min_threshold,
                max_threshold: partition.rule.max_threshold,
            })
            .collect(),
        download: rules.download.map(points),
        upload: rules.upload.map(points),
    }
}

fn percents(rule: AlertRule) -> pb::AlertRulePercents {
    pb::AlertRulePercents {
        duration: Some(duration_to_proto(rule.min_timeout)),
        min_threshold: rule.min_threshold,
        max_threshold: rule.max_threshold,
    }
}

fn points(rule: AlertRule) -> pb::AlertRulePoints {
    // Casting a float saturates, and a negative one or none becomes zero.
    pb::AlertRulePoints {
        duration: Some(duration_to_proto(rule.min_timeout)),
        min_threshold: rule.min_threshold as u64,
        max_threshold: rule.max_threshold as u64,
    }
}

fn from_percents(rule: pb::AlertRulePercents) -> AlertRule {
    AlertRule {
        min_timeout: duration_from_proto(rule.duration),
        min_threshold: rule.min_threshold,
        max_threshold: rule.max_threshold,
    }
}

fn from_points(rule: pb::AlertRulePoints) -> AlertRule {
    AlertRule {
        min_timeout: duration_from_proto(rule.duration),
        min_threshold: rule.min_threshold as f64,
        max_threshold: rule.max_threshold as f64,
    }
}
