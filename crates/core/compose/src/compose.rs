use std::collections::BTreeMap;

use aos_cloud_protocol::{
    DesiredInstances, DesiredItem, DesiredNode, DesiredStatus, DesiredSubject,
};
use aos_types::{ItemId, ItemType};

use crate::{
    Assigned, Node, Subject, Unit, Version,
    explain::{Outcome, RuleName, ServiceReport},
    version::choose,
};

/// A desired state and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// What the Unit shall have and run. All lists are present, sorted and without duplicates.
    pub desired: DesiredStatus,
    /// One report for each assigned service and Subject, in the order of the instances.
    pub reports: Vec<ServiceReport>,
}

/// Works out the complete desired state of one Unit.
pub fn compose(unit: &Unit) -> Composed {
    let mut items: BTreeMap<ItemId, DesiredItem> = BTreeMap::new();
    let mut instances: BTreeMap<_, DesiredInstances> = BTreeMap::new();
    let mut reports = Vec::new();
    let mut subjects: Vec<&Subject> = unit.subjects.iter().collect();
    subjects.sort_by(|a, b| a.id.cmp(&b.id));
    subjects.dedup_by(|a, b| a.id == b.id);
    for subject in &subjects {
        let mut services: Vec<&Assigned> = subject.services.iter().collect();
        services.sort_by(|a, b| a.service.id.cmp(&b.service.id));
        for assigned in services {
            let mut report = ServiceReport {
                service: assigned.service.id.clone(),
                subject: subject.id.clone(),
                version: None,
                rules: Vec::new(),
            };
            if let Some(version) = choose(&assigned.service, &unit.nodes, &mut report) {
                let instance = instances_of(subject, assigned, version);
                labels_fit(&instance.labels, unit, &mut report);
                report.version = Some(version.version.clone());
                report.rule(
                    RuleName::InDesiredState,
                    Outcome::Pass,
                    format!(
                        "version {}, {} instance(s)",
                        version.version, instance.num_instances
                    ),
                    None,
                );
                items
                    .entry(assigned.service.id.clone())
                    // It is one item for all Subjects: it may fail alone only where nobody needs it.
                    .and_modify(|item| item.independent &= assigned.independent)
                    .or_insert_with(|| DesiredItem {
                        item: assigned.service.id.clone(),
                        item_type: ItemType::Service,
                        version: version.version.clone(),
                        owner: assigned.service.owner.clone(),
                        index_digest: version.index_digest,
                        independent: assigned.independent,
                    });
                instances.insert((instance.item.clone(), instance.subject.clone()), instance);
            } else {
                report.rule(
                    RuleName::InDesiredState,
                    Outcome::Fail,
                    "it is left out of the desired state",
                    None,
                );
            }
            reports.push(report);
        }
    }
    let desired = DesiredStatus {
        nodes: Some(nodes(unit)),
        unit_config: unit.unit_config.clone(),
        items: Some(items.into_values().collect()),
        instances: Some(instances.into_values().collect()),
        subjects: Some(
            subjects
                .iter()
                .map(|subject| DesiredSubject {
                    subject: subject.id.clone(),
                    subject_type: subject.subject_type,
                    is_reported_from_unit: subject.is_reported,
                })
                .collect(),
        ),
        certificates: Some(unit.trust.certificates.clone()),
        certificate_chains: Some(unit.trust.chains.clone()),
        sota_schedule: unit.sota_schedule.clone(),
        fota_schedule: unit.fota_schedule.clone(),
    };
    Composed { desired, reports }
}

fn nodes(unit: &Unit) -> Vec<DesiredNode> {
    let mut nodes: Vec<DesiredNode> = unit
        .nodes
        .iter()
        .filter_map(|node| {
            Some(DesiredNode {
                node: node.id.clone(),
                state: node.wanted?,
            })
        })
        .collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    nodes
}

/// The assignment's word counts most, then the version's; the Subject's priority stands in where both say nothing.
pub(crate) fn instances_of(
    subject: &Subject,
    assigned: &Assigned,
    version: &Version,
) -> DesiredInstances {
    let own_priority = (version.priority != 0).then_some(version.priority);
    DesiredInstances {
        item: assigned.service.id.clone(),
        subject: subject.id.clone(),
        priority: assigned
            .priority
            .or(own_priority)
            .or(subject.priority)
            .unwrap_or(0),
        num_instances: assigned
            .num_instances
            .unwrap_or(version.min_instances.max(1)),
        labels: assigned
            .labels
            .clone()
            .unwrap_or_else(|| version.labels.clone()),
    }
}

/// Labels that no Node has do not take the service out of the desired state: that would stop what runs now. The Unit
/// refuses the update and says so, and goes on with what it has.
fn labels_fit(labels: &[String], unit: &Unit, report: &mut ServiceReport) {
    if labels.is_empty() {
        return;
    }
    let has_all = |node: &&Node| {
        let known = unit
            .unit_config
            .as_ref()
            .map(|config| config.for_node(&node.id, &node.node_type).labels);
        labels
            .iter()
            .all(|label| known.as_ref().is_some_and(|known| known.contains(label)))
    };
    let wanted = labels.join(", ");
    match unit.nodes.iter().find(has_all) {
        Some(node) => {
            let text = format!("Node {} has the label(s) {wanted}", node.id);
            report.rule(RuleName::LabelsFit, Outcome::Pass, text, None);
        }
        None => report.rule(
            RuleName::LabelsFit,
            Outcome::Fail,
            format!("no Node has the label(s) {wanted}"),
            Some("give a Node the label in the unit configuration, or change the assignment"),
        ),
    }
}
