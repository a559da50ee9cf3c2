//! Sends a request to a replica, and to another one as long as the client has got nothing.
//!
//! What may be tried again depends on where it failed: a refused connection or a full queue costs nothing, so it is tried
//! until the deadline; a replica that fell over while it worked is replaced a bounded number of times.

use super::pool::Place;
use super::sse;
use crate::app::App;
use crate::catalogue::Model;
use crate::client;
use crate::ledger::millis;
use crate::limits;
use crate::meter::Meter;
use crate::request::parse::Api;
use crate::respond::{REQUEST_ID, Refusal};
use crate::wake;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use quartermaster_core::wire::serve::TENANT_HEADER;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What goes to every replica that is tried.
#[derive(Clone, Debug)]
pub struct Job {
    /// Endpoint of the API.
    pub api: Api,
    /// Answer as events.
    pub stream: bool,
    /// Rewritten body.
    pub body: Bytes,
    /// The request's id.
    pub id: String,
    /// Whose it is, for fairness at the replica: the budget that pays first.
    pub tenant: String,
}

/// A replica's answer that may be given to the client.
#[derive(Debug)]
pub struct Sent {
    /// Where it came from; held until the answer is over.
    pub place: Place,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Payload,
}

/// A whole answer, or a stream of which the first piece has come.
#[derive(Debug)]
pub enum Payload {
    /// Read to the end.
    Whole(Bytes),
    /// The first piece and the rest.
    Stream(Bytes, Incoming),
}

/// Why a try gave nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// Its queue is full, or it drains.
    #[error("it is busy: {0}")]
    Busy(StatusCode),
    /// It broke off, or answered 5xx.
    #[error("it broke off: {0}")]
    Broken(String),
    /// Trying again would cost the same again.
    #[error("it took too long")]
    Late,
    /// The request itself is at fault.
    #[error("it refuses the request: {}", .0.message)]
    Refused(Refusal),
}

/// Tries replicas until one answers. On failure nothing was charged.
pub async fn send(app: &App, mut model: Arc<Model>, job: &Job, meter: &mut Meter) -> Result<Sent, Refusal> {
    let deadline = Instant::now() + limits::SEND_DEADLINE;
    let (mut backoff, mut resends, mut last) = (limits::RETRY_BACKOFF, 0, None::<String>);
    loop {
        let Some(place) = app.pool.pick(&model.route.endpoints, last.as_deref(), Instant::now()) else {
            // All replicas went away since the snapshot before: as at the start, wait for one.
            model = wake::served(app, newest(app, &model)?).await?;
            continue;
        };
        meter.sent(&place.endpoint);
        let failure = match try_once(app, &model, job, &place.endpoint.address).await {
            Ok((headers, payload)) => {
                place.well();
                return Ok(Sent { place, headers, payload });
            }
            Err(failure) => failure,
        };
        meter.unsent();
        resends += u32::from(matches!(failure, Failure::Broken(_)));
        if let Some(refusal) = failure.ends(&model, resends, deadline) {
            tracing::warn!(request = job.id, pod = place.endpoint.pod, %failure, "giving up");
            return Err(refusal);
        }
        tracing::info!(request = job.id, pod = place.endpoint.pod, %failure, "trying again");
        app.metrics.retry(failure.reason());
        if failure.is_ill() {
            place.failed(Instant::now());
        }
        last = Some(place.endpoint.address.clone());
        drop(place);
        tokio::time::sleep(backoff).await;
        backoff = backoff.saturating_mul(2).min(limits::RETRY_BACKOFF_MAX);
        model = newest(app, &model)?;
    }
}

/// The model as it is known by now.
fn newest(app: &App, model: &Model) -> Result<Arc<Model>, Refusal> {
    let view = app.catalogue.view();
    let model = view.and_then(|view| view.model(&model.route.namespace, &model.route.name).cloned()).ok_or(model);
    model.map_err(|gone| Refusal::no_model(&gone.route.name))
}

impl Failure {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Busy(_) => "busy",
            Self::Broken(_) => "broken",
            Self::Late => "late",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether others should keep away for a while. A full queue is no illness: it is load that we count ourselves.
    fn is_ill(&self) -> bool {
        !matches!(self, Self::Busy(StatusCode::TOO_MANY_REQUESTS) | Self::Refused(_))
    }

