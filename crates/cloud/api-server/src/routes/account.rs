use aos_api::{Me, OwnerSetup, Session, SignIn, UserCertificate, UserCertificateRequest, paths};
use aos_db::{SESSION_LONGEST, User, hash_secret};
use aos_pki::{AuthorityError, CertProfile};
use axum::{Json, extract::State, response::IntoResponse};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    ApiError, ApiState, Caller, Credential,
    caller::{FromAddress, session_token},
    extract::Body,
    first_start::forget_owner_link,
    limiter::Key,
    openapi::Refused,
    secret,
};

/// What the owner may do: all there is. Names are those of AosCloud (`docs/protocol/rest.md`).
const PERMISSIONS: &[&str] = &[
    "auto_provisioning",
    "deployment_bundles_create",
    "deployment_bundles_list",
    "services_read",
    "services_service_versions_list",
    "services_units_list",
    "subjects_create",
    "subjects_list",
    "subjects_read",
    "subjects_services_create",
    "subjects_services_delete",
    "subjects_services_list",
    "subjects_units_create",
    "subjects_units_list",
    "unit_models_list",
    "units_delete",
    "units_list",
    "units_nodes_list",
    "units_nodes_read",
    "units_read",
    "units_subjects_services_list",
    "units_subjects_services_read",
    "users_me",
];

fn about(state: &ApiState, user: &User, by: &str) -> Me {
    Me {
        id: user.id,
        username: user.username.clone(),
        email: user.email.clone(),
        role: user.role.clone(),
        oem: user.tenant.clone(),
        domain: state.options().domain.clone(),
        fleets: Vec::new(),
        permission_groups: vec!["oem_management".into()],
        permissions: Vec::new(),
        effective_permissions: PERMISSIONS.iter().map(|&name| name.to_owned()).collect(),
        signed_in_by: by.into(),
    }
}

/// Begins a session: the answer and the cookie.
async fn begin(state: &ApiState, user: &User) -> Result<(HeaderMap, Json<Session>), ApiError> {
    let token = secret::token()?;
    let expires_at = state.db().begin_session(user, &hash_secret(&token)).await?;
    let headers = cookie(&token, SESSION_LONGEST.as_secs())?;
    Ok((
        headers,
        Json(Session {
            user: about(state, user, "session"),
            expires_at,
        }),
    ))
}

/// The session cookie: `__Host-` makes browsers insist on Secure, `Path=/` and no domain.
fn cookie(token: &str, seconds: u64) -> Result<HeaderMap, ApiError> {
    let text = format!(
        "{}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict",
        paths::SESSION_COOKIE
    );
    let value = HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error))?;
    Ok(HeaderMap::from_iter([
        (header::SET_COOKIE, value),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]))
}

/// Begin a session with name and password
#[utoipa::path(post, path = paths::SIGN_IN, tag = "account", request_body = SignIn, security(()),
    responses((status = 200, description = "Signed in; the cookie is set", body = Session), Refused))]
pub(crate) async fn sign_in(
    State(state): State<ApiState>,
    FromAddress(address): FromAddress,
    Body(asked): Body<SignIn>,
) -> Result<(HeaderMap, Json<Session>), ApiError> {
    let username: String = asked.username.chars().take(64).collect();
    let keys = [
        Key::User(username.clone()),
        Key::UserFrom(username.clone(), address.clone()),
        Key::Address(address),
    ];
    state
        .limiter()
        .attempt(&keys, state.db().now())
        .map_err(ApiError::slow_down)?;
    let known = state.db().user_by_name(&username).await?;
    let (user, stored) = known.map_or((None, None), |(user, hash)| (Some(user), Some(hash)));
    // An over-long password is never right; it is not hashed, but takes its place among the attempts.
    let is_right = asked.password.len() <= MAX_PASSWORD
        && state.passwords().is_right(asked.password, stored).await?;
    let user = user
        .filter(|_| is_right)
        .ok_or_else(|| ApiError::unauthorised("user name or password is wrong"))?;
    state.limiter().succeeded(&keys);
    begin(&state, &user).await
}

const MAX_PASSWORD: usize = 1024;

/// Make the first user with the one-time owner token
#[utoipa::path(post, path = paths::OWNER_SETUP, tag = "account", request_body = OwnerSetup, security(()),
    responses((status = 201, description = "Made and signed in; the cookie is set", body = Session), Refused))]
