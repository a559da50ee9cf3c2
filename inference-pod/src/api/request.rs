//! What both endpoints take: limits, choices, sampling, stops, form, streaming.

use super::error::ApiError;
use super::fields::Fields;
use super::form::{self, Wish};
use super::sampling::{self, Tell};
use crate::engine::Vocabulary;
use crate::limits::{CHOICES_MAX, STOP_BYTES_MAX, STOPS_MAX, TENANT_BYTES_MAX};
use crate::sampler::{Sampling, Token};
use crate::scheduler::{Flow, PRIORITY_MAX};
use axum::http::{HeaderMap, HeaderValue};
use quartermaster_core::wire::serve::{PRIORITY_DEFAULT, PRIORITY_HEADER, TENANT_HEADER};
use serde_json::Value;

/// Which endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// The fields that chat and plain completions share, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// Most tokens to generate for each choice, and the field that said so.
    pub max_tokens: Option<(u32, &'static str)>,
    /// Answers to the same prompt.
    pub choices: u32,
    /// How to draw the first choice; each further one takes the next seed.
    pub sampling: Sampling,
    /// What is told of the tokens.
    pub tell: Tell,
    /// What the answer must look like.
    pub form: Option<Wish>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Whether to stream.
    pub stream: bool,
    /// Whether the stream ends with a chunk of usage.
    pub include_usage: bool,
    /// Whether every chunk of the stream carries usage.
    pub continuous_usage: bool,
    /// Goes on after the model's own end (as in vLLM).
    pub ignore_end: bool,
    /// Whose, and how important.
    pub flow: Flow,
}

impl Common {
    /// Reads the shared fields; `seed` is taken where the request has none.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn read(fields: Fields<'_>, kind: Kind, headers: &HeaderMap, seed: u64) -> Result<Self, ApiError> {
        let limit = |name: &'static str| Ok(fields.count(name, 1)?.map(|count| (count, name)));
        let newer = limit("max_completion_tokens")?;
        let max_tokens = newer.or(limit("max_tokens")?);
        let tell = Tell::read(fields, kind)?;
        let options = fields.object("stream_options", "stream_options.")?;
        let option = |name: &str| options.map_or(Ok(false), |options| options.flag(name));
        Ok(Self {
            max_tokens,
            choices: choices(fields)?,
            sampling: sampling::read(fields, tell, seed)?,
            tell,
            form: form::read(fields)?,
            stops: stops(fields)?,
            stream: fields.flag("stream")?,
            include_usage: option("include_usage")?,
            continuous_usage: option("continuous_usage_stats")?,
            ignore_end: fields.flag("ignore_eos")?,
            flow: flow(headers)?,
        })
    }
}

/// `best_of` is only taken where it changes nothing.
fn choices(fields: Fields<'_>) -> Result<u32, ApiError> {
    let choices = fields.within("n", 1, CHOICES_MAX)?.unwrap_or(1);
    match fields.within("best_of", 1, CHOICES_MAX)? {
        Some(best) if best != choices => Err(ApiError::field("best_of", "must be the same as n: all are returned")),
        _ => Ok(choices),
    }
}

/// Whose request it is, as the gateway says it; a request without is nobody's, of middle priority.
fn flow(headers: &HeaderMap) -> Result<Flow, ApiError> {
    let text = |name: &str| match headers.get(name).map(HeaderValue::to_str) {
        Some(Ok(text)) if text.len() <= TENANT_BYTES_MAX => Ok(Some(text)),
        Some(_) => Err(ApiError::field(name, format!("must be at most {TENANT_BYTES_MAX} printable characters"))),
        None => Ok(None),
    };
    let tenant = text(TENANT_HEADER)?.unwrap_or_default().to_owned();
    let wrong = || ApiError::field(PRIORITY_HEADER, format!("must be a whole number from 0 to {PRIORITY_MAX}"));
    let priority = match text(PRIORITY_HEADER)? {
        Some(text) => text.parse().ok().filter(|priority| *priority <= PRIORITY_MAX).ok_or_else(wrong)?,
        None => PRIORITY_DEFAULT,
    };
    Ok(Flow { tenant, priority })
}

fn stops(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field("stop", "must be a text or a list of texts");
    let stops: Vec<String> = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(items)) if items.len() > STOPS_MAX => {
            return Err(ApiError::field("stop", format!("holds {} texts; at most {STOPS_MAX}", items.len())));
        }
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    if stops.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        return Err(ApiError::field("stop", format!("a text is longer than {STOP_BYTES_MAX} bytes")));
    }
    Ok(stops)
}

/// The prompt of `/v1/completions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Its tokens, taken as they are.
    Tokens(Vec<Token>),
}

/// Reads the prompt: one text or one list of tokens, alone or in a list.
///
/// # Errors
/// Where there is none, or more than one.
pub fn prompt(fields: Fields<'_>) -> Result<Prompt, ApiError> {
    let many = || ApiError::field("prompt", "holds several prompts: send one request each");
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(items) => tokens("prompt", items).map(Prompt::Tokens),
        _ => Err(ApiError::field("prompt", "must be a text or a list of tokens")),
    };
    match fields.get("prompt") {
        None => Err(ApiError::field("prompt", "is required: a text")),
        Some(Value::Array(items)) => match items.as_slice() {
            [only @ (Value::String(_) | Value::Array(_))] => one(only),
            [Value::String(_) | Value::Array(_), ..] => Err(many()),
            _ => tokens("prompt", items).map(Prompt::Tokens),
        },
        Some(value) => one(value),
    }
}

