//! What the choices of one answer say, as it comes.

use super::cancel::Entry;
use super::error::ApiError;
use crate::driver::{Event, Said};
use crate::metrics::Outcome;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

/// How a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model ended it, or a stop text, or its form.
    Stop,
    /// It reached its limit.
    Length,
    /// It calls tools.
    ToolCalls,
    /// The client had enough of it: an extension of ours.
    Cancelled,
}

impl Finish {
    /// `finish_reason`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a choice says next.
#[derive(Debug)]
pub(super) struct Piece {
    /// Whose.
    pub(super) index: u32,
    /// New text, maybe none.
    pub(super) text: String,
    /// The token's odds, where asked for.
    pub(super) said: Option<Box<Said>>,
    /// Set with the choice's last piece.
    pub(super) finish: Option<Finish>,
}

enum Heard {
    Event(Event),
    Cancelled,
    Lost,
}

/// One choice's end of the engine.
pub(super) struct Listener {
    pub(super) index: u32,
    pub(super) events: UnboundedReceiver<Event>,
    /// Told when the choice is to stop.
    pub(super) cancel: Arc<Notify>,
}

impl Listener {
    fn listen(self) -> BoxStream<'static, (u32, Heard)> {
        let hear = |listener: Option<Self>| async move {
            let mut listener = listener?;
            let heard = listener.hear().await;
            let goes_on = matches!(heard, Heard::Event(Event::Token { .. } | Event::Begun { .. }));
            Some(((listener.index, heard), goes_on.then_some(listener)))
        };
        stream::unfold(Some(self), hear).boxed()
    }

    /// Closed by a cancellation, it still gives what was generated before: that counts.
    async fn hear(&mut self) -> Heard {
        if !self.events.is_closed() {
            tokio::select! {
                biased;
                () = self.cancel.notified() => self.events.close(),
                event = self.events.recv() => return event.map_or(Heard::Lost, Heard::Event),
            }
        }
        self.events.recv().await.map_or(Heard::Cancelled, Heard::Event)
    }
}

/// An answer under way. Dropping it cancels all its choices.
pub(super) struct Generation {
    heard: SelectAll<BoxStream<'static, (u32, Heard)>>,
    /// Choices that have not ended.
    open: usize,
    prompt_tokens: u32,
    /// Of all choices, the tokens that end them included.
    completion_tokens: u32,
    /// Tokens of the prompt that the cache held when the first choice began.
    cached_tokens: u32,
    _entry: Entry,
}

impl Generation {
    pub(super) fn new(listeners: Vec<Listener>, prompt_tokens: u32, entry: Entry) -> Self {
        let open = listeners.len();
        let heard = stream::select_all(listeners.into_iter().map(Listener::listen));
        Self { heard, open, prompt_tokens, completion_tokens: 0, cached_tokens: 0, _entry: entry }
    }

    /// Whether every choice has ended.
    pub(super) fn is_done(&self) -> bool {
        self.open == 0
    }

    /// The next piece of any choice.
    ///
    /// # Errors
    /// Where the engine gave one of them up.
    pub(super) async fn next(&mut self) -> Result<Piece, ApiError> {
        let stopped = || ApiError::engine("it stopped before the request was done");
        loop {
            let (index, heard) = self.heard.next().await.ok_or_else(stopped)?;
            let (text, said, finish) = match heard {
                Heard::Event(Event::Begun { cached }) => {
                    if index == 0 {
                        self.cached_tokens = cached;
                    }
                    continue;
                }
                Heard::Event(Event::Token { text, said }) => (text, said, None),
                Heard::Event(Event::Done { text, said, outcome }) => (text, said, Some(finish(outcome)?)),
                Heard::Event(Event::Expired) => return Err(ApiError::waited_too_long()),
                Heard::Event(Event::Failed(why)) => return Err(ApiError::engine(&why)),
                Heard::Cancelled => {
                    self.open -= 1;
                    return Ok(Piece { index, text: String::new(), said: None, finish: Some(Finish::Cancelled) });
                }
                Heard::Lost => return Err(stopped()),
            };
            self.completion_tokens = self.completion_tokens.saturating_add(1);
            self.open -= usize::from(finish.is_some());
            return Ok(Piece { index, text, said, finish });
        }
    }

    /// OpenAI's usage object for what has been generated so far. The prompt counts once.
    pub(super) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens.saturating_add(self.completion_tokens),
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }
}

fn finish(outcome: Outcome) -> Result<Finish, ApiError> {
    match outcome {
        Outcome::Stop => Ok(Finish::Stop),
        Outcome::Length => Ok(Finish::Length),
        Outcome::Abort | Outcome::Error => Err(ApiError::engine("it gave the request up")),
    }
}
