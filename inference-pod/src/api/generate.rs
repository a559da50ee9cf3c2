//! From a checked request to an answer under way: tokenize, check the context, build the constraints, take places,
//! submit a job for each choice.

use super::error::ApiError;
use super::form::Wish;
use super::generation::{Generation, Listener};
use super::request::{Common, Prompt, known};
use super::state::{App, Loaded};
use super::tokens::tokenize;
use crate::constraint::Constraint;
use crate::driver::{Job, Message};
use crate::limits::QUEUE_WAIT_MAX;
use crate::sampler::Sampling;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A prompt and the field that it came in.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Text or tokens.
    pub(super) prompt: Prompt,
    /// `messages` or `prompt`.
    pub(super) field: &'static str,
    /// Tokens to generate where the request says nothing; `None` is all that the context leaves.
    pub(super) default_max_tokens: Option<u32>,
}

/// Submits a request under the answer's `id`.
///
/// # Errors
/// 400 where it can't fit the context or its form is none, 429 where no place is free, 503 where there is no engine.
pub(super) async fn start(
    app: &App,
    loaded: &Arc<Loaded>,
    id: &str,
    ask: Ask,
    common: &Common,
) -> Result<Generation, ApiError> {
    let arrived = Instant::now();
    let context = app.config.context_tokens;
    fits_at_all(loaded, &ask, context)?;
    let permits = places(app, common.choices)?;
    let Ask { prompt, field, default_max_tokens } = ask;
    let prompt = match prompt {
        Prompt::Text(text) => tokenize(app, loaded, text, true).await?,
        Prompt::Tokens(tokens) => {
            known(field, &tokens, loaded.vocabulary.as_ref())?;
            tokens
        }
    };
    let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
    let max_tokens = max_tokens(field, default_max_tokens, prompt_tokens, common, context)?;
    let constraints = constraints(app, loaded, common).await?;
    let cancels: Vec<Arc<Notify>> = permits.iter().map(|_| Arc::default()).collect();
    let entry = app.running.enter(id, &cancels);
    let mut listeners = Vec::with_capacity(permits.len());
    for (index, ((permit, constraint), cancel)) in (0..).zip(permits.into_iter().zip(constraints).zip(cancels)) {
        let (events, heard) = unbounded_channel();
        let job = Job {
            prompt: prompt.clone(),
            max_tokens,
            sampling: sampling(&common.sampling, index),
            constraint,
            stops: common.stops.clone(),
            ignore_end: common.ignore_end,
            events,
            permit: Some(permit),
            arrived,
            flow: common.flow.clone(),
            // Once the first one has begun, the others wait as long as it takes: what it said must not be lost.
            deadline: arrived.checked_add(QUEUE_WAIT_MAX).filter(|_| index == 0),
        };
        loaded.inbox.send(Message::Run(Box::new(job))).map_err(|_| ApiError::unavailable("the engine has stopped"))?;
        listeners.push(Listener { index, events: heard, cancel });
    }
    Ok(Generation::new(listeners, prompt_tokens, entry))
}

/// Each choice draws from a seed of its own.
fn sampling(first: &Sampling, index: u32) -> Sampling {
    Sampling { seed: first.seed.wrapping_add(u64::from(index)), ..first.clone() }
}

/// A place for each choice, or none at all.
fn places(app: &App, choices: u32) -> Result<Vec<OwnedSemaphorePermit>, ApiError> {
    let one = |_| Arc::clone(&app.places).try_acquire_owned().map_err(|_| ApiError::busy(app.places_max()));
    (0..choices).map(one).collect()
}

/// One constraint for each choice.
async fn constraints(app: &App, loaded: &Arc<Loaded>, common: &Common) -> Result<Vec<Option<Constraint>>, ApiError> {
    let choices = common.choices;
    let Some(Wish { form, field }) = common.form.clone() else { return Ok((0..choices).map(|_| None).collect()) };
    // As much work as tokenizing, and more.
    let _turn = app.tokenizing.acquire().await.map_err(|_| ApiError::unavailable("the server is shutting down"))?;
    let loaded = Arc::clone(loaded);
    let work = tokio::task::spawn_blocking(move || {
        (0..choices).map(|_| loaded.forms.of(loaded.vocabulary.as_ref(), &form).map(Some)).collect()
    });
    let made: Result<_, _> = work.await.map_err(|error| ApiError::engine(&format!("reading the form: {error}")))?;
    made.map_err(|error: crate::constraint::ConstraintError| ApiError::field(field, error))
}

/// Refuses a prompt that has too many tokens however it is cut, before anybody cuts it.
fn fits_at_all(loaded: &Loaded, ask: &Ask, context: u32) -> Result<(), ApiError> {
    let least = match &ask.prompt {
        Prompt::Text(text) => text.len() / loaded.vocabulary.longest_token_bytes().max(1),
        Prompt::Tokens(tokens) => tokens.len(),
    };
    match u32::try_from(least) {
        Ok(least) if least < context => Ok(()),
        _ => Err(ApiError::too_long(ask.field, format!("has more tokens than the context of {context}"))),
    }
}

fn max_tokens(
    field: &str,
    default: Option<u32>,
    prompt_tokens: u32,
    common: &Common,
    context: u32,
) -> Result<u32, ApiError> {
    if prompt_tokens == 0 {
        return Err(ApiError::field(field, "has no tokens"));
    }
    let left = context.saturating_sub(prompt_tokens);
    if left == 0 {
        let problem = format!("has {prompt_tokens} tokens; the context of {context} leaves none for an answer");
        return Err(ApiError::too_long(field, problem));
    }
    match common.max_tokens {
        Some((wanted, field)) if wanted > left => {
            let problem = format!(
                "{wanted} and the prompt's {prompt_tokens} tokens exceed the context of {context}; at most {left} are left"
            );
            Err(ApiError::too_long(field, problem))
        }
        Some((wanted, _)) => Ok(wanted),
        None => Ok(default.unwrap_or(left).min(left)),
    }
}
