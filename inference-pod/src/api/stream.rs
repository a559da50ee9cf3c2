//! An answer as server-sent events: chunks of all choices as they come, usage, `[DONE]`.

use super::answer::{Answer, Choice, Head, Part, with_usage};
use super::error::ApiError;
use super::generation::{Finish, Generation, Piece};
use super::request::{Common, Kind};
use super::screen::Call;
use crate::limits::KEEP_ALIVE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;

/// Streams.
///
/// # Errors
/// Where the engine fails before the first token.
pub(super) async fn send(answer: Answer, common: &Common) -> Result<Response, ApiError> {
    let Answer { head, mut generation, tools, echo } = answer;
    let choices = Choice::all(head.kind, &tools, common);
    // The status is decided by the first token: what fails before it is an error, not a broken stream.
    let first = generation.next().await?;
    let usage = UsageWanted { at_end: common.include_usage, always: common.continuous_usage };
    let mut lines = Lines { head, generation, choices, usage, ready: VecDeque::new(), closing: false };
    lines.open(echo.as_deref());
    lines.take(first);
    let events = stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(line)), lines))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UsageWanted {
    at_end: bool,
    always: bool,
}

/// The `data:` lines of a stream.
struct Lines {
    head: Head,
    generation: Generation,
    choices: Vec<Choice>,
    usage: UsageWanted,
    ready: VecDeque<String>,
    closing: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.closing {
                return None;
            }
            match self.generation.next().await {
                Ok(piece) => self.take(piece),
                Err(error) => {
                    self.closing = true;
                    self.ready.push_back(error.body().to_string());
                }
            }
        }
    }

    /// What stands before the first token of each choice.
    fn open(&mut self, echo: Option<&str>) {
        for at in 0..self.choices.len() {
            match (self.head.kind, echo) {
                (Kind::Chat, _) => self.chunk(at, ("delta", json!({"role": "assistant", "content": ""})), None),
                (Kind::Text, Some(prompt)) => self.chunk(at, ("text", json!(prompt)), None),
                (Kind::Text, None) => {}
            }
        }
    }

    fn take(&mut self, piece: Piece) {
        let at = usize::try_from(piece.index).unwrap_or(usize::MAX);
        let Some(part) = self.choices.get_mut(at).map(|choice| choice.hear(piece)) else { return };
        let Part { text, calls, finish } = part;
        if !calls.is_empty() {
            let calls: Vec<Value> = calls.iter().enumerate().map(|(at, call)| Call::delta(call, at)).collect();
            let mut delta = json!({"tool_calls": calls});
            if let Value::Object(map) = &mut delta
                && !text.is_empty()
            {
                map.insert("content".into(), text.into());
            }
            self.chunk(at, ("delta", delta), None);
            self.chunk(at, ("delta", json!({})), finish);
        } else if !text.is_empty() || finish.is_some() || self.usage.always {
            let said = match self.head.kind {
                Kind::Chat if text.is_empty() => ("delta", json!({})),
                Kind::Chat => ("delta", json!({"content": text})),
                Kind::Text => ("text", json!(text)),
            };
            self.chunk(at, said, finish);
        }
        if self.generation.is_done() {
            self.close();
        }
    }

    fn close(&mut self) {
        self.closing = true;
        if self.usage.at_end {
            let object = with_usage(self.head.object(true, json!([])), self.generation.usage());
            self.ready.push_back(object.to_string());
        }
        self.ready.push_back("[DONE]".to_owned());
    }

    fn chunk(&mut self, at: usize, said: (&str, Value), finish: Option<Finish>) {
        let Some(choice) = self.choices.get_mut(at) else { return };
        let object = self.head.object(true, json!([choice.object(said, finish)]));
        let object = if self.usage.always {
            with_usage(object, self.generation.usage())
        } else if self.usage.at_end {
            // As OpenAI does: null on every chunk but the last.
            with_usage(object, Value::Null)
        } else {
            object
        };
        self.ready.push_back(object.to_string());
    }
}
