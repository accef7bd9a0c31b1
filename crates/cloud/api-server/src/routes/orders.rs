//! What people order of one Unit beside services.

use aos_api::{
    EnvVar, EnvVarsQuery, NewEnvVars, Node, NodePatch, OrderUnitConfig, Page, UnitConfigOrder,
    UnitSubject, UnitUpdateSchedules, UpdateSchedules, paths,
};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Path, Query, UnitId, id},
    openapi::Refused,
};

/// Pause or resume a Node
#[utoipa::path(patch, path = paths::UNIT_NODE, tag = "units", operation_id = "units_nodes_update",
    params(UnitId, ("node" = String, Path, description = "Id of the Node")), request_body = NodePatch,
    responses((status = 200, description = "Ordered; its `state` follows when the Unit reports it", body = Node), Refused))]
pub(crate) async fn patch_node(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, node)): Path<(String, String)>,
    Body(patch): Body<NodePatch>,
) -> Result<Json<Node>, ApiError> {
    Ok(Json(
        state
            .db()
            .order_node(&caller.actor(), &unit, &node, patch.wanted_state)
            .await?,
    ))
}

/// The unit configuration of a Unit: wanted and actual
#[utoipa::path(get, path = paths::UNIT_CONFIG, tag = "units", operation_id = "units_unit_config_read",
    params(UnitId), responses((status = 200, description = "It", body = UnitConfigOrder), Refused))]
pub(crate) async fn unit_config(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<UnitConfigOrder>, ApiError> {
    Ok(Json(
        state.db().unit_config_order(&caller.actor(), &unit).await?,
    ))
}

/// Order a unit configuration for one Unit, instead of the one of its model
#[utoipa::path(put, path = paths::UNIT_CONFIG, tag = "units", operation_id = "units_unit_config_update",
    params(UnitId), request_body = OrderUnitConfig,
    responses((status = 200, description = "Ordered", body = UnitConfigOrder), Refused))]
pub(crate) async fn order_unit_config(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Body(order): Body<OrderUnitConfig>,
) -> Result<Json<UnitConfigOrder>, ApiError> {
    Ok(Json(
        state
            .db()
            .order_unit_config(&caller.actor(), &unit, Some(&order.version))
            .await?,
    ))
}

/// Let the unit configuration of its model count again for a Unit
#[utoipa::path(delete, path = paths::UNIT_CONFIG, tag = "units", operation_id = "units_unit_config_delete",
    params(UnitId), responses((status = 204, description = "It does"), Refused))]
pub(crate) async fn unorder_unit_config(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .order_unit_config(&caller.actor(), &unit, None)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// When a Unit may be updated
#[utoipa::path(get, path = paths::UNIT_SCHEDULE, tag = "units", operation_id = "units_update_schedule_read",
    params(UnitId), responses((status = 200, description = "It", body = UnitUpdateSchedules), Refused))]
pub(crate) async fn schedule(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<UnitUpdateSchedules>, ApiError> {
    Ok(Json(
        state.db().unit_schedules(&caller.actor(), &unit).await?,
    ))
}

/// Set when a Unit may be updated; an absent part is as its model says
#[utoipa::path(put, path = paths::UNIT_SCHEDULE, tag = "units", operation_id = "units_update_schedule_update",
    params(UnitId), request_body = UpdateSchedules,
    responses((status = 200, description = "Set", body = UnitUpdateSchedules), Refused))]
pub(crate) async fn set_schedule(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Body(new): Body<UpdateSchedules>,
) -> Result<Json<UnitUpdateSchedules>, ApiError> {
    check_schedules(&new)?;
    Ok(Json(
        state
            .db()
            .set_unit_schedules(&caller.actor(), &unit, &new)
            .await?,
    ))
}

/// Refuses schedules that no Unit could follow.
pub(crate) fn check_schedules(new: &UpdateSchedules) -> Result<(), ApiError> {
    new.check()
        .map_err(|error| ApiError::invalid(error.path(), error.to_string()))
}

/// Environment variables that are set on a Unit over those of its items
#[utoipa::path(get, path = paths::UNIT_ENV_VARS, tag = "units", operation_id = "units_env_vars_list",
    params(UnitId, EnvVarsQuery), responses((status = 200, description = "All", body = Page<EnvVar>), Refused))]
pub(crate) async fn env_vars(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Query(query): Query<EnvVarsQuery>,
) -> Result<Json<Page<EnvVar>>, ApiError> {
    let reveal = query.reveal.unwrap_or(false);
    Ok(Json(
        state.db().env_vars(&caller.actor(), &unit, reveal).await?,
    ))
}

/// Set environment variables on a Unit over those of its items
#[utoipa::path(post, path = paths::UNIT_ENV_VARS, tag = "units", operation_id = "units_env_vars_create",
    params(UnitId), request_body = NewEnvVars,
    responses((status = 201, description = "All that are set now, without values", body = Page<EnvVar>), Refused))]
pub(crate) async fn set_env_vars(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
    Body(new): Body<NewEnvVars>,
) -> Result<(StatusCode, Json<Page<EnvVar>>), ApiError> {
    let actor = caller.actor();
    state.db().set_env_vars(&actor, &unit, &new).await?;
    let all = state.db().env_vars(&actor, &unit, false).await?;
    Ok((StatusCode::CREATED, Json(all)))
}

/// Take an environment variable away
#[utoipa::path(delete, path = paths::UNIT_ENV_VAR, tag = "units", operation_id = "units_env_vars_delete",
    params(UnitId, ("variable" = String, Path, description = "Id of the variable")),
    responses((status = 204, description = "Away"), Refused))]
pub(crate) async fn remove_env_var(
    State(state): State<ApiState>,
    caller: Caller,
    Path((unit, variable)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .remove_env_var(
            &caller.actor(),
            &unit,
            id("environment variable", &variable)?,
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The subjects that a Unit was put into, and those it reports by itself
#[utoipa::path(get, path = paths::UNIT_SUBJECTS, tag = "units", operation_id = "units_subjects_list",
    params(UnitId), responses((status = 200, description = "All", body = Page<UnitSubject>), Refused))]
pub(crate) async fn subjects(
    State(state): State<ApiState>,
    caller: Caller,
    Path(unit): Path<String>,
) -> Result<Json<Page<UnitSubject>>, ApiError> {
    Ok(Json(
        state.db().unit_subjects(&caller.actor(), &unit).await?,
    ))
}
