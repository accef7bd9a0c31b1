//! States of instances, as the cloud keeps them.

use aos_api::{KeptState, KeptStateContent, Page, paths};
use axum::{Json, extract::State};

use crate::{
    ApiError, ApiState, Caller,
    extract::{Path, UnitId},
    openapi::Refused,
};

/// The states of a Unit's instances
#[utoipa::path(get, path = paths::UNIT_STATES, tag = "units", operation_id = "units_states_list", params(UnitId),
    responses((status = 200, description = "Without their content", body = Page<KeptState>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<KeptState>>, ApiError> {
    Ok(Json(state.db().states(&caller.actor(), &unit).await?))
}

/// The state of one instance with its content
#[utoipa::path(get, path = paths::UNIT_STATE, tag = "units", operation_id = "units_states_read",
    params(UnitId, ("service" = String, Path, description = "Id or codename of the service"),
        ("subject" = String, Path, description = "Id or label of the Subject"),
        ("instance" = u64, Path, description = "Number of the instance, from 0")),
    responses((status = 200, description = "It", body = KeptStateContent), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, service, subject, instance)): Path<(String, String, String, u64)>,
) -> Result<Json<KeptStateContent>, ApiError> {
    let found = state
        .db()
        .state(&caller.actor(), &unit, &service, &subject, instance)
        .await?;
    Ok(Json(found))
}