/// A list of tokens.
///
/// # Errors
/// Where one is no number of a token.
pub fn tokens(field: &str, items: &[Value]) -> Result<Vec<Token>, ApiError> {
    let token = |(at, item): (usize, &Value)| {
        let token = item.as_i64().and_then(|token| Token::try_from(token).ok()).filter(|token| *token >= 0);
        token.ok_or_else(|| ApiError::field(format!("{field}[{at}]"), "must be a token: a whole number from 0"))
    };
    items.iter().enumerate().map(token).collect()
}

/// Refuses tokens that this vocabulary has not: the engine would fail on them.
///
/// # Errors
/// Names the first.
pub fn known(field: &str, tokens: &[Token], vocabulary: &dyn Vocabulary) -> Result<(), ApiError> {
    let size = vocabulary.tokens();
    let known = |token: &Token| usize::try_from(*token).is_ok_and(|token| token < size);
    match tokens.iter().position(|token| !known(token)) {
        Some(at) => Err(ApiError::field(format!("{field}[{at}]"), format!("must be a token: less than {size}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::parse;
    use serde_json::json;

    fn read(body: Value) -> Result<Common, ApiError> {
        let map = parse(body.to_string().as_bytes())?;
        Common::read(Fields::new(&map), Kind::Chat, &HeaderMap::new(), 9)
    }

    fn param(body: Value) -> String {
        read(body).unwrap_err().param.unwrap()
    }

    #[test]
    fn defaults_are_openais() {
        let common = read(json!({"unknown": {"a": 1}, "stop": null, "n": 1})).unwrap();
        assert_eq!(common.sampling, Sampling::plain(1.0, 1.0, 9));
        assert_eq!((common.max_tokens, common.stream, common.stops.len()), (None, false, 0));
        assert_eq!((common.choices, common.form, common.tell), (1, None, Tell::default()));
    }

    #[test]
    fn choices_are_few_and_all_of_them_returned() {
        let choices = |body| read(body).map(|common| common.choices).map_err(|error| error.param.unwrap());
        assert_eq!(choices(json!({"n": CHOICES_MAX, "best_of": CHOICES_MAX})), Ok(CHOICES_MAX));
        assert_eq!(choices(json!({"n": CHOICES_MAX + 1})), Err("n".into()));
        assert_eq!(choices(json!({"n": 0})), Err("n".into()));
        assert_eq!(choices(json!({"n": 2, "best_of": 3})), Err("best_of".into()));
        assert_eq!(choices(json!({"best_of": 2})), Err("best_of".into()));
    }

    #[test]
    fn the_newer_limit_wins_and_huge_ones_saturate() {
        let both = read(json!({"max_tokens": 5, "max_completion_tokens": 7})).unwrap();
        assert_eq!(both.max_tokens, Some((7, "max_completion_tokens")));
        assert_eq!(read(json!({"max_tokens": 9_000_000_000_i64})).unwrap().max_tokens, Some((u32::MAX, "max_tokens")));
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(param(json!({"n": "2"})), "n");
        assert_eq!(param(json!({"logprobs": 1})), "logprobs");
        assert_eq!(param(json!({"top_k": "1"})), "top_k");
        assert_eq!(param(json!({"guided_regex": 1})), "guided_regex");
        assert_eq!(param(json!({"max_tokens": "5"})), "max_tokens");
        assert_eq!(param(json!({"max_tokens": 0})), "max_tokens");
        assert_eq!(param(json!({"max_tokens": -1})), "max_tokens");
        assert_eq!(param(json!({"max_completion_tokens": 1.5})), "max_completion_tokens");
        assert_eq!(param(json!({"temperature": 3})), "temperature");
        assert_eq!(param(json!({"temperature": "hot"})), "temperature");
        assert_eq!(param(json!({"top_p": -0.1})), "top_p");
        assert_eq!(param(json!({"seed": 1.5})), "seed");
        assert_eq!(param(json!({"stream": "yes"})), "stream");
        assert_eq!(param(json!({"stream_options": 1})), "stream_options");
        assert_eq!(param(json!({"stream_options": {"include_usage": 1}})), "stream_options.include_usage");
        assert_eq!(param(json!({"stop": 5})), "stop");
        assert_eq!(param(json!({"stop": ["a", 5]})), "stop");
        assert_eq!(param(json!({"stop": vec!["a"; STOPS_MAX + 1]})), "stop");
        assert_eq!(param(json!({"stop": "a".repeat(STOP_BYTES_MAX + 1)})), "stop");
    }

    #[test]
    fn only_one_prompt_is_taken() {
        let of = |body: Value| {
            let map = parse(body.to_string().as_bytes()).unwrap();
            prompt(Fields::new(&map)).map_err(|error| error.param.unwrap())
        };
        assert_eq!(of(json!({"prompt": "a"})), Ok(Prompt::Text("a".into())));
        assert_eq!(of(json!({"prompt": ["a"]})), Ok(Prompt::Text("a".into())));
        assert_eq!(of(json!({"prompt": [1, 2]})), Ok(Prompt::Tokens(vec![1, 2])));
        assert_eq!(of(json!({"prompt": [[1, 2]]})), Ok(Prompt::Tokens(vec![1, 2])));
        let several = [json!({}), json!({"prompt": ["a", "b"]}), json!({"prompt": [[1], [2]]}), json!({"prompt": 3})];
        for wrong in several {
            assert_eq!(of(wrong), Err("prompt".into()));
        }
        assert_eq!(of(json!({"prompt": [1, -2]})), Err("prompt[1]".into()));
        assert_eq!(of(json!({"prompt": [1, "a"]})), Err("prompt[1]".into()));
    }

    #[test]
    fn broken_json_says_where() {
        let error = parse(b"{\"a\": ").unwrap_err();
        assert!(error.message.contains("line 1"), "{}", error.message);
        assert_eq!(parse(b"[1]").unwrap_err().code, "invalid_json");
    }
}
