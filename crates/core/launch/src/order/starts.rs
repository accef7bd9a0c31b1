use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use aos_types::{Dependency, InstanceIdent, ItemId, NodeId};

use super::{
    Member, Progress,
    circles::circles,
    member::{Edge, Holds, edges},
};

/// Longest reason, in characters.
const LONGEST: usize = 512;

/// What of the held instances may be started now, and why the others may not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Starts {
    /// These may start, in this order. What others wait for comes as early as the most important of them.
    pub go: Vec<InstanceIdent>,
    /// These may not.
    pub still: BTreeMap<InstanceIdent, Standstill>,
}

/// Why an instance is not started; the text is for people and names the whole chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standstill {
    /// What it waits for may still come.
    Waits(String),
    /// What it waits for is not expected to come.
    InVain(String),
}

/// What CM has told of the instances of each item on other Nodes. An item without any is wanted nowhere on the Unit.
pub type Elsewhere = BTreeMap<ItemId, Vec<Peer>>;

/// An instance on another Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where; `None` if it has no place.
    pub node: Option<NodeId>,
    /// Of which version.
    pub version: String,
    /// Whether it is meant to end by itself.
    pub ends: bool,
    /// How far it is.
    pub progress: Progress,
}

/// Says which of the held `members` may start.
///
/// A condition looks at all instances of the item that are on the Node; only if there is none, at what CM has told of
/// other Nodes. An item that CM has not spoken of holds an instance back as long as that is patient.
pub fn starts(members: &[Member], elsewhere: &Elsewhere) -> Starts {
    let edges = edges(members);
    let circles = circles(members, &edges);
    let order = others_first(members, &edges);
    let mut verdicts: Vec<Option<Standstill>> = members.iter().map(|_| None).collect();
    for &index in &order {
        let (Some(member), Some(edges)) = (members.get(index), edges.get(index)) else {
            continue;
        };
        let Progress::Held { patient } = member.progress else {
            continue;
        };
        let verdict = match circles.get(&member.ident.item) {
            Some(circle) => Some(Standstill::InVain(format!("depends on itself: {circle}"))),
            None => edges
                .iter()
                .map(|edge| judge(edge, patient, members, &verdicts, elsewhere))
                .fold(None, worse),
        };
        if let Some(slot) = verdicts.get_mut(index) {
            *slot = verdict;
        }
    }
    let priorities = priorities(members, &edges, &order);
    let mut starts = Starts::default();
    let mut go = Vec::new();
    for ((member, verdict), priority) in members.iter().zip(verdicts).zip(priorities) {
        match verdict {
            _ if !member.progress.is_held() => {}
            None => go.push((Reverse(priority), &member.ident)),
            Some(why) => {
                starts.still.insert(member.ident.clone(), why);
            }
        }
    }
    go.sort();
    starts.go = go.into_iter().map(|(_, ident)| ident.clone()).collect();
    starts
}

/// Of two reasons the one that is final, else the first.
fn worse(one: Option<Standstill>, other: Option<Standstill>) -> Option<Standstill> {
    match (&one, &other) {
        (None, _) | (Some(Standstill::Waits(_)), Some(Standstill::InVain(_))) => other,
        _ => one,
    }
}

fn judge(
    edge: &Edge<'_>,
    patient: bool,
    members: &[Member],
    verdicts: &[Option<Standstill>],
    elsewhere: &Elsewhere,
) -> Option<Standstill> {
    if edge.on.is_empty() {
        let dependency = edge.dependency.filter(|one| one.condition.requires())?;
        return judge_elsewhere(dependency, patient, elsewhere);
    }
    edge.on
        .iter()
        .filter_map(|&on| {
            let standstill = verdicts.get(on).and_then(Option::as_ref);
            judge_one(edge, members.get(on)?, standstill)
        })
        .fold(None, |one, other| worse(one, Some(other)))
}

