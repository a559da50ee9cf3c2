//! Errors in OpenAI's shape.

use crate::limits::{QUEUE_WAIT_MAX, RETRY_AFTER_SECONDS};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// For people.
    pub message: String,
    /// The field of the request that is meant.
    pub param: Option<String>,
    /// For programs.
    pub code: &'static str,
}

impl ApiError {
    /// A field of a wrong type or value.
    pub fn field(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("{param}: {problem}"),
            param: Some(param),
            code: "invalid_value",
        }
    }

    /// An error without a field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    /// The request and its answer don't fit the context.
    pub fn too_long(param: &str, problem: impl std::fmt::Display) -> Self {
        Self { code: "context_length_exceeded", ..Self::field(param, problem) }
    }

    /// The queue is full.
    #[must_use]
    pub fn busy(running: usize) -> Self {
        let message = format!("all {running} places of this replica are taken; try again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "engine_queue_full", message)
    }

    /// No place became free in time.
    #[must_use]
    pub fn waited_too_long() -> Self {
        let message = format!("no place became free within {} s; try again", QUEUE_WAIT_MAX.as_secs());
        Self::new(StatusCode::TOO_MANY_REQUESTS, "engine_queue_timeout", message)
    }

    /// Loading, draining or failed.
    #[must_use]
    pub fn unavailable(why: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_unavailable", why)
    }

    /// The engine failed.
    #[must_use]
    pub fn engine(why: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_error", format!("the engine failed: {why}"))
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::NOT_FOUND => "not_found_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// OpenAI's error object.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}
