//! The ledger's client: budgets and spend go there, balances and settled sums come back.

use crate::limits;
use crate::telemetry::scrape::body;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{
    Balance, Budgets, Metered, Refusal, RefusalCode, Spend, SpendEntry, SpendTotal,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("using {url} as --ledger-url: {why}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No answer.
    #[error("{what} at the ledger {url}")]
    Http {
        /// What was attempted.
        what: &'static str,
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It said no.
    #[error("{what} at the ledger {url}: it answered {status}: {text}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// Its code, where it gave one.
        code: Option<RefusalCode>,
        /// What it said, shortened.
        text: String,
    },
    /// The answer can't be read.
    #[error("{what} at the ledger {url}: reading its answer")]
    Answer {
        /// What was attempted.
        what: &'static str,
        /// Where.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The answer is too long.
    #[error("{what} at the ledger {url}: the answer has more than {} bytes", limits::LEDGER_ANSWER_BYTES_MAX)]
    TooLong {
        /// What was attempted.
        what: &'static str,
        /// Where.
        url: String,
    },
}

impl Error {
    /// Whether it has heard of a later epoch than ours.
    #[must_use]
    pub fn stale_epoch(&self) -> bool {
        matches!(self, Self::Refused { code: Some(RefusalCode::StaleEpoch), .. })
    }
}

/// A ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    http: reqwest::Client,
    base: reqwest::Url,
    token: Arc<str>,
}

impl Ledger {
    /// The ledger at `url`, with our components' bearer token.
    pub fn new(http: reqwest::Client, url: &str, token: Arc<str>) -> Result<Self, Error> {
        let base = reqwest::Url::parse(url).map_err(|why| Error::Url { url: url.to_owned(), why: why.to_string() })?;
        if base.cannot_be_a_base() {
            return Err(Error::Url { url: url.to_owned(), why: "it is no http URL".to_owned() });
        }
        Ok(Self { http, base, token })
    }

    /// `PUT /v1/budgets`.
    pub async fn put_budgets(&self, budgets: &Budgets) -> Result<(), Error> {
        let request = self.http.put(self.url("/v1/budgets", &[])).json(budgets);
        self.call("writing budgets", request).await.map(|_| ())
    }

    /// `GET /v1/balances`.
    pub async fn balances(&self) -> Result<Vec<Balance>, Error> {
        self.read("reading balances", self.url("/v1/balances", &[])).await
    }

    /// `POST /v1/spend`, in parts.
    pub async fn post_spend(&self, epoch: u64, entries: &[SpendEntry]) -> Result<(), Error> {
        for part in entries.chunks(limits::SPEND_ENTRIES_MAX) {
            let request = self.http.post(self.url("/v1/spend", &[])).json(&Spend { epoch, entries: part.to_vec() });
            self.call("writing spend", request).await?;
        }
        Ok(())
    }

    /// `GET /v1/spend/metered`: how far pods are metered, by their last hour since an instant.
    pub async fn metered(&self, since: Millis) -> Result<Vec<Metered>, Error> {
        let since = since.0.to_string();
        self.read("reading how far pods are metered", self.url("/v1/spend/metered", &[("since_ms", &since)])).await
    }

    /// `GET /v1/spend`: the sum since an instant, in one namespace or in all, and by model.
    pub async fn spend(&self, since: Millis, namespace: Option<&str>) -> Result<SpendTotal, Error> {
        let since = since.0.to_string();
        let query: Vec<(&str, &str)> =
            [("since_ms", since.as_str())].into_iter().chain(namespace.map(|name| ("namespace", name))).collect();
        self.read("reading spend", self.url("/v1/spend", &query)).await
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> reqwest::Url {
        let mut url = self.base.clone();
        url.set_path(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn read<T: DeserializeOwned>(&self, what: &'static str, url: reqwest::Url) -> Result<T, Error> {
        let body = self.call(what, self.http.get(url)).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Answer { what, url: self.base.to_string(), source })
    }

    async fn call(&self, what: &'static str, request: reqwest::RequestBuilder) -> Result<bytes::Bytes, Error> {
        let url = || self.base.to_string();
        let http = |source: reqwest::Error| Error::Http { what, url: url(), source: source.without_url() };
        let request = request.bearer_auth(&self.token).timeout(limits::LEDGER_TIMEOUT);
        let response = request.send().await.map_err(http)?;
        let status = response.status();
        let body = body(response, limits::LEDGER_ANSWER_BYTES_MAX).await.map_err(http)?;
        let body = body.ok_or_else(|| Error::TooLong { what, url: url() })?;
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body).chars().take(200).collect();
        let code = serde_json::from_slice::<Refusal>(&body).ok().map(|refusal| refusal.code);
        Err(Error::Refused { what, url: url(), status: status.as_u16(), code, text })
    }
}

/// A value as it was last sent, to see whether it changed.
pub fn fingerprint<T: Serialize>(value: &T) -> String {
    use sha2::{Digest, Sha256};
    // Our own types serialize; should one ever not, it counts as changed each time.
    serde_json::to_vec(value).map_or_else(|_| String::new(), |bytes| hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{Query, State};
    use axum::http::{HeaderMap, StatusCode};
    use axum::{Json, Router, routing::get, routing::put};
    use quartermaster_core::units::NanoUsd;
    use std::collections::HashMap;
    use std::sync::Mutex;

    type Seen = Arc<Mutex<Vec<String>>>;

    async fn spend(
        State(seen): State<Seen>,
        headers: HeaderMap,
        Query(query): Query<HashMap<String, String>>,
    ) -> Json<SpendTotal> {
        let namespace = query.get("namespace").cloned().unwrap_or_default();
        seen.lock().unwrap().push(format!("{} {namespace} {:?}", query["since_ms"], headers["authorization"]));
        Json(SpendTotal { nano_usd: NanoUsd(42), models: vec![] })
    }

    async fn ledger(seen: Seen) -> Ledger {
        let refusal = Refusal { code: RefusalCode::StaleEpoch, message: "epoch 3 is over".into() };
        let refuse = || async { (StatusCode::CONFLICT, Json(refusal)) };
        let router = Router::new().route("/v1/spend", get(spend)).route("/v1/budgets", put(refuse)).with_state(seen);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ledger::new(reqwest::Client::new(), &url, "secret".into()).unwrap()
    }

    #[tokio::test]
    async fn asks_with_the_token_and_names_the_namespace() {
        let seen = Seen::default();
        let ledger = ledger(Arc::clone(&seen)).await;
        assert_eq!(ledger.spend(Millis(7), None).await.unwrap().nano_usd, NanoUsd(42));
        assert_eq!(ledger.spend(Millis(8), Some("a&b")).await.unwrap().nano_usd, NanoUsd(42));
        assert_eq!(*seen.lock().unwrap(), ["7  \"Bearer secret\"", "8 a&b \"Bearer secret\""]);
    }

    #[tokio::test]
    async fn a_refusal_carries_its_reason() {
        let error = ledger(Seen::default()).await.put_budgets(&Budgets::default()).await.unwrap_err();
        assert!(error.to_string().contains("409: ") && error.to_string().contains("epoch 3 is over"), "{error}");
        assert!(error.stale_epoch());
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for url in ["", "ledger:7070", "mailto:x"] {
            assert!(Ledger::new(reqwest::Client::new(), url, "t".into()).is_err(), "{url}");
        }
    }
}
