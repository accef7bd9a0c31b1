//! What belongs to software and to firmware.

use std::collections::BTreeSet;

use aos_types::{Digest, ItemId, ItemType, OwnerId, SubjectId, SubjectType, UnitConfig};
use aos_update::{
    DesiredInstances, DesiredItem, DesiredSubject, Target, UpdatePart, changes_of, only,
};
use proptest::prelude::*;

fn item(name: &str, version: &str, item_type: ItemType) -> DesiredItem {
    DesiredItem {
        id: ItemId::new(name).unwrap(),
        item_type,
        version: version.into(),
        index_digest: Digest::from_bytes([0; 32]),
        owner: OwnerId::new("o").unwrap(),
        independent: false,
    }
}

fn subject(name: &str) -> DesiredSubject {
    DesiredSubject {
        id: SubjectId::new(name).unwrap(),
        subject_type: SubjectType::Group,
        is_reported_from_unit: false,
    }
}

/// Services and components by name and version, one instance each, and the version of the configuration.
fn set(config: &str, services: &[(&str, &str)], components: &[(&str, &str)]) -> Target {
    let services = services
        .iter()
        .map(|(name, version)| item(name, version, ItemType::Service));
    let components = components
        .iter()
        .map(|(name, version)| item(name, version, ItemType::Component));
    let items: Vec<_> = services.chain(components).collect();
    Target {
        unit_config: Some(UnitConfig {
            version: config.into(),
            ..UnitConfig::default()
        }),
        instances: items
            .iter()
            .map(|item| DesiredInstances {
                item: item.id.clone(),
                subject: SubjectId::new("s").unwrap(),
                priority: 0,
                num_instances: 1,
                labels: vec![],
            })
            .collect(),
        items,
        subjects: vec![subject("s")],
        ..Target::default()
    }
}

fn names(items: &[DesiredItem]) -> Vec<String> {
    items
        .iter()
        .map(|item| format!("{} {}", item.id, item.version))
        .collect()
}

#[test]
fn each_part_knows_what_changes_in_it() {
    let old = set("1", &[("a", "1"), ("b", "1")], &[("boot", "1")]);
    let new = set("2", &[("a", "2")], &[("boot", "2"), ("modem", "1")]);
    let software = changes_of(UpdatePart::Software, &new, &old);
    assert_eq!(names(&software.install), ["a 2"]);
    assert_eq!(names(&software.remove), ["a 1", "b 1"]);
    assert_eq!(software.unit_config.as_deref(), Some("2"));
    let firmware = changes_of(UpdatePart::Firmware, &new, &old);
    assert_eq!(names(&firmware.install), ["boot 2", "modem 1"]);
    assert_eq!(names(&firmware.remove), ["boot 1"]);
    assert_eq!(firmware.unit_config, None);
    assert!(changes_of(UpdatePart::Firmware, &old, &old).is_empty());
}

#[test]
fn one_part_alone_leaves_the_other_as_committed() {
    let old = set("1", &[("a", "1"), ("b", "1")], &[("boot", "1")]);
    let mut new = set("2", &[("a", "2")], &[("boot", "2")]);
    new.subjects = vec![subject("t")];
    let software = only(&[UpdatePart::Software].into(), &new, &old);
    assert_eq!(names(&software.items), ["a 2", "boot 1"]);
    assert_eq!(software.unit_config, new.unit_config);
    assert_eq!(software.subjects, [subject("t"), subject("s")]);
    let firmware = only(&[UpdatePart::Firmware].into(), &new, &old);
    assert_eq!(names(&firmware.items), ["boot 2", "a 1", "b 1"]);
    assert_eq!(firmware.unit_config, old.unit_config);
    assert_eq!(firmware.instances.len(), 3);
}

#[test]
fn another_order_is_no_change() {
    let old = set("1", &[("a", "1"), ("b", "1")], &[("boot", "1")]);
    let mut new = old.clone();
    new.items.reverse();
    new.instances.reverse();
    for part in UpdatePart::ALL {
        assert!(changes_of(part, &new, &old).is_empty());
    }
}

fn sets() -> impl Strategy<Value = Target> {
    let picks = proptest::collection::btree_map(0u8..6, (0u8..3, any::<bool>()), 0..6);
    (picks, 0u8..3).prop_map(|(picks, config)| {
        let named: Vec<(String, String, bool)> = picks
            .into_iter()
            .map(|(name, (version, component))| {
                (format!("i{name}"), version.to_string(), component)
            })
            .collect();
        let of = |component: bool| -> Vec<(&str, &str)> {
            named
                .iter()
                .filter(|(_, _, is)| *is == component)
                .map(|(name, version, _)| (name.as_str(), version.as_str()))
                .collect()
        };
        set(&config.to_string(), &of(false), &of(true))
    })
}

proptest! {
    #[test]
    fn parts_one_after_the_other_make_the_whole(new in sets(), old in sets()) {
        for first in UpdatePart::ALL {
            let half = only(&[first].into(), &new, &old);
            let ids: BTreeSet<_> = half.items.iter().map(|item| &item.id).collect();
            prop_assert_eq!(ids.len(), half.items.len(), "no item twice");
            for entry in &half.instances {
                prop_assert!(half.item(&entry.item).is_some(), "no instance without its item");
            }
            let whole = only(&UpdatePart::ALL.into(), &new, &half);
            prop_assert_eq!(whole, new.clone());
        }
    }
}