fn judge_one(edge: &Edge<'_>, on: &Member, standstill: Option<&Standstill>) -> Option<Standstill> {
    let (name, wish) = (edge.name, wish(edge));
    let requires = edge.condition.requires();
    if let Some(why) = edge.dependency.and_then(|one| outside(one, &on.version)) {
        return Some(in_vain(format!("needs {name} {wish}, but {why}")));
    }
    match on.progress.meets(edge.condition, on.ends) {
        Holds::Yes => None,
        Holds::Never(why) => Some(in_vain(format!("needs {name} {wish}, but that {why}"))),
        Holds::NotYet(why) => match standstill {
            // It will not be started, so its turn is over.
            Some(Standstill::InVain(_)) if !requires => None,
            Some(Standstill::InVain(why)) => {
                Some(in_vain(format!("needs {name} {wish}, but {name} {why}")))
            }
            Some(Standstill::Waits(why)) => {
                Some(waits(format!("waits for {name} {wish}; {name} {why}")))
            }
            None => Some(waits(format!("waits for {name} {wish}, which {why}"))),
        },
    }
}

fn judge_elsewhere(
    dependency: &Dependency,
    patient: bool,
    elsewhere: &Elsewhere,
) -> Option<Standstill> {
    let (name, condition) = (dependency.name(), dependency.condition);
    let Some(peers) = elsewhere.get(&dependency.identifier) else {
        let why = format!(
            "waits for {name} to be {condition}, which is not on this Node; CM has not told how it is doing"
        );
        return patient.then(|| waits(why));
    };
    if peers.is_empty() {
        return Some(in_vain(format!(
            "needs {name} to be {condition}, but no instance of it is wanted on this Unit"
        )));
    }
    peers
        .iter()
        .filter_map(|peer| {
            if let Some(why) = outside(dependency, &peer.version) {
                return Some(in_vain(format!(
                    "needs {name} to be {condition}, but {why}"
                )));
            }
            let place = match &peer.node {
                Some(node) => format!(" on Node {node}"),
                None => String::new(),
            };
            match peer.progress.meets(condition, peer.ends) {
                Holds::Yes => None,
                Holds::NotYet(why) => Some(waits(format!(
                    "waits for {name}{place} to be {condition}, which {why}"
                ))),
                Holds::Never(why) => Some(in_vain(format!(
                    "needs {name}{place} to be {condition}, but that {why}"
                ))),
            }
        })
        .fold(None, |one, other| worse(one, Some(other)))
}

fn wish(edge: &Edge<'_>) -> String {
    if edge.condition.requires() {
        format!("to be {}", edge.condition)
    } else {
        "to be started first".into()
    }
}

fn outside(dependency: &Dependency, version: &str) -> Option<String> {
    let admitted = !dependency.condition.requires() || dependency.admits(version);
    (!admitted).then(|| {
        let range = &dependency.versions;
        format!("its version {version} is not within `{range}`")
    })
}

fn waits(text: String) -> Standstill {
    Standstill::Waits(bounded(text))
}

fn in_vain(text: String) -> Standstill {
    Standstill::InVain(bounded(text))
}

fn bounded(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The members such that what one is behind comes before it. What closes a circle is passed over.
fn others_first(members: &[Member], edges: &[Vec<Edge<'_>>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(members.len());
    let mut entered: BTreeSet<usize> = BTreeSet::new();
    for start in 0..members.len() {
        // What is left to look at, and whether all it is behind has been.
        let mut stack = vec![(start, false)];
        while let Some((at, done)) = stack.pop() {
            if done {
                order.push(at);
            } else if entered.insert(at) {
                stack.push((at, true));
                let next = edges.get(at).into_iter().flatten();
                stack.extend(next.flat_map(|edge| &edge.on).map(|&on| (on, false)));
            }
        }
    }
    order
}

/// The priority of each, at least that of everything held that is behind it.
fn priorities(members: &[Member], edges: &[Vec<Edge<'_>>], order: &[usize]) -> Vec<u64> {
    let mut priorities: Vec<u64> = members.iter().map(|member| member.priority).collect();
    for &index in order.iter().rev() {
        let Some(&own) = priorities.get(index) else {
            continue;
        };
        if !members.get(index).is_some_and(|one| one.progress.is_held()) {
            continue;
        }
        for &on in edges
            .get(index)
            .into_iter()
            .flatten()
            .flat_map(|edge| &edge.on)
        {
            if let Some(other) = priorities.get_mut(on) {
                *other = own.max(*other);
            }
        }
    }
    priorities
}
