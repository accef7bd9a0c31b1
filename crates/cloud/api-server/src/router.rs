use std::time::Duration;

use aos_api::paths;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, timeout::TimeoutLayer,
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{ApiError, ApiState, caller, headers, openapi::Frame, routes as r, ui};

/// Longest JSON body.
const MAX_BODY: usize = 2 << 20;
/// Longest time for an answer that is not a stream or an upload.
const LONGEST: Duration = Duration::from_secs(60);

/// What Swagger UI's pages need more than ours: it draws with inline SVG images and styles.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Operations that take a credential in their body and so are open.
fn open() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(r::account::sign_in))
        .routes(routes!(r::account::owner_setup))
        .routes(routes!(r::enrolment::enrol))
}

/// Operations with short answers.
fn short() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(r::account::sign_out))
        .routes(routes!(r::account::me))
        .routes(routes!(r::account::user_certificate))
        .routes(routes!(r::account::root_certificate))
        .routes(routes!(r::unit_models::list, r::unit_models::create))
        .routes(routes!(
            r::unit_models::get,
            r::unit_models::patch,
            r::unit_models::delete
        ))
        .routes(routes!(r::unit_models::configs, r::unit_models::add_config))
        .routes(routes!(r::units::list, r::units::create))
        .routes(routes!(r::enrolment::provision))
        .routes(routes!(r::enrolment::supported_software))
        .routes(routes!(r::units::get, r::units::patch, r::units::delete))
        .routes(routes!(r::unit_models::order_config))
        .routes(routes!(r::unit_models::units))
        .routes(routes!(
            r::unit_models::schedule,
            r::unit_models::set_schedule
        ))
        .routes(routes!(r::units::nodes))
        .routes(routes!(r::orders::patch_node))
        .routes(routes!(
            r::orders::unit_config,
            r::orders::order_unit_config,
            r::orders::unorder_unit_config
        ))
        .routes(routes!(r::orders::schedule, r::orders::set_schedule))
        .routes(routes!(r::orders::env_vars, r::orders::set_env_vars))
        .routes(routes!(r::orders::remove_env_var))
        .routes(routes!(r::orders::subjects))
        .routes(routes!(r::states::list))
        .routes(routes!(r::states::get))
        .routes(routes!(r::logs::list, r::logs::create))
        .routes(routes!(r::logs::get, r::logs::delete))
        .routes(routes!(r::logs::stop))
        .routes(routes!(r::logs::lines))
        .routes(routes!(r::units::items))
        .routes(routes!(r::units::subjects_services))
        .routes(routes!(r::units::timeline))
        .routes(routes!(r::monitoring::unit_monitoring))
        .routes(routes!(r::monitoring::unit_alerts))
        .routes(routes!(r::monitoring::alerts))
        .routes(routes!(r::units::desired_state))
        .routes(routes!(r::units::explain))
        .routes(routes!(r::units::instances_why))
        .routes(routes!(r::units::certificates))
        .routes(routes!(r::units::renew_certificates))
        .routes(routes!(r::claim_codes::list, r::claim_codes::create))
        .routes(routes!(r::claim_codes::delete))
        .routes(routes!(r::subjects::list, r::subjects::create))
        .routes(routes!(
            r::subjects::get,
            r::subjects::patch,
            r::subjects::delete
        ))
        .routes(routes!(r::subjects::assign_at_once))
        .routes(routes!(r::subjects::units, r::subjects::add_units))
        .routes(routes!(r::subjects::reported))
        .routes(routes!(r::subjects::remove_unit))
        .routes(routes!(r::subjects::services, r::subjects::assign))
        .routes(routes!(r::subjects::set_overrides, r::subjects::unassign))
        .routes(routes!(r::services::list))
        .routes(routes!(r::services::get, r::services::delete))
        .routes(routes!(r::services::versions))
        .routes(routes!(r::services::units))
        .routes(routes!(r::bundles::list))
        .routes(routes!(r::bundles::get))
        .routes(routes!(r::audit::list))
}

/// Operations whose bodies or answers may take long.
fn long() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(r::bundles::upload))
        .routes(routes!(r::events::stream))
        .routes(routes!(r::logs::download))
}

/// All operations with their descriptions.
pub(crate) fn described() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .merge(open())
        .merge(short())
        .merge(long())
}

/// The people's side of the cloud as an axum router.
pub fn router(state: ApiState) -> Router {
    let document = crate::openapi();
    let docs = Router::from(SwaggerUi::new(paths::DOCS).url(paths::OPENAPI, document)).layer(
        from_fn(async |request: Request, next: axum::middleware::Next| {
            let mut response = next.run(request).await;
            response.headers_mut().insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(DOCS_POLICY),
            );
            response
        }),
    );
    let timeout = TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, LONGEST);
    let (open, _) = open().split_for_parts();
    let (short, _) = short().split_for_parts();
    let (long, _) = long().split_for_parts();
    let closed = short
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(timeout)
        .merge(long.layer(DefaultBodyLimit::disable()))
        .merge(docs)
        .layer(from_fn_with_state(
            state.clone(),
            caller::known_callers_only,
        ));
    let nothing = Router::new()
        .fallback(nothing_here)
        .layer(from_fn_with_state(
            state.clone(),
            caller::known_callers_only,
        ))
        .with_state(state.clone());
    open.layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(timeout)
        .merge(closed)
        .with_state(state)
        .nest_service("/api", nothing)
        .fallback_service(
            Router::new()
                .fallback(ui::serve)
                .layer(CompressionLayer::new()),
        )
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the cloud could not do this because of a fault of its own",
            )
            .into_response()
        }))
        .layer(from_fn(headers::secure))
}

/// Below `/api/` there is no page of the UI; and only known callers learn what is not there.
async fn nothing_here(State(_): State<ApiState>, request: Request) -> Response {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!(
            "there is no operation {} {}",
            request.method(),
            request.uri().path()
        ),
    )
    .hint(format!(
        "{} lists all; paths end in a slash",
        paths::OPENAPI
    ))
    .into_response()
}
