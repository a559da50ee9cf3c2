//! One request, in the order in which it meets the phases:
//!
//! ```text
//! identify → parse → wake → count → admit (limits, reserve) → route and send → relay and meter → settle
//! ```
//! All of it within one deadline. From the wake on, a client that asked for a stream may see comments before its answer.

pub mod identify;
pub mod parse;
mod read;

use crate::admit::{self, Bounds};
use crate::app::App;
use crate::catalogue::{Model, View};
use crate::deadline::Deadline;
use crate::ledger::millis;
use crate::limits;
use crate::meter::{Meter, UPSTREAM_ERROR};
use crate::metrics::Held;
use crate::respond::{self, Body, Refusal};
use crate::tokenizer::{CountError, Counter};
use crate::upstream::relay::{self, Occupied, Order};
use crate::upstream::send::{self, Job, Payload, Sent};
use crate::upstream::sse;
use crate::{waiting, wake};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parse::{Api, Asked, Prompt};
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::gateway::ApiKey;
use quartermaster_core::wire::ledger::{Amount, Reserve, Reserved};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Who asks which model; empty until known.
#[derive(Clone, Debug, Default)]
struct Names {
    namespace: String,
    model: String,
}

/// One request: its id, which names the attempt at the ledger, too, and its time.
#[derive(Clone, Debug)]
struct Ticket {
    id: String,
    deadline: Deadline,
}

/// Answers one request; a refusal is an answer, too.
pub async fn serve(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    // Our own id, never the client's.
    let ticket = Ticket { id: Uuid::now_v7().to_string(), deadline: Deadline::begin(app.request_timeout) };
    let mut names = Names::default();
    let mut response = match dispatch(&app, request, &ticket, &mut names).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::info!(
                request = ticket.id,
                model = names.model,
                status = refusal.status.as_u16(),
                refusal.code,
                "refused"
            );
            refusal.response()
        }
    };
    app.metrics.request(&names.namespace, &names.model, response.status().as_u16());
    respond::set(response.headers_mut(), respond::REQUEST_ID, &ticket.id);
    response
}

async fn dispatch(
    app: &Arc<App>,
    request: Request<Incoming>,
    ticket: &Ticket,
    names: &mut Names,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    let api = match path {
        "/v1/chat/completions" => Api::Chat,
        "/v1/completions" => Api::Completions,
        _ if path == "/v1/models" || path.starts_with("/v1/models/") => return models(app, &request, names),
        _ => return Err(Refusal::no_route(path)),
    };
    if request.method() != Method::POST {
        return Err(Refusal::method("POST"));
    }
    generate(app, api, request, ticket, names).await
}

fn view(app: &App) -> Result<Arc<View>, Refusal> {
    let message = "This gateway has no configuration yet: the operator has not answered.";
    app.catalogue.view().ok_or_else(|| Refusal::unavailable("no_configuration", message, Millis::seconds(5)))
}

/// `GET /v1/models`: what the key's namespace serves, asleep or not.
fn models(app: &App, request: &Request<Incoming>, names: &mut Names) -> Result<Response<Body>, Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::method("GET"));
    }
    let view = view(app)?;
    let key = identify::identify(request.headers(), &view)?;
    names.namespace.clone_from(&key.namespace);
    let object = |model: &str| json!({"id": model, "object": "model", "created": 0, "owned_by": key.namespace});
    let body = match request.uri().path().strip_prefix("/v1/models/").filter(|name| !name.is_empty()) {
        Some(name) => object(&view.model(&key.namespace, name).ok_or_else(|| Refusal::no_model(name))?.route.name),
        None => {
            let all = view.snapshot.models.values().filter(|model| model.namespace == key.namespace);
            json!({"object": "list", "data": all.map(|model| object(&model.name)).collect::<Vec<_>>()})
        }
    };
    Ok(respond::answer(StatusCode::OK, respond::json(&body)))
}

async fn generate(
    app: &Arc<App>,
    api: Api,
    request: Request<Incoming>,
    ticket: &Ticket,
    names: &mut Names,
) -> Result<Response<Body>, Refusal> {
    let deadline = ticket.deadline;
    let busy = |_| Refusal::unavailable("overloaded", "This gateway is full. Ask again.", Millis::SECOND);
    let permit = Arc::clone(&app.requests).try_acquire_owned().map_err(busy)?;
    let view = view(app)?;
    let key = identify::identify(request.headers(), &view)?.clone();
    names.namespace.clone_from(&key.namespace);
    let asked = parse::parse(api, &deadline.within(read::body(request)).await?)?;
    let model = view.model(&key.namespace, &asked.model).ok_or_else(|| Refusal::no_model(&asked.model))?;
    names.model.clone_from(&model.route.name);
    let occupied = Occupied { in_flight: Held::new(&model.metrics.in_flight, 1), permit };
    let stream = asked.stream;
    let work = produce(Arc::clone(app), key, Arc::clone(model), asked, ticket.clone(), occupied);
    // The work may take long, and an old snapshot need not live for it.
    drop(view);
    if stream {
        waiting::answer(work, limits::WAITING_EVERY, deadline, &ticket.id).await
    } else {
        deadline.within(work).await
    }
}

