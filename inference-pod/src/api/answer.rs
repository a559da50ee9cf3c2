//! The two shapes of an answer, whole and as a stream, for chat and plain completions.

use super::error::ApiError;
use super::generate::{Generation, Piece};
use super::request::Common;
use crate::limits::KEEP_ALIVE;
use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use std::convert::Infallible;

/// Which endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// What every object of an answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    kind: Kind,
    id: String,
    model: String,
    created: i64,
}

impl Head {
    /// A head with a new id.
    #[must_use]
    pub(super) fn new(kind: Kind, model: &str) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            model: model.to_owned(),
            created: jiff::Timestamp::now().as_second(),
        }
    }

    fn object(&self, streamed: bool, choices: Value) -> Value {
        let object = match (self.kind, streamed) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    fn whole(&self, text: &str, finish: &str, usage: Value) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": null,
                "finish_reason": finish}),
            Kind::Text => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish}),
        };
        with_usage(self.object(false, json!([choice])), usage)
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}),
            Kind::Text => json!({"index": 0, "text": delta, "logprobs": null, "finish_reason": finish}),
        };
        self.object(true, json!([choice]))
    }

    fn text_chunk(&self, text: &str, finish: Option<&str>) -> Value {
        match self.kind {
            Kind::Chat if text.is_empty() => self.chunk(json!({}), finish),
            Kind::Chat => self.chunk(json!({"content": text}), finish),
            Kind::Text => self.chunk(json!(text), finish),
        }
    }
}

fn with_usage(mut object: Value, usage: Value) -> Value {
    if let Value::Object(map) = &mut object {
        map.insert("usage".into(), usage);
    }
    object
}

/// Answers, whole or streamed as the request wants it.
///
/// # Errors
/// Where the engine fails before the first byte of the answer is sent.
pub(super) async fn send(head: Head, mut generation: Generation, common: &Common) -> Result<Response, ApiError> {
    if !common.stream {
        return whole(&head, &mut generation).await;
    }
    // The status is decided by the first token: what fails before it is an error, not a broken stream.
    let first = generation.next().await?;
    let mut lines = Lines { head, generation, usage: UsageWanted::of(common), queue: Vec::new(), state: State::Open };
    lines.open();
    lines.take(&first);
    let events = stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(line)), lines))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

async fn whole(head: &Head, generation: &mut Generation) -> Result<Response, ApiError> {
    let mut text = String::new();
    loop {
        let piece = generation.next().await?;
        text.push_str(&piece.text);
        if let Some(outcome) = piece.outcome {
            return Ok(Json(head.whole(&text, outcome.name(), generation.usage())).into_response());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UsageWanted {
    at_end: bool,
    always: bool,
}

impl UsageWanted {
    fn of(common: &Common) -> Self {
        Self { at_end: common.include_usage, always: common.continuous_usage }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closing,
}

/// The `data:` lines of a stream.
struct Lines {
    head: Head,
    generation: Generation,
    usage: UsageWanted,
    /// Lines that are ready, the next one last.
    queue: Vec<String>,
    state: State,
}

impl Lines {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.queue.pop() {
                return Some(line);
            }
            if self.state == State::Closing {
                return None;
            }
            match self.generation.next().await {
                Ok(piece) => self.take(&piece),
                Err(error) => {
                    self.state = State::Closing;
                    self.push(error.body().to_string());
                }
            }
        }
    }

    fn open(&mut self) {
        if self.head.kind == Kind::Chat {
            let object = self.head.chunk(json!({"role": "assistant", "content": ""}), None);
            self.push_object(object);
        }
    }

    fn take(&mut self, piece: &Piece) {
        let finish = piece.outcome.map(|outcome| outcome.name());
        if !piece.text.is_empty() || finish.is_some() || self.usage.always {
            let object = self.head.text_chunk(&piece.text, finish);
            self.push_object(object);
        }
        if finish.is_some() {
            self.state = State::Closing;
            if self.usage.at_end {
                let object = with_usage(self.head.object(true, json!([])), self.generation.usage());
                self.push(object.to_string());
            }
            self.push("[DONE]".to_owned());
        }
    }

    fn push_object(&mut self, object: Value) {
        let object = if self.usage.always {
            with_usage(object, self.generation.usage())
        } else if self.usage.at_end {
            // As OpenAI does: null on every chunk but the last.
            with_usage(object, Value::Null)
        } else {
            object
        };
        self.push(object.to_string());
    }

    fn push(&mut self, line: String) {
        self.queue.insert(0, line);
    }
}
