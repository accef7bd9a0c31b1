//! The words of the field as types: identifiers, digests, states, the ident of an instance, the error that travels.
//!
//! Every other crate speaks in these. They hold no I/O and no clock; what they add to plain strings is that a value which
//! exists is valid. An identifier can always be one path component, a [`Digest`] is always 64 hex digits, so neither can
//! be used to reach outside a folder. The meanings come from AosEdge 9 (`docs/protocol/`).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod alert_rules;
mod dependency;
mod digest;
pub mod duration;
mod egress;
mod error_info;
mod health_check;
mod id;
mod image_user;
mod instance;
mod isolation;
mod item_config;
mod item_rules;
mod node;
mod schedule;
mod state;
mod state_checksum;
pub mod tolerant;
mod unit_config;

pub use alert_rules::{AlertRule, AlertRules, PartitionAlertRule};
pub use dependency::{Condition, Dependency, RestartPolicy};
pub use digest::{Digest, ParseDigestError};
pub use egress::{EgressRule, MAX_EGRESS, address_range};
pub use error_info::{AosCode, ErrorInfo};
pub use health_check::{HealthCheck, Probe};
pub use id::{InvalidId, ItemId, NodeId, OwnerId, RuntimeId, SubjectId, SystemId};
pub use image_user::{Account, ImageUser, NoSignal, NoUser, StopSignal};
pub use instance::{InstanceIdent, ItemType};
pub use isolation::{Capabilities, Capability, RootAccess};
pub use item_config::{
    AllowedConnection, BalancingPolicy, CONTAINERS, ConfigError, ItemConfig, ItemResource,
    MAX_CONFIG_BYTES, Protocol, PublishedPort, Quotas, RequestedResources, RunParameters,
    StoragePolicy,
};
pub use item_rules::{MAX_STOP_GRACE, is_own_sysctl};
pub use node::{ArchInfo, CpuInfo, NodeInfo, NodeResource, OsInfo, PartitionInfo, RuntimeInfo};
pub use schedule::{
    MAX_SLOTS, Schedule, ScheduleRule, TimeOfDay, TimeSlot, Timetable, TimetableEntry,
};
pub use state::{InstanceState, ItemState, NodeState, SubjectType, UnitConfigState, UnknownState};
pub use state_checksum::state_checksum;
pub use unit_config::{NodeConfig, ResourceRatios, UnitConfig};
