//! `POST /v1/embeddings`.

use super::error::ApiError;
use super::fields::Fields;
use super::request::{known, tokens};
use super::state::{App, Loaded};
use super::tokens::tokenize;
use super::{known_model, read};
use crate::engine::embed::Embedder;
use crate::limits::EMBEDDING_INPUTS_MAX;
use crate::sampler::Token;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// One text of the input.
#[derive(Clone, Debug, PartialEq)]
enum Input {
    Text(String),
    Tokens(Vec<Token>),
}

/// `{model, input, encoding_format}`.
pub(super) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let map = read(request).await?;
    let fields = Fields::new(&map);
    known_model(&app, fields)?;
    let inputs = inputs(fields)?;
    let floats = match fields.text("encoding_format")? {
        None | Some("float") => true,
        Some("base64") => false,
        Some(_) => return Err(fields.wrong("encoding_format", "float or base64")),
    };
    if fields.get("dimensions").is_some() {
        return Err(ApiError::field("dimensions", "is not supported: the model has its own number; leave it out"));
    }
    let loaded = app.loaded().await?;
    let memory = "this replica's memory limit has no room for embeddings beside its model";
    let missing = || ApiError::new(StatusCode::NOT_IMPLEMENTED, "embeddings_not_supported", memory);
    let embedder = loaded.embedder.as_ref().ok_or_else(missing)?;
    let _place = Arc::clone(&app.places).try_acquire_owned().map_err(|_| ApiError::busy(app.places_max()))?;
    let mut texts = Vec::with_capacity(inputs.len());
    for input in inputs {
        texts.push(counted(&app, &loaded, embedder, input).await?);
    }
    let prompt_tokens = texts.iter().map(Vec::len).sum();
    let mut data = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        let vector = embedder.embed(text).await.map_err(|error| ApiError::engine(&error.to_string()))?;
        let embedding = if floats { Vector::Floats(vector) } else { Vector::Base64(base64(&vector)) };
        data.push(Item { object: "embedding", index, embedding });
    }
    let usage = Usage { prompt_tokens, total_tokens: prompt_tokens };
    Ok(Json(List { object: "list", data, model: &app.config.model, usage }).into_response())
}

/// An input's tokens, which the model can take.
async fn counted(app: &App, loaded: &Arc<Loaded>, embedder: &Embedder, input: Input) -> Result<Vec<Token>, ApiError> {
    let most = usize::try_from(embedder.tokens_max()).unwrap_or(usize::MAX);
    let long = || ApiError::too_long("input", format!("has a text of more than {most} tokens"));
    let tokens = match input {
        // However it is cut, before anybody cuts it.
        Input::Text(text) if text.len() / loaded.vocabulary.longest_token_bytes().max(1) > most => return Err(long()),
        Input::Text(text) => tokenize(app, loaded, text, true).await?,
        Input::Tokens(tokens) => {
            known("input", &tokens, loaded.vocabulary.as_ref())?;
            tokens
        }
    };
    match tokens.len() {
        0 => Err(ApiError::field("input", "has a text without tokens")),
        count if count > most => Err(long()),
        _ => Ok(tokens),
    }
}

/// One text or a list of texts, each as itself or as its tokens.
fn inputs(fields: Fields<'_>) -> Result<Vec<Input>, ApiError> {
    let wrong =
        || ApiError::field("input", format!("must be a text, its tokens, or a list of 1 to {EMBEDDING_INPUTS_MAX}"));
    let one = |item: &Value| match item {
        Value::String(text) => Ok(Input::Text(text.clone())),
        Value::Array(items) => tokens("input", items).map(Input::Tokens),
        _ => Err(wrong()),
    };
    match fields.get("input") {
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            tokens("input", items).map(|tokens| vec![Input::Tokens(tokens)])
        }
        Some(Value::Array(items)) if items.is_empty() || items.len() > EMBEDDING_INPUTS_MAX => Err(wrong()),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(text @ Value::String(_)) => one(text).map(|input| vec![input]),
        _ => Err(wrong()),
    }
}

/// As OpenAI has it: the floats' bytes, the lowest first.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_shape_of_input_is_read() {
        let of = |body: Value| inputs(Fields::new(body.as_object().unwrap())).map_err(|error| error.param.unwrap());
        let text = |text: &str| Input::Text(text.to_owned());
        assert_eq!(of(json!({"input": "a"})), Ok(vec![text("a")]));
        assert_eq!(of(json!({"input": ["a", "b"]})), Ok(vec![text("a"), text("b")]));
        assert_eq!(of(json!({"input": [1, 2]})), Ok(vec![Input::Tokens(vec![1, 2])]));
        assert_eq!(of(json!({"input": [[1], [2]]})), Ok(vec![Input::Tokens(vec![1]), Input::Tokens(vec![2])]));
        let many = vec!["a"; EMBEDDING_INPUTS_MAX + 1];
        for wrong in
            [json!({}), json!({"input": []}), json!({"input": 1}), json!({"input": [true]}), json!({"input": many})]
        {
            assert_eq!(of(wrong), Err("input".into()));
        }
        assert_eq!(of(json!({"input": [1, "a"]})), Err("input[1]".into()));
    }

    #[test]
    fn base64_is_of_the_floats_bytes() {
        assert_eq!(base64(&[1.0, -2.0]), "AACAPwAAAMA=");
    }
}