pub(crate) async fn owner_setup(
    State(state): State<ApiState>,
    FromAddress(address): FromAddress,
    Body(asked): Body<OwnerSetup>,
) -> Result<impl IntoResponse, ApiError> {
    let keys = [Key::Address(address)];
    state
        .limiter()
        .attempt(&keys, state.db().now())
        .map_err(ApiError::slow_down)?;
    let refused = || {
        ApiError::unauthorised("the owner token is not good")
            .hint("it works once; a new one is written to owner-link.txt when a cloud without users starts")
    };
    let hash = hash_secret(&asked.token);
    if !state.db().owner_token_is_open(&hash).await? {
        return Err(refused());
    }
    state.limiter().succeeded(&keys);
    check_username(&asked.username)?;
    let length = asked.password.chars().count();
    if length < 10 || asked.password.len() > MAX_PASSWORD {
        return Err(ApiError::invalid(
            "password",
            "must be 10 to 1024 characters",
        ));
    }
    let password_hash = state.passwords().hash(asked.password).await?;
    let user = state
        .db()
        .set_up_owner(
            &hash,
            &state.options().organisation,
            &asked.username,
            &password_hash,
        )
        .await?
        .ok_or_else(refused)?;
    forget_owner_link(&state);
    Ok((StatusCode::CREATED, begin(&state, &user).await?))
}

fn check_username(name: &str) -> Result<(), ApiError> {
    let fine = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._@+-".contains(c));
    if fine {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "username",
            "must be 1 to 64 of the characters a-z A-Z 0-9 . _ @ + -",
        ))
    }
}

/// End the session
#[utoipa::path(post, path = paths::SIGN_OUT, tag = "account",
    responses((status = 204, description = "Signed out; the cookie is gone"), Refused))]
pub(crate) async fn sign_out(
    State(state): State<ApiState>,
    _: Caller,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    if let Some(token) = session_token(&headers) {
        state.db().end_session(&hash_secret(token)).await?;
    }
    Ok((StatusCode::NO_CONTENT, cookie("", 0)?))
}

/// Who am I, and what may I do
#[utoipa::path(get, path = paths::ME, tag = "account",
    responses((status = 200, description = "The caller", body = Me), Refused))]
pub(crate) async fn me(State(state): State<ApiState>, caller: Caller) -> Json<Me> {
    let by = match caller.credential {
        Credential::Session(_) => "session",
        Credential::Certificate(_) => "certificate",
    };
    Json(about(&state, &caller.user, by))
}

/// Get a certificate for tools and bundle signatures
#[utoipa::path(post, path = paths::USER_CERTIFICATES, tag = "account", request_body = UserCertificateRequest,
    responses((status = 201, description = "Issued", body = UserCertificate), Refused))]
pub(crate) async fn user_certificate(
    State(state): State<ApiState>,
    caller: Caller,
    Body(asked): Body<UserCertificateRequest>,
) -> Result<(StatusCode, Json<UserCertificate>), ApiError> {
    let profile = CertProfile::user(
        caller.user.id.to_string(),
        &caller.user.username,
        state.options().domain.clone(),
    );
    let authority = state.options().authority.clone();
    let now = state.db().now();
    let issued = tokio::task::spawn_blocking(move || authority.issue(&asked.csr, &profile, now))
        .await
        .map_err(|error| ApiError::internal(&error))?
        .map_err(|error| refused_request("csr", &error))?;
    state
        .db()
        .add_user_certificate(
            &caller.actor(),
            &issued.fingerprint.to_string(),
            &issued.serial,
            &issued.chain_pem,
            issued.not_after,
        )
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(UserCertificate {
            certificate: issued.chain_pem,
            serial: issued.serial,
            not_after: issued.not_after,
        }),
    ))
}

/// A signing request that was not accepted, or a fault of the authority.
pub(crate) fn refused_request(field: &str, error: &AuthorityError) -> ApiError {
    match error {
        AuthorityError::Request { .. } | AuthorityError::Profile { .. } => {
            ApiError::invalid(field, error.to_string())
        }
        other => ApiError::internal(other),
    }
}

/// The root certificate, as PEM
#[utoipa::path(get, path = paths::ROOT_CERTIFICATE, tag = "account",
    responses((status = 200, description = "PEM", body = String, content_type = "application/x-pem-file"), Refused))]
pub(crate) async fn root_certificate(
    State(state): State<ApiState>,
    _: Caller,
) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/x-pem-file")],
        state.options().authority.root_pem(),
    )
}
