use aos_types::{ItemConfig, ResourceRatios};

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
    /// Requested, but at most the quota; without a request the Node's share of the quota; without a quota nothing.
    pub(crate) fn of(config: &ItemConfig, ratios: &ResourceRatios) -> Self {
        if config.skip_resource_limits {
            return Self::default();
        }
        let requested = config.requested_resources.unwrap_or_default();
        let quotas = &config.quotas;
        let amount = |requested: Option<u64>, quota: Option<u64>, ratio: Option<f64>| match (
            requested, quota,
        ) {
            (Some(requested), Some(quota)) => requested.min(quota),
            (Some(requested), None) => requested,
            (None, Some(quota)) => share(quota, ratio.unwrap_or(DEFAULT_RATIO)),
            (None, None) => 0,
        };
        Self {
            cpu: amount(requested.cpu, quotas.cpu_dmips_limit, ratios.cpu),
            ram: amount(requested.ram, quotas.ram_limit, ratios.ram),
            storage: amount(requested.storage, quotas.storage_limit, ratios.storage),
            state: amount(requested.state, quotas.state_limit, ratios.state),
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
