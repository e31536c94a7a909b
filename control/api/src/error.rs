//! Refusals and failures as every client sees them.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use weir_model::{FieldError, Invalid};
use weir_store::Error as StoreError;

/// What is wrong, for programs (`code`, `reason`) and for people (`message`, `details`).
#[derive(Debug, Clone, Serialize)]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence: what is wrong and what to do.
    pub message: String,
    /// The fields it is about.
    pub details: Vec<FieldError>,
}

/// Handlers return this.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error without details.
    pub fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code: status.as_u16(), reason, message: message.into(), details: Vec::new() }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 401: nobody we know.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "Conflict", message)
    }

    /// 429: a limit of the server is reached for now.
    pub fn too_many(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    /// 422 about one field.
    pub fn field(path: &str, message: impl Into<String>) -> ApiError {
        Invalid::one(path, message).into()
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> ApiError {
        let message = match invalid.0.as_slice() {
            [one] => one.to_string(),
            many => format!("{} fields are wrong", many.len()),
        };
        ApiError { details: invalid.0, ..ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let message = error.to_string();
        match error {
            StoreError::NotFound(_) => ApiError::not_found(message),
            StoreError::AlreadyExists(_) => ApiError::new(StatusCode::CONFLICT, "AlreadyExists", message),
            StoreError::Conflict { .. } => ApiError::conflict(message),
            StoreError::Gone { .. } => ApiError::new(StatusCode::GONE, "Gone", message),
            StoreError::Invalid(invalid) => invalid.into(),
            StoreError::Fenced { .. } => ApiError::conflict(message),
            StoreError::Unavailable(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let wait = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (status, Json(self)).into_response();
        if wait {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        response
    }
}

/// Shape of an error body, for the API's document.
#[derive(JsonSchema)]
#[schemars(rename = "Error")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct ErrorBody {
    /// HTTP status.
    code: u16,
    /// One CamelCase word for programs.
    reason: String,
    /// What is wrong and what to do.
    message: String,
    /// The fields it is about.
    details: Vec<FieldErrorBody>,
}

/// One field that is wrong.
#[derive(JsonSchema)]
#[schemars(rename = "FieldError")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct FieldErrorBody {
    /// Path of the field, e.g. `spec.rules[0].backends[1].weight`.
    path: String,
    /// What is wrong.
    message: String,
    /// What to do.
    hint: Option<String>,
}
