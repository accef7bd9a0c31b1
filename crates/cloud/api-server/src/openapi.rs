use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use aos_api::{ChangeEvent, ErrorBody, paths};

/// The frame of the document; the operations come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "AosCloud",
        version = "11",
        description = "REST API of AosCloud. Lists are `{items, total, offset}`, refusals `{message, field?, hint?}`. \
            Every operation needs a client certificate of kind `user` or the session cookie; a write by cookie must \
            carry the header `x-aos-request`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody, ChangeEvent)),
    security(("session" = []), ("certificate" = [])),
    modifiers(&Schemes),
)]
pub(crate) struct Frame;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(paths::SESSION_COOKIE))),
        );
        components.add_security_scheme(
            "certificate",
            SecurityScheme::MutualTls {
                description: Some("a certificate of kind `user`".into()),
                deprecated: None,
                extensions: None,
            },
        );
    }
}

/// Every refusal.
#[derive(IntoResponses)]
#[response(status = "default", description = "Refused")]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct Refused(ErrorBody);

/// The OpenAPI document of this API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    crate::router::described().into_openapi()
}

/// The OpenAPI document as the file `docs/openapi.json` holds it.
pub fn openapi_json() -> String {
    let mut text = openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
