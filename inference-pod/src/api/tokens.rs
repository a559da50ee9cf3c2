//! Text ↔ tokens, off the event loop, and vLLM's endpoints for it.

use super::error::ApiError;
use super::fields::Fields;
use super::request::{known, tokens};
use super::state::{App, Loaded};
use super::tools::Tools;
use super::{known_model, read, render};
use crate::limits::BODY_BYTES_MAX;
use crate::sampler::Token;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The tokens of a text, with those that the model wants around it where `special` is set.
///
/// # Errors
/// Where the server is shutting down.
pub(super) async fn tokenize(
    app: &App,
    loaded: &Arc<Loaded>,
    text: String,
    special: bool,
) -> Result<Vec<Token>, ApiError> {
    let _turn = app.tokenizing.acquire().await.map_err(|_| ApiError::unavailable("the server is shutting down"))?;
    let (vocabulary, rules) = (Arc::clone(&loaded.vocabulary), Arc::clone(&loaded.rules));
    let work = tokio::task::spawn_blocking(move || {
        let specials = vocabulary.specials();
        let begin = specials.bos.filter(|_| special && rules.needs_bos(&text));
        let end = specials.eos.filter(|_| special && specials.add_eos);
        begin.into_iter().chain(vocabulary.tokenize(&text)).chain(end).collect()
    });
    work.await.map_err(|error| ApiError::engine(&format!("tokenizing: {error}")))
}

/// The text of these tokens; special ones stand for none.
pub(super) fn text(loaded: &Loaded, tokens: &[Token]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| loaded.vocabulary.piece(*token)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `POST /tokenize {model, prompt | messages, add_special_tokens}`.
pub(super) async fn count(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let map = read(request).await?;
    let fields = Fields::new(&map);
    known_model(&app, fields)?;
    let loaded = app.loaded().await?;
    let special = match fields.get("add_special_tokens") {
        None => true,
        Some(_) => fields.flag("add_special_tokens")?,
    };
    let text = match (fields.text("prompt")?, fields.get("messages")) {
        (Some(text), None) => text.to_owned(),
        (None, Some(_)) => {
            Tools::read(fields)?;
            render(&loaded, &map)?
        }
        _ => return Err(ApiError::field("prompt", "is required: either prompt, a text, or messages")),
    };
    let tokens = tokenize(&app, &loaded, text, special).await?;
    Ok(Json(json!({"count": tokens.len(), "max_model_len": app.config.context_tokens, "tokens": tokens})))
}

/// `POST /detokenize {model, tokens}`.
pub(super) async fn join(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let map = read(request).await?;
    let fields = Fields::new(&map);
    known_model(&app, fields)?;
    let loaded = app.loaded().await?;
    // No body holds more.
    let items = fields.list("tokens", BODY_BYTES_MAX)?;
    let items = items.ok_or_else(|| ApiError::field("tokens", "is required: a list of tokens"))?;
    let tokens = tokens("tokens", items)?;
    known("tokens", &tokens, loaded.vocabulary.as_ref())?;
    Ok(Json(json!({"prompt": text(&loaded, &tokens)})))
}
