//! Figures for Prometheus. Labels come from our own objects only.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use quartermaster_core::plan::Plan;
use quartermaster_core::snapshot::Snapshot;
use quartermaster_core::units::{Millis, NanoUsd};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::telemetry::Readings;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    model: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    namespace: String,
    model: String,
    class: String,
    variant: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CeilingLabels {
    policy: String,
    period: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    signal: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    namespace: String,
    model: String,
}

type Float = Gauge<f64, AtomicU64>;

const TICK_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// All series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ticks: Counter,
    tick_seconds: Histogram,
    leader: Gauge,
    synced: Gauge,
    reason: Family<ReasonLabels, Gauge>,
    replicas: Family<ReplicaLabels, Gauge>,
    blind: Family<ModelLabels, Gauge>,
    ceiling: Family<CeilingLabels, Float>,
    settled: Family<CeilingLabels, Float>,
    projected: Family<CeilingLabels, Float>,
    cost: Family<ModelLabels, Float>,
    signal_age: Family<SignalLabels, Float>,
    errors: Family<ErrorLabels, Counter>,
    writes: Counter,
    invalid: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("quartermaster_operator"),
            ticks: Counter::default(),
            tick_seconds: Histogram::new(TICK_SECONDS),
            leader: Gauge::default(),
            synced: Gauge::default(),
            reason: Family::default(),
            replicas: Family::default(),
            blind: Family::default(),
            ceiling: Family::default(),
            settled: Family::default(),
            projected: Family::default(),
            cost: Family::default(),
            signal_age: Family::default(),
            errors: Family::default(),
            writes: Counter::default(),
            invalid: Gauge::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("ticks", "Decisions made", self.ticks.clone());
        r.register_with_unit("tick", "From scrape to status", Unit::Seconds, self.tick_seconds.clone());
        r.register("leader", "1 while this replica leads", self.leader.clone());
        r.register("synced", "1 once every watch has been listed", self.synced.clone());
        r.register("plan_reason", "1 for the reason of the plan in force", self.reason.clone());
        r.register("replicas", "Replicas by state: wanted, ready, pending, draining", self.replicas.clone());
        r.register("signals_blind", "1 while the load of a model is not known", self.blind.clone());
        r.register("ceiling_usd", "Ceilings", self.ceiling.clone());
        r.register("settled_usd", "Settled in the ceiling's period", self.settled.clone());
        r.register("projected_usd", "Projected for the ceiling's period", self.projected.clone());
        r.register("model_cost_usd_per_hour", "Planned cost of a model", self.cost.clone());
        r.register_with_unit("signal_age", "Age of the oldest reading", Unit::Seconds, self.signal_age.clone());
        r.register("errors", "Failed calls and writes by category", self.errors.clone());
        r.register("writes", "Objects and statuses written", self.writes.clone());
        r.register("invalid_objects", "Objects of ours that can't be read", self.invalid.clone());
        self
    }

    /// One with a series in every family, for `docs/metrics.md`.
    pub fn sample() -> Self {
        let (metrics, name) = (Self::default(), String::new);
        let labels = ReplicaLabels { namespace: name(), model: name(), class: name(), variant: name(), state: "" };
        metrics.replicas.get_or_create(&labels).set(0);
        metrics.reason.get_or_create(&ReasonLabels { namespace: name(), model: name(), reason: "" }).set(0);
        let labels = ModelLabels { namespace: name(), model: name() };
        metrics.blind.get_or_create(&labels).set(0);
        metrics.cost.get_or_create(&labels).set(0.0);
        for family in [&metrics.ceiling, &metrics.settled, &metrics.projected] {
            family.get_or_create(&CeilingLabels { policy: name(), period: name() }).set(0.0);
        }
        metrics.signals(&Readings::default(), Millis(0));
        metrics.error("");
        metrics
    }

    /// One tick took so long.
    pub fn tick(&self, took: Duration) {
        self.ticks.inc();
        self.tick_seconds.observe(took.as_secs_f64());
    }

    /// Whether this replica leads, is synced, and how many objects can't be read.
    pub fn state(&self, leads: bool, synced: bool, invalid: usize) {
        self.leader.set(i64::from(leads));
        self.synced.set(i64::from(synced));
        self.invalid.set(i64::try_from(invalid).unwrap_or(i64::MAX));
    }

    /// Something failed.
    pub fn error(&self, category: &'static str) {
        self.errors.get_or_create(&ErrorLabels { category }).inc();
    }

    /// Something was written.
    pub fn wrote(&self) {
        self.writes.inc();
    }

    /// The plan in force. Series of models that are gone go.
    pub fn plan(&self, snapshot: &Snapshot, plan: &Plan) {
        self.clear();
        for (key, model) in &snapshot.models {
            let labels = || ModelLabels { namespace: model.namespace.clone(), model: model.name.clone() };
            self.blind.get_or_create(&labels()).set(i64::from(model.load.is_none()));
            for group in &model.groups {
                let states = [
                    ("wanted", group.wanted),
                    ("ready", group.ready),
                    ("pending", group.pending),
                    ("draining", group.draining),
                ];
                for (state, count) in states {
                    let labels = ReplicaLabels {
                        namespace: model.namespace.clone(),
                        model: model.name.clone(),
                        class: group.placement.class.clone(),
                        variant: group.placement.variant.clone(),
                        state,
                    };
                    self.replicas.get_or_create(&labels).set(i64::from(count));
                }
            }
            let Some(planned) = plan.models.get(key) else { continue };
            self.cost.get_or_create(&labels()).set(usd(planned.cost_per_hour));
            let (namespace, model) = (model.namespace.clone(), model.name.clone());
            self.reason.get_or_create(&ReasonLabels { namespace, model, reason: planned.reason.name() }).set(1);
        }
        for (ceiling, planned) in snapshot.ceilings.iter().zip(&plan.ceilings) {
            let labels = CeilingLabels { policy: ceiling.policy.clone(), period: ceiling.period.clone() };
            self.ceiling.get_or_create(&labels).set(usd(ceiling.amount));
            self.settled.get_or_create(&labels).set(usd(ceiling.settled));
            self.projected.get_or_create(&labels).set(usd(planned.projected));
        }
    }

    fn clear(&self) {
        self.reason.clear();
        self.replicas.clear();
        self.blind.clear();
        self.cost.clear();
        self.ceiling.clear();
        self.settled.clear();
        self.projected.clear();
    }

    /// Ages of the oldest readings; NaN where there is none.
    pub fn signals(&self, readings: &Readings, now: Millis) {
        let age = |oldest: Option<Millis>| oldest.map_or(f64::NAN, |at| seconds(now.since(at)));
        let pods = age(readings.pods.values().map(|reading| reading.at).min());
        let gateways = age(readings.gateways.values().map(|reading| reading.at).min());
        for (signal, age) in [("pods", pods), ("gateways", gateways)] {
            self.signal_age.get_or_create(&SignalLabels { signal }).set(age);
        }
    }

    /// The page for Prometheus.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Dollars as a float, for a dashboard; nothing is ever decided by it.
fn usd(amount: NanoUsd) -> f64 {
    amount.to_string().parse().unwrap_or(f64::NAN)
}

fn seconds(time: Millis) -> f64 {
    Duration::from_millis(u64::try_from(time.0).unwrap_or(0)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_and_missing_signals() {
        let metrics = Metrics::default();
        metrics.signals(&Readings::default(), Millis(0));
        metrics.error("conflict");
        metrics.state(true, false, 0);
        let page = metrics.page().unwrap();
        for line in [
            "quartermaster_operator_signal_age_seconds{signal=\"gateways\"} NaN",
            "quartermaster_operator_errors_total{category=\"conflict\"} 1",
            "quartermaster_operator_leader 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!((usd(NanoUsd(12_500_000_000)) - 12.5).abs() < 1e-9);
    }
}
