use std::collections::BTreeMap;

use aos_cloud_protocol::{
    InstanceStatus, InstancesStatus, ItemIdentity, ItemStatus, NodeStatus, UnitConfigStatus,
    UnitStatus,
};
use aos_schedule::Cause;
use aos_types::{
    AosCode, ErrorInfo, InstanceIdent, InstanceState, ItemState, NodeId, SubjectId, UnitConfig,
    UnitConfigState,
};
use aos_update::{Cycle, Failure, PartStatus, Rollback, UpdatePart};

use super::update;
use crate::{
    contract::InstanceReport,
    placing::Lists,
    states::{There, Undelivered},
    world::KnownNode,
};

/// What the update engine knows that belongs into a status.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct EngineStatus {
    pub(crate) items: Vec<aos_update::ItemStatus>,
    pub(crate) failed_config: Option<aos_update::UnitConfigStatus>,
    /// Why the last update did not happen.
    pub(crate) failure: Option<Failure>,
    /// The committed set could not be brought back.
    pub(crate) rollback: Option<Rollback>,
    /// The update under way.
    pub(crate) cycle: Option<Cycle>,
    /// Its parts.
    pub(crate) parts: UpdateParts,
}

/// Both parts of the update.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct UpdateParts {
    pub(crate) software: PartStatus,
    pub(crate) firmware: PartStatus,
}

impl UpdateParts {
    /// One of them.
    pub(crate) const fn of(&self, part: UpdatePart) -> &PartStatus {
        match part {
            UpdatePart::Software => &self.software,
            UpdatePart::Firmware => &self.firmware,
        }
    }
}

/// All that a status is made of.
pub(crate) struct Parts<'a> {
    pub(crate) world: &'a BTreeMap<NodeId, KnownNode>,
    pub(crate) lists: &'a Lists,
    /// States that are not where they shall be.
    pub(crate) states: &'a BTreeMap<There, Undelivered>,
    /// Checksums of the states that Nodes have.
    pub(crate) checksums: &'a BTreeMap<There, String>,
    pub(crate) engine: &'a EngineStatus,
    pub(crate) config: Option<&'a UnitConfig>,
    pub(crate) subjects: &'a [SubjectId],
    /// Nodes that did not take their part of the unit configuration in force.
    pub(crate) config_troubles: &'a BTreeMap<NodeId, ErrorInfo>,
    /// Nodes that could not be paused or resumed as ordered.
    pub(crate) state_troubles: &'a BTreeMap<NodeId, ErrorInfo>,
}

/// The whole status of this moment; every list is present.
pub(crate) fn compose(parts: &Parts<'_>) -> UnitStatus {
    UnitStatus {
        is_delta: false,
        unit_config: Some(configs(parts)),
        nodes: Some(nodes(parts)),
        items: Some(items(parts)),
        instances: Some(instances(parts)),
        subjects: Some(parts.subjects.to_vec()),
        update: Some(update::of(parts.engine)),
        placements: Some(update::placements(&parts.lists.explained)),
    }
}

/// Whether an instance is still on its way up, as far as its Node can say.
pub(crate) fn anything_comes_up(world: &BTreeMap<NodeId, KnownNode>, lists: &Lists) -> bool {
    lists.placed().any(|(node, order)| {
        let reported = world
            .get(node)
            .and_then(|node| node.sm.as_ref())
            .and_then(|sm| sm.instances.as_ref());
        reported.is_some_and(|reported| {
            reported.get(&order.ident).is_none_or(|report| {
                report.version != order.version || report.state == InstanceState::Activating
            })
        })
    })
}

