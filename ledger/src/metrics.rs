//! What the ledger tells Prometheus.

use crate::commands::{Command, CommandError, Reply};
use crate::reader::{ReadError, Reader};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Amount, Balance, Reserved};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "they are label values")]
enum Outcome {
    granted,
    partial,
    exhausted,
    refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WindowLabels {
    budget: String,
    window: String,
}

/// Counters, gauges and histograms, all under `quartermaster_ledger_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reservations: Family<OutcomeLabels, Counter>,
    batch: Histogram,
    commit: Histogram,
    open_holds: Gauge,
    settled_tokens: Family<WindowLabels, Gauge>,
    held_tokens: Family<WindowLabels, Gauge>,
    settled_nano_usd: Family<WindowLabels, Gauge>,
    held_nano_usd: Family<WindowLabels, Gauge>,
    /// Calls that wait for the writer.
    pub queue_depth: Gauge,
    /// Holds that were settled in full because their lease passed.
    pub expired: Counter,
    /// Transactions that could not be made durable.
    pub failed_commits: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("quartermaster_ledger"),
            reservations: Family::default(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            open_holds: Gauge::default(),
            settled_tokens: Family::default(),
            held_tokens: Family::default(),
            settled_nano_usd: Family::default(),
            held_nano_usd: Family::default(),
            queue_depth: Gauge::default(),
            expired: Counter::default(),
            failed_commits: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "reservations",
            "Reservations by outcome: granted, partial, exhausted, refused",
            self.reservations.clone(),
        );
        registry.register("commit_batch", "Calls in one transaction", self.batch.clone());
        registry.register("commit_seconds", "Time of one transaction, fsync included", self.commit.clone());
        registry.register("commits_failed", "Transactions that could not be written", self.failed_commits.clone());
        registry.register("queue_depth", "Calls that wait for the writer", self.queue_depth.clone());
        registry.register("holds_open", "Open holds", self.open_holds.clone());
        registry.register("holds_expired", "Holds charged in full: their lease passed", self.expired.clone());
        let windows = "in the window that runs now";
        registry.register("settled_tokens", format!("Tokens settled {windows}"), self.settled_tokens.clone());
        registry.register("held_tokens", format!("Tokens held {windows}"), self.held_tokens.clone());
        registry.register("settled_nano_usd", format!("Nano-USD settled {windows}"), self.settled_nano_usd.clone());
        registry.register("held_nano_usd", format!("Nano-USD held {windows}"), self.held_nano_usd.clone());
    }

    /// One with a series in every family, for `docs/metrics.md`.
    pub fn sample() -> Self {
        let metrics = Self::default();
        drop(metrics.reservations.get_or_create(&OutcomeLabels { outcome: Outcome::granted }));
        metrics.show(&[Balance {
            budget: String::new(),
            window: String::new(),
            start: Millis(0),
            resets_at: None,
            limit_tokens: None,
            limit_nano_usd: None,
            settled: Amount::default(),
            held: Amount::default(),
        }]);
        metrics
    }

    /// A transaction is on disk. One without calls is the clock's tick, and not counted.
    pub fn committed(&self, calls: usize, took: Duration) {
        if let (1.., Ok(calls)) = (calls, u32::try_from(calls)) {
            self.batch.observe(f64::from(calls));
            self.commit.observe(took.as_secs_f64());
        }
    }

    /// A command has its answer.
    pub fn answered(&self, command: &Command, answer: &Result<Reply, CommandError>) {
        let Command::Reserve(reserve) = command else { return };
        let outcome = match answer {
            Ok(Reply::Reserved(Reserved::Granted { held })) if *held == reserve.want => Outcome::granted,
            Ok(Reply::Reserved(Reserved::Granted { .. })) => Outcome::partial,
            Ok(_) => Outcome::exhausted,
            Err(_) => Outcome::refused,
        };
        self.reservations.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The exposition, with the figures of the windows as they stand at `now`.
    pub async fn render(&self, reader: &Reader, now: Millis) -> Result<String, ReadError> {
        self.open_holds.set(i64::try_from(reader.open_holds().await?).unwrap_or(i64::MAX));
        self.show(&reader.balances(now).await?);
        Ok(self.page())
    }

    /// The exposition, with the figures that it has.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }

    /// Budgets that are gone must not stay on the dashboard.
    fn show(&self, balances: &[Balance]) {
        let families = [&self.settled_tokens, &self.held_tokens, &self.settled_nano_usd, &self.held_nano_usd];
        for family in families {
            family.clear();
        }
        for balance in balances {
            let labels = WindowLabels { budget: balance.budget.clone(), window: balance.window.clone() };
            let tokens = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
            let figures = [
                tokens(balance.settled.tokens.0),
                tokens(balance.held.tokens.0),
                balance.settled.nano_usd.0,
                balance.held.nano_usd.0,
            ];
            for (family, figure) in families.into_iter().zip(figures) {
                family.get_or_create(&labels).set(figure);
            }
        }
    }
}
