use std::collections::{BTreeMap, BTreeSet};

use aos_types::InstanceIdent;

use super::{Member, member::edges};

/// Those of `stopped` in the reverse order of starts: each wave after the one before it, all of a wave at once. What is
/// in a circle comes last, together.
pub fn stop_waves(
    members: &[Member],
    stopped: &BTreeSet<InstanceIdent>,
) -> Vec<Vec<InstanceIdent>> {
    let edges = edges(members);
    let ours: BTreeSet<usize> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| stopped.contains(&member.ident))
        .map(|(index, _)| index)
        .collect();
    // For each, how many of the others have to be stopped before it, and who waits for it.
    let mut first: BTreeMap<usize, usize> = ours.iter().map(|&index| (index, 0)).collect();
    let mut behind: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for &index in &ours {
        let on = edges.get(index).into_iter().flatten().flat_map(|e| &e.on);
        for &on in on.filter(|&&on| on != index && ours.contains(&on)) {
            if behind.entry(index).or_default().insert(on) {
                *first.entry(on).or_default() += 1;
            }
        }
    }
    let mut waves = Vec::new();
    while !first.is_empty() {
        let free = |(&index, &count): (&usize, &usize)| (count == 0).then_some(index);
        let mut wave: Vec<usize> = first.iter().filter_map(free).collect();
        if wave.is_empty() {
            wave = first.keys().copied().collect();
        }
        for index in &wave {
            first.remove(index);
            for on in behind.remove(index).unwrap_or_default() {
                if let Some(count) = first.get_mut(&on) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        let named = wave.iter().filter_map(|&index| members.get(index));
        waves.push(named.map(|member| member.ident.clone()).collect());
    }
    // What is not known here is stopped too.
    let known: BTreeSet<&InstanceIdent> = waves.iter().flatten().collect();
    let rest: Vec<InstanceIdent> = stopped
        .iter()
        .filter(|ident| !known.contains(ident))
        .cloned()
        .collect();
    if !rest.is_empty() {
        waves.push(rest);
    }
    waves
}
