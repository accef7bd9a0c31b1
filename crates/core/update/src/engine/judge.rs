use std::collections::{BTreeSet, HashMap};

use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemId, SubjectId};

use super::{Engine, Step, failing::by_item};
use crate::{DesiredItem, Direction, Failures, InstanceView, Target, UpdateState, WantedInstance};

/// What a set has, for many questions at a time.
struct Index<'a> {
    items: HashMap<&'a ItemId, &'a DesiredItem>,
    entries: HashMap<(&'a ItemId, &'a SubjectId), u64>,
}

impl<'a> Index<'a> {
    fn of(set: &'a Target) -> Self {
        let entries = set.instances.iter();
        Self {
            items: set.items_by_id(),
            entries: entries
                .map(|entry| (entry.key(), entry.num_instances))
                .collect(),
        }
    }

    fn has(&self, ident: &InstanceIdent) -> bool {
        let count = self.entries.get(&(&ident.item, &ident.subject));
        count.is_some_and(|count| ident.index < *count || *count == 0)
    }

    /// Whether `target` brings this instance, or another version of it.
    fn is_changed_by(&self, target: &Self, ident: &InstanceIdent) -> bool {
        let (before, after) = (self.items.get(&ident.item), target.items.get(&ident.item));
        let same = before
            .zip(after)
            .is_some_and(|(one, other)| one.same_content(other));
        !(same && self.has(ident))
    }
}

/// What follows from the end of a step.
pub(super) enum Outcome {
    /// The next step.
    GoesOn,
    /// The update has failed.
    Fails,
    /// Independent items have failed, and this is what is said of them; the rest goes on without them.
    WithoutThem(Failures),
}

/// How the instances in question stand.
#[derive(Default)]
struct Standing {
    failures: Failures,
    waiting: bool,
    /// Of all of them together.
    restarts: u64,
}

/// Whether it went well.
impl Engine {
    /// What these failures mean for the update. Trouble with what it does not change, or with a Node that none of its changes
    /// needs, means nothing.
    pub(super) fn outcome(&self, step: Step, failures: &Failures) -> Outcome {
        let Some(cycle) = &self.record.cycle else {
            return Outcome::GoesOn;
        };
        let (before, target) = (Index::of(&self.record.committed), Index::of(&cycle.target));
        let changed = |ident: &&InstanceIdent| before.is_changed_by(&target, ident);
        let nodes_decide = match step {
            Step::NodeStates => true,
            Step::UnitConfig => cycle.target.unit_config != self.record.committed.unit_config,
            _ => false,
        };
        let of_all = failures.unit_config.is_some()
            || failures.step.is_some()
            || (nodes_decide && !failures.nodes.is_empty());
        let instances = failures.instances.keys().filter(changed);
        let decisive: BTreeSet<ItemId> = instances
            .map(|ident| ident.item.clone())
            .chain(failures.items.keys().cloned())
            .collect();
        let relevant = of_all || !decisive.is_empty();
        let policy = self.config.policy;
        if !policy.ends_update(cycle.state, failures, relevant) {
            return Outcome::GoesOn;
        }
        if of_all || !self.may_fail_alone(&decisive) {
            return Outcome::Fails;
        }
        let mut items = by_item(failures);
        items.retain(|id, _| decisive.contains(id));
        let mut instances = failures.instances.clone();
        instances.retain(|ident, _| decisive.contains(&ident.item));
        Outcome::WithoutThem(Failures {
            items,
            instances,
            ..Failures::default()
        })
    }

    /// Whether an update is left without these items, and they may fail alone.
    fn may_fail_alone(&self, items: &BTreeSet<ItemId>) -> bool {
        let committed = &self.record.committed;
        let Some(cycle) = &self.record.cycle else {
            return false;
        };
        let independent = |id: &ItemId| {
            let item = cycle.target.item(id).or_else(|| committed.item(id));
            item.is_some_and(|item| self.config.policy.may_fail_alone(item))
        };
        !items.is_empty()
            && items.iter().all(independent)
            && !cycle
                .target
                .without(items, committed)
                .asks_the_same(committed)
    }

