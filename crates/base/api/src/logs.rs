use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{ServiceRef, SubjectRef};

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// What the system of a Node says: its journal, or the kernel's log and that of AosCore.
    System,
    /// What instances write.
    Instance,
    /// How instances crashed, with their last output.
    Crash,
}

/// How far a request for logs is. The words are AosCloud's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum LogState {
    /// It was just made.
    #[serde(rename = "created")]
    Created,
    /// The Unit is not connected: it goes out when it is.
    #[serde(rename = "waiting unit")]
    WaitingUnit,
    /// It is on its way to the Unit, or there.
    #[serde(rename = "sent")]
    Sent,
    /// Some of it has come.
    #[serde(rename = "receiving")]
    Receiving,
    /// All that there is has come.
    #[serde(rename = "done")]
    Done,
    /// There is nothing to be had; `message` and `nodes` say why.
    #[serde(rename = "error")]
    Error,
    /// There is no line.
    #[serde(rename = "empty log has been provided")]
    Empty,
}

impl LogState {
    /// Whether nothing more will come.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Error | Self::Empty)
    }
}

/// What a Node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLogState {
    /// Nothing, or not all yet.
    Waiting,
    /// All that it has.
    Ok,
    /// It has no line.
    Empty,
    /// It has no such instance, or there is no such Node.
    Absent,
    /// It could not tell.
    Failed,
}

/// What came from a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLog {
    /// Which Node.
    pub node_id: String,
    /// What it said.
    pub state: NodeLogState,
    /// Parts that came.
    pub parts: u64,
    /// Parts there are; 0 if that is not known yet.
    pub parts_count: u64,
    /// Why there is nothing, or not all.
    pub message: Option<String>,
}

/// A request for logs, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRequest {
    /// Its id.
    pub id: Uuid,
    /// Which log.
    pub log_type: LogKind,
    /// Of this service only.
    pub service: Option<ServiceRef>,
    /// For this Subject only.
    pub subject: Option<SubjectRef>,
    /// Of the instance of this number only.
    pub instance_id: Option<u64>,
    /// From this moment on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_from: Option<Timestamp>,
    /// Before this moment.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_till: Option<Timestamp>,
    /// Lines come as they are written, until this moment.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub follow_until: Option<Timestamp>,
    /// How far it is.
    pub state: LogState,
    /// Why there is nothing, or less than was asked for.
    pub message: Option<String>,
    /// What each Node said.
    pub nodes: Vec<NodeLog>,
    /// Compressed bytes that came.
    pub bytes: u64,
    /// Who asked.
    pub created_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// When it is removed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub kept_until: Option<Timestamp>,
}

/// Asks a Unit for logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLogRequest {
    /// Which log.
    pub log_type: LogKind,
    /// Of these Nodes; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Of this service (id or codename); not for the system's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// For this Subject (id or label).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of the instance of this number, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<u64>,
    /// From this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_from: Option<Timestamp>,
    /// Before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_till: Option<Timestamp>,
    /// Have lines come as they are written, for 15 minutes or until it is stopped. Not with `date_till`, not for crash logs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

/// Which lines of a log are wanted. With neither `after` nor `before`: the newest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogLinesQuery {
    /// Most lines: 1 to 5000, 1000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only lines that hold this text, upper and lower case alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Only lines of this Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Lines after the one of this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Lines before the one of this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl LogLinesQuery {
    /// How many lines at most.
    pub fn limit(&self) -> usize {
        usize::try_from(self.limit.unwrap_or(1000).clamp(1, 5000)).unwrap_or(1000)
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its place, for `after` and `before`.
    pub cursor: String,
    /// Of which Node.
    pub node_id: String,
    /// `<time> [<source>] <text>`, without characters that a terminal would obey.
    pub text: String,
}

/// Lines of a log, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// They.
    pub items: Vec<LogLine>,
    /// There are older lines than these.
    pub has_older: bool,
    /// There are newer lines than these.
    pub has_newer: bool,
    /// Parts that could not be read.
    pub unreadable_parts: u64,
}
