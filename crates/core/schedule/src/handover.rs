use std::collections::{BTreeMap, BTreeSet};

/// A Node before it is given its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<I> {
    /// What it runs.
    pub runs: BTreeSet<I>,
    /// Of that, what is of another version than shall run from now on.
    pub old: BTreeSet<I>,
    /// What it shall run and could not be installed there.
    pub unready: BTreeSet<I>,
    /// It is to stop whatever is not on its list, ready or not: it is paused.
    pub must_part: bool,
}

/// In which order Nodes are given their lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover<N, I> {
    /// First those that part with something, so that nothing runs twice.
    pub first: Vec<N>,
    /// Then all others.
    pub second: Vec<N>,
    /// These keep the list they have: they run something whose new place cannot start it. Each with one such instance and
    /// its new place.
    pub kept: BTreeMap<N, (I, N)>,
    /// What these Nodes shall run and one of those that keep their lists still runs: they are not given it yet.
    pub held_back: BTreeMap<N, BTreeSet<I>>,
}

/// Says in which order the Nodes that take orders are given their lists, and which keep theirs for now: an old version is not
/// stopped on one Node before the image of the new one is on the other. The same version may run there already, or a Node
/// that was lost may be back with it: that is parted with at once. `Holder`s of Nodes that cannot be reached are left out; what goes
/// there goes as if it were ready, as nobody can tell.
pub fn handover<N: Ord + Clone, I: Ord + Clone>(
    nodes: &BTreeMap<N, Holder<I>>,
    places: &BTreeMap<I, BTreeSet<N>>,
) -> Handover<N, I> {
    let mut kept: BTreeMap<N, (I, N)> = BTreeMap::new();
    // One that keeps its list does not take what others part with, so those keep theirs too.
    loop {
        let before = kept.len();
        for (node, holder) in nodes {
            if holder.must_part || kept.contains_key(node) {
                continue;
            }
            let blocked = parts(node, holder, places).find_map(|(instance, to)| {
                let new = nodes.get(to)?;
                let replaced = holder.old.contains(instance);
                let unready = (replaced && new.unready.contains(instance))
                    || (kept.contains_key(to) && !new.runs.contains(instance));
                unready.then(|| (instance.clone(), to.clone()))
            });
            if let Some(blocked) = blocked {
                kept.insert(node.clone(), blocked);
            }
        }
        if kept.len() == before {
            break;
        }
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (node, holder) in nodes {
        if kept.contains_key(node) {
            continue;
        }
        match parts(node, holder, places).next() {
            Some(_) => first.push(node.clone()),
            None => second.push(node.clone()),
        }
    }
    let mut held_back: BTreeMap<N, BTreeSet<I>> = BTreeMap::new();
    for (node, holder) in nodes.iter().filter(|(node, _)| kept.contains_key(*node)) {
        for (instance, to) in parts(node, holder, places) {
            // Where it runs already it is not started once more.
            if nodes.get(to).is_none_or(|to| !to.runs.contains(instance)) {
                let held = held_back.entry(to.clone()).or_default();
                held.insert(instance.clone());
            }
        }
    }
    Handover {
        first,
        second,
        kept,
        held_back,
    }
}

/// What a Node runs and another one shall run, with that one.
fn parts<'a, N: Ord, I: Ord>(
    node: &'a N,
    holder: &'a Holder<I>,
    places: &'a BTreeMap<I, BTreeSet<N>>,
) -> impl Iterator<Item = (&'a I, &'a N)> {
    let leaving = holder.runs.iter();
    leaving.flat_map(move |instance| {
        let to = places.get(instance).into_iter().flatten();
        to.filter(move |to| *to != node)
            .map(move |to| (instance, to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes by name: what each runs, shall run, and of that what is not there. One whose name begins with `p` must part.
    fn given(nodes: &[(&'static str, &str, &str, &str)]) -> Handover<&'static str, char> {
        let set = |text: &str| text.chars().collect::<BTreeSet<char>>();
        let mut places: BTreeMap<char, BTreeSet<&'static str>> = BTreeMap::new();
        let mut holders = BTreeMap::new();
        for (name, runs, shall_run, unready) in nodes {
            for one in shall_run.chars() {
                places.entry(one).or_default().insert(name);
            }
            let holder = Holder {
                runs: set(runs),
                old: set(if name.starts_with('s') { "" } else { runs }),
                unready: set(unready),
                must_part: name.starts_with('p'),
            };
            holders.insert(*name, holder);
        }
        handover(&holders, &places)
    }

    #[test]
    fn who_parts_with_something_comes_first() {
        let order = given(&[
            ("a", "xy", "x", ""),
            ("b", "", "y", ""),
            ("c", "z", "z", ""),
        ]);
        assert_eq!(
            (order.first, order.second, order.kept.len()),
            (vec!["a"], vec!["b", "c"], 0)
        );
    }

    #[test]
    fn nobody_parts_with_what_cannot_be_started_elsewhere() {
        // What goes from a to b is not there; so c cannot have what a gives it either, and keeps its own.
        let order = given(&[
            ("a", "x", "y", ""),
            ("b", "", "x", "x"),
            ("c", "y", "", ""),
            ("d", "z", "", ""),
        ]);
        assert_eq!(order.kept, [("a", ('x', "b")), ("c", ('y', "a"))].into());
        assert_eq!(order.second, ["b", "d"], "the others are not held up");
        let held = [("a", ['y'].into()), ("b", ['x'].into())];
        assert_eq!(order.held_back, held.into(), "nothing runs twice");
        // What is wanted nowhere any more, and what is new, waits for nobody.
        let order = given(&[("a", "x", "", ""), ("b", "", "y", "y")]);
        assert!(order.kept.is_empty());
    }

    #[test]
    fn the_same_version_is_parted_with_at_once() {
        let order = given(&[("s", "x", "", ""), ("b", "", "x", "x")]);
        assert_eq!((order.first, order.kept.len()), (vec!["s"], 0));
    }

    #[test]
    fn a_paused_node_parts_with_everything() {
        let order = given(&[("p", "x", "", ""), ("b", "", "x", "x")]);
        assert_eq!((order.first, order.kept.len()), (vec!["p"], 0));
    }

    #[test]
    fn two_that_exchange_wait_for_each_other() {
        let order = given(&[("a", "x", "y", ""), ("b", "y", "x", "x")]);
        assert_eq!(order.kept, [("a", ('x', "b")), ("b", ('y', "a"))].into());
        let order = given(&[("a", "x", "y", ""), ("b", "y", "x", "")]);
        assert_eq!(order.first, ["a", "b"]);
    }
}
