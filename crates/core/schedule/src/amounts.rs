use aos_types::{ItemConfig, ResourceRatios};

use crate::Defaults;

/// The share of a quota to set aside when neither the item nor the Node says anything, in percent.
const DEFAULT_RATIO: f64 = 50.0;

/// What is set aside for one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts {
    pub(crate) cpu: u64,
    pub(crate) ram: u64,
    pub(crate) storage: u64,
    pub(crate) state: u64,
}

impl Amounts {
    /// Requested, but at most the quota; without a request the Node's share of the quota; without a quota what `defaults`
    /// say, so that nothing is given away without limit. Without a quota there is no storage and no state.
    pub(crate) fn of(config: &ItemConfig, ratios: &ResourceRatios, defaults: &Defaults) -> Self {
        if config.skip_resource_limits {
            return Self::default();
        }
        let requested = config.requested_resources.unwrap_or_default();
        let quotas = &config.quotas;
        let amount =
            |requested: Option<u64>, quota: Option<u64>, ratio, default| match (requested, quota) {
                (Some(requested), Some(quota)) => requested.min(quota),
                (Some(requested), None) => requested,
                (None, Some(quota)) => share(quota, Option::unwrap_or(ratio, DEFAULT_RATIO)),
                (None, None) => default,
            };
        let kept = |requested, quota: Option<u64>, ratio| match quota {
            Some(limit) if limit > 0 => amount(requested, quota, ratio, 0),
            _ => 0,
        };
        Self {
            cpu: amount(
                requested.cpu,
                quotas.cpu_dmips_limit,
                ratios.cpu,
                defaults.cpu,
            ),
            ram: amount(requested.ram, quotas.ram_limit, ratios.ram, defaults.ram),
            storage: kept(requested.storage, quotas.storage_limit, ratios.storage),
            state: kept(requested.state, quotas.state_limit, ratios.state),
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share in percent is not exact anyway, and is within 0 and the quota"
)]
fn share(quota: u64, percent: f64) -> u64 {
    ((quota as f64) * percent.clamp(0.0, 100.0) / 100.0) as u64
}
