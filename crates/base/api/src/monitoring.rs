use std::collections::BTreeMap;

use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{ServiceRef, Severity, SubjectRef};

/// Which usage is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MonitoringQuery {
    /// From this moment on; an hour before `datetime_till` if absent. `latest` gives only the last point of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datetime_from: Option<String>,
    /// Up to this moment; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub datetime_till: Option<Timestamp>,
    /// Most points of each Node and instance: 2 to 2000, 300 if absent. Of more the highest of each span is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u32>,
}

/// Usage at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePoint {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// DMIPS.
    pub cpu: u64,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes received in the present period (a day of UTC, unless the Unit counts otherwise), if they are counted.
    pub download: Option<u64>,
    /// Bytes sent in that period.
    pub upload: Option<u64>,
    /// Bytes used of partitions, by name; of an instance of `storages` and `states`.
    pub partitions: BTreeMap<String, u64>,
}

/// What is too much of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageLimit {
    /// `cpu` (DMIPS), `ram`, `download`, `upload`, or a partition (bytes).
    pub parameter: String,
    /// From this on an alert is raised.
    pub raise: Option<u64>,
    /// Below this it is over.
    pub fall: Option<u64>,
    /// More than this is not given.
    pub quota: Option<u64>,
}

/// Usage of a Node over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeUsage {
    /// Which.
    pub node_id: String,
    /// DMIPS of all its processors; 0 if not known.
    pub max_dmips: u64,
    /// Its memory in bytes; 0 if not known.
    pub total_ram: u64,
    /// Sizes of its partitions in bytes, by name.
    pub partitions: BTreeMap<String, u64>,
    /// What is too much, as its unit configuration says.
    pub limits: Vec<UsageLimit>,
    /// In the order of time. Between two of them it was about like the first: only changes are told.
    pub points: Vec<UsagePoint>,
}

/// Usage of an instance over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceUsage {
    /// Of which service.
    pub service: ServiceRef,
    /// For which Subject.
    pub subject: SubjectRef,
    /// From 0.
    pub instance_id: u64,
    /// Where it was.
    pub node_id: String,
    /// What is too much, as its version says.
    pub limits: Vec<UsageLimit>,
    /// In the order of time. Between two of them it was about like the first: only changes are told.
    pub points: Vec<UsagePoint>,
}

/// `GET /units/{id}/monitoring/`: what a Unit used, beside its limits and alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitMonitoring {
    /// From when on.
    #[schema(value_type = String, format = DateTime)]
    pub datetime_from: Timestamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub datetime_till: Timestamp,
    /// Nodes, by id.
    pub nodes: Vec<NodeUsage>,
    /// Instances.
    pub instances: Vec<InstanceUsage>,
    /// Alerts about usage that lasted at some moment of it.
    pub alerts: Vec<Alert>,
}

/// What kind of alert it is, as the Unit tags it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum AlertTag {
    /// From the log of a Node.
    #[serde(rename = "systemAlert")]
    System,
    /// From a component of AosCore.
    #[serde(rename = "coreAlert")]
    Core,
    /// A Node uses too much.
    #[serde(rename = "systemQuotaAlert")]
    SystemQuota,
    /// An instance uses too much.
    #[serde(rename = "instanceQuotaAlert")]
    InstanceQuota,
    /// A download broke off.
    #[serde(rename = "downloadProgressAlert")]
    DownloadProgress,
    /// An instance did not get something of a Node.
    #[serde(rename = "deviceAllocateAlert")]
    ResourceAllocate,
    /// Something is wrong with an instance.
    #[serde(rename = "updateItemInstanceAlert")]
    Instance,
}

/// Whether an alert goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It goes on.
    Active,
    /// It is over.
    Ended,
    /// It was of one moment.
    Once,
}

/// An alert of a Unit. One that goes on, or that is told again and again, is one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Grows with time.
    pub id: i64,
    /// Which Unit.
    pub unit_id: Uuid,
    /// What it calls itself.
    pub system_uid: String,
    /// Its name for people; may be empty.
    pub unit_title: String,
    /// What kind.
    pub tag: AlertTag,
    /// How much it matters.
    pub severity: Severity,
    /// Whether it goes on.
    pub state: AlertState,
    /// When it began, by the Unit's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// When it was told last.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Timestamp,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// How often it was told.
    pub count: u64,
    /// The Node, if it is about one.
    pub node_id: Option<String>,
    /// The service, if it is about an instance.
    pub service: Option<ServiceRef>,
    /// The Subject, if it is about an instance.
    pub subject: Option<SubjectRef>,
    /// The instance, if it is about one.
    pub instance_id: Option<u64>,
    /// Of what too much is used: `cpu`, `ram`, `download`, `upload` or a partition.
    pub parameter: Option<String>,
    /// How much it was when it was told last: DMIPS for `cpu`, else bytes.
    pub value: Option<u64>,
    /// What happened, for people.
    pub text: String,
}

/// Which alerts are wanted; all filters must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AlertsQuery {
    /// Only of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<AlertTag>,
    /// Only in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AlertState>,
    /// Only of this severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Only about this Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only about instances of this service: id or codename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only those that were told at this moment or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub datetime_from: Option<Timestamp>,
    /// Only those whose text holds this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Most elements on the page: 1 to 1000, 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many elements to leave out at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
}

impl AlertsQuery {
    /// Its part that pages.
    pub fn list(&self) -> crate::ListQuery {
        crate::ListQuery {
            limit: self.limit,
            offset: self.offset,
            search: self.search.clone(),
        }
    }
}