    /// In WaitingActive: whether it is over, one way or the other.
    pub(super) fn judge(&mut self, now: Timestamp) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        if cycle.state != UpdateState::WaitingActive {
            return;
        }
        let over = cycle.deadline.is_some_and(|at| now >= at);
        if cycle.direction == Direction::Back {
            let items = cycle.undo.as_ref().map(|undo| &undo.items);
            let standing = self.look(&cycle.target, over, |ident| {
                items.is_some_and(|items| items.contains(&ident.item))
            });
            let waits = standing.waiting && self.config.policy.judges_back();
            if !standing.failures.is_empty() || !waits {
                self.back_ended(now, standing.failures);
            }
            return;
        }
        let (before, target) = (Index::of(&self.record.committed), Index::of(&cycle.target));
        let standing = self.look(&cycle.target, over, |ident| {
            before.is_changed_by(&target, ident)
        });
        let failed: BTreeSet<ItemId> = by_item(&standing.failures).into_keys().collect();
        if failed.is_empty() && !standing.waiting {
            if self.has_settled(now, standing.restarts) {
                self.enter(now, UpdateState::Finalizing);
            } else if over {
                self.fail(now, self.not_settled());
            }
            return;
        }
        self.settling = None;
        if failed.is_empty() {
            // Some may still come up.
        } else if !self.may_fail_alone(&failed) {
            self.fail(now, standing.failures);
        } else if !standing.waiting {
            // The others are up: those that failed alone go back by themselves.
            let mut failures = standing.failures;
            failures.items = by_item(&failures);
            self.set_aside(now, Step::Launch, failures);
        }
    }

    /// How the instances of `target` that `counts` names stand. `over`: what is not up by now has failed.
    fn look(
        &self,
        target: &Target,
        over: bool,
        counts: impl Fn(&InstanceIdent) -> bool,
    ) -> Standing {
        let mut standing = Standing::default();
        for wanted in target
            .wanted_instances()
            .filter(|wanted| counts(&wanted.ident))
        {
            let view = self.instances.get(&wanted.ident);
            self.one(&mut standing, wanted, view, over);
        }
        for (entry, item) in target.wanted_everywhere() {
            let of_entry = |ident: &&InstanceIdent| {
                (&ident.item, &ident.subject) == entry.key() && !ident.preinstalled
            };
            let placed: Vec<&InstanceIdent> = self.instances.keys().filter(of_entry).collect();
            // None at all: the Nodes have not said yet.
            let first = InstanceIdent {
                item: entry.item.clone(),
                subject: entry.subject.clone(),
                index: 0,
                item_type: item.item_type,
                preinstalled: false,
            };
            let idents = if placed.is_empty() {
                vec![&first]
            } else {
                placed
            };
            for ident in idents.into_iter().filter(|ident| counts(ident)) {
                let wanted = WantedInstance {
                    ident: ident.clone(),
                    version: item.version.clone(),
                };
                let view = self.instances.get(ident);
                self.one(&mut standing, wanted, view, over);
            }
        }
        standing
    }

    fn one(
        &self,
        standing: &mut Standing,
        wanted: WantedInstance,
        view: Option<&InstanceView>,
        over: bool,
    ) {
        let policy = self.config.policy;
        let view = view.filter(|view| view.version == wanted.version);
        standing.restarts += view.map_or(0, |view| u64::from(view.restarts));
        if view.is_some_and(|view| policy.is_up(view)) {
            return;
        }
        let own = || view.and_then(|view| view.error.clone());
        let error = if view.is_some_and(|view| policy.is_lost(view)) {
            own().unwrap_or_else(|| {
                ErrorInfo::new(AosCode::Failed, "the instance failed without saying why")
            })
        } else if over {
            let why = own().map_or(String::new(), |error| format!(" (last error: {error})"));
            let text = format!("did not become active in time{why}; look at its log and its Node");
            ErrorInfo::new(AosCode::Timeout, text)
        } else {
            standing.waiting = true;
            return;
        };
        standing.failures.instances.insert(wanted.ident, error);
    }
}
