use aos_api::{ListQuery, NewUnitConfig, NewUnitModel, Page, UnitConfigVersion, UnitModel, paths};
use aos_types::UnitConfig;
use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::Value;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Path, Query, id},
    openapi::Refused,
};

const WHAT: &str = "unit model";

fn config(value: &Value) -> Result<UnitConfig, ApiError> {
    UnitConfig::from_slice(value.to_string().as_bytes()).map_err(|error| {
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
    params(("id" = String, Path, description = "Id")), responses((status = 200, description = "It", body = UnitModel), Refused))]
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
    params(("id" = String, Path, description = "Id")), responses((status = 204, description = "Gone"), Refused))]
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
    params(("id" = String, Path, description = "Id"), ListQuery),
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
    params(("id" = String, Path, description = "Id")), request_body = NewUnitConfig,
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
        .add_unit_config(&caller.actor(), id(WHAT, &text)?, &config)
        .await?;
    Ok((StatusCode::CREATED, Json(stored)))
}
