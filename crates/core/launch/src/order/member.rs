use std::{borrow::Cow, collections::BTreeMap};

use aos_types::{Condition, Dependency, InstanceIdent, ItemId};

/// An instance of the Node, as others of it wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub ident: InstanceIdent,
    /// The version of its item.
    pub version: String,
    /// Higher is started first.
    pub priority: u64,
    /// What its item says.
    pub dependencies: Vec<Dependency>,
    /// Whether it is meant to end by itself.
    pub ends: bool,
    /// How far it is.
    pub progress: Progress,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It shall run and was not started yet; `patient` as long as it waits for news of other Nodes.
    Held {
        /// False when it has waited for them long enough.
        patient: bool,
    },
    /// It is being started, or started again.
    Starting,
    /// Its process is there; its health check has not succeeded.
    Started,
    /// It is active.
    Healthy,
    /// It has ended as it was meant to.
    Completed,
    /// It is not expected to come up; this is why.
    Failed(String),
    /// It is stopped for the time being by a rule of its item.
    Resting,
    /// Nobody can tell, as its Node is away. Only of instances on other Nodes.
    Unknown,
}

/// What a condition makes of the progress of one instance.
pub(super) enum Holds<'a> {
    Yes,
    NotYet(&'static str),
    Never(Cow<'a, str>),
}

impl Progress {
    /// What `condition` makes of this; `ends` says whether the instance is meant to end by itself.
    pub(super) fn meets(&self, condition: Condition, ends: bool) -> Holds<'_> {
        use Condition::{After, Before, Completed, Healthy, Started};
        let ready = match (condition, self) {
            // Nothing is asked of the other, only that its turn is over.
            (Before, _) => true,
            (After, Self::Started | Self::Healthy | Self::Completed) => true,
            (After, Self::Failed(_) | Self::Resting) => true,
            (Started, Self::Started | Self::Healthy | Self::Completed) => true,
            (Healthy, Self::Healthy | Self::Completed) => true,
            (Completed, Self::Completed) => true,
            _ => false,
        };
        if ready {
            return Holds::Yes;
        }
        match self {
            Self::Failed(why) => Holds::Never(format!("has failed: {why}").into()),
            _ if condition == Completed && !ends => {
                Holds::Never("never completes: its `restartPolicy` is `always`".into())
            }
            Self::Held { .. } => Holds::NotYet("waits itself"),
            Self::Starting => Holds::NotYet("is being started"),
            Self::Started if condition == Healthy => Holds::NotYet("is not healthy yet"),
            Self::Resting => Holds::NotYet("rests while the Unit is offline"),
            Self::Unknown => Holds::NotYet("cannot be asked, as its Node is away"),
            Self::Started | Self::Healthy | Self::Completed => Holds::NotYet("still runs"),
        }
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

/// One thing that a member is behind: `on` are the instances it looks at.
pub(super) struct Edge<'a> {
    pub(super) condition: Condition,
    pub(super) item: &'a ItemId,
    /// What people call that item.
    pub(super) name: &'a str,
    /// Nothing for the reverse of a `before`.
    pub(super) dependency: Option<&'a Dependency>,
    pub(super) on: Vec<usize>,
}

/// What each member is behind, in the order of the list.
pub(super) fn edges(members: &[Member]) -> Vec<Vec<Edge<'_>>> {
    let mut of_item: BTreeMap<&ItemId, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        of_item.entry(&member.ident.item).or_default().push(index);
    }
    let on = |item: &ItemId| of_item.get(item).cloned().unwrap_or_default();
    let mut edges: Vec<Vec<Edge<'_>>> = members
        .iter()
        .map(|member| {
            member
                .dependencies
                .iter()
                .filter(|dependency| dependency.condition != Condition::Before)
                .map(|dependency| Edge {
                    condition: dependency.condition,
                    item: &dependency.identifier,
                    name: dependency.name(),
                    dependency: Some(dependency),
                    on: on(&dependency.identifier),
                })
                .collect()
        })
        .collect();
    for (index, member) in members.iter().enumerate() {
        let before = |dependency: &&Dependency| dependency.condition == Condition::Before;
        for dependency in member.dependencies.iter().filter(before) {
            for later in on(&dependency.identifier) {
                if let Some(edges) = edges.get_mut(later) {
                    edges.push(Edge {
                        condition: Condition::After,
                        item: &member.ident.item,
                        name: member.ident.item.as_str(),
                        dependency: None,
                        on: vec![index],
                    });
                }
            }
        }
    }
    edges
}
