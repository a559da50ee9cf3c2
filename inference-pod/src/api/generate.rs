//! From a checked request to a stream of events: tokenize, check the context, take a place, submit.

use super::error::ApiError;
use super::request::Common;
use super::state::{App, Loaded};
use crate::driver::{Event, Job, Message};
use crate::limits::QUEUE_WAIT_MAX;
use crate::metrics::Outcome;
use crate::sampler::Token;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A request under way. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Generation {
    events: UnboundedReceiver<Event>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated so far, the one that ends the answer included.
    pub completion_tokens: u32,
    /// Tokens of the prompt that the cache held.
    pub cached_tokens: u32,
}

/// What a generation says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// New text, maybe none.
    pub text: String,
    /// Set with the last piece.
    pub outcome: Option<Outcome>,
}

impl Generation {
    /// The next piece.
    ///
    /// # Errors
    /// Where the engine gave the request up.
    pub async fn next(&mut self) -> Result<Piece, ApiError> {
        loop {
            let (text, outcome) = match self.events.recv().await {
                Some(Event::Begun { cached }) => {
                    self.cached_tokens = cached;
                    continue;
                }
                Some(Event::Token { text, .. }) => (text, None),
                Some(Event::Done { text, outcome, .. }) => (text, Some(outcome)),
                Some(Event::Expired) => return Err(ApiError::waited_too_long()),
                Some(Event::Failed(why)) => return Err(ApiError::engine(&why)),
                None => return Err(ApiError::engine("it stopped before the request was done")),
            };
            self.completion_tokens = self.completion_tokens.saturating_add(1);
            return Ok(Piece { text, outcome });
        }
    }

    /// OpenAI's usage object for what has been generated so far.
    #[must_use]
    pub fn usage(&self) -> serde_json::Value {
        serde_json::json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens.saturating_add(self.completion_tokens),
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }
}

/// A prompt and the field that it came in.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Its text.
    pub text: &'a str,
    /// `messages` or `prompt`.
    pub field: &'static str,
    /// Tokens to generate where the request says nothing; `None` is all that the context leaves.
    pub default_max_tokens: Option<u32>,
}

/// Submits a request.
///
/// # Errors
/// 400 where it can't fit the context, 429 where no place is free, 503 where there is no engine.
pub async fn start(app: &Arc<App>, prompt: Prompt<'_>, common: &Common) -> Result<Generation, ApiError> {
    let arrived = Instant::now();
    let loaded = app.loaded().await?;
    let loaded = loaded.as_ref();
    let context = app.config.context_tokens;
    fits_at_all(loaded, prompt, context)?;
    let permit = Arc::clone(&app.places).try_acquire_owned().map_err(|_| ApiError::busy(app.places_max()))?;
    let tokens = tokenize(app, loaded, prompt.text).await?;
    let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    let max_tokens = max_tokens(prompt, prompt_tokens, common, context)?;
    let (sender, events) = unbounded_channel();
    let job = Job {
        prompt: tokens,
        max_tokens,
        sampling: common.sampling.clone(),
        constraint: None,
        stops: common.stops.clone(),
        ignore_end: common.ignore_end,
        events: sender,
        permit: Some(permit),
        arrived,
        flow: common.flow.clone(),
        deadline: arrived.checked_add(QUEUE_WAIT_MAX),
    };
    loaded.inbox.send(Message::Run(Box::new(job))).map_err(|_| ApiError::unavailable("the engine has stopped"))?;
    Ok(Generation { events, prompt_tokens, completion_tokens: 0, cached_tokens: 0 })
}

/// Refuses a text that has too many tokens however it is cut, before anybody cuts it.
fn fits_at_all(loaded: &Loaded, prompt: Prompt<'_>, context: u32) -> Result<(), ApiError> {
    let least = prompt.text.len() / loaded.vocabulary.longest_token_bytes().max(1);
    match u32::try_from(least) {
        Ok(least) if least < context => Ok(()),
        _ => Err(ApiError::too_long(prompt.field, format!("has more tokens than the context of {context}"))),
    }
}

async fn tokenize(app: &Arc<App>, loaded: &Loaded, text: &str) -> Result<Vec<Token>, ApiError> {
    let _turn = app.tokenizing.acquire().await.map_err(|_| ApiError::unavailable("the server is shutting down"))?;
    let (vocabulary, rules) = (Arc::clone(&loaded.vocabulary), Arc::clone(&loaded.rules));
    let text = text.to_owned();
    let work = tokio::task::spawn_blocking(move || {
        let specials = vocabulary.specials();
        let begin = specials.bos.filter(|_| rules.needs_bos(&text));
        let end = specials.eos.filter(|_| specials.add_eos);
        begin.into_iter().chain(vocabulary.tokenize(&text)).chain(end).collect()
    });
    work.await.map_err(|error| ApiError::engine(&format!("tokenizing: {error}")))
}

fn max_tokens(prompt: Prompt<'_>, prompt_tokens: u32, common: &Common, context: u32) -> Result<u32, ApiError> {
    if prompt_tokens == 0 {
        return Err(ApiError::field(prompt.field, "has no tokens"));
    }
    let left = context.saturating_sub(prompt_tokens);
    if left == 0 {
        let problem = format!("has {prompt_tokens} tokens; the context of {context} leaves none for an answer");
        return Err(ApiError::too_long(prompt.field, problem));
    }
    match common.max_tokens {
        Some((wanted, field)) if wanted > left => {
            let problem = format!(
                "{wanted} and the prompt's {prompt_tokens} tokens exceed the context of {context}; at most {left} are left"
            );
            Err(ApiError::too_long(field, problem))
        }
        Some((wanted, _)) => Ok(wanted),
        None => Ok(prompt.default_max_tokens.unwrap_or(left).min(left)),
    }
}
