use std::{collections::BTreeMap, time::Duration};

use aos_schedule::{Cause, Plan};
use aos_time::Timestamp;
use aos_types::InstanceIdent;

use super::{Placed, lists::Standing};

/// How long and how many instances that are not wanted any more are kept, with user id, storage and state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) ttl: Duration,
    pub(super) most: usize,
}

/// All instances that are remembered.
pub(super) type Memory = BTreeMap<InstanceIdent, Placed>;

/// One thing to store, or to delete.
pub(super) type Change = (String, Option<Placed>);

/// Takes a plan over into what is remembered; gives the changes to store.
pub(super) fn remember(
    memory: &mut Memory,
    plan: &Plan,
    now: Timestamp,
    keep: Keep,
) -> Vec<Change> {
    let mut next: Memory = plan
        .placed
        .iter()
        .map(|place| {
            (
                place.ident.clone(),
                Placed::of(place, memory.get(&place.ident)),
            )
        })
        .collect();
    for unplaced in &plan.unplaced {
        if let Some(old) = memory.get(&unplaced.ident) {
            let mut wanted = wanted(old, Standing::Active);
            wanted.waits = matches!(unplaced.cause, Cause::Waits(_));
            if wanted.waits {
                wanted.place.clone_from(&old.place);
            }
            next.insert(unplaced.ident.clone(), wanted);
        }
    }
    for disabled in &plan.disabled {
        if let Some(old) = memory.get(&disabled.ident) {
            next.insert(disabled.ident.clone(), wanted(old, Standing::Disabled));
        }
    }
    for (ident, old) in memory.iter() {
        if !next.contains_key(ident) {
            next.insert(ident.clone(), cached(old, now, keep.ttl));
        }
    }
    evict(&mut next, keep.most);
    next.retain(|_, placed| placed.standing != Standing::Removing || !placed.litter.is_empty());
    take_over(memory, next)
}

/// One that stays wanted without being run.
fn wanted(old: &Placed, standing: Standing) -> Placed {
    Placed {
        standing,
        place: None,
        waits: false,
        unplaced_since: None,
        ..old.clone()
    }
}

fn cached(old: &Placed, now: Timestamp, ttl: Duration) -> Placed {
    let since = old.unplaced_since.unwrap_or(now);
    let mut cached = Placed {
        place: None,
        waits: false,
        unplaced_since: Some(since),
        standing: match old.standing {
            Standing::Removing => Standing::Removing,
            _ => Standing::Cached,
        },
        ..old.clone()
    };
    if now.since(since) >= ttl {
        remove(&mut cached);
    }
    cached
}

/// Of more than are kept only the oldest go.
fn evict(memory: &mut Memory, most: usize) {
    let mut oldest: Vec<(Option<Timestamp>, InstanceIdent)> = memory
        .values()
        .filter(|placed| placed.standing == Standing::Cached)
        .map(|placed| (placed.unplaced_since, placed.ident.clone()))
        .collect();
    oldest.sort();
    let surplus = oldest.len().saturating_sub(most);
    for (_, ident) in oldest.into_iter().take(surplus) {
        if let Some(placed) = memory.get_mut(&ident) {
            remove(placed);
        }
    }
}

fn remove(placed: &mut Placed) {
    placed.standing = Standing::Removing;
    placed.litter.extend(placed.home.take());
}

/// What one instance kept is gone from a Node, or the Node is gone.
pub(super) fn tidied(memory: &Memory, gone: &[(InstanceIdent, aos_types::NodeId)]) -> Memory {
    let mut next = memory.clone();
    for (ident, node) in gone {
        if let Some(placed) = next.get_mut(ident) {
            placed.litter.remove(node);
        }
    }
    next.retain(|_, placed| placed.standing != Standing::Removing || !placed.litter.is_empty());
    next
}

/// Replaces what is remembered; gives the changes to store.
pub(super) fn take_over(memory: &mut Memory, next: Memory) -> Vec<Change> {
    let gone = memory
        .keys()
        .filter(|ident| !next.contains_key(*ident))
        .map(|ident| (ident.to_string(), None));
    let changed = next
        .iter()
        .filter(|(ident, new)| memory.get(*ident) != Some(*new))
        .map(|(ident, new)| (ident.to_string(), Some(new.clone())));
    let changes = gone.chain(changed).collect();
    *memory = next;
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aos_types::{Digest, ItemId, NodeId, OwnerId, SubjectId};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const KEEP: Keep = Keep {
        ttl: Duration::from_secs(30 * 24 * 3600),
        most: 3,
    };

    fn at(day: u32) -> Timestamp {
        Timestamp::default() + DAY * day
    }

    fn placed(item: &str, uid: u32) -> Placed {
        Placed {
            ident: InstanceIdent::service(
                ItemId::new(item).unwrap(),
                SubjectId::new("s").unwrap(),
                0,
            ),
            version: "1".into(),
            owner: OwnerId::new("o").unwrap(),
            priority: 0,
            standing: Standing::Active,
            place: None,
            waits: false,
            manifest: Digest::from_bytes([1; 32]),
            uid,
            gid: 5000,
            storage: true,
            state: false,
            home: Some(NodeId::new("main").unwrap()),
            litter: BTreeSet::new(),
            alert_rules: None,
            demand: None,
            unplaced_since: None,
        }
    }

    fn memory(items: &[&str]) -> Memory {
        let all = items.iter().zip(5000..);
        all.map(|(item, uid)| {
            let placed = placed(item, uid);
            (placed.ident.clone(), placed)
        })
        .collect()
    }

    fn standings(memory: &Memory) -> Vec<(String, Standing)> {
        let all = memory.values();
        all.map(|placed| (placed.ident.item.to_string(), placed.standing))
            .collect()
    }

    #[test]
    fn what_is_not_wanted_is_kept_for_its_time_and_until_its_storage_is_removed() {
        let mut memory = memory(&["web"]);
        remember(&mut memory, &Plan::default(), at(1), KEEP);
        assert_eq!(standings(&memory), [("web".to_owned(), Standing::Cached)]);
        remember(&mut memory, &Plan::default(), at(30), KEEP);
        assert_eq!(standings(&memory), [("web".to_owned(), Standing::Cached)]);
        remember(&mut memory, &Plan::default(), at(31), KEEP);
        assert_eq!(standings(&memory), [("web".to_owned(), Standing::Removing)]);
        // Its number is not free before its files are gone.
        let ident = memory.keys().next().unwrap().clone();
        let gone = [(ident, NodeId::new("main").unwrap())];
        let next = tidied(&memory, &gone);
        let changes = take_over(&mut memory, next);
        assert_eq!(changes, [("web:s:0".to_owned(), None)]);
    }

    #[test]
    fn gap_38_a_full_cache_gives_up_the_oldest_only() {
        let mut memory = memory(&["a", "b", "c", "d", "e"]);
        for (placed, day) in memory.values_mut().zip([3, 1, 5, 2, 4]) {
            placed.standing = Standing::Cached;
            placed.unplaced_since = Some(at(day));
        }
        remember(&mut memory, &Plan::default(), at(6), KEEP);
        let gone: Vec<String> = standings(&memory)
            .into_iter()
            .filter(|(_, standing)| *standing == Standing::Removing)
            .map(|(item, _)| item)
            .collect();
        assert_eq!(gone, ["b", "d"]);
        let kept = memory.values().filter(|placed| placed.home.is_some());
        assert_eq!(kept.count(), 3, "the others keep their storage");
    }
}
