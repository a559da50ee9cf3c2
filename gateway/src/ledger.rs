//! The ledger as the gateway sees it. Every call carries the attempt's id, so that any of them may be sent twice.

use crate::client::{self, CallError, Http, Token};
use crate::limits;
use crate::metrics::Metrics;
use http::StatusCode;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Attempt, Done, Reserve, Reserved, Settle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the ledger did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No answer, or no room to answer.
    #[error("{operation} at the ledger for attempt {attempt}: {problem}")]
    Away {
        /// What was asked.
        operation: &'static str,
        /// For whom.
        attempt: String,
        /// What happened.
        problem: String,
    },
    /// It will never take this one.
    #[error("{operation} at the ledger for attempt {attempt}: refused with {status}: {body}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// For whom.
        attempt: String,
        /// Its status.
        status: StatusCode,
        /// What it said.
        body: String,
    },
}

/// The client.
#[derive(Clone, Debug)]
pub struct Ledger {
    http: Http,
    url: String,
    token: Token,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// The ledger at `url`.
    pub fn new(http: Http, url: &str, token: Token, metrics: Arc<Metrics>) -> Self {
        Self { http, url: url.trim_end_matches('/').to_owned(), token, metrics }
    }

    /// Holds tokens; tried again within bounds, because a client waits.
    pub async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, LedgerError> {
        let mut backoff = limits::LEDGER_BACKOFF;
        for _ in 1..limits::LEDGER_TRIES {
            match self.call("reserve", &reserve.attempt, reserve).await {
                Err(LedgerError::Away { .. }) => tokio::time::sleep(backoff).await,
                settled => return settled,
            }
            backoff = backoff.saturating_mul(2);
        }
        self.call("reserve", &reserve.attempt, reserve).await
    }

    /// Settles a hold; one try.
    pub async fn settle(&self, settle: &Settle) -> Result<Done, LedgerError> {
        self.call("settle", &settle.attempt, settle).await
    }

    /// Gives a hold back unused; one try.
    pub async fn release(&self, attempt: &str) -> Result<Done, LedgerError> {
        self.call("release", attempt, &Attempt { attempt: attempt.to_owned(), lease: None }).await
    }

    /// Keeps a hold alive; one try.
    pub async fn extend(&self, attempt: &str) -> Result<Done, LedgerError> {
        let lease = Some(millis(limits::LEASE));
        self.call("extend", attempt, &Attempt { attempt: attempt.to_owned(), lease }).await
    }

    async fn call<B, A>(&self, operation: &'static str, attempt: &str, body: &B) -> Result<A, LedgerError>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let started = Instant::now();
        let answer = self.send(operation, attempt, body).await;
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        self.metrics.ledger(operation, outcome, started.elapsed());
        answer
    }

    async fn send<B, A>(&self, operation: &'static str, attempt: &str, body: &B) -> Result<A, LedgerError>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let away = |problem: String| LedgerError::Away { operation, attempt: attempt.to_owned(), problem };
        let lost = |error: CallError| away(error.to_string());
        let request = client::post(&format!("{}/v1/{operation}", self.url), Some(&self.token), body).map_err(lost)?;
        let call = client::call(&self.http, request, limits::LEDGER_TIMEOUT, limits::LEDGER_ANSWER_BYTES_MAX);
        let answer = call.await.map_err(lost)?;
        // Whatever the status: an answer of the right shape is the answer.
        if let Ok(value) = serde_json::from_slice(&answer.body) {
            return Ok(value);
        }
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        match answer.status {
            // A conflict: the attempt has ended there already, otherwise. The ledger's own record stands.
            status @ (StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY) => {
                Err(LedgerError::Refused { operation, attempt: attempt.to_owned(), status, body: said })
            }
            status => {
                if status == StatusCode::UNAUTHORIZED {
                    self.token.refresh();
                }
                Err(away(format!("status {status}: {said}")))
            }
        }
    }
}

/// A duration on the wire.
pub fn millis(duration: Duration) -> Millis {
    Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
