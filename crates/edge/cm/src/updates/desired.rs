use aos_cloud_protocol::{self as wire, Named};
use aos_update::{
    Certificate, CertificateChain, Desired, DesiredInstances, DesiredItem, DesiredNode,
    DesiredNodeState, DesiredSubject, Part, Unreadable,
};

/// What the cloud wrote, in the engine's words. An entry that asks for more than `max_instances` instances counts as one that
/// cannot be read: it stays as it runs.
pub(crate) fn readable(
    status: wire::DesiredStatus,
    unreadable: &[wire::Unreadable],
    max_instances: u64,
) -> Desired {
    let mut notes: Vec<Unreadable> = unreadable.iter().filter_map(note).collect();
    let instances = status.instances.map(|entries| {
        let (good, too_many): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| entry.num_instances <= max_instances);
        notes.extend(too_many.into_iter().map(|entry| Unreadable {
            part: Part::Instances,
            name: Some(entry.item.to_string()),
            error: format!(
                "it asks for {} instances, more than the {max_instances} CM is configured to take",
                entry.num_instances
            ),
        }));
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
        let entry = |item: &str, num_instances| wire::DesiredInstances {
            item: ItemId::new(item).unwrap(),
            subject: SubjectId::new("s").unwrap(),
            priority: 0,
            num_instances,
            labels: vec![],
        };
        let status = wire::DesiredStatus {
            instances: Some(vec![entry("a", 3), entry("b", u64::MAX)]),
            ..wire::DesiredStatus::default()
        };
        let desired = readable(status, &[], 1000);
        assert_eq!(desired.instances.unwrap().len(), 1);
        assert_eq!(desired.unreadable[0].name.as_deref(), Some("b"));
        assert_eq!(desired.items, None);
    }
}
