//! HTTP: `core::wire::ledger` as JSON.

use crate::auth::{self, Token};
use crate::clock::Clock;
use crate::commands::{Command, CommandError, Reply};
use crate::limits::{BODY, BODY_LIST, REQUEST, RETRY_AFTER_BUSY_S};
use crate::metrics::Metrics;
use crate::reader::{ReadError, Reader};
use crate::writer::{WriteError, Writer};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router, middleware};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Balance, Metered, Refusal, RefusalCode, SpendTotal, UsagePage};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

/// What the handlers need.
#[derive(Clone)]
pub struct App {
    /// The only way to change the book.
    pub writer: Writer,
    /// The only way to read it.
    pub reader: Reader,
    /// Now.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Set when the ledger shuts down: not ready, but still answering.
    pub draining: Arc<AtomicBool>,
}

type Refused = (StatusCode, Json<Refusal>);
type Answer<T> = Result<Json<T>, Failure>;

/// The internal API.
pub fn api(app: App, token: Token) -> Router {
    let lists = Router::new()
        .route("/v1/budgets", put(budgets))
        .route("/v1/spend", post(record_spend).get(spend))
        .layer(DefaultBodyLimit::max(BODY_LIST));
    Router::new()
        .route("/v1/reserve", post(reserve))
        .route("/v1/settle", post(settle))
        .route("/v1/release", post(release))
        .route("/v1/extend", post(extend))
        .route("/v1/balances", get(balances))
        .route("/v1/usage", get(usage))
        .route("/v1/spend/metered", get(metered))
        .layer(DefaultBodyLimit::max(BODY))
        .merge(lists)
        .layer(middleware::from_fn_with_state(token, auth::require))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

/// Probes and metrics.
pub fn admin(app: App) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST))
        .with_state(app)
}

type Body = Result<Bytes, BytesRejection>;

async fn reserve(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Reserve(parse(body)?)).await
}

async fn settle(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Settle(parse(body)?)).await
}

async fn release(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Release(parse(body)?)).await
}

async fn extend(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Extend(parse(body)?)).await
}

async fn budgets(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Budgets(parse(body)?)).await
}

async fn record_spend(State(app): State<App>, body: Body) -> Result<Response, Failure> {
    write(&app, Command::Spend(parse(body)?)).await
}

async fn write(app: &App, command: Command) -> Result<Response, Failure> {
    Ok(match app.writer.submit(command).await? {
        Reply::Reserved(reserved) => Json(reserved).into_response(),
        Reply::Done(done) => Json(done).into_response(),
    })
}

async fn balances(State(app): State<App>) -> Answer<Vec<Balance>> {
    Ok(Json(app.reader.balances(app.clock.now()).await?))
}

#[derive(Deserialize)]
struct UsageQuery {
    #[serde(default)]
    since_ms: i64,
    #[serde(default)]
    after: u64,
}

async fn usage(State(app): State<App>, query: Result<Query<UsageQuery>, QueryRejection>) -> Answer<UsagePage> {
    let Query(query) = query?;
    Ok(Json(app.reader.usage(Millis(query.since_ms), query.after).await?))
}

#[derive(Deserialize)]
struct SpendQuery {
    #[serde(default)]
    since_ms: i64,
    namespace: Option<String>,
}

async fn spend(State(app): State<App>, query: Result<Query<SpendQuery>, QueryRejection>) -> Answer<SpendTotal> {
    let Query(query) = query?;
    let namespace = query.namespace.filter(|namespace| !namespace.is_empty());
    Ok(Json(app.reader.spend(Millis(query.since_ms), namespace).await?))
}

#[derive(Deserialize)]
struct MeteredQuery {
    #[serde(default)]
    since_ms: i64,
}

async fn metered(State(app): State<App>, query: Result<Query<MeteredQuery>, QueryRejection>) -> Answer<Vec<Metered>> {
    let Query(query) = query?;
    Ok(Json(app.reader.metered(Millis(query.since_ms)).await?))
}

async fn ready(State(app): State<App>) -> Response {
    if app.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response();
    }
    match app.reader.open_holds().await {
        Ok(_) => "ok".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let body = app.metrics.render(&app.reader, app.clock.now()).await?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], body).into_response())
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let body = body.map_err(|error| Failure(error.status(), refusal(RefusalCode::Invalid, error.body_text())))?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::invalid(format!("the body is not what this call takes: {error}")))
}

fn refusal(code: RefusalCode, message: String) -> Refusal {
    Refusal { code, message }
}

/// An answer that is not 200.
pub fn refuse(code: RefusalCode, message: String) -> Refused {
    let status = match code {
        RefusalCode::Invalid => StatusCode::BAD_REQUEST,
        RefusalCode::Unauthorized => StatusCode::UNAUTHORIZED,
        RefusalCode::Conflict | RefusalCode::StaleEpoch => StatusCode::CONFLICT,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(refusal(code, message)))
}

/// A refusal on its way to the caller.
struct Failure(StatusCode, Refusal);

impl Failure {
    fn of(code: RefusalCode, message: String) -> Self {
        let (status, Json(refusal)) = refuse(code, message);
        Self(status, refusal)
    }

    fn invalid(message: String) -> Self {
        Self::of(RefusalCode::Invalid, message)
    }
}

impl From<QueryRejection> for Failure {
    fn from(error: QueryRejection) -> Self {
        Self::invalid(error.body_text())
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Invalid(_) => RefusalCode::Invalid,
            CommandError::Conflict(_) => RefusalCode::Conflict,
            CommandError::StaleEpoch { .. } => RefusalCode::StaleEpoch,
            CommandError::Store(_) => RefusalCode::Unavailable,
        };
        Self::of(code, error.to_string())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Command(error) => error.into(),
            WriteError::Busy | WriteError::NotWritten(_) | WriteError::Closed => {
                Self::of(RefusalCode::Unavailable, error.to_string())
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Command(error) => error.into(),
            ReadError::Gone => Self::of(RefusalCode::Unavailable, error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let unavailable = self.0 == StatusCode::SERVICE_UNAVAILABLE;
        let mut response = (self.0, Json(self.1)).into_response();
        if unavailable {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_BUSY_S));
        }
        response
    }
}
