//! Errors as people and metrics see them.

use std::error::Error;

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Category of an API error, for the metric's label.
#[must_use]
pub fn category(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            422 | 400 => "invalid",
            429 => "throttled",
            500..=599 => "server",
            _ => "other",
        },
        kube::Error::SerdeError(_) => "decode",
        _ => "transport",
    }
}