    /// The refusal, where another try makes no sense.
    fn ends(&self, model: &Model, resends: u32, deadline: Instant) -> Option<Refusal> {
        let late = Instant::now() >= deadline;
        let name = &model.route.name;
        let soon = millis(limits::RETRY_BACKOFF_MAX);
        match self {
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::Late => Some(Refusal::upstream()),
            Self::Broken(_) => (resends > limits::RESENDS_MAX || late).then(Refusal::upstream),
            Self::Busy(_) => late.then(|| {
                let message = format!("Every replica of {name} is busy. Ask again later.");
                Refusal::unavailable("overloaded", message, soon)
            }),
            Self::Connect(_) => late.then(|| {
                let message = format!("No replica of {name} can be reached.");
                Refusal::unavailable("model_unavailable", message, soon)
            }),
        }
    }
}

async fn try_once(app: &App, model: &Model, job: &Job, address: &str) -> Result<(HeaderMap, Payload), Failure> {
    let request = request(job, address).map_err(|error| Failure::Broken(error.to_string()))?;
    let response = match tokio::time::timeout(limits::FIRST_BYTE_TIMEOUT, app.http.request(request)).await {
        Err(_) => return Err(Failure::Late),
        Ok(Err(error)) if error.is_connect() => return Err(Failure::Connect(client::chain(&error))),
        Ok(Err(error)) => return Err(Failure::Broken(client::chain(&error))),
        Ok(Ok(response)) => response,
    };
    let status = response.status();
    match status {
        status if status.is_success() => receive(response, job.stream).await,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(Failure::Busy(status)),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Failure::Refused(refusal(status, response).await))
        }
        status => {
            // 404, 401 and the like are our own mistake here, not the client's.
            let said = refusal(status, response).await.message;
            tracing::error!(model = model.id, %status, said, "a replica failed");
            Err(Failure::Broken(format!("status {status}")))
        }
    }
}

/// Built from nothing: no header of the client gets through, so none can name a tenant or a route.
fn request(job: &Job, address: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    let accept = if job.stream { sse::CONTENT_TYPE } else { "application/json" };
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{}", job.api.path()))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::ACCEPT, HeaderValue::from_static(accept))
        .header(REQUEST_ID, &job.id)
        .header(TENANT_HEADER, &job.tenant)
        .body(Full::new(job.body.clone()))
}

async fn receive(response: Response<Incoming>, stream: bool) -> Result<(HeaderMap, Payload), Failure> {
    let (head, body) = response.into_parts();
    let payload = if stream && sse::is_stream(&head.headers) {
        first_piece(body).await?
    } else {
        let whole = Limited::new(body, limits::ANSWER_BYTES_MAX).collect();
        let whole = tokio::time::timeout(limits::FIRST_BYTE_TIMEOUT, whole).await.map_err(|_| Failure::Late)?;
        Payload::Whole(whole.map_err(|error| Failure::Broken(error.to_string()))?.to_bytes())
    };
    Ok((head.headers, payload))
}

/// Until a piece has come, nothing was given to the client and another replica may do it.
async fn first_piece(mut body: Incoming) -> Result<Payload, Failure> {
    loop {
        match next_piece(&mut body, limits::FIRST_BYTE_TIMEOUT).await {
            Ok(Some(bytes)) if bytes.is_empty() => {}
            Ok(Some(bytes)) => return Ok(Payload::Stream(bytes, body)),
            Ok(None) => return Err(Failure::Broken("the stream ended before it began".to_owned())),
            Err(error) => return Err(Failure::Broken(error)),
        }
    }
}

/// The next bytes of a body; none at its end.
pub async fn next_piece(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, String> {
    match tokio::time::timeout(patience, body.frame()).await {
        Err(_) => Err(format!("nothing came for {} s", patience.as_secs())),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(client::chain(&error)),
        // Trailers say nothing that we pass on.
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
    }
}

/// What the engine says about a request that it can't take, in our shape.
async fn refusal(status: StatusCode, response: Response<Incoming>) -> Refusal {
    #[derive(Deserialize)]
    struct Shape {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: Option<String>,
        param: Option<String>,
    }
    let body = Limited::new(response.into_body(), limits::LEDGER_ANSWER_BYTES_MAX).collect();
    let body = match tokio::time::timeout(limits::WAKE_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let said = serde_json::from_slice::<Shape>(&body).ok().map(|shape| shape.error);
    let (message, param) = said.map_or((None, None), |error| (error.message, error.param));
    Refusal::engine(status, message, param)
}
