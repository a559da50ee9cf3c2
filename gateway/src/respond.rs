//! What clients see: one error shape, OpenAI's. Bodies of upstreams and of our own components never leak.

use crate::deadline::DEADLINE_EXCEEDED;
use crate::limits;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use quartermaster_core::units::Millis;
use serde::Serialize;
use std::io;
use std::time::Duration;

/// Body of every answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Variant that answered.
pub const VARIANT: HeaderName = HeaderName::from_static("x-quartermaster-variant");
/// Hardware class that answered.
pub const HARDWARE_CLASS: HeaderName = HeaderName::from_static("x-quartermaster-hardware-class");
/// A stream is of no use a second time.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// Id of the request, the same as in logs and in the ledger's usage records.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request gets no answer from a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// What a person reads.
    pub message: String,
    /// When asking again makes sense.
    pub retry_after: Option<Millis>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// 400: a field is wrong.
    pub fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        refusal.param = Some(param.into());
        refusal
    }

    /// 400: the body as a whole is wrong.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_body", message)
    }

    /// 401, without saying whether the key ever existed.
    pub fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    /// 403: the key is known and may not be served.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", "no_token_budget", message)
    }

    /// 404: no such path.
    pub fn no_route(path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        let served = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models";
        let message = format!("There is nothing at {path}. This gateway serves {served}.");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "unknown_url", message)
    }

    /// 405.
    pub fn method(allowed: &str) -> Self {
        let message = format!("This address takes only {allowed}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
    }

    /// 404: the key's namespace has no such model. One of another namespace looks the same.
    pub fn no_model(asked: &str) -> Self {
        let asked: String = asked.chars().take(200).collect();
        let message = format!("The model `{asked}` does not exist or this key has no access to it.");
        let mut refusal = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        refusal.param = Some("model".to_owned());
        refusal
    }

    /// 413.
    pub fn too_large() -> Self {
        let message = format!("The request body is larger than {} bytes.", limits::BODY_BYTES_MAX);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
    }

    /// 408.
    pub fn too_slow() -> Self {
        let message = format!("The request body did not arrive within {} s.", limits::BODY_TIMEOUT.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "request_timeout", message)
    }

    /// 429: a budget can't pay; without a time where it never can.
    pub fn exhausted(message: String, retry_after: Option<Millis>) -> Self {
        let mut refusal =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "token_budget_exhausted", message);
        refusal.retry_after = retry_after;
        refusal
    }

    /// 503 with the time after which asking again makes sense.
    pub fn unavailable(code: &'static str, message: impl Into<String>, retry_after: Millis) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message);
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// 502: the replica failed; its own words stay in our log.
    pub fn upstream() -> Self {
        let message = "The model's server failed before it answered. The request was not charged.";
        Self::new(StatusCode::BAD_GATEWAY, "server_error", "upstream_error", message)
    }

    /// 504: the whole request took too long.
    pub fn late(patience: Duration) -> Self {
        let message = format!(
            "The request was not answered to its end within {} s, the most that this gateway gives one. What was \
             generated until then is charged.",
            patience.as_secs()
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", DEADLINE_EXCEEDED, message)
    }

    /// The 4xx of an engine, in our shape.
    pub fn engine(status: StatusCode, message: Option<String>, param: Option<String>) -> Self {
        let message = message.unwrap_or_else(|| format!("The model's server refused the request ({status})."));
        let message = message.chars().take(limits::UPSTREAM_MESSAGE_CHARS_MAX).collect::<String>();
        let mut refusal = Self::new(status, "invalid_request_error", "engine_refused", message);
        refusal.param = param;
        refusal
    }

    /// The error as a JSON body.
    pub fn json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            #[serde(rename = "type")]
            kind: &'a str,
            param: Option<&'a str>,
            code: &'a str,
        }
        let inner = Inner { message: &self.message, kind: self.kind, param: self.param.as_deref(), code: self.code };
        json(&Shape { error: inner })
    }

    /// The whole answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = answer(self.status, self.json());
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: a client that comes back on time is not refused again.
            let seconds = wait.0.max(1).saturating_add(999) / 1000;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Any of our own values as JSON.
pub fn json<T: Serialize>(value: &T) -> Bytes {
    // Strings, numbers and maps with string keys: there is nothing that could fail.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// A JSON answer.
pub fn answer(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that is there at once.
pub fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// Sets a header whose value comes from the snapshot; one that no header can carry is left out.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (millis, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            let response = Refusal::unavailable("x", "y", Millis(millis)).response();
            assert_eq!(response.headers()[header::RETRY_AFTER], header, "{millis} ms");
        }
    }

    #[test]
    fn errors_have_openais_shape() {
        let json: serde_json::Value = serde_json::from_slice(&Refusal::no_model("gpt-7").json()).unwrap();
        assert_eq!(json["error"]["code"], "model_not_found");
        assert_eq!(json["error"]["param"], "model");
        assert_eq!(json["error"]["type"], "invalid_request_error");
    }
}
