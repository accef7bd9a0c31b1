//! What items of one bundle say of each other. Of items that are not in it only the cloud and the Unit know more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aos_types::Condition;

use super::{Dependency, Item, section::Notes};

/// Most dependencies of an item, as a Unit reads them.
const MOST: usize = 64;

pub(super) fn check(notes: &Notes, items: &[Item]) {
    let known: BTreeMap<&str, &Item> = items.iter().map(|one| (&*one.codename, one)).collect();
    for (i, item) in items.iter().enumerate() {
        let place = format!("items[{i}].dependencies");
        if item.dependencies.len() > MOST {
            notes.error(&place, format!("has more than {MOST} entries"));
        }
        let mut seen = BTreeSet::new();
        for (j, dependency) in item.dependencies.iter().enumerate() {
            let place = format!("{place}[{j}]");
            if !seen.insert((&dependency.codename, dependency.condition)) {
                notes.error(
                    &place,
                    format!("says the same of `{}` twice", dependency.codename),
                );
            }
            if dependency.codename == item.codename {
                notes.error(
                    &format!("{place}.identity.codename"),
                    "is the item itself, which cannot wait for itself",
                );
            } else if let Some(other) = known.get(&*dependency.codename) {
                between(notes, &place, dependency, other);
            }
        }
        if let Some(way) = way_back(item, &known) {
            notes.error(&place, format!("lead back to the item itself: {way}"));
        }
    }
}

fn between(notes: &Notes, place: &str, dependency: &Dependency, other: &Item) {
    let name = &other.codename;
    let ends = other.item_config.run_parameters.restart_policy.ends();
    if dependency.condition == Condition::Completed && !ends {
        notes.error(
            &format!("{place}.condition"),
            format!(
                "waits until `{name}` has completed (that is meant when nothing is said), which it never does: \
                 write `condition: started` or `healthy`, or give `{name}` a `runParameters.restartPolicy` of `on-failure` or `never`"
            ),
        );
    }
    let rule = dependency.on(aos_types::ItemId::new("x").ok());
    if rule.is_some_and(|rule| !rule.admits(&other.version.to_string())) {
        notes.error(
            &format!("{place}.versions"),
            format!(
                "`{}` does not take in version {} of `{name}` in this bundle",
                dependency.versions, other.version
            ),
        );
    }
}

/// The shortest way by which an item waits for itself, if it leads over others.
fn way_back(start: &Item, known: &BTreeMap<&str, &Item>) -> Option<String> {
    let mut behind: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (&name, item) in known {
        for one in item
            .dependencies
            .iter()
            .filter(|one| one.codename != item.codename)
        {
            let (waits, on) = match one.condition {
                Condition::Before => (&*one.codename, name),
                _ => (name, &*one.codename),
            };
            behind.entry(waits).or_default().insert(on);
        }
    }
    let mut from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([&*start.codename]);
    while let Some(at) = queue.pop_front() {
        for &to in behind.get(at).into_iter().flatten() {
            if to == start.codename {
                let mut way = vec![to, at];
                while let Some(&back) = way.last().and_then(|one| from.get(one)) {
                    way.push(back);
                }
                way.reverse();
                return Some(way.join(" \u{2192} "));
            }
            if !from.contains_key(to) {
                from.insert(to, at);
                queue.push_back(to);
            }
        }
    }
    None
}
