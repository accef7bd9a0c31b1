use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aos_ipc::{convert::ident_to_proto, proto::aos::unit::v1 as pb};
use aos_schedule::{Exclusions, Plan};
use aos_types::{InstanceIdent, InstanceState, ItemId, NodeId, NodeState, SubjectId};
use aos_update::{Direction, Target, UpdatePart, WantedInstance};
use tokio::sync::watch;

use crate::{
    placing::Lists,
    states::Waiting,
    status::EngineStatus,
    updates::InForce,
    world::{KnownNode, World},
};

/// Most instances one answer speaks of.
const MOST: usize = 500;
/// Most Nodes that are named for one instance.
const MOST_NODES: usize = 100;
/// Longest text of one reason, in characters.
const LONGEST: usize = 1024;

/// Which instances are meant; what is `None` means any.
#[derive(Debug, Default)]
pub(super) struct Question {
    pub(super) item: Option<ItemId>,
    pub(super) subject: Option<SubjectId>,
    pub(super) index: Option<u64>,
}

impl Question {
    fn means(&self, ident: &InstanceIdent) -> bool {
        self.item.as_ref().is_none_or(|item| *item == ident.item)
            && self
                .subject
                .as_ref()
                .is_none_or(|subject| *subject == ident.subject)
            && self.index.is_none_or(|index| index == ident.index)
    }
}

/// Where the answers come from.
pub(crate) struct Explainer {
    pub(crate) world: Arc<World>,
    pub(crate) lists: watch::Receiver<Arc<Lists>>,
    pub(crate) states: watch::Receiver<Waiting>,
    pub(crate) plan: watch::Receiver<Arc<Plan>>,
    pub(crate) engine: watch::Receiver<Arc<EngineStatus>>,
    pub(crate) in_force: watch::Receiver<InForce>,
    pub(crate) connected: watch::Receiver<bool>,
}

impl Explainer {
    pub(super) fn answer(&self, question: &Question) -> pb::WhyResponse {
        let facts = Facts {
            world: self.world.nodes(),
            lists: self.lists.borrow().clone(),
            states: self.states.borrow().clone(),
            plan: self.plan.borrow().clone(),
            engine: self.engine.borrow().clone(),
            in_force: self.in_force.borrow().target.clone(),
            connected: *self.connected.borrow(),
        };
        facts.answer(question)
    }
}

/// All that is known at one moment.
struct Facts {
    world: BTreeMap<NodeId, KnownNode>,
    lists: Arc<Lists>,
    states: Waiting,
    plan: Arc<Plan>,
    engine: Arc<EngineStatus>,
    in_force: Arc<Target>,
    connected: bool,
}

fn reason(stage: &str, holds: bool, text: impl Into<String>) -> pb::Reason {
    let text: String = text.into();
    pb::Reason {
        stage: stage.into(),
        holds,
        text: text.chars().take(LONGEST).collect(),
        node_id: String::new(),
    }
}

fn of_node(node: &NodeId, mut reason: pb::Reason) -> pb::Reason {
    reason.node_id = node.to_string();
    reason
}

impl Facts {
    fn answer(&self, question: &Question) -> pb::WhyResponse {
        let mut wanted: Vec<WantedInstance> = self.newest().wanted_instances().collect();
        let known: BTreeSet<InstanceIdent> =
            wanted.iter().map(|wanted| wanted.ident.clone()).collect();
        // Components that run in every runtime, and what runs although it is no longer desired.
        let placed = self.lists.placed().map(|(_, order)| WantedInstance {
            ident: order.ident.clone(),
            version: order.version.clone(),
        });
        wanted.extend(placed.filter(|placed| !known.contains(&placed.ident)));
        wanted.retain(|wanted| question.means(&wanted.ident));
        let left_out = wanted.len().saturating_sub(MOST) as u64;
        pb::WhyResponse {
            unit: self.unit(),
            chains: wanted
                .iter()
                .take(MOST)
                .map(|one| self.chain(one))
                .collect(),
            left_out,
        }
    }

    /// The set that is being reached, or is in force.
    fn newest(&self) -> &Target {
        let cycle = self.engine.cycle.as_ref();
        cycle.map_or(&self.in_force, |cycle| {
            cycle.next.as_ref().unwrap_or_else(|| cycle.asked())
        })
    }

    fn unit(&self) -> Vec<pb::Reason> {
        let mut reasons = vec![match self.connected {
            true => reason("link", true, "the cloud is connected"),
            false => reason(
                "link",
                false,
                "the cloud is not connected: what it last asked for counts",
            ),
        }];
        let (cycle, failure) = (&self.engine.cycle, &self.engine.failure);
        if let Some(cycle) = cycle {
            let until = cycle
                .deadline
                .map(|at| format!(", at most until {at}"))
                .unwrap_or_default();
            let what = match cycle.direction {
                Direction::Forward => "an update is",
                Direction::Back => "the Unit goes back to what ran before:",
            };
            let text = format!("{what} {}{until}", cycle.state);
            reasons.push(reason("update", false, text));
        }
        if let Some(failure) = failure {
            let text = format!(
                "the last update failed while {}: {} ({})",
                failure.state,
                failure.failures.summary().unwrap_or_default(),
                failure.outlook()
            );
            reasons.push(reason("update", false, text));
        }
        if cycle.is_none() && failure.is_none() {
            reasons.push(reason("update", true, "no update is under way"));
        }
        let parts = UpdatePart::ALL.map(|part| (part, self.engine.parts.of(part)));
        reasons.extend(parts.into_iter().filter_map(|(part, status)| {
            let waits = status.waits.as_ref()?;
            Some(reason(
                "update",
                false,
                format!("its {part} part waits: {waits}"),
            ))
        }));
        if let Some(rollback) = &self.engine.rollback {
            reasons.push(reason("rollback", false, rollback.to_string()));
        }
        reasons
    }

