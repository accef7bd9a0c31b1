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
