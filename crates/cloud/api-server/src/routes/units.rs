use aos_api::{
    DesiredState, ExplainQuery, Explanation, ListQuery, NewUnit, Node, Page, RenewQuery,
    TimelineEvent, Unit, UnitCertificate, UnitItem, UnitPatch, UnitSubjectService, UnitWhy,
    UnitsQuery, WhyQuery, paths,
};
use aos_db::RenewalFilter;
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Path, Query, UnitId},
    openapi::Refused,
    placement, why,
};

/// Units
#[utoipa::path(get, path = paths::UNITS, tag = "units", operation_id = "units_list", params(UnitsQuery),
    responses((status = 200, description = "A page", body = Page<Unit>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<UnitsQuery>,
) -> Result<Json<Page<Unit>>, ApiError> {
    Ok(Json(state.db().units(&caller.actor(), &query).await?))
}

/// Make a Unit known before it comes
#[utoipa::path(post, path = paths::UNITS, tag = "units", operation_id = "units_create", request_body = NewUnit,
    responses((status = 201, description = "Made", body = Unit), Refused))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(new): Body<NewUnit>,
) -> Result<(StatusCode, Json<Unit>), ApiError> {
    let made = state.db().create_unit(&caller.actor(), &new).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// One Unit
#[utoipa::path(get, path = paths::UNIT, tag = "units", operation_id = "units_read",
    params(UnitId),
    responses((status = 200, description = "It", body = Unit), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Unit>, ApiError> {
    Ok(Json(state.db().unit(&caller.actor(), &unit).await?))
}

/// Rename a Unit or give it another model
#[utoipa::path(patch, path = paths::UNIT, tag = "units", operation_id = "units_update",
    params(UnitId), request_body = UnitPatch,
    responses((status = 200, description = "Changed", body = Unit), Refused))]
pub(crate) async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Body(patch): Body<UnitPatch>,
) -> Result<Json<Unit>, ApiError> {
    Ok(Json(
        state
            .db()
            .patch_unit(&caller.actor(), &unit, &patch)
            .await?,
    ))
}

/// Delete a Unit; its certificates are worth nothing from then on
#[utoipa::path(delete, path = paths::UNIT, tag = "units", operation_id = "units_delete",
    params(UnitId),
    responses((status = 204, description = "Gone"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.db().delete_unit(&caller.actor(), &unit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The Nodes of a Unit, main Node first
#[utoipa::path(get, path = paths::UNIT_NODES, tag = "units", operation_id = "units_nodes_list",
    params(UnitId),
    responses((status = 200, description = "All", body = Page<Node>), Refused))]
pub(crate) async fn nodes(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<Node>>, ApiError> {
    Ok(Json(state.db().unit_nodes(&caller.actor(), &unit).await?))
}

/// The items of a Unit as it reports them
#[utoipa::path(get, path = paths::UNIT_ITEMS, tag = "units", operation_id = "units_items_list",
    params(UnitId),
    responses((status = 200, description = "All", body = Page<UnitItem>), Refused))]
pub(crate) async fn items(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<UnitItem>>, ApiError> {
    Ok(Json(state.db().unit_items(&caller.actor(), &unit).await?))
}

/// What is desired and what runs on a Unit, by service and subject
#[utoipa::path(get, path = paths::UNIT_SUBJECTS_SERVICES, tag = "units", operation_id = "units_subjects_services_list",
    params(UnitId),
    responses((status = 200, description = "All", body = Page<UnitSubjectService>), Refused))]
pub(crate) async fn subjects_services(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<UnitSubjectService>>, ApiError> {
    Ok(Json(
        state
            .db()
            .unit_subjects_services(&caller.actor(), &unit)
            .await?,
    ))
}

/// What happened to a Unit and why, newest first
#[utoipa::path(get, path = paths::UNIT_TIMELINE, tag = "units", operation_id = "units_timeline_list",
    params(UnitId, ListQuery),
    responses((status = 200, description = "A page", body = Page<TimelineEvent>), Refused))]
pub(crate) async fn timeline(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<TimelineEvent>>, ApiError> {
    Ok(Json(
        state.db().timeline(&caller.actor(), &unit, &query).await?,
    ))
}

/// The desired state last composed for a Unit
#[utoipa::path(get, path = paths::UNIT_DESIRED_STATE, tag = "units", operation_id = "units_desired_state_read",
    params(UnitId),
    responses((status = 200, description = "It", body = DesiredState), Refused))]
pub(crate) async fn desired_state(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<DesiredState>, ApiError> {
    Ok(Json(
        state.db().desired_state(&caller.actor(), &unit).await?,
    ))
}

/// Why a service is or is not on a Unit
#[utoipa::path(get, path = paths::UNIT_EXPLAIN, tag = "units", operation_id = "units_explain",
    params(UnitId, ExplainQuery),
    responses((status = 200, description = "The rules in order", body = Explanation), Refused))]
pub(crate) async fn explain(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    Ok(Json(
        why::explain(state.db(), &caller.actor(), &unit, &query.service).await?,
    ))
}

/// Where each instance of a Unit is and why not elsewhere
#[utoipa::path(get, path = paths::UNIT_WHY, tag = "units", operation_id = "units_why",
    params(UnitId, WhyQuery),
    responses((status = 200, description = "The instances", body = UnitWhy), Refused))]
pub(crate) async fn instances_why(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<WhyQuery>,
) -> Result<Json<UnitWhy>, ApiError> {
    let service = query.service.as_deref();
    Ok(Json(
        placement::why(state.db(), &caller.actor(), &unit, service).await?,
    ))
}

/// The certificates of a Unit
#[utoipa::path(get, path = paths::UNIT_CERTIFICATES, tag = "units", operation_id = "units_certificates_list",
    params(UnitId),
    responses((status = 200, description = "All", body = Page<UnitCertificate>), Refused))]
pub(crate) async fn certificates(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<UnitCertificate>>, ApiError> {
    Ok(Json(
        state.db().unit_certificates(&caller.actor(), &unit).await?,
    ))
}

/// Have certificates of a Unit renewed
#[utoipa::path(post, path = paths::UNIT_RENEW_CERTIFICATES, tag = "units", operation_id = "units_renew_certificates",
    params(UnitId, RenewQuery),
    responses((status = 202, description = "Ordered; `status` of each follows", body = Page<UnitCertificate>), Refused))]
pub(crate) async fn renew_certificates(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(asked): Query<RenewQuery>,
) -> Result<(StatusCode, Json<Page<UnitCertificate>>), ApiError> {
    let filter = RenewalFilter {
        cert_type: asked.cert_type,
        node_id: asked.node_id,
    };
    let certificates = state
        .db()
        .order_renewal(&caller.actor(), &unit, &filter)
        .await?;
    Ok((StatusCode::ACCEPTED, Json(certificates)))
}
