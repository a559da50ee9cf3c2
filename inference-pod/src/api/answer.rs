//! The shapes of an answer, whole and as a stream, for chat and plain completions.

use super::error::ApiError;
use super::generation::{Finish, Generation, Piece};
use super::odds::Odds;
use super::request::{Common, Kind};
use super::screen::{Call, Screen};
use super::tools::Tools;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What every object of an answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) id: String,
    model: String,
    created: i64,
}

impl Head {
    /// A head with a new id.
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

    pub(super) fn object(&self, streamed: bool, choices: Value) -> Value {
        let object = match (self.kind, streamed) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}

pub(super) fn with_usage(mut object: Value, usage: Value) -> Value {
    if let Value::Object(map) = &mut object {
        map.insert("usage".into(), usage);
    }
    object
}

/// An answer to be sent.
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) generation: Generation,
    pub(super) tools: Tools,
    /// The prompt, where the answer repeats it.
    pub(super) echo: Option<String>,
}

/// One choice on its way to the client.
pub(super) struct Choice {
    index: u32,
    kind: Kind,
    screen: Screen,
    pub(super) odds: Odds,
}

/// What is new of a choice and may be seen.
#[derive(Default)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) finish: Option<Finish>,
}

impl Choice {
    pub(super) fn all(kind: Kind, tools: &Tools, common: &Common) -> Vec<Self> {
        let one = |index| Self { index, kind, screen: Screen::new(tools), odds: Odds::new(kind, common.tell) };
        (0..common.choices).map(one).collect()
    }

    pub(super) fn hear(&mut self, piece: Piece) -> Part {
        self.odds.hear(piece.said);
        let mut part = Part { text: self.screen.push(piece.text), ..Part::default() };
        if let Some(finish) = piece.finish {
            let (rest, calls) = self.screen.finish();
            part.text.push_str(&rest);
            let calling = finish == Finish::Stop && !calls.is_empty();
            part.calls = calls;
            part.finish = Some(if calling { Finish::ToolCalls } else { finish });
        }
        part
    }

    /// The choice's object, with what the endpoint and the stream make of `said`: a message, a delta or a text.
    pub(super) fn object(&mut self, said: (&str, Value), finish: Option<Finish>) -> Value {
        let mut map = Map::new();
        map.insert("index".into(), self.index.into());
        map.insert(said.0.into(), said.1);
        map.insert("logprobs".into(), self.odds.take());
        map.insert("finish_reason".into(), finish.map(Finish::name).into());
        if let Some(confidence) = finish.and_then(|_| self.odds.confidence()) {
            map.insert("confidence".into(), confidence);
        }
        Value::Object(map)
    }

    fn whole(&mut self, part: Part) -> Value {
        let Part { text, calls, finish } = part;
        let said = match (self.kind, calls.as_slice()) {
            (Kind::Text, _) => ("text", Value::from(text)),
            (Kind::Chat, []) => ("message", json!({"role": "assistant", "content": text})),
            (Kind::Chat, calls) => {
                let content = (!text.is_empty()).then_some(text);
                let calls: Vec<Value> = calls.iter().map(Call::object).collect();
                ("message", json!({"role": "assistant", "content": content, "tool_calls": calls}))
            }
        };
        self.object(said, finish)
    }
}

/// Answers, whole or streamed as the request wants it.
///
/// # Errors
/// Where the engine fails before the first byte of the answer is sent.
pub(super) async fn send(answer: Answer, common: &Common) -> Result<Response, ApiError> {
    if common.stream { super::stream::send(answer, common).await } else { whole(answer, common).await }
}

async fn whole(answer: Answer, common: &Common) -> Result<Response, ApiError> {
    let Answer { head, mut generation, tools, echo } = answer;
    let mut choices = Choice::all(head.kind, &tools, common);
    let mut parts: Vec<Part> = Vec::new();
    parts.resize_with(choices.len(), || Part { text: echo.clone().unwrap_or_default(), ..Part::default() });
    while !generation.is_done() {
        let piece = generation.next().await?;
        let at = usize::try_from(piece.index).unwrap_or(usize::MAX);
        if let (Some(choice), Some(part)) = (choices.get_mut(at), parts.get_mut(at)) {
            let new = choice.hear(piece);
            part.text.push_str(&new.text);
            part.calls.extend(new.calls);
            part.finish = new.finish;
        }
    }
    let choices: Vec<Value> = choices.iter_mut().zip(parts).map(|(choice, part)| choice.whole(part)).collect();
    Ok(Json(with_usage(head.object(false, choices.into()), generation.usage())).into_response())
}
