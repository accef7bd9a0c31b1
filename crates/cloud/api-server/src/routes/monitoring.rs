//! What Units use, and their alerts.

use aos_api::{Alert, AlertsQuery, MonitoringQuery, Page, UnitMonitoring, paths};
use axum::{Json, extract::State};

use crate::{
    ApiError, ApiState, Caller,
    extract::{Path, Query, UnitId},
    openapi::Refused,
    usage,
};

/// What a Unit used, beside its limits and alerts
#[utoipa::path(get, path = paths::UNIT_MONITORING, tag = "monitoring", operation_id = "units_monitoring_list",
    params(UnitId, MonitoringQuery),
    responses((status = 200, description = "Nodes and instances", body = UnitMonitoring), Refused))]
pub(crate) async fn unit_monitoring(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<MonitoringQuery>,
) -> Result<Json<UnitMonitoring>, ApiError> {
    Ok(Json(
        usage::monitoring(state.db(), &caller.actor(), &unit, &query).await?,
    ))
}

/// Alerts of a Unit, those told last first
#[utoipa::path(get, path = paths::UNIT_ALERTS, tag = "monitoring", operation_id = "units_alerts_list",
    params(UnitId, AlertsQuery),
    responses((status = 200, description = "A page", body = Page<Alert>), Refused))]
pub(crate) async fn unit_alerts(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<AlertsQuery>,
) -> Result<Json<Page<Alert>>, ApiError> {
    Ok(Json(
        state
            .db()
            .alerts(&caller.actor(), Some(&unit), &query)
            .await?,
    ))
}

/// Alerts of all Units, those told last first
#[utoipa::path(get, path = paths::ALERTS, tag = "monitoring", operation_id = "alerts_list", params(AlertsQuery),
    responses((status = 200, description = "A page", body = Page<Alert>), Refused))]
pub(crate) async fn alerts(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<AlertsQuery>,
) -> Result<Json<Page<Alert>>, ApiError> {
    Ok(Json(
        state.db().alerts(&caller.actor(), None, &query).await?,
    ))
}
