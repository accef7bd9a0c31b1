use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aos_types::ItemId;

use super::{Member, member::Edge};

/// Longest circle that is written out.
const MOST_NAMED: usize = 8;

/// Items that wait for themselves, with the shortest way round: `a → b → a`. Only instances that have not been started
/// wait, so an item that runs closes no circle.
pub(super) fn circles<'a>(
    members: &'a [Member],
    edges: &[Vec<Edge<'a>>],
) -> BTreeMap<&'a ItemId, String> {
    let mut next: BTreeMap<&ItemId, BTreeSet<&ItemId>> = BTreeMap::new();
    let mut names: BTreeMap<&ItemId, &str> = BTreeMap::new();
    for (member, edges) in members.iter().zip(edges) {
        if !member.progress.is_held() {
            continue;
        }
        for edge in edges {
            let held = |&on: &usize| members.get(on).is_some_and(|on| on.progress.is_held());
            if edge.on.iter().any(held) {
                next.entry(&member.ident.item)
                    .or_default()
                    .insert(edge.item);
                // A name that a publisher gave says more than an id.
                let name = names.entry(edge.item).or_insert(edge.name);
                if *name == edge.item.as_str() {
                    *name = edge.name;
                }
            }
        }
    }
    let name = |item: &ItemId| {
        names
            .get(item)
            .map_or(item.to_string(), |&name| name.into())
    };
    let mut circles = BTreeMap::new();
    for &start in next.keys() {
        if let Some(way) = way_back(start, &next) {
            let mut text: Vec<String> = way.iter().take(MOST_NAMED).map(|&one| name(one)).collect();
            if way.len() > MOST_NAMED {
                text.push("…".into());
            }
            text.push(name(start));
            circles.insert(start, text.join(" → "));
        }
    }
    circles
}

/// The shortest way from an item to itself, beginning with it.
fn way_back<'a>(
    start: &'a ItemId,
    next: &BTreeMap<&'a ItemId, BTreeSet<&'a ItemId>>,
) -> Option<Vec<&'a ItemId>> {
    let mut from: BTreeMap<&ItemId, &'a ItemId> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &to in next.get(at).into_iter().flatten() {
            if to == start {
                let mut way = vec![at];
                let mut back = at;
                while back != start {
                    back = from.get(back).copied()?;
                    way.push(back);
                }
                way.reverse();
                return Some(way);
            }
            if !from.contains_key(to) {
                from.insert(to, at);
                queue.push_back(to);
            }
        }
    }
    None
}
