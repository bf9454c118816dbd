//! What a caller is told when it doesn't work: OpenAI's form, with a hint of ours.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use steps::error::{Failure, Kind};

/// A refused or failed call.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP's status.
    pub status: StatusCode,
    /// What happened.
    pub message: String,
    /// Which parameter is to blame.
    pub param: Option<String>,
    /// A word for programs.
    pub code: &'static str,
    /// What to do.
    pub hint: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, hint: None }
    }

    /// An unusable parameter.
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self { param: Some(name.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message) }
    }

    /// An unusable call.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// No key, or none that is known.
    pub fn unauthorized() -> Self {
        let error = Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "no API key, or none that is known");
        Self { hint: Some("send `authorization: Bearer KEY`".into()), ..error }
    }

    /// A key that may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Nothing of that name, for this caller.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// A state that doesn't allow it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// Too many of something.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    /// A body beyond what is read.
    pub fn too_large(most: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body is longer than {most} bytes"))
    }

    /// A head beyond what is read.
    pub fn head_too_large(most: usize) -> Self {
        let message = format!("the call's line and headers are longer than {most} bytes");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message)
    }

    /// Too many at once.
    pub fn busy() -> Self {
        Self::too_many("too many answers are being made; try again in a second")
    }

    /// A call that took too long.
    pub fn slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the call took too long")
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// Most bytes of a refusal's words.
const WORDS: usize = 1 << 10;

/// A refusal that was made before a route's own code saw the call, in OpenAI's form.
pub async fn in_form(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let words = axum::body::to_bytes(body, WORDS).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    let (code, otherwise) = match status {
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "the route has no such method"),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too long"),
        _ => ("invalid_request", "the call can't be read"),
    };
    let message = if words.is_empty() { otherwise.to_owned() } else { words };
    let formed = ApiError::new(status, code, message).into_response();
    parts.headers.remove(header::CONTENT_LENGTH);
    let (formed_parts, body) = formed.into_parts();
    parts.headers.extend(formed_parts.headers);
    Response::from_parts(parts, body)
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, code) = match failure.kind {
            Kind::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            Kind::Input | Kind::Invalid => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self { hint: failure.hint, ..Self::new(status, code, failure.message) }
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "database", format!("the database: {error}"))
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the work broke off; this is a defect of poa")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "message": self.message, "type": self.kind(), "param": self.param, "code": self.code, "hint": self.hint } });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
