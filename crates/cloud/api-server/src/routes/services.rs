use aos_api::{ListQuery, Page, Service, ServiceUnit, ServiceVersion, paths};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Path, Query},
    openapi::Refused,
};

/// Services
#[utoipa::path(get, path = paths::SERVICES, tag = "services", operation_id = "services_list", params(ListQuery),
    responses((status = 200, description = "A page", body = Page<Service>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Service>>, ApiError> {
    Ok(Json(state.db().services(&caller.actor(), &query).await?))
}

/// One service
#[utoipa::path(get, path = paths::SERVICE, tag = "services", operation_id = "services_read",
    params(("id" = String, Path, description = "Id or codename")),
    responses((status = 200, description = "It", body = Service), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<Service>, ApiError> {
    Ok(Json(state.db().service(&caller.actor(), &service).await?))
}

/// Delete a service that is not assigned
#[utoipa::path(delete, path = paths::SERVICE, tag = "services", operation_id = "services_delete",
    params(("id" = String, Path, description = "Id or codename")),
    responses((status = 204, description = "Gone"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.db().delete_service(&caller.actor(), &service).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The versions of a service, newest first
#[utoipa::path(get, path = paths::SERVICE_VERSIONS, tag = "services", operation_id = "services_service_versions_list",
    params(("id" = String, Path, description = "Id or codename"), ListQuery),
    responses((status = 200, description = "A page", body = Page<ServiceVersion>), Refused))]
pub(crate) async fn versions(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ServiceVersion>>, ApiError> {
    Ok(Json(
        state
            .db()
            .service_versions(&caller.actor(), &service, &query)
            .await?,
    ))
}

/// The Units that have or should have a service
#[utoipa::path(get, path = paths::SERVICE_UNITS, tag = "services", operation_id = "services_units_list",
    params(("id" = String, Path, description = "Id or codename"), ListQuery),
    responses((status = 200, description = "A page", body = Page<ServiceUnit>), Refused))]
pub(crate) async fn units(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ServiceUnit>>, ApiError> {
    Ok(Json(
        state
            .db()
            .service_units(&caller.actor(), &service, &query)
            .await?,
    ))
}
