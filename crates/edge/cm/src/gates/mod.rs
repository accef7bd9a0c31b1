//! The update gates as this Unit has them: how they are configured, what answers for the Unit, and what programs and people
//! on it may do about an update that waits. The rules are in `aos-update`.

mod command;
mod desk;
mod options;
mod readiness;
mod scheduler;
mod unit;
mod zone;

pub use options::{GateOptions, ReadinessOptions};

pub(crate) use desk::{Desk, Ordered};
pub(crate) use readiness::UnitReadiness;
pub(crate) use scheduler::Scheduler;
pub(crate) use unit::{consent, report_readiness, shown, start};
pub(crate) use zone::ZoneSource;

use std::time::Duration;

use aos_update::{GatePolicy, ReadinessPolicy};

/// The rules for the engine.
pub(crate) fn policy(options: &GateOptions, zone: &ZoneSource) -> GatePolicy {
    GatePolicy {
        zone: zone.now(),
        ttl: Duration::from_secs(options.ttl_secs),
        consent: options.consent.clone(),
        readiness: options.readiness.as_ref().map(|readiness| ReadinessPolicy {
            interval: readiness.interval(),
            deadline: Duration::from_secs(readiness.deadline_secs),
        }),
    }
}
