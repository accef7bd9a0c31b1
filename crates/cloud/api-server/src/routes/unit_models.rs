use aos_api::{
    ListQuery, ModelUnit, NewUnitConfig, NewUnitModel, OrderUnitConfig, Page, UnitConfigVersion,
    UnitModel, UnitModelPatch, UpdateSchedules, paths,
};
use aos_types::UnitConfig;
use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::Value;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Id, Path, Query, id},
    openapi::Refused,
    routes::orders::check_schedules,
};

const WHAT: &str = "unit model";

fn config(value: &Value) -> Result<UnitConfig, ApiError> {
    let read = UnitConfig::from_slice(value.to_string().as_bytes());
    let sound = read.and_then(|config| config.check().map(|()| config));
    sound.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        ApiError::invalid("unit_config", text)
    })
}

/// Unit models
#[utoipa::path(get, path = paths::UNIT_MODELS, tag = "unit-models", operation_id = "unit_models_list", params(ListQuery),
    responses((status = 200, description = "A page", body = Page<UnitModel>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<UnitModel>>, ApiError> {
    Ok(Json(state.db().unit_models(&caller.actor(), &query).await?))
}

/// Make a unit model
#[utoipa::path(post, path = paths::UNIT_MODELS, tag = "unit-models", operation_id = "unit_models_create",
    request_body = NewUnitModel, responses((status = 201, description = "Made", body = UnitModel), Refused))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(new): Body<NewUnitModel>,
) -> Result<(StatusCode, Json<UnitModel>), ApiError> {
    let config = new.unit_config.as_ref().map(config).transpose()?;
    let made = state
        .db()
        .create_unit_model(&caller.actor(), &new.name, &new.version, config.as_ref())
        .await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// One unit model
#[utoipa::path(get, path = paths::UNIT_MODEL, tag = "unit-models", operation_id = "unit_models_read",
    params(Id), responses((status = 200, description = "It", body = UnitModel), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Json<UnitModel>, ApiError> {
    Ok(Json(
        state
            .db()
            .unit_model(&caller.actor(), id(WHAT, &text)?)
            .await?,
    ))
}

/// Delete a unit model that no Unit is of
#[utoipa::path(delete, path = paths::UNIT_MODEL, tag = "unit-models", operation_id = "unit_models_delete",
    params(Id), responses((status = 204, description = "Gone"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .delete_unit_model(&caller.actor(), id(WHAT, &text)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unit configurations of a model, newest first
#[utoipa::path(get, path = paths::UNIT_CONFIGS, tag = "unit-models", operation_id = "unit_models_unit_configs_list",
    params(Id, ListQuery),
    responses((status = 200, description = "A page", body = Page<UnitConfigVersion>), Refused))]
pub(crate) async fn configs(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<UnitConfigVersion>>, ApiError> {
    Ok(Json(
        state
            .db()
            .unit_configs(&caller.actor(), id(WHAT, &text)?, &query)
            .await?,
    ))
}

/// Store a newer unit configuration
#[utoipa::path(post, path = paths::UNIT_CONFIGS, tag = "unit-models", operation_id = "unit_models_unit_configs_create",
    params(Id), request_body = NewUnitConfig,
    responses((status = 201, description = "Stored", body = UnitConfigVersion), Refused))]
pub(crate) async fn add_config(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(new): Body<NewUnitConfig>,
) -> Result<(StatusCode, Json<UnitConfigVersion>), ApiError> {
    let config = config(&new.unit_config)?;
    let stored = state
        .db()
        .add_unit_config(
            &caller.actor(),
            id(WHAT, &text)?,
            &config,
            new.order.unwrap_or(true),
        )
        .await?;
    Ok((StatusCode::CREATED, Json(stored)))
}

/// Say whether blobs of Units of a model are delivered encrypted
#[utoipa::path(patch, path = paths::UNIT_MODEL, tag = "unit-models", operation_id = "unit_models_update",
    params(Id), request_body = UnitModelPatch,
    responses((status = 200, description = "Changed", body = UnitModel), Refused))]
pub(crate) async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(patch): Body<UnitModelPatch>,
) -> Result<Json<UnitModel>, ApiError> {
    Ok(Json(
        state
            .db()
            .encrypt_for_model(&caller.actor(), id(WHAT, &text)?, patch.encrypts_blobs)
            .await?,
    ))
}

/// Order a unit configuration for all Units of a model
#[utoipa::path(put, path = paths::MODEL_UNIT_CONFIG, tag = "unit-models", operation_id = "unit_models_unit_config_update",
    params(Id), request_body = OrderUnitConfig,
    responses((status = 200, description = "Ordered", body = UnitModel), Refused))]
pub(crate) async fn order_config(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(order): Body<OrderUnitConfig>,
) -> Result<Json<UnitModel>, ApiError> {
    Ok(Json(
        state
            .db()
            .order_model_config(&caller.actor(), id(WHAT, &text)?, &order.version)
            .await?,
    ))
}

/// The Units of a model with their unit configurations, wanted and actual
#[utoipa::path(get, path = paths::MODEL_UNITS, tag = "unit-models", operation_id = "unit_models_units_list",
    params(Id, ListQuery), responses((status = 200, description = "A page", body = Page<ModelUnit>), Refused))]
pub(crate) async fn units(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ModelUnit>>, ApiError> {
    Ok(Json(
        state
            .db()
            .model_units(&caller.actor(), id(WHAT, &text)?, &query)
            .await?,
    ))
}

/// When Units of a model may be updated
#[utoipa::path(get, path = paths::MODEL_SCHEDULE, tag = "unit-models", operation_id = "unit_models_update_schedule_read",
    params(Id), responses((status = 200, description = "It", body = UpdateSchedules), Refused))]
pub(crate) async fn schedule(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Json<UpdateSchedules>, ApiError> {
    Ok(Json(
        state
            .db()
            .model_schedules(&caller.actor(), id(WHAT, &text)?)
            .await?,
    ))
}

/// Set when Units of a model may be updated, as far as they say nothing of their own
#[utoipa::path(put, path = paths::MODEL_SCHEDULE, tag = "unit-models", operation_id = "unit_models_update_schedule_update",
    params(Id), request_body = UpdateSchedules,
    responses((status = 200, description = "Set", body = UpdateSchedules), Refused))]
pub(crate) async fn set_schedule(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
    Body(new): Body<UpdateSchedules>,
) -> Result<Json<UpdateSchedules>, ApiError> {
    check_schedules(&new)?;
    Ok(Json(
        state
            .db()
            .set_model_schedules(&caller.actor(), id(WHAT, &text)?, &new)
            .await?,
    ))
}
