//! What is asked for. Only the fields that decide about tokens are looked at; all others pass through as they came.

use crate::limits;
use crate::respond::Refusal;
use bytes::Bytes;
use quartermaster_core::chat::{self, Message};
use quartermaster_core::units::Tokens;
use serde_json::{Map, Value, json};

/// The endpoint of the API, which decides how the prompt is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

impl Api {
    /// Path at the engine.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    /// The field that holds the prompt.
    pub const fn prompt_field(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
        }
    }

    /// Completion tokens when neither client nor model says: OpenAI's default for completions is 16.
    pub const fn default_completion(self) -> Option<Tokens> {
        match self {
            Self::Chat => None,
            Self::Completions => Some(Tokens(16)),
        }
    }
}

/// The prompt in the form that decides how it is counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Goes through the chat template, with the tools that the request offers.
    Chat {
        /// What was said.
        messages: Vec<Message>,
        /// What the template writes into the prompt, and what counts there.
        tools: Option<Vec<Value>>,
    },
    /// Goes to the tokenizer as it is.
    Text(String),
    /// Counted by the client: so many token ids.
    Ids(Tokens),
}

impl Prompt {
    /// Size of its text.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Chat { messages, tools } => {
                let said: usize = messages.iter().map(|message| message.content.len()).sum();
                let offered: usize = tools.iter().flatten().map(|tool| tool.to_string().len()).sum();
                said.saturating_add(offered)
            }
            Self::Text(text) => text.len(),
            Self::Ids(_) => 0,
        }
    }
}

/// A request, as far as the gateway needs to understand it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Endpoint.
    pub api: Api,
    /// Name of the model as the client wrote it.
    pub model: String,
    /// What is to be counted.
    pub prompt: Prompt,
    /// Most completion tokens per choice, if the client says.
    pub max_completion: Option<Tokens>,
    /// Choices that are generated at the same time.
    pub choices: u64,
    /// Answer as server-sent events.
    pub stream: bool,
    /// The client wants the chunk with usage.
    pub include_usage: bool,
    /// All fields, as they came.
    pub body: Map<String, Value>,
}

/// Reads the body of a request.
pub fn parse(api: Api, bytes: &[u8]) -> Result<Asked, Refusal> {
    let body: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::body(format!("We could not parse the JSON body of your request: {error}.")))?;
    let Value::Object(body) = body else {
        return Err(Refusal::body("The body of the request must be a JSON object."));
    };
    let fields = Fields(&body);
    let model = fields.required_text("model")?;
    let prompt = match api {
        Api::Chat => fields.messages()?,
        Api::Completions => fields.prompt()?,
    };
    let (stream, include_usage) = (fields.flag("stream")?, fields.include_usage()?);
    let max_completion = match fields.count("max_completion_tokens")? {
        Some(max) => Some(max),
        None => fields.count("max_tokens")?,
    };
    let choices = fields.choices()?;
    Ok(Asked { api, model, prompt, max_completion: max_completion.map(Tokens), choices, stream, include_usage, body })
}

/// The body that goes upstream: bounded by what the hold affords, under the engine's name of the model.
pub fn rewrite(asked: &mut Asked, model: &str, max_tokens: Tokens) -> Bytes {
    let body = &mut asked.body;
    body.insert("model".to_owned(), json!(model));
    body.insert("max_tokens".to_owned(), json!(max_tokens));
    if body.contains_key("max_completion_tokens") {
        body.insert("max_completion_tokens".to_owned(), json!(max_tokens));
    }
    if asked.stream {
        let options = body.entry("stream_options").or_insert_with(|| json!({}));
        if !options.is_object() {
            *options = json!({});
        }
        if let Value::Object(options) = options {
            options.insert("include_usage".to_owned(), json!(true));
        }
    }
    crate::respond::json(&asked.body)
}

