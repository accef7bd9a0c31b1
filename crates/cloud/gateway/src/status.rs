//! A Unit's status in the words of the store.

use aos_cloud_protocol::{UnitStatus, Unreadable};
use aos_db::{InstanceReport, ItemReport, NodeReport, UnitConfigReport, UnitStatusReport};
use aos_types::InstanceIdent;

use crate::told;

/// The reports to apply, one after the other.
///
/// In a full status what is not there is gone. An element that could not be read is not gone, so a list that holds one is
/// applied as a delta, after the rest.
pub(crate) fn reports(status: UnitStatus, unreadable: &[Unreadable]) -> Vec<UnitStatusReport> {
    let texts = unreadable.iter().map(ToString::to_string).collect();
    let mut report = UnitStatusReport {
        delta: status.is_delta,
        unit_config: status.unit_config.map(|configs| {
            configs
                .into_iter()
                .map(|config| UnitConfigReport {
                    version: config.version,
                    state: config.state,
                    error: config.error,
                })
                .collect()
        }),
        nodes: status.nodes.map(|nodes| {
            nodes
                .into_iter()
                .map(|node| NodeReport {
                    info: node.info,
                    runtimes: node.runtimes,
                    resources: node.resources,
                    connected: node.is_connected,
                })
                .collect()
        }),
        items: status.items.map(|items| {
            items
                .into_iter()
                .map(|item| ItemReport {
                    item: item.item.item,
                    item_type: item.item.item_type,
                    version: item.version,
                    state: item.state,
                    error: item.error,
                })
                .collect()
        }),
        instances: status.instances.map(|groups| {
            groups
                .into_iter()
                .flat_map(|group| {
                    let (item, subject, version) = (group.item, group.subject, group.version);
                    group
                        .instances
                        .into_iter()
                        .map(move |instance| InstanceReport {
                            ident: InstanceIdent {
                                item: item.item.clone(),
                                subject: subject.clone(),
                                index: instance.index,
                                item_type: item.item_type,
                                preinstalled: item.preinstalled,
                            },
                            version: version.clone(),
                            node: instance.node,
                            runtime: instance.runtime,
                            state: instance.state,
                            state_checksum: instance.state_checksum,
                            error: instance.error,
                        })
                })
                .collect()
        }),
        subjects: status.subjects.map(|subjects| {
            subjects
                .into_iter()
                .map(|subject| subject.to_string())
                .collect()
        }),
        update: status.update.map(told::update),
        placements: status
            .placements
            .map(|all| all.into_iter().map(told::placement).collect()),
        unreadable: texts,
    };
    if report.delta || unreadable.is_empty() {
        return vec![report];
    }
    let hurt = |list: &str| {
        unreadable
            .iter()
            .any(|it| it.list == list || it.list.starts_with(&format!("{list}[")))
    };
    let mut rest = UnitStatusReport {
        delta: true,
        ..UnitStatusReport::default()
    };
    if hurt("update") {
        rest.update = report.update.take();
    }
    if hurt("placements") {
        rest.placements = report.placements.take();
    }
    if hurt("nodes") {
        rest.nodes = report.nodes.take();
    } else {
        report.nodes.get_or_insert_default();
    }
    if hurt("items") {
        rest.items = report.items.take();
    } else {
        report.items.get_or_insert_default();
    }
    if hurt("instances") {
        rest.instances = report.instances.take();
    } else {
        report.instances.get_or_insert_default();
    }
    vec![report, rest]
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_cloud_protocol::{Body, Caps, decode};
    use serde_json::{Value, json};

    fn read(data: Value) -> Vec<UnitStatusReport> {
        let frame = json!({"header": {"version": 7, "systemId": "u", "txn": "t"}, "data": data});
        let decoded = decode(frame.to_string().as_bytes(), &Caps::default()).unwrap();
        let Body::UnitStatus(status) = decoded.message.body else {
            panic!("not a status")
        };
        reports(status, &decoded.unreadable)
    }

    #[test]
    fn what_could_not_be_read_is_not_taken_for_gone() {
        let reports = read(
            json!({"messageType": "unitStatus", "isDeltaInfo": false, "nodes": [],
            "items": [{"item": {"id": "a", "type": "service"}, "version": "1", "state": "installed"},
                      {"item": {"id": "b", "type": "service"}, "version": "1", "state": "enchanted"}]}),
        );
        assert_eq!(reports.len(), 2);
        assert!(!reports[0].delta && reports[0].items.is_none());
        assert_eq!(reports[0].instances, Some(vec![]));
        assert_eq!(reports[0].unreadable.len(), 1);
        assert!(reports[1].delta);
        assert_eq!(reports[1].items.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_good_full_status_is_one_report() {
        let reports = read(json!({"messageType": "unitStatus", "items": []}));
        assert_eq!(reports.len(), 1);
        assert!(!reports[0].delta);
    }
}
