use std::collections::BTreeMap;

use aos_cloud_protocol::{self as wire, Named};
use aos_update::{
    Certificate, CertificateChain, Desired, DesiredInstances, DesiredItem, DesiredNode,
    DesiredNodeState, DesiredSubject, Part, Unreadable,
};

/// Most instances that CM is configured to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Of one entry.
    pub(crate) of_entry: u64,
    /// Of all together.
    pub(crate) in_all: u64,
}

/// What the cloud wrote, in the engine's words. An entry that asks for more instances than are taken, by itself or together
/// with those of higher priority, counts as one that cannot be read: it stays as it runs.
pub(crate) fn readable(
    status: wire::DesiredStatus,
    unreadable: &[wire::Unreadable],
    most: Most,
) -> Desired {
    let mut notes: Vec<Unreadable> = unreadable.iter().filter_map(note).collect();
    let instances = status.instances.map(|entries| {
        let (good, too_many) = bounded(entries, most);
        notes.extend(too_many);
        good.into_iter().map(instance).collect()
    });
    Desired {
        nodes: status.nodes.map(|nodes| {
            nodes
                .into_iter()
                .map(|node| DesiredNode {
                    node: node.node,
                    state: match node.state {
                        wire::DesiredNodeState::Provisioned => DesiredNodeState::Provisioned,
                        wire::DesiredNodeState::Paused => DesiredNodeState::Paused,
                    },
                })
                .collect()
        }),
        unit_config: status.unit_config,
        items: status.items.map(|items| {
            items
                .into_iter()
                .map(|item| DesiredItem {
                    id: item.item,
                    item_type: item.item_type,
                    version: item.version,
                    index_digest: item.index_digest,
                    owner: item.owner,
                    independent: item.independent,
                })
                .collect()
        }),
        instances,
        subjects: status.subjects.map(|subjects| {
            subjects
                .into_iter()
                .map(|subject| DesiredSubject {
                    id: subject.subject,
                    subject_type: subject.subject_type,
                    is_reported_from_unit: subject.is_reported_from_unit,
                })
                .collect()
        }),
        certificates: status.certificates.map(|certificates| {
            certificates
                .into_iter()
                .map(|certificate| Certificate {
                    der: certificate.der,
                    fingerprint: certificate.fingerprint,
                })
                .collect()
        }),
        certificate_chains: status.certificate_chains.map(|chains| {
            chains
                .into_iter()
                .map(|chain| CertificateChain {
                    name: chain.name,
                    fingerprints: chain.fingerprints,
                })
                .collect()
        }),
        sota_schedule: status.sota_schedule,
        fota_schedule: status.fota_schedule,
        unreadable: notes,
    }
}

/// The entries that are taken, in their order, and what is wrong with the others.
fn bounded(
    entries: Vec<wire::DesiredInstances>,
    most: Most,
) -> (Vec<wire::DesiredInstances>, Vec<Unreadable>) {
    let mut by_priority: Vec<usize> = (0..entries.len()).collect();
    by_priority.sort_by_key(|place| {
        let entry = entries.get(*place);
        std::cmp::Reverse(entry.map_or(0, |entry| entry.priority))
    });
    let (mut total, mut refused) = (0_u64, BTreeMap::new());
    for place in by_priority {
        let Some(entry) = entries.get(place) else {
            continue;
        };
        let asks = entry.num_instances;
        let together = total.saturating_add(asks);
        if asks > most.of_entry {
            let why = format!(
                "it asks for {asks} instances, more than the {} CM is configured to take (`max_instances`)",
                most.of_entry
            );
            refused.insert(place, why);
        } else if together > most.in_all {
            let why = format!(
                "it asks for {asks} instances, {together} together with the entries before it: more than the {} CM is configured \
                 to take in all (`max_instances_in_all`)",
                most.in_all
            );
            refused.insert(place, why);
        } else {
            total = together;
        }
    }
    let (mut good, mut notes) = (Vec::new(), Vec::new());
    for (place, entry) in entries.into_iter().enumerate() {
        match refused.remove(&place) {
            None => good.push(entry),
            Some(error) => notes.push(Unreadable {
                part: Part::Instances,
                name: Some(entry.item.to_string()),
                error,
            }),
        }
    }
    (good, notes)
}

fn instance(entry: wire::DesiredInstances) -> DesiredInstances {
    DesiredInstances {
        item: entry.item,
        subject: entry.subject,
        priority: entry.priority,
        num_instances: entry.num_instances,
        labels: entry.labels,
    }
}

fn note(unreadable: &wire::Unreadable) -> Option<Unreadable> {
    // A path such as `instances[2].labels` belongs to its list.
    let list = unreadable.list.split(['[', '.']).next().unwrap_or_default();
    let part = match list.to_ascii_lowercase().as_str() {
        "nodes" => Part::Nodes,
        "unitconfig" => Part::UnitConfig,
        "items" => Part::Items,
        "instances" => Part::Instances,
        "subjects" => Part::Subjects,
        "certificates" => Part::Certificates,
        "certificatechains" => Part::CertificateChains,
        "sotaschedule" => Part::SotaSchedule,
        "fotaschedule" => Part::FotaSchedule,
        _ => return None,
    };
    let name = unreadable.named.as_ref().map(|named| match named {
        Named::Item(item) | Named::Instances { item, .. } => item.to_string(),
        Named::Node(node) => node.to_string(),
        Named::Subject(subject) => subject.to_string(),
        Named::Name(name) => name.clone(),
    });
    Some(Unreadable {
        part,
        name,
        error: unreadable.error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_types::{ItemId, SubjectId};

    #[test]
    fn too_many_instances_stay_as_they_run() {
        let entry = |item: &str, num_instances, priority| wire::DesiredInstances {
            item: ItemId::new(item).unwrap(),
            subject: SubjectId::new("s").unwrap(),
            priority,
            num_instances,
            labels: vec![],
        };
        let status = wire::DesiredStatus {
            instances: Some(vec![
                entry("a", 3, 0),
                entry("b", u64::MAX, 9),
                entry("c", 990, 1),
                entry("d", 8, 0),
                entry("e", 2, 0),
            ]),
            ..wire::DesiredStatus::default()
        };
        let most = Most {
            of_entry: 1000,
            in_all: 1000,
        };
        let desired = readable(status, &[], most);
        // The most important ones count first, and what is too much leaves room for what is not.
        let taken: Vec<String> = desired
            .instances
            .unwrap()
            .iter()
            .map(|entry| entry.item.to_string())
            .collect();
        assert_eq!(taken, ["a", "c", "e"]);
        let refused: Vec<_> = desired
            .unreadable
            .iter()
            .map(|one| (one.name.as_deref().unwrap(), one.error.as_str()))
            .collect();
        assert_eq!(refused[0].0, "b");
        assert_eq!(refused[1].0, "d");
        assert!(
            refused[1].1.contains("1001 together") && refused[1].1.contains("1000 CM"),
            "{refused:?}"
        );
        assert_eq!(desired.items, None);
    }
}