/// Reads fields; an explicit null is as good as none, as with OpenAI.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn wrong(name: &str, wanted: &str, got: &Value) -> Refusal {
        let message = format!("Invalid type for `{name}`: expected {wanted}, but got {}.", kind(got));
        Refusal::field(name, "invalid_type", message)
    }

    fn missing(name: &str) -> Refusal {
        Refusal::field(name, "missing_required_parameter", format!("Missing required parameter: `{name}`."))
    }

    fn required_text(&self, name: &str) -> Result<String, Refusal> {
        match self.get(name) {
            None => Err(Self::missing(name)),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(Self::wrong(name, "a string", other)),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Self::wrong(name, "a boolean", other)),
        }
    }

    /// A whole number of at least one.
    fn count(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Some(number) = value.as_i64().map(|n| u64::try_from(n).unwrap_or(0)).or_else(|| value.as_u64()) else {
            return Err(Self::wrong(name, "an integer", value));
        };
        if number == 0 {
            let message = format!("Invalid value for `{name}`: {value} is below the minimum of 1.");
            return Err(Refusal::field(name, "integer_below_min_value", message));
        }
        Ok(Some(number))
    }

    fn choices(&self) -> Result<u64, Refusal> {
        let mut choices = 1;
        for name in ["n", "best_of"] {
            let asked = self.count(name)?.unwrap_or(1);
            if asked > limits::CHOICES_MAX {
                let message = format!("Invalid value for `{name}`: {asked} is above {}.", limits::CHOICES_MAX);
                return Err(Refusal::field(name, "integer_above_max_value", message));
            }
            choices = choices.max(asked);
        }
        Ok(choices)
    }

    fn include_usage(&self) -> Result<bool, Refusal> {
        match self.get("stream_options") {
            None => Ok(false),
            Some(Value::Object(options)) => match options.get("include_usage") {
                None | Some(Value::Null) => Ok(false),
                Some(Value::Bool(flag)) => Ok(*flag),
                Some(other) => Err(Self::wrong("stream_options.include_usage", "a boolean", other)),
            },
            Some(other) => Err(Self::wrong("stream_options", "an object", other)),
        }
    }

    fn messages(&self) -> Result<Prompt, Refusal> {
        let messages = chat::messages(self.0.get("messages")).map_err(|error| {
            let message = format!("Invalid `{}`: {}.", error.field, error.problem);
            Refusal::field(error.field, "invalid_value", message)
        })?;
        Ok(Prompt::Chat { messages, tools: chat::tools(self.0).map(<[Value]>::to_vec) })
    }

    fn prompt(&self) -> Result<Prompt, Refusal> {
        let wanted = "a string or an array of token ids";
        match self.get("prompt") {
            None => Err(Self::missing("prompt")),
            Some(Value::String(text)) => Ok(Prompt::Text(text.clone())),
            Some(Value::Array(ids)) if ids.is_empty() => {
                Err(Refusal::field("prompt", "empty_array", "Invalid `prompt`: the array is empty."))
            }
            Some(Value::Array(ids)) => match ids.iter().find(|id| id.as_u64().is_none()) {
                None => Ok(Prompt::Ids(Tokens(u64::try_from(ids.len()).unwrap_or(u64::MAX)))),
                Some(Value::String(_) | Value::Array(_)) => {
                    let message = "`prompt` holds several prompts: send one request each.";
                    Err(Refusal::field("prompt", "unsupported_batch", message))
                }
                Some(other) => Err(Self::wrong("prompt", wanted, other)),
            },
            Some(other) => Err(Self::wrong("prompt", wanted, other)),
        }
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fields: Value) -> Result<Asked, Refusal> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        parse(Api::Chat, body.to_string().as_bytes())
    }

    #[test]
    fn wrong_fields_are_named() {
        for (fields, param, code) in [
            (json!({"model": null}), "model", "missing_required_parameter"),
            (json!({"model": 7}), "model", "invalid_type"),
            (json!({"messages": "hi"}), "messages", "invalid_value"),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role", "invalid_value"),
            (json!({"max_tokens": "many"}), "max_tokens", "invalid_type"),
            (json!({"max_tokens": 1.5}), "max_tokens", "invalid_type"),
            (json!({"max_tokens": -1}), "max_tokens", "integer_below_min_value"),
            (json!({"max_completion_tokens": 0}), "max_completion_tokens", "integer_below_min_value"),
            (json!({"n": 17}), "n", "integer_above_max_value"),
            (json!({"stream": "yes"}), "stream", "invalid_type"),
            (json!({"stream_options": []}), "stream_options", "invalid_type"),
            (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage", "invalid_type"),
        ] {
            let refusal = chat(fields.clone()).unwrap_err();
            assert_eq!((refusal.param.as_deref(), refusal.code), (Some(param), code), "{fields}");
        }
        for body in ["", "{", "[]", "\"x\"", "{\"model\": \"m\", }"] {
            assert_eq!(parse(Api::Chat, body.as_bytes()).unwrap_err().code, "invalid_body", "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(Api::Chat, deep.as_bytes()).unwrap_err().code, "invalid_body");
    }

    #[test]
    fn completions_take_one_prompt() {
        let prompt = |prompt: Value| {
            let body = json!({"model": "m", "prompt": prompt}).to_string();
            parse(Api::Completions, body.as_bytes()).map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!(prompt(json!("hi")), Ok(()));
        assert_eq!(prompt(json!([1, 2])), Ok(()));
        assert_eq!(prompt(json!(["a", "b"])), Err("unsupported_batch"));
        assert_eq!(prompt(json!([[1], [2]])), Err("unsupported_batch"));
        assert_eq!(prompt(json!([-1])), Err("invalid_type"));
        assert_eq!(prompt(json!(null)), Err("missing_required_parameter"));
    }

    #[test]
    fn rewriting_bounds_both_fields_and_keeps_the_rest() {
        let mut asked = chat(json!({
            "max_tokens": 900, "max_completion_tokens": 800, "stream": true, "temperature": 0.1,
            "stream_options": {"continuous_usage_stats": true}, "new_field": {"a": [1, 2.5]},
        }))
        .unwrap();
        assert_eq!(asked.max_completion, Some(Tokens(800)));
        assert!(!asked.include_usage);
        let body: Value = serde_json::from_slice(&rewrite(&mut asked, "engine/name", Tokens(7))).unwrap();
        let expected = json!({
            "model": "engine/name", "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 7, "max_completion_tokens": 7, "stream": true, "temperature": 0.1,
            "stream_options": {"continuous_usage_stats": true, "include_usage": true}, "new_field": {"a": [1, 2.5]},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_last_of_two_equal_fields_counts_here_and_upstream() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":""}],"max_tokens":5,"max_tokens":50000}"#;
        let mut asked = parse(Api::Chat, body).unwrap();
        assert_eq!(asked.max_completion, Some(Tokens(50_000)));
        let sent = rewrite(&mut asked, "m", Tokens(9));
        assert_eq!(String::from_utf8_lossy(&sent).matches("max_tokens").count(), 1);
    }
}
