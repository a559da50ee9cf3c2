//! A client of the OpenAI API, as small as the scenarios need it.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest that one request may take, hold-and-wake included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(170);

/// A client with an API key.
#[derive(Clone, Debug)]
pub struct OpenAi {
    base: String,
    key: String,
    http: reqwest::Client,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// Variant that served, from the response's header.
    pub variant: Option<String>,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// The text of the first choice.
    #[must_use]
    pub fn text(&self) -> &str {
        self.body["choices"][0]["message"]["content"].as_str().unwrap_or_default()
    }

    /// `usage.total_tokens`.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        self.body["usage"]["total_tokens"].as_u64().unwrap_or(0)
    }

    /// The message of OpenAI's error shape.
    #[must_use]
    pub fn error(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl OpenAi {
    /// A client of the gateway at `base`.
    pub fn new(base: &str, key: &str) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().context("could not make a client")?;
        Ok(Self { base: base.to_owned(), key: key.to_owned(), http })
    }

    /// A chat completion of one user message.
    pub async fn chat(&self, model: &str, message: &str, max_tokens: u64) -> Result<Answer> {
        let messages = json!([{"role": "user", "content": message}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "seed": 1});
        self.post("/v1/chat/completions", body.to_string()).await
    }

    /// Any body, sent as it is.
    pub async fn post(&self, path: &str, body: String) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let request = if self.key.is_empty() { request } else { request.bearer_auth(&self.key) };
        let response = request.body(body).send().await.with_context(|| format!("no answer from {}", self.base))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (retry_after, variant) = (header("retry-after"), header("x-quartermaster-variant"));
        let status = response.status();
        let text = response.text().await.context("the body broke off")?;
        Ok(Answer {
            status,
            retry_after: retry_after.and_then(|seconds| seconds.parse().ok()),
            variant,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        })
    }
}
