//! Figures for Prometheus. Every label comes from the snapshot, so a client can't make new series.
//!
//! The series of a model exist from the moment the snapshot names it: no traffic is a zero, never an absence.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use quartermaster_core::units::Tokens;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    namespace: String,
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    namespace: String,
    model: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    namespace: String,
    model: String,
    subject: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WindowLabels {
    budget: String,
    window: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LedgerLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// From a quick GPU's 10 ms to a cold CPU's minutes.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0];
/// Between tokens, and calls to the ledger.
const SHORT_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// All series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    in_flight: Family<ModelLabels, Gauge>,
    waiting: Family<ModelLabels, Gauge>,
    tokens_in_flight: Family<ModelLabels, Gauge>,
    tokens: Family<TokenLabels, Counter>,
    first_token: Family<ModelLabels, Histogram, fn() -> Histogram>,
    inter_token: Family<ModelLabels, Histogram, fn() -> Histogram>,
    mismatch: Family<ModelLabels, Counter>,
    overrun: Family<ModelLabels, Counter>,
    rejections: Family<WindowLabels, Counter>,
    retries: Family<ReasonLabels, Counter>,
    ledger: Family<LedgerLabels, Histogram, fn() -> Histogram>,
    snapshot_version: Gauge,
    snapshot_epoch: Gauge,
    snapshot_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    unsettled: Gauge,
    journal_errors: Counter,
    models: Mutex<BTreeMap<ModelLabels, Arc<ModelMetrics>>>,
}

/// The series of one model, ready to hand so that a request looks nothing up.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Requests that have been identified and parsed and are not answered to the end.
    pub in_flight: Gauge,
    /// Of those, the ones that wait for a first replica.
    pub waiting: Gauge,
    /// Sum of the holds of open requests.
    pub tokens_in_flight: Gauge,
    /// From the request's arrival to the first byte for the client.
    pub first_token: Histogram,
    /// Between two pieces of a stream.
    pub inter_token: Histogram,
    /// Requests whose prompt the engine counted differently.
    pub mismatch: Counter,
    /// Requests that used more than was held.
    pub overrun: Counter,
}

/// Ends of the counters of one request's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Prompt tokens.
    pub prompt: Tokens,
    /// Completion tokens.
    pub completion: Tokens,
}

/// Counts a gauge up, and down again when it is dropped.
#[derive(Debug)]
pub struct Held {
    gauge: Gauge,
    by: i64,
}

impl Held {
    /// Adds `by` for as long as the value lives.
    pub fn new(gauge: &Gauge, by: i64) -> Self {
        gauge.inc_by(by);
        Self { gauge: gauge.clone(), by }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec_by(self.by);
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn short_seconds() -> Histogram {
    Histogram::new(SHORT_SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("quartermaster_gateway"),
            requests: Family::default(),
            in_flight: Family::default(),
            waiting: Family::default(),
            tokens_in_flight: Family::default(),
            tokens: Family::default(),
            first_token: Family::new_with_constructor(seconds),
            inter_token: Family::new_with_constructor(short_seconds),
            mismatch: Family::default(),
            overrun: Family::default(),
            rejections: Family::default(),
            retries: Family::default(),
            ledger: Family::new_with_constructor(short_seconds),
            snapshot_version: Gauge::default(),
            snapshot_epoch: Gauge::default(),
            snapshot_age: Gauge::default(),
            unsettled: Gauge::default(),
            journal_errors: Counter::default(),
            models: Mutex::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let up = Gauge::<i64>::default();
        up.set(1);
        let r = &mut self.registry;
        r.register("up", "1 while the gateway runs", up);
        r.register("requests", "Requests by the status that the client got", self.requests.clone());
        r.register("requests_in_flight", "Requests that are not answered to the end", self.in_flight.clone());
        r.register("requests_waiting", "Requests held until a first replica is up", self.waiting.clone());
        r.register("tokens_in_flight", "Tokens held by open requests", self.tokens_in_flight.clone());
        r.register("tokens", "Tokens served, as settled: prompt, completion", self.tokens.clone());
        r.register("time_to_first_token_seconds", "Of streams: arrival to first event", self.first_token.clone());
        r.register("inter_token_seconds", "Time between two pieces of a stream", self.inter_token.clone());
        r.register("prompt_count_mismatch", "Prompts that the engine counts otherwise", self.mismatch.clone());
        r.register("hold_overrun", "Requests that used more than was held", self.overrun.clone());
        r.register("budget_rejections", "Requests refused by a budget window", self.rejections.clone());
        r.register("upstream_retries", "Further tries at replicas, by cause", self.retries.clone());
        r.register("ledger_seconds", "Calls to the ledger", self.ledger.clone());
        r.register("snapshot_version", "Version of the snapshot in use", self.snapshot_version.clone());
        r.register("snapshot_epoch", "Epoch of the snapshot in use", self.snapshot_epoch.clone());
        r.register("snapshot_age_seconds", "Time since the operator last answered", self.snapshot_age.clone());
        r.register("unsettled", "Settlements that the ledger has not taken", self.unsettled.clone());
        r.register("journal_errors", "Notes that the journal could not write", self.journal_errors.clone());
        self
    }

    /// One with a series in every family, for `docs/metrics.md`.
    pub fn sample() -> Self {
        let metrics = Self::default();
        metrics.model("", "");
        metrics.tokens("", "", "", Used { prompt: Tokens::ZERO, completion: Tokens::ZERO });
        metrics.rejection("", "");
        metrics.retry("");
        metrics.ledger("", "", Duration::ZERO);
        metrics
    }

    /// The series of one model; made on first use.
    pub fn model(&self, namespace: &str, model: &str) -> Arc<ModelMetrics> {
        let labels = ModelLabels { namespace: namespace.to_owned(), model: model.to_owned() };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(models.entry(labels.clone()).or_insert_with(|| {
            let code = CodeLabels { namespace: labels.namespace.clone(), model: labels.model.clone(), code: 200 };
            let _zero = self.requests.get_or_create_owned(&code);
            Arc::new(ModelMetrics {
                in_flight: self.in_flight.get_or_create_owned(&labels),
                waiting: self.waiting.get_or_create_owned(&labels),
                tokens_in_flight: self.tokens_in_flight.get_or_create_owned(&labels),
                first_token: self.first_token.get_or_create_owned(&labels),
                inter_token: self.inter_token.get_or_create_owned(&labels),
                mismatch: self.mismatch.get_or_create_owned(&labels),
                overrun: self.overrun.get_or_create_owned(&labels),
            })
        }))
    }

    /// Lets go of the gauges of models that are gone and have nothing in flight; counters stay until a restart.
    pub fn keep_models(&self, known: impl Fn(&str, &str) -> bool) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|labels, model| {
            let keep = known(&labels.namespace, &labels.model) || model.in_flight.get() > 0;
            if !keep {
                self.in_flight.remove(labels);
                self.waiting.remove(labels);
                self.tokens_in_flight.remove(labels);
            }
            keep
        });
    }

