//! The tokenizer of each model: its hash, as the first ready replica tells it.

use crate::limits;
use crate::state::{Index, Memory};
use crate::telemetry::scrape::body;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use quartermaster_core::wire::gateway::TokenizerRef;
use quartermaster_core::wire::serve::TokenizerBundle;
use sha2::{Digest, Sha256};

/// Why a bundle was not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("getting {url}")]
    Http { url: String, source: reqwest::Error },
    #[error("getting {url}: more than {} bytes", limits::TOKENIZER_BYTES_MAX)]
    TooLong { url: String },
    #[error("reading {url}")]
    Json { url: String, source: serde_json::Error },
    #[error("reading {url}: its hash is not that of its content")]
    Hash { url: String },
}

/// Asks a ready replica of every model whose tokenizer is not known. Variants of a model share their tokenizer.
pub async fn refresh(http: &reqwest::Client, index: &Index, memory: &mut Memory) {
    let wanted = index.models.iter().filter_map(|(key, model)| {
        let known = memory.models.get(key).is_some_and(|model| model.tokenizer.is_some());
        let namespace = model.namespace()?;
        let name = model.name_any();
        let address = index.pods_of(&namespace, &name).filter(|pod| pod.ready()).find_map(|pod| pod.address())?;
        (!known).then(|| (key.clone(), format!("http://{address}/tokenizer")))
    });
    let wanted: Vec<(String, String)> = wanted.collect();
    let each = wanted.into_iter().map(|(key, url)| async move { (key, fetch(http, &url).await) });
    let found: Vec<_> = stream::iter(each).buffer_unordered(limits::API_CONCURRENCY).collect().await;
    for (key, result) in found {
        match result {
            Ok(hash) => memory.models.entry(key).or_default().tokenizer = Some(TokenizerRef { hash, urls: Vec::new() }),
            Err(error) => {
                tracing::warn!(model = key, error = %crate::error::chain(&error), "tokenizer");
            }
        }
    }
}

/// The hash of the bundle behind `url`, checked against its content.
async fn fetch(http: &reqwest::Client, url: &str) -> Result<String, Error> {
    let at = || url.to_owned();
    let request = http.get(url).timeout(limits::TOKENIZER_TIMEOUT).send().await;
    let response = request.and_then(reqwest::Response::error_for_status);
    let response = response.map_err(|source| Error::Http { url: at(), source })?;
    let body = body(response, limits::TOKENIZER_BYTES_MAX).await.map_err(|source| Error::Http { url: at(), source })?;
    let body = body.ok_or_else(|| Error::TooLong { url: at() })?;
    let bundle: TokenizerBundle = serde_json::from_slice(&body).map_err(|source| Error::Json { url: at(), source })?;
    let hash = hex::encode(Sha256::digest(bundle.content()));
    (hash == bundle.hash).then_some(hash).ok_or_else(|| Error::Hash { url: at() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, Router, routing::get};

    async fn serve(hash: &'static str) -> String {
        let answer = move || async move {
            let mut bundle = TokenizerBundle {
                hash: String::new(),
                tokenizer_json: "{}".into(),
                chat_template: None,
                bos_token: None,
                eos_token: None,
                add_bos: false,
                add_eos: false,
                context_tokens: 64,
            };
            bundle.hash = if hash.is_empty() { hex::encode(Sha256::digest(bundle.content())) } else { hash.into() };
            Json(bundle)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tokenizer", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/tokenizer", get(answer))).await });
        url
    }

    #[tokio::test]
    async fn a_bundle_is_known_by_the_hash_of_its_content() {
        let http = reqwest::Client::new();
        assert_eq!(fetch(&http, &serve("").await).await.unwrap().len(), 64);
        assert!(matches!(fetch(&http, &serve("0bad").await).await, Err(Error::Hash { .. })));
        assert!(matches!(fetch(&http, "http://127.0.0.1:1/tokenizer").await, Err(Error::Http { .. })));
    }
}