/// From the wake on. It owns all it needs, because it may go on in the body of an answer that has begun.
async fn produce(
    app: Arc<App>,
    key: ApiKey,
    model: Arc<Model>,
    mut asked: Asked,
    ticket: Ticket,
    occupied: Occupied,
) -> Result<Response<Body>, Refusal> {
    let model = wake::served(&app, model).await?;
    let counter = counter(&app, &model).await?;
    let prompt = count(&counter, &mut asked).await?;
    let bounds = admit::bounds(&model.route.limits, &asked, prompt)?;
    let setting = app.setting(ticket.deadline);
    let meter = Meter::new(setting, Arc::clone(&model), counter, &key.subject, ticket.id.clone(), prompt);
    let (meter, held) = reserve(&app, &key, meter, &ticket.id, bounds).await?;
    let max_tokens = admit::afforded(held, prompt, asked.choices);
    let body = parse::rewrite(&mut asked, &model.route.public_name, max_tokens);
    let tenant = key.budgets.into_iter().next().unwrap_or(key.subject);
    let job = Job { api: asked.api, stream: asked.stream, body, id: ticket.id, tenant };
    forward(&app, model, &job, meter, !asked.include_usage, ticket.deadline, occupied).await
}

async fn counter(app: &App, model: &Model) -> Result<Arc<Counter>, Refusal> {
    let unavailable = |problem: String| {
        tracing::warn!(model = model.id, problem, "no tokenizer");
        let message =
            format!("The tokenizer of {} is not available yet, so no budget can be checked.", model.route.name);
        Refusal::unavailable("tokenizer_unavailable", message, Millis::seconds(5))
    };
    let wanted = model.route.tokenizer.as_ref().ok_or_else(|| unavailable("none is known".to_owned()))?;
    app.tokenizers.get(wanted).await.map_err(|error| unavailable(error.to_string()))
}

/// Counts the prompt, off the event loop if it is long.
async fn count(counter: &Arc<Counter>, asked: &mut Asked) -> Result<Tokens, Refusal> {
    let prompt = std::mem::replace(&mut asked.prompt, Prompt::Ids(Tokens::ZERO));
    let (now, param) = (jiff::Timestamp::now(), asked.api.prompt_field());
    let counted = if prompt.bytes() <= limits::COUNT_INLINE_BYTES_MAX {
        counter.count(&prompt, now)
    } else {
        let counter = Arc::clone(counter);
        let counted = tokio::task::spawn_blocking(move || counter.count(&prompt, now)).await;
        counted.unwrap_or_else(|error| Err(CountError::Tokenizer(error.to_string())))
    };
    counted.map_err(|error| Refusal::field(param, "invalid_value", format!("Invalid `{param}`: {error}.")))
}

/// Every route is metered or refused: a key without a budget is not served, nor is one whose ledger is away.
async fn reserve(
    app: &App,
    key: &ApiKey,
    mut meter: Meter,
    id: &str,
    bounds: Bounds,
) -> Result<(Meter, Tokens), Refusal> {
    if key.budgets.is_empty() {
        meter.refused();
        let message = format!("No TokenBudget pays for the key {}: name its Secret in one.", key.subject);
        return Err(Refusal::forbidden(message));
    }
    let away = || {
        let message = "The token budget can't be checked right now, so the request is not served.";
        Refusal::unavailable("ledger_unavailable", message, Millis::seconds(2))
    };
    if app.book.unsettled() > limits::UNSETTLED_MAX {
        meter.refused();
        return Err(away());
    }
    let amount = |tokens| Amount { tokens, nano_usd: NanoUsd::ZERO };
    let (want, at_least) = (amount(bounds.want), amount(bounds.at_least));
    let (attempt, budgets, lease) = (id.to_owned(), key.budgets.clone(), millis(limits::LEASE));
    match app.ledger.reserve(&Reserve { attempt, budgets, want, at_least, lease }).await {
        Ok(Reserved::Granted { held }) => {
            meter.held(held.tokens);
            Ok((meter, held.tokens))
        }
        Ok(Reserved::Exhausted(no)) => {
            meter.refused();
            app.metrics.rejection(&no.budget, &no.window);
            Err(admit::exhausted(&no, at_least, Millis(jiff::Timestamp::now().as_millisecond())))
        }
        Err(error) => {
            // The meter goes, and with it whatever the ledger may hold.
            tracing::warn!(request = id, %error, "reserving failed");
            Err(away())
        }
    }
}

async fn forward(
    app: &App,
    model: Arc<Model>,
    job: &Job,
    mut meter: Meter,
    strip_usage: bool,
    deadline: Deadline,
    occupied: Occupied,
) -> Result<Response<Body>, Refusal> {
    let metrics = Arc::clone(&model.metrics);
    let Sent { place, headers, payload } = match send::send(app, model, job, &mut meter).await {
        Ok(sent) => sent,
        Err(refusal) => {
            let refused = refusal.status.is_client_error();
            meter.fail(if refused { "engine_refused" } else { UPSTREAM_ERROR }).await;
            return Err(refusal);
        }
    };
    meter.opened().await;
    let (variant, class) = (place.endpoint.variant.clone(), place.endpoint.hardware_class.clone());
    let body = match payload {
        Payload::Whole(bytes) => {
            meter.observe(&sse::read_json(&bytes));
            meter.succeed().await;
            respond::full(bytes)
        }
        Payload::Stream(first, rest) => {
            relay::body(first, rest, Order { meter, metrics, strip_usage, deadline, place, occupied })
        }
    };
    let mut response = Response::new(body);
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if job.stream {
        response.headers_mut().insert(header::CACHE_CONTROL, respond::NO_CACHE);
    }
    respond::set(response.headers_mut(), respond::VARIANT, &variant);
    respond::set(response.headers_mut(), respond::HARDWARE_CLASS, &class);
    Ok(response)
}