    /// One request was answered with `code`; empty names where no model was found.
    pub fn request(&self, namespace: &str, model: &str, code: u16) {
        let labels = CodeLabels { namespace: namespace.to_owned(), model: model.to_owned(), code };
        self.requests.get_or_create(&labels).inc();
    }

    /// Tokens that were settled.
    pub fn tokens(&self, namespace: &str, model: &str, subject: &str, used: Used) {
        for (kind, tokens) in [("prompt", used.prompt), ("completion", used.completion)] {
            let (namespace, model) = (namespace.to_owned(), model.to_owned());
            let labels = TokenLabels { namespace, model, subject: subject.to_owned(), kind };
            self.tokens.get_or_create(&labels).inc_by(tokens.0);
        }
    }

    /// A budget window refused a request.
    pub fn rejection(&self, budget: &str, window: &str) {
        let labels = WindowLabels { budget: budget.to_owned(), window: window.to_owned() };
        self.rejections.get_or_create(&labels).inc();
    }

    /// One more try at a replica.
    pub fn retry(&self, reason: &'static str) {
        self.retries.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A call to the ledger took so long.
    pub fn ledger(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.ledger.get_or_create(&LedgerLabels { operation, outcome }).observe(took.as_secs_f64());
    }

    /// Which snapshot is in use.
    pub fn snapshot(&self, epoch: u64, version: u64) {
        self.snapshot_epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.snapshot_version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// A note could not be written.
    pub fn journal_error(&self) {
        self.journal_errors.inc();
    }

    /// The page for Prometheus.
    pub fn page(&self, snapshot_age: Option<Duration>, unsettled: usize) -> Result<String, fmt::Error> {
        // NaN, not zero: an operator that never answered is not one that answered just now.
        self.snapshot_age.set(snapshot_age.map_or(f64::NAN, |age| age.as_secs_f64()));
        self.unsettled.set(i64::try_from(unsettled).unwrap_or(i64::MAX));
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_traffic_shows_zeros() {
        let metrics = Metrics::default();
        metrics.model("demo", "chat");
        let page = metrics.page(None, 0).unwrap();
        for line in [
            r#"quartermaster_gateway_requests_total{namespace="demo",model="chat",code="200"} 0"#,
            r#"quartermaster_gateway_requests_in_flight{namespace="demo",model="chat"} 0"#,
            r#"quartermaster_gateway_requests_waiting{namespace="demo",model="chat"} 0"#,
            r#"quartermaster_gateway_tokens_in_flight{namespace="demo",model="chat"} 0"#,
            "quartermaster_gateway_up 1",
            "quartermaster_gateway_snapshot_age_seconds NaN",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn gauges_of_a_removed_model_go() {
        let metrics = Metrics::default();
        let model = metrics.model("demo", "chat");
        let held = Held::new(&model.in_flight, 1);
        metrics.keep_models(|_, _| false);
        assert!(metrics.page(None, 0).unwrap().contains("requests_in_flight{"), "still in flight");
        drop(held);
        metrics.keep_models(|_, _| false);
        assert!(!metrics.page(None, 0).unwrap().contains("requests_in_flight{"));
    }
}
