use aos_api::{AuditEntry, ListQuery, Page, paths};
use axum::{Json, extract::State};

use crate::{ApiError, ApiState, Caller, extract::Query, openapi::Refused};

/// Who changed what, newest first
#[utoipa::path(get, path = paths::AUDIT, tag = "audit", params(ListQuery),
    responses((status = 200, description = "A page", body = Page<AuditEntry>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    Ok(Json(state.db().audit(&caller.actor(), &query).await?))
}
