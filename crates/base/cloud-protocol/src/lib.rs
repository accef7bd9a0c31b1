//! The messages between a Unit and the cloud: protocol version 7, JSON in WebSocket frames (`docs/protocol/unit-cloud.md`).
//!
//! A [`Message`] is a header and one [`Body`] of 26. [`Message::encode`] writes it, [`decode`] reads it. Two families of
//! peers are in the field and spell some fields differently, so the rule is: read every spelling, write one. A Unit
//! writes what the public v7 schema accepts, the cloud writes what AosCore 9.1 reads; since every body goes one way only,
//! each has one spelling.
//!
//! Reading never guesses that something should go away. In a list that says what a Unit should have, `None` means the
//! peer said nothing, an empty list means "none of them", and an element that cannot be read is neither: it is listed in
//! [`Decoded::unreadable`] with the name it carries if that much is readable, so that the receiver can keep what it
//! names, or the whole list. There are no built-in limits on the number of anything; [`Caps`] are guards against hostile
//! peers and say so when they are reached.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod alerts;
mod binary;
mod blobs;
mod certificates;
mod desired;
mod discovery;
mod env_vars;
mod envelope;
mod header;
mod identity;
mod logs;
mod monitoring;
mod provisioning;
mod reading;
mod secret;
mod state;
mod status;
mod update;
mod writing;

pub use alerts::{Alert, AlertEvent, Alerts, DownloadState, QuotaState};
pub use blobs::{
    BlobUrl, BlobUrls, DecryptInfo, FileHash, KeyReceiver, RequestBlobUrls, SignInfo, Undelivered,
};
pub use certificates::{
    CertType, CertificateRequest, InstallUnitCertificatesConfirmation, InstalledCertificate,
    IssueUnitCertificates, IssuedCertificate, IssuedUnitCertificates, NodeSecret, RenewCertificate,
    RenewCertificatesNotification, UnitSecrets,
};
pub use desired::{
    Certificate, CertificateChain, DesiredInstances, DesiredItem, DesiredNode, DesiredNodeState,
    DesiredStatus, DesiredSubject,
};
pub use discovery::{DiscoveryError, DiscoveryRequest, DiscoveryResponse};
pub use env_vars::{
    EnvVar, EnvVarStatus, EnvVarsOverride, InstanceFilter, OverrideEnvVars, OverrideEnvVarsStatus,
};
pub use envelope::{
    Body, DecodeError, Decoded, Header, Message, MessageType, Nack, PROTOCOL_VERSION, Reason,
    decode,
};
pub use identity::ItemIdentity;
pub use logs::{LogFilter, LogStatus, LogType, PushLog, RequestLog, UploadOptions, UploadType};
pub use monitoring::{
    InstanceMonitoring, InstanceStateAt, MonitoringData, NodeMonitoring, NodeStateAt,
    PartitionUsage, Usage,
};
pub use provisioning::{
    DeprovisioningRequest, DeprovisioningResponse, FinishProvisioningRequest,
    FinishProvisioningResponse, ProvisioningCertificate, ProvisioningCsr, StartProvisioningRequest,
    StartProvisioningResponse,
};
pub use reading::{Caps, Named, Unreadable};
pub use secret::Secret;
pub use state::{NewState, StateAcceptance, StateRequest, StateResult, UpdateState};
pub use status::{
    InstanceStatus, InstancesStatus, ItemStatus, NodeStatus, UnitConfigStatus, UnitStatus,
};
pub use update::{
    ExcludedNode, PlacementStatus, UpdateFailure, UpdatePart, UpdateStage, UpdateStatus, UpdateWait,
};
