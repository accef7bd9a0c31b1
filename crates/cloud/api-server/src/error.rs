use aos_api::ErrorBody;
use aos_db::DbError;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

/// A refusal, as people and programs get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<u64>,
}

impl ApiError {
    /// A refusal with its status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody {
                message: message.into(),
                field: None,
                hint: None,
            },
            retry_after: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// Says which field of the request is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.body.field = Some(field.into());
        self
    }

    /// No credential, or not a good one. Says nothing of which part is wrong.
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// A field breaks a rule.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message).field(field)
    }

    /// Too many attempts.
    pub fn slow_down(seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too many failed attempts")
                .hint(format!("try again in {seconds} seconds"))
        }
    }

    /// Something failed that the asker cannot mend. The cause goes to the log, not to the asker.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        tracing::error!(error = text, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the cloud could not do this because of a fault of its own",
        )
        .hint("the cloud's log says more")
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text it is answered with.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            DbError::Conflict { why, hint } => Self::new(StatusCode::CONFLICT, why).hint(hint),
            DbError::Invalid { field, why } => Self::invalid(field, why),
            other => Self::internal(&other),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<crate::password::PasswordError> for ApiError {
    fn from(error: crate::password::PasswordError) -> Self {
        Self::internal(&error)
    }
}

impl From<crate::secret::NoRandomness> for ApiError {
    fn from(error: crate::secret::NoRandomness) -> Self {
        Self::internal(&error)
    }
}
