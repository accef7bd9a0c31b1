use aos_api::{ClaimCode, IssuedClaimCode, ListQuery, NewClaimCode, Page, paths};
use aos_db::hash_secret;
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    ApiError, ApiState, Caller,
    extract::{Body, Path, Query, id},
    openapi::Refused,
    secret,
};

/// Claim codes, newest first, without their secrets
#[utoipa::path(get, path = paths::CLAIM_CODES, tag = "claim-codes", operation_id = "claim_codes_list", params(ListQuery),
    responses((status = 200, description = "A page", body = Page<ClaimCode>), Refused))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ClaimCode>>, ApiError> {
    Ok(Json(state.db().claim_codes(&caller.actor(), &query).await?))
}

/// Make a claim code; it is shown once
#[utoipa::path(post, path = paths::CLAIM_CODES, tag = "claim-codes", operation_id = "claim_codes_create",
    request_body = NewClaimCode, responses((status = 201, description = "Made", body = IssuedClaimCode), Refused))]
pub(crate) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(new): Body<NewClaimCode>,
) -> Result<(StatusCode, Json<IssuedClaimCode>), ApiError> {
    let code = secret::claim_code()?;
    let hash = hash_secret(&secret::normal_claim_code(&code));
    let claim_code = state
        .db()
        .create_claim_code(&caller.actor(), &new, &hash)
        .await?;
    let ca_fingerprint = format!("sha256:{}", state.options().authority.fingerprint());
    let join_command = format!(
        "aos unit join --cloud {} --code {code} --ca-fingerprint {ca_fingerprint}",
        state.options().people_url.trim_end_matches('/')
    );
    Ok((
        StatusCode::CREATED,
        Json(IssuedClaimCode {
            claim_code,
            code,
            ca_fingerprint,
            join_command,
        }),
    ))
}

/// Make a claim code worthless
#[utoipa::path(delete, path = paths::CLAIM_CODE, tag = "claim-codes", operation_id = "claim_codes_delete",
    params(("id" = String, Path, description = "Id")), responses((status = 204, description = "Gone"), Refused))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(text): Path<String>,
) -> Result<StatusCode, ApiError> {
    state
        .db()
        .delete_claim_code(&caller.actor(), id("claim code", &text)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
