use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use aos_types::{ItemId, ItemType, SubjectId};

use crate::{Desired, Part, Target, Unreadable};

/// Something a person should know about how a desired state was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The list it is about.
    pub part: Part,
    /// What happened and what it means.
    pub text: String,
}

/// Makes a whole set of what came, on top of what is in force (`docs/protocol/unit-cloud.md`, desiredStatus).
///
/// * An absent list stays as it is; only an empty one removes.
/// * An element that could not be read stays as it is if it named something, else its whole list does.
/// * Of two elements with the same name the first counts.
/// * Instances of an item that is not in the set are left out.
/// * No instances at all (`num_instances` 0) of a service stays as it is.
pub fn resolve(desired: Desired, in_force: &Target) -> (Target, Vec<Note>) {
    let mut notes: Vec<Note> = desired
        .unreadable
        .iter()
        .map(|unreadable| Note {
            part: unreadable.part,
            text: match &unreadable.name {
                _ if matches!(unreadable.part, Part::SotaSchedule | Part::FotaSchedule) => {
                    format!("what cannot be read opens no gate: {}", unreadable.error)
                }
                Some(name) => format!("`{name}` stays as it is: {}", unreadable.error),
                None => format!("the whole list stays as it is: {}", unreadable.error),
            },
        })
        .collect();
    let unreadable = &desired.unreadable;
    let mut list = Lists {
        unreadable,
        notes: &mut notes,
    };
    let mut target = Target {
        nodes: list.merge(Part::Nodes, desired.nodes, &in_force.nodes, |node| {
            (node.node.to_string(), node.node.to_string())
        }),
        unit_config: desired.unit_config.or_else(|| in_force.unit_config.clone()),
        items: list.merge(Part::Items, desired.items, &in_force.items, |item| {
            (item.id.to_string(), item.id.to_string())
        }),
        instances: list.merge(
            Part::Instances,
            desired.instances,
            &in_force.instances,
            |entry| {
                (
                    (entry.item.clone(), entry.subject.clone()),
                    entry.item.to_string(),
                )
            },
        ),
        subjects: list.merge(
            Part::Subjects,
            desired.subjects,
            &in_force.subjects,
            |subject| (subject.id.to_string(), subject.id.to_string()),
        ),
        certificates: list.merge(
            Part::Certificates,
            desired.certificates,
            &in_force.certificates,
            |certificate| (certificate.der.clone(), certificate.fingerprint.clone()),
        ),
        certificate_chains: list.merge(
            Part::CertificateChains,
            desired.certificate_chains,
            &in_force.certificate_chains,
            |chain| (chain.name.clone(), chain.name.clone()),
        ),
        sota_schedule: desired.sota_schedule,
        fota_schedule: desired.fota_schedule,
    };
    leave_out_orphans(&mut target, &mut notes);
    none_of_a_service(&mut target, in_force, &mut notes);
    unknown_subjects(&target, &mut notes);
    (target, notes)
}

struct Lists<'a> {
    unreadable: &'a [Unreadable],
    notes: &'a mut Vec<Note>,
}

impl Lists<'_> {
    /// `key` gives what must be unique in the list and the name an unreadable element may carry.
    fn merge<T: Clone, K: Eq + Hash>(
        &mut self,
        part: Part,
        came: Option<Vec<T>>,
        in_force: &[T],
        key: impl Fn(&T) -> (K, String),
    ) -> Vec<T> {
        let of_part = || {
            self.unreadable
                .iter()
                .filter(move |entry| entry.part == part)
        };
        let Some(came) = came else {
            return in_force.to_vec();
        };
        if of_part().any(|entry| entry.name.is_none()) {
            return in_force.to_vec();
        }
        let kept: HashSet<&str> = of_part()
            .filter_map(|entry| entry.name.as_deref())
            .collect();
        let stays = in_force
            .iter()
            .filter(|element| kept.contains(key(element).1.as_str()))
            .cloned();
        let comes = came
            .into_iter()
            .filter(|element| !kept.contains(key(element).1.as_str()));
        let mut have = HashSet::new();
        let mut merged = Vec::new();
        let mut again: BTreeMap<String, u64> = BTreeMap::new();
        for element in stays.chain(comes) {
            let (unique, name) = key(&element);
            if have.insert(unique) {
                merged.push(element);
            } else {
                *again.entry(name).or_default() += 1;
            }
        }
        self.notes
            .extend(again.into_iter().map(|(name, times)| Note {
                part,
                text: match times {
                    1 => format!("`{name}` is listed twice; the first entry counts"),
                    _ => format!(
                        "`{name}` is listed {} times; the first entry counts",
                        times + 1
                    ),
                },
            }));
        merged
    }
}

fn leave_out_orphans(target: &mut Target, notes: &mut Vec<Note>) {
    let known: HashSet<ItemId> = target.items.iter().map(|item| item.id.clone()).collect();
    target.instances.retain(|entry| {
        let have = known.contains(&entry.item);
        if !have && entry.num_instances > 0 {
            notes.push(Note {
                part: Part::Instances,
                text: format!(
                    "instances of `{}` are asked for, but the item is not among the items; they are left out",
                    entry.item
                ),
            });
        }
        have
    });
}

/// No instance is an error for anything but a component, of which it means one on every runtime: it stays as it is.
fn none_of_a_service(target: &mut Target, in_force: &Target, notes: &mut Vec<Note>) {
    if target.instances.iter().all(|entry| entry.num_instances > 0) {
        return;
    }
    let kinds: HashMap<ItemId, ItemType> = target
        .items
        .iter()
        .map(|item| (item.id.clone(), item.item_type))
        .collect();
    let before: HashMap<_, _> = in_force
        .instances
        .iter()
        .map(|entry| (entry.key(), entry))
        .collect();
    target.instances = std::mem::take(&mut target.instances)
        .into_iter()
        .filter_map(|entry| {
            let component = kinds.get(&entry.item) == Some(&ItemType::Component);
            if entry.num_instances > 0 || component {
                return Some(entry);
            }
            notes.push(Note {
                part: Part::Instances,
                text: format!(
                    "`{}` for `{}` asks for no instances, which only a component may: it stays as it is; \
                     leave the entry out to stop it",
                    entry.item, entry.subject
                ),
            });
            before.get(&entry.key()).copied().cloned()
        })
        .collect();
}

/// A subject that is used and not listed counts as a group; one note for each.
fn unknown_subjects(target: &Target, notes: &mut Vec<Note>) {
    if target.subjects.is_empty() {
        return;
    }
    let mut known: HashSet<&SubjectId> =
        target.subjects.iter().map(|subject| &subject.id).collect();
    for entry in &target.instances {
        if known.insert(&entry.subject) {
            notes.push(Note {
                part: Part::Subjects,
                text: format!(
                    "`{}` is used and not among the subjects; it counts as a group",
                    entry.subject
                ),
            });
        }
    }
}