fn configs(parts: &Parts<'_>) -> Vec<UnitConfigStatus> {
    let trouble = parts.config_troubles.iter().next();
    let current = match parts.config {
        // It is in force on this Unit, and not on all of its Nodes.
        Some(config) if trouble.is_some() => UnitConfigStatus {
            version: config.version.clone(),
            state: UnitConfigState::Failed,
            error: trouble.map(|(node, error)| ErrorInfo {
                message: bounded(&format!(
                    "node `{node}` did not take it, which is tried again: {error}"
                )),
                ..error.clone()
            }),
        },
        Some(config) => UnitConfigStatus {
            version: config.version.clone(),
            state: UnitConfigState::Installed,
            error: None,
        },
        None => UnitConfigStatus {
            version: String::new(),
            state: UnitConfigState::Absent,
            error: None,
        },
    };
    let failed = parts.engine.failed_config.as_ref();
    let failed = failed.map(|failed| UnitConfigStatus {
        version: failed.version.clone(),
        state: UnitConfigState::Failed,
        error: Some(failed.error.clone()),
    });
    std::iter::once(current).chain(failed).collect()
}

fn nodes(parts: &Parts<'_>) -> Vec<NodeStatus> {
    let failed = parts.engine.failure.as_ref();
    parts
        .world
        .values()
        .map(|node| {
            let mut info = node.info.clone();
            // What an update could not do to a Node is shown where the Node has no trouble of its own.
            if info.error.is_none() {
                info.error = failed
                    .and_then(|failure| failure.failures.nodes.get(&info.id))
                    .or_else(|| parts.state_troubles.get(&info.id))
                    .cloned();
                let config = parts.config_troubles.get(&info.id);
                info.error = info.error.or_else(|| {
                    config.map(|error| ErrorInfo {
                        message: format!("it did not take its configuration: {error}"),
                        ..error.clone()
                    })
                });
            }
            NodeStatus {
                info,
                runtimes: node.runtimes.clone(),
                resources: node.resources.clone(),
                is_connected: node.sm.is_some(),
            }
        })
        .collect()
}

fn items(parts: &Parts<'_>) -> Vec<ItemStatus> {
    let delivered = parts.engine.items.iter().map(|item| ItemStatus {
        item: ItemIdentity {
            item: item.id.clone(),
            item_type: item.item_type,
            preinstalled: false,
        },
        version: item.version.clone(),
        state: item.state,
        error: item.error.clone(),
    });
    let mut items: Vec<ItemStatus> = delivered.collect();
    for report in reports(parts).filter(|(_, report)| report.ident.preinstalled) {
        let status = ItemStatus {
            item: ItemIdentity::from(&report.1.ident),
            version: report.1.version.clone(),
            state: ItemState::Installed,
            error: None,
        };
        if !items.contains(&status) {
            items.push(status);
        }
    }
    items
}

fn reports<'a>(parts: &Parts<'a>) -> impl Iterator<Item = (&'a NodeId, &'a InstanceReport)> {
    parts.world.iter().flat_map(|(id, node)| {
        let reported = node.sm.as_ref().and_then(|sm| sm.instances.as_ref());
        reported
            .into_iter()
            .flat_map(move |reported| reported.values().map(move |report| (id, report)))
    })
}

/// Instances by what a status groups them by.
#[derive(Default)]
struct Groups(BTreeMap<(ItemIdentity, SubjectId, String), Vec<InstanceStatus>>);

impl Groups {
    fn add(&mut self, ident: &InstanceIdent, version: &str, status: InstanceStatus) {
        let key = (
            ItemIdentity::from(ident),
            ident.subject.clone(),
            version.to_owned(),
        );
        let group = self.0.entry(key).or_default();
        let known = |have: &InstanceStatus| have.index == status.index && have.node == status.node;
        if !group.iter().any(known) {
            group.push(status);
        }
    }

    fn has(&self, ident: &InstanceIdent, version: &str) -> bool {
        let key = (
            ItemIdentity::from(ident),
            ident.subject.clone(),
            version.to_owned(),
        );
        let group = self.0.get(&key);
        group.is_some_and(|group| group.iter().any(|have| have.index == ident.index))
    }

