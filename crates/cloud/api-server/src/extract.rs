//! Extractors that answer in our words when a request is not what it should be.

use axum::extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection};
use http::{StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::ApiError;

/// A JSON body. Its content type must say so, which also keeps out forms of foreign pages.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                let kind = value.split(';').next().unwrap_or_default().trim();
                kind.eq_ignore_ascii_case("application/json")
            });
        if !is_json {
            return Err(
                ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
                    .hint("send `content-type: application/json`"),
            );
        }
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| match &rejection {
                BytesRejection::FailedToBufferBody(_)
                    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE =>
                {
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long")
                }
                _ => ApiError::new(StatusCode::BAD_REQUEST, "the body did not arrive whole"),
            })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let refused = ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the body is not what is expected: {error}"),
            );
            match named_field(&error.to_string()) {
                Some(field) => refused.field(field),
                None => refused,
            }
        })
    }
}

/// The field that serde names in backticks for missing and unknown fields.
fn named_field(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("field `")?;
    rest.split_once('`').map(|(field, _)| field.to_owned())
}

/// The query of the address.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| {
                ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!(
                        "the query is not what is expected: {}",
                        rejection.body_text()
                    ),
                )
            })
    }
}

/// What stands in the places of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(values)| Self(values))
            .map_err(|_| ApiError::new(StatusCode::NOT_FOUND, "there is no such thing"))
    }
}

/// The Unit in a path, as the document describes it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct UnitId {
    /// Id or system id
    id: String,
}

/// What has a UUID in a path, as the document describes it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct Id {
    /// Id
    id: String,
}

/// An id in a path; what is not a UUID names nothing.
pub(crate) fn id(what: &'static str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there is no {what} `{shown}`"),
        )
    })
}
