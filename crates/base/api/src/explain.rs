use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ServiceRef;

/// `GET /units/{id}/explain/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// Id or codename of the service.
    pub service: String,
}

/// Outcome of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    /// It holds.
    Pass,
    /// It does not, and that is why the service is not as it should be.
    Fail,
    /// It is on its way: wait.
    Waiting,
    /// Not looked at, because an earlier rule does not hold.
    NotChecked,
}

/// One rule of the chain from assignment to running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedRule {
    /// Stable name of the rule, in this order: `unit_provisioned`, `assigned`, `version_ready`, `platform_fits`,
    /// `labels_fit` (if labels are asked for), `in_desired_state`, `unit_linked`, `acknowledged`, `installed`, `running`.
    pub rule: String,
    /// Its outcome.
    pub outcome: RuleOutcome,
    /// What was found.
    pub text: String,
    /// What to do if it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Why a service is or is not on a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// System id of the Unit.
    pub system_uid: String,
    /// The service.
    pub service: ServiceRef,
    /// Whether all rules hold.
    pub as_desired: bool,
    /// The answer in one sentence.
    pub summary: String,
    /// The rules in order; the first that fails is the reason.
    pub rules: Vec<ExplainedRule>,
}

/// `GET /units/{id}/why/`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// Id or codename of one service; all of the Unit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Where the update of a Unit stands, and where each of its instances is and why not elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitWhy {
    /// System id of the Unit.
    pub system_uid: String,
    /// What the Unit reports of the update as a whole: what it waits for, the next attempt, a rollback that fails.
    pub update: Vec<String>,
    /// The instances that are desired or reported, by service, subject and number.
    pub instances: Vec<InstanceWhy>,
}

/// Where one instance is and why not elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceWhy {
    /// The service.
    pub service: ServiceRef,
    /// For whom.
    pub subject: crate::SubjectRef,
    /// From 0.
    pub instance_id: u64,
    /// Whether the newest desired state asks for it.
    pub desired: bool,
    /// What the Unit reports; none if it does not speak of it.
    pub run_state: Option<String>,
    /// The Node it is on.
    pub node_id: Option<String>,
    /// What the Unit says of it: an instance that found no Node says here which were excluded by which rule.
    pub reported: Option<crate::ReportedError>,
    /// What it waits for, or what is wrong; none if it is as desired.
    pub waits_for: Option<String>,
    /// Why the Unit's scheduler gave it no place, or this one and not another.
    #[serde(default)]
    pub placement: Option<String>,
    /// Each Node of the Unit: as its scheduler says, else as far as the cloud can tell.
    pub nodes: Vec<NodeVerdict>,
}

/// Whether an instance may be on a Node, as the cloud knows it. The Unit's scheduler has the last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeVerdict {
    /// The Node.
    pub node_id: String,
    /// The rule that excludes it: `state`, `link`, `runtime`, `platform`, `labels` or `resources`; of the Unit's scheduler
    /// also `paused`, `elsewhere`, `port`, `runtime_type`, `cpu`, `ram`, `overload`, `storage`, `state_space` or
    /// `instances`. None: it may be there.
    pub excluded_by: Option<String>,
    /// The Unit's own scheduler says so; else it is what the cloud can tell.
    #[serde(default)]
    pub said_by_unit: bool,
    /// What was found.
    pub text: String,
}