    fn into_list(self) -> Vec<InstancesStatus> {
        self.0
            .into_iter()
            .map(|((item, subject, version), mut instances)| {
                instances
                    .sort_by(|one, other| (one.index, &one.node).cmp(&(other.index, &other.node)));
                InstancesStatus {
                    item,
                    subject,
                    version,
                    instances,
                }
            })
            .collect()
    }
}

fn instances(parts: &Parts<'_>) -> Vec<InstancesStatus> {
    let mut groups = Groups::default();
    let checksum = |node: &NodeId, ident: &InstanceIdent| {
        let there = (node.clone(), ident.clone());
        parts.checksums.get(&there).cloned()
    };
    for (node, order) in parts.lists.placed() {
        let status = |state, error| InstanceStatus {
            node: Some(node.clone()),
            runtime: Some(order.runtime.clone()),
            index: order.ident.index,
            state,
            state_checksum: checksum(node, &order.ident),
            error,
        };
        let known = parts.world.get(node);
        let reported = known
            .and_then(|node| node.sm.as_ref())
            .and_then(|sm| sm.instances.as_ref());
        let own = reported
            .and_then(|reported| reported.get(&order.ident))
            .filter(|report| report.version == order.version);
        let status = match (own, known) {
            (Some(report), _) => status(report.state, report.error.clone()),
            (None, Some(known)) if reported.is_some() || known.is_away => {
                let there = (node.clone(), order.ident.clone());
                match parts.states.get(&there) {
                    None => status(InstanceState::Activating, None),
                    Some(waits) => status(waits.state(), Some(waits.why())),
                }
            }
            _ => status(
                InstanceState::Failed,
                Some(ErrorInfo::new(
                    AosCode::Timeout,
                    format!("its node `{node}` is not connected"),
                )),
            ),
        };
        groups.add(&order.ident, &order.version, status);
    }
    // What Nodes run besides: preinstalled ones, and old versions until they are stopped.
    for (node, report) in reports(parts) {
        let gone = report.state == InstanceState::Inactive && !report.ident.preinstalled;
        let placed = parts
            .lists
            .on(node)
            .iter()
            .any(|order| order.ident == report.ident && order.version == report.version);
        if placed || gone {
            continue;
        }
        let status = InstanceStatus {
            node: Some(node.clone()),
            runtime: Some(report.runtime.clone()),
            index: report.ident.index,
            state: report.state,
            state_checksum: checksum(node, &report.ident),
            error: report.error.clone(),
        };
        groups.add(&report.ident, &report.version, status);
    }
    for unplaced in &parts.lists.unplaced {
        let status = InstanceStatus {
            node: None,
            runtime: None,
            index: unplaced.ident.index,
            state: InstanceState::Failed,
            state_checksum: None,
            error: Some(ErrorInfo::new(
                AosCode::NotFound,
                bounded(&format!("it runs nowhere: {}", unplaced.reason)),
            )),
        };
        let status = match &unplaced.cause {
            // Nothing is wrong with it: it is stopped on purpose, and will run there again.
            Cause::Waits(node) => InstanceStatus {
                node: Some(node.clone()),
                state: InstanceState::Inactive,
                error: Some(ErrorInfo::new(AosCode::WrongState, &*unplaced.reason)),
                ..status
            },
            _ => status,
        };
        groups.add(&unplaced.ident, &unplaced.version, status);
    }
    if let Some(failure) = &parts.engine.failure {
        for (ident, error) in &failure.failures.instances {
            let Some(item) = failure.target.item(&ident.item) else {
                continue;
            };
            if !groups.has(ident, &item.version) {
                let status = InstanceStatus {
                    node: None,
                    runtime: None,
                    index: ident.index,
                    state: InstanceState::Failed,
                    state_checksum: None,
                    error: Some(ErrorInfo {
                        message: bounded(&error.message),
                        ..error.clone()
                    }),
                };
                groups.add(ident, &item.version, status);
            }
        }
    }
    groups.into_list()
}

/// Reasons of many Nodes are long; a status tells the beginning, and `aos unit why` the rest.
fn bounded(text: &str) -> String {
    const LONGEST: usize = 512;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
