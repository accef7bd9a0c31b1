use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The elements, in the list's order.
    pub items: Vec<T>,
    /// How many there are in all, on every page.
    pub total: u64,
    /// How many come before the first of `items`.
    pub offset: u64,
}

impl<T> Page<T> {
    /// The same page with each element turned into another.
    pub fn map<U>(self, turn: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(turn).collect(),
            total: self.total,
            offset: self.offset,
        }
    }
}

/// What every refusal looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What failed and why.
    pub message: String,
    /// The field of the request that is wrong, as a path such as `nodes[0].id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Most elements on the page: 1 to 1000, 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many elements to leave out at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// Only elements whose name, title or id holds this text, upper and lower case alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

impl ListQuery {
    /// The page size that is in force: 1 to 1000.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }

    /// The offset that is in force.
    pub fn offset(&self) -> u32 {
        self.offset.unwrap_or(0)
    }
}

/// An error that a Unit reported about one of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ReportedError {
    /// The kind, as a number of the wire (`docs/protocol/grpc.md`, errors on the wire).
    pub aos_code: i32,
    /// An errno, or 0.
    pub exit_code: i32,
    /// Text for people.
    pub message: String,
}

impl From<aos_types::ErrorInfo> for ReportedError {
    fn from(error: aos_types::ErrorInfo) -> Self {
        Self {
            aos_code: error.aos_code,
            exit_code: error.exit_code,
            message: error.message,
        }
    }
}
