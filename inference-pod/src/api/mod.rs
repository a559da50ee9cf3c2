//! The HTTP API: OpenAI's endpoints, probes, metrics and the tokenizer.
//!
//! Beyond OpenAI's API, as vLLM has them: `top_k`, `min_p`, `repetition_penalty`, `ignore_eos`, `structured_outputs`,
//! `guided_…` (grammars in Lark's notation), `/tokenize`, `/detokenize`. Our own: `"confidence": true` adds
//! `choices[i].confidence {mean_logprob, min_logprob, mean_entropy, tokens}`, in a stream on the choice's last chunk;
//! `DELETE /v1/requests/{id}/choices/{index}`, with the id of the answer's chunks, ends one choice with the finish reason
//! `cancelled`. A stream says a tool call whole, in one delta; every answer that calls tools, forced or not, has the
//! finish reason `tool_calls`.

pub mod admin;
mod answer;
mod cancel;
mod embeddings;
pub mod error;
pub mod fields;
pub mod form;
mod generate;
mod generation;
mod odds;
pub mod request;
pub mod sampling;
mod screen;
pub mod state;
mod stream;
mod tokens;
mod tools;

use crate::limits::{BODY_BYTES_MAX, BODY_DRAIN_BYTES_MAX, BODY_TIMEOUT, COMPLETION_TOKENS_DEFAULT};
use admin::Admin;
use answer::{Answer, Head};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use error::ApiError;
use fields::Fields;
use futures::StreamExt;
use generate::Ask;
use quartermaster_core::chat;
use request::{Common, Kind, Prompt};
use serde_json::{Map, Value, json};
use state::{App, Loaded, Phase};
use std::sync::Arc;
use tools::Tools;

/// All routes.
pub fn router(app: Arc<App>, admin: Option<Admin>) -> Router {
    let admin = admin.map(Arc::new);
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/requests/{id}/choices/{index}", delete(cancel::choice))
        .route("/tokenize", post(tokens::count))
        .route("/detokenize", post(tokens::join))
        .route("/tokenizer", get(tokenizer))
        .route("/admin/variant", get(admin::serving).post(admin::swap))
        .layer(Extension(admin))
        .route("/metrics", get(metrics))
        .route("/health", get(ready))
        .route("/readyz", get(ready))
        .route("/livez", get(live))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

async fn chat_completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let map = read(request).await?;
    let fields = Fields::new(&map);
    known_model(&app, fields)?;
    let tools = Tools::read(fields)?;
    let mut common = Common::read(fields, Kind::Chat, &headers, fresh_seed())?;
    let tools = tools.beside(&mut common.form)?;
    let loaded = app.loaded().await?;
    let prompt = Prompt::Text(render(&loaded, &map)?);
    let ask = Ask { prompt, field: "messages", default_max_tokens: None };
    let head = Head::new(Kind::Chat, &app.config.model);
    let generation = generate::start(&app, &loaded, &head.id, ask, &common).await?;
    answer::send(Answer { head, generation, tools, echo: None }, &common).await
}

/// The prompt's text by the model's template.
fn render(loaded: &Loaded, request: &Map<String, Value>) -> Result<String, ApiError> {
    let messages =
        chat::messages(request.get("messages")).map_err(|error| ApiError::field(error.field, error.problem))?;
    let text = match loaded.template.as_ref() {
        Ok(template) => template.render_with(&messages, chat::tools(request), jiff::Timestamp::now()),
        Err(error) => return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "no_chat_template", error.to_string())),
    };
    text.map_err(|error| ApiError::field("messages", error))
}

async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let map = read(request).await?;
    let fields = Fields::new(&map);
    known_model(&app, fields)?;
    let prompt = request::prompt(fields)?;
    let common = Common::read(fields, Kind::Text, &headers, fresh_seed())?;
    let echoes = fields.flag("echo")?;
    if echoes && common.tell.logprobs.is_some() {
        return Err(ApiError::field("echo", "is not supported together with logprobs"));
    }
    let loaded = app.loaded().await?;
    let echo = echoes.then(|| match &prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => tokens::text(&loaded, tokens),
    });
    let ask = Ask { prompt, field: "prompt", default_max_tokens: Some(COMPLETION_TOKENS_DEFAULT) };
    let head = Head::new(Kind::Text, &app.config.model);
    let generation = generate::start(&app, &loaded, &head.id, ask, &common).await?;
    answer::send(Answer { head, generation, tools: Tools::default(), echo }, &common).await
}

fn fresh_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

fn known_model(app: &App, fields: Fields<'_>) -> Result<(), ApiError> {
    match fields.text("model")? {
        None => Err(ApiError::field("model", "is required")),
        Some(name) if name == app.config.model => Ok(()),
        Some(name) => Err(unknown_model(app, name)),
    }
}

fn unknown_model(app: &App, name: &str) -> ApiError {
    let message = format!("the model {name:?} is not served here; {:?} is", app.config.model);
    ApiError { param: Some("model".into()), ..ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message) }
}

/// Reads the body within its limits.
pub(crate) async fn read(request: Request) -> Result<Map<String, Value>, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut chunks = request.into_body().into_data_stream();
    let mut body = Vec::new();
    if length.is_some_and(|length: u64| length > u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX)) {
        return Err(too_large(chunks).await);
    }
    loop {
        match tokio::time::timeout(BODY_TIMEOUT, chunks.next()).await {
            Ok(None) => return fields::parse(&body),
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
            Ok(Some(Err(error))) => {
                let message = format!("reading the body: {error}");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", message));
            }
            Err(_) => {
                let message = format!("nothing of the body came for {} s", BODY_TIMEOUT.as_secs());
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message));
            }
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(too_large(chunks).await);
        }
    }
}

/// Takes in the rest of the body, within a limit: a client that is cut off while it sends never reads the answer.
async fn too_large(mut chunks: axum::body::BodyDataStream) -> ApiError {
    let mut drained = 0_usize;
    while drained < BODY_DRAIN_BYTES_MAX {
        match tokio::time::timeout(BODY_TIMEOUT, chunks.next()).await {
            Ok(Some(Ok(chunk))) => drained = drained.saturating_add(chunk.len().max(1)),
            _ => break,
        }
    }
    let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn model_object(app: &App) -> Value {
    json!({"id": app.config.model, "object": "model", "created": app.started.as_second(), "owned_by": "quartermaster",
        "max_model_len": app.config.context_tokens})
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [model_object(&app)]}))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if name == app.config.model { Ok(Json(model_object(&app))) } else { Err(unknown_model(&app, &name)) }
}

async fn tokenizer(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    match &app.loaded().await?.bundle {
        Ok(bundle) => {
            Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(bundle.to_string())).into_response())
        }
        Err(error) => Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "tokenizer_not_supported", error.to_string())),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.phase() {
        // New requests wait for a variant that has yet to be loaded: others serve them sooner.
        Phase::Ready if app.current().is_none() => (StatusCode::SERVICE_UNAVAILABLE, "swapping\n"),
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Failed => (StatusCode::SERVICE_UNAVAILABLE, "failed\n"),
    }
}

async fn live(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.phase() {
        Phase::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed\n"),
        Phase::Loading | Phase::Ready | Phase::Draining => (StatusCode::OK, "live\n"),
    }
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_url", format!("no such endpoint: {method} {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
