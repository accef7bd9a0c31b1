//! From what the store holds of a Unit to its desired state.

use aos_cloud_protocol::{Certificate, CertificateChain, DesiredStatus};
use aos_compose::{Composed, Outcome, Trust};
use aos_db::{ComposeInputError, DesiredContent, NewDesired, UnitForCompose};
use aos_pki::{Fingerprint, Signer};

use crate::BLOB_CHAIN_NAME;

/// The certificates by which a Unit checks what this signer signed. The root is not among them: the Unit has it.
pub(crate) fn trust(signer: &Signer) -> Trust {
    let chain: Vec<Certificate> = signer
        .chain()
        .iter()
        .enumerate()
        .filter(|(place, der)| *place == 0 || !is_self_signed(der))
        .map(|(_, der)| Certificate {
            der: der.to_vec(),
            fingerprint: Fingerprint::of(der).to_string().to_ascii_uppercase(),
        })
        .collect();
    Trust {
        chains: vec![CertificateChain {
            name: BLOB_CHAIN_NAME.into(),
            fingerprints: chain
                .iter()
                .map(|certificate| certificate.fingerprint.clone())
                .collect(),
        }],
        certificates: chain,
    }
}

fn is_self_signed(der: &[u8]) -> bool {
    aos_pki::Roots::from_ders([der.to_vec().into()]).is_ok()
}

/// Composes the desired state of a Unit, with the document to store and what it says to people.
pub(crate) fn compose(
    unit: &UnitForCompose,
    trust: &Trust,
) -> Result<(DesiredStatus, NewDesired), ComposeInputError> {
    let Composed { desired, reports } = aos_compose::compose(&unit.input(trust)?);
    let mut left_out: Vec<String> = reports
        .iter()
        .filter(|report| report.version.is_none())
        .filter_map(|report| {
            let rule = report
                .rules
                .iter()
                .find(|rule| rule.outcome != Outcome::Pass)?;
            let name = unit
                .assignments
                .iter()
                .find(|assignment| assignment.service.to_string() == report.service.as_str())
                .map_or(report.service.as_str(), |assignment| &assignment.codename);
            Some(format!("{name} is left out: {}", rule.text))
        })
        .collect();
    left_out.dedup();
    left_out.truncate(5);
    let new = NewDesired {
        document: desired.to_json().to_string(),
        content: content(&desired),
        reason: left_out.join("; "),
    };
    Ok((desired, new))
}

fn content(desired: &DesiredStatus) -> DesiredContent {
    DesiredContent {
        items: desired
            .items
            .iter()
            .flatten()
            .map(|item| aos_db::DesiredItem {
                item_id: item.item.to_string(),
                version: item.version.clone(),
            })
            .collect(),
        instances: desired
            .instances
            .iter()
            .flatten()
            .map(|group| aos_db::DesiredInstances {
                item_id: group.item.to_string(),
                subject_id: group.subject.to_string(),
                num_instances: group.num_instances,
                priority: group.priority,
                labels: group.labels.clone(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_api::Overrides;
    use aos_db::{AssignedSubject, Assignment, VersionForCompose};
    use uuid::Uuid;

    fn unit(configuration: serde_json::Value) -> UnitForCompose {
        let subject = AssignedSubject {
            id: Uuid::from_u128(1),
            label: "all".into(),
            is_group: true,
            priority: 7,
            reported_as: None,
        };
        UnitForCompose {
            id: Uuid::nil(),
            tenant: Uuid::from_u128(2),
            system_uid: "u".into(),
            unit_config: None,
            nodes: vec![],
            wanted_nodes: Default::default(),
            schedules: Default::default(),
            assignments: vec![Assignment {
                subject: subject.clone(),
                service: Uuid::from_u128(3),
                codename: "web".into(),
                title: String::new(),
                overrides: Overrides {
                    num_instances: Some(4),
                    ..Overrides::default()
                },
                versions: vec![VersionForCompose {
                    version: "1.0.0".into(),
                    index_digest: format!("sha256:{}", "ab".repeat(32)),
                    platforms: vec!["linux/arm64/v8".into()],
                    configuration,
                    labels: vec!["main".into()],
                    priority: 0,
                    min_num_instances: 1,
                }],
            }],
            subjects: vec![subject],
        }
    }

    #[test]
    fn what_people_decided_becomes_a_document_and_what_it_asks_for() {
        let (desired, new) = compose(&unit(serde_json::json!({})), &Trust::default()).unwrap();
        let group = &desired.instances.as_ref().unwrap()[0];
        assert_eq!((group.num_instances, group.priority), (4, 7));
        assert_eq!(new.content.instances[0].num_instances, 4);
        assert_eq!(new.content.items[0].version, "1.0.0");
        let again: serde_json::Value = serde_json::from_str(&new.document).unwrap();
        let (read, unreadable) =
            DesiredStatus::from_json(&again, &aos_cloud_protocol::Caps::default()).unwrap();
        assert_eq!((read, unreadable), (desired, vec![]));
    }

    #[test]
    fn what_is_left_out_is_said_to_people() {
        let broken = serde_json::json!({"quotas": {"ramLimit": "much"}});
        let (desired, new) = compose(&unit(broken), &Trust::default()).unwrap();
        assert_eq!(desired.items, Some(vec![]));
        assert!(
            new.reason.starts_with("web is left out: "),
            "{}",
            new.reason
        );
    }
}
