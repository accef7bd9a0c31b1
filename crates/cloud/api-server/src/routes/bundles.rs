use aos_api::{DeploymentBundle, ListQuery, Page, UploadForm, UploadQuery, paths};
use axum::{
    Json,
    extract::{Multipart, State},
};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller, bundle_intake,
    extract::{Path, Query, id},
    openapi::Refused,
};

/// Deployment bundles, newest first
#[utoipa::path(get, path = paths::BUNDLES, tag = "deployment-bundles", operation_id = "deployment_bundles_list",
    params(ListQuery), responses((status = 200, description = "A page", body = Page<DeploymentBundle>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<DeploymentBundle>>, ApiError> {
    Ok(Json(state.db().bundles(&caller.actor(), &query).await?))
}

/// One deployment bundle with its stages
#[utoipa::path(get, path = paths::BUNDLE, tag = "deployment-bundles", operation_id = "deployment_bundles_read",
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, description = "It", body = DeploymentBundle), Refused))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<Json<DeploymentBundle>, ApiError> {
    Ok(Json(
        state
            .db()
            .bundle(&caller.actor(), id("deployment bundle", &text)?)
            .await?,
    ))
}

/// Upload a deployment bundle
///
/// The answer comes once the file is here; stages tell how it goes on. With `wait=true` it comes at the end. With
/// `check=true` nothing is kept and nothing published.
#[utoipa::path(post, path = paths::BUNDLE_UPLOAD, tag = "deployment-bundles", operation_id = "deployment_bundles_create",
    params(UploadQuery), request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Checked; `state` is `done` or `error`", body = DeploymentBundle),
        (status = 201, description = "Taken in", body = DeploymentBundle), Refused))]
pub(crate) async fn upload(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<UploadQuery>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<(StatusCode, Json<DeploymentBundle>), ApiError> {
    let form = form.map_err(|rejection| {
        ApiError::new(StatusCode::BAD_REQUEST, rejection.body_text())
            .field("file")
            .hint("send `multipart/form-data` with the bundle in the field `file`")
    })?;
    let is_check = query.check.unwrap_or(false);
    let received = bundle_intake::receive(&state, form).await?;
    let status = if is_check {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let bundle = if query.wait.unwrap_or(is_check) {
        bundle_intake::work(state, caller.actor(), received, is_check).await?
    } else {
        bundle_intake::start(state, caller.actor(), received, is_check).await?
    };
    Ok((status, Json(bundle)))
}