    fn chain(&self, wanted: &WantedInstance) -> pb::Chain {
        let mut reasons: Vec<pb::Reason> = self.item(wanted).into_iter().collect();
        reasons.extend(self.placement(wanted));
        pb::Chain {
            instance: Some(ident_to_proto(&wanted.ident)),
            version: wanted.version.clone(),
            as_desired: reasons.iter().all(|reason| reason.holds),
            reasons,
        }
    }

    /// How far its item is.
    fn item(&self, wanted: &WantedInstance) -> Option<pb::Reason> {
        let items = &self.engine.items;
        let item = items
            .iter()
            .find(|item| item.id == wanted.ident.item && item.version == wanted.version)?;
        let holds = item.state == aos_types::ItemState::Installed;
        let text = match &item.error {
            Some(error) => format!("version {} is {}: {error}", item.version, item.state),
            None => format!("version {} is {}", item.version, item.state),
        };
        Some(reason("item", holds, text))
    }

    fn placement(&self, wanted: &WantedInstance) -> Vec<pb::Reason> {
        let disabled = &self.lists.disabled;
        if let Some(disabled) = disabled.iter().find(|one| one.ident == wanted.ident) {
            return vec![reason("subject", false, &disabled.reason)];
        }
        let unplaced = &self.lists.unplaced;
        if let Some(unplaced) = unplaced.iter().find(|one| one.ident == wanted.ident) {
            let mut reasons = vec![reason("placement", false, &*unplaced.reason)];
            reasons.extend(self.excluded(&unplaced.excluded, false));
            return reasons;
        }
        let mut placed = self.lists.placed();
        let Some((node, order)) = placed.find(|(_, order)| order.ident == wanted.ident) else {
            return vec![reason(
                "placement",
                false,
                "it has not been placed yet: the update has not come so far",
            )];
        };
        let current = order.version == wanted.version;
        let planned = self.plan.placed.iter().find(|one| {
            one.ident == wanted.ident && one.node == *node && one.version == order.version
        });
        let why = planned
            .map(|one| format!(": {}", one.why))
            .unwrap_or_default();
        let text = match current {
            true => format!("its place is {node}, runtime {}{why}", order.runtime),
            false => format!(
                "version {} still has its place on {node}{why}",
                order.version
            ),
        };
        let mut reasons = vec![of_node(node, reason("placement", current, text))];
        reasons.extend(
            planned
                .iter()
                .flat_map(|one| self.excluded(&one.excluded, true)),
        );
        reasons.push(of_node(node, self.node(node)));
        reasons.push(of_node(node, self.instance(node, wanted)));
        reasons
    }

    /// The Nodes that were not taken, each with the rule that stopped it.
    fn excluded(&self, exclusions: &Exclusions, holds: bool) -> Vec<pb::Reason> {
        let excluded = self.plan.excluded(exclusions).take(MOST_NODES);
        excluded
            .map(|(node, rule)| {
                let text = format!("{node} was not taken: {rule}");
                of_node(node, reason("placement", holds, text))
            })
            .collect()
    }

    fn node(&self, id: &NodeId) -> pb::Reason {
        let Some(node) = self.world.get(id) else {
            return reason("node", false, format!("{id} is not a Node of this Unit"));
        };
        match (&node.info.state, &node.info.error) {
            (NodeState::Provisioned, _) if node.is_ready() => {
                reason("node", true, format!("{id} is connected"))
            }
            (NodeState::Provisioned, _) => reason(
                "node",
                false,
                format!("{id} is provisioned, its SM is not connected"),
            ),
            (state, Some(error)) => reason("node", false, format!("{id} is {state}: {error}")),
            (state, None) => reason("node", false, format!("{id} is {state}")),
        }
    }

    fn instance(&self, node: &NodeId, wanted: &WantedInstance) -> pb::Reason {
        let there = (node.clone(), wanted.ident.clone());
        let node = self.world.get(node);
        let sm = node.as_ref().and_then(|node| node.sm.as_ref());
        let report = sm.and_then(|sm| Some((sm, sm.instances.as_ref()?.get(&wanted.ident)?)));
        let Some((sm, report)) = report else {
            return match self.states.get(&there) {
                Some(waits) => reason("instance", false, waits.why().to_string()),
                None => reason("instance", false, "its Node has not reported it"),
            };
        };
        // Inactive and nothing to complain of: it was meant to end, and has.
        let completed = report.state == InstanceState::Inactive && report.error.is_none();
        let up = report.state == InstanceState::Active || completed;
        let holds = up && report.version == wanted.version;
        let mut text = match completed {
            true => format!("version {} has completed", report.version),
            false => format!("version {} is {}", report.version, report.state),
        };
        if let Some(error) = &report.error {
            text.push_str(&format!(": {error}"));
        }
        if let Some(run) = sm.run_of(report).filter(|run| run.restarts > 0) {
            text.push_str(&format!("; restarts so far: {}", run.restarts));
            if let Some(how) = &run.last_exit {
                text.push_str(&format!(", the last run {how}"));
            }
        }
        reason("instance", holds, text)
    }
}
