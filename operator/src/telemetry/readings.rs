//! The last good reading of every pod and gateway, with its instant.

use super::text::Page;
use quartermaster_core::units::{Millis, Tokens};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Requests decoded by a replica.
pub(super) const RUNNING: &str = "vllm:num_requests_running";
/// Requests waiting in a replica.
pub(super) const WAITING: &str = "vllm:num_requests_waiting";
/// Slots of a replica.
pub(super) const SLOTS: &str = "quartermaster_engine_slots";
/// Decode throughput that a replica has measured.
pub(super) const SPEED: &str = "quartermaster_engine_decode_tokens_per_second";
/// Requests that a gateway holds for a model.
pub(super) const HELD: &str = "quartermaster_gateway_requests_waiting";
/// Tokens that a model's open requests may still use.
pub(super) const IN_FLIGHT: &str = "quartermaster_gateway_tokens_in_flight";

/// What a replica said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PodReading {
    /// When.
    pub at: Millis,
    /// Requests being decoded.
    pub running: u32,
    /// Requests waiting.
    pub waiting: u32,
    /// Its slots, if it said.
    pub slots: Option<u32>,
    /// Tokens a second with all slots busy, once measured.
    pub tokens_per_second: Option<f64>,
}

/// What a gateway said of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayModel {
    /// Requests held.
    pub waiting: u32,
    /// Tokens in flight.
    pub tokens_in_flight: Tokens,
}

/// What a gateway said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayReading {
    /// When.
    pub at: Millis,
    /// By `namespace/name`. A gateway names every model of its snapshot, so an absent one is unknown, not idle.
    pub models: BTreeMap<String, GatewayModel>,
}

/// Everything that was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readings {
    /// By pod UID.
    pub pods: BTreeMap<String, PodReading>,
    /// By address.
    pub gateways: BTreeMap<String, GatewayReading>,
    /// Addresses of gateways that have never answered: what they hold is not known.
    pub gateways_silent: BTreeSet<String>,
    /// Whether gateways are asked at all.
    pub gateways_expected: bool,
    /// Why the last look at the gateways failed, with what to do.
    pub gateways_failed: Option<String>,
}

impl PodReading {
    /// Names that [`PodReading::of`] reads.
    pub(super) fn wants(name: &str) -> bool {
        [RUNNING, WAITING, SLOTS, SPEED].contains(&name)
    }

    /// The reading of a page; none when a load figure is missing or no number.
    #[must_use]
    pub fn of(page: &Page, at: Millis) -> Option<Self> {
        Some(Self {
            at,
            running: count(page.sum(RUNNING)?),
            waiting: count(page.sum(WAITING)?),
            slots: page.sum(SLOTS).map(count).filter(|slots| *slots > 0),
            tokens_per_second: page.sum(SPEED).filter(|speed| *speed > 0.0),
        })
    }
}

impl GatewayReading {
    /// Names that [`GatewayReading::of`] reads.
    pub(super) fn wants(name: &str) -> bool {
        [HELD, IN_FLIGHT].contains(&name)
    }

    /// The reading of a page. A model with one figure but not the other is left out.
    #[must_use]
    pub fn of(page: &Page, at: Millis) -> Self {
        let by_model = |name: &str| -> BTreeMap<String, f64> {
            let finite = page.samples(name).iter().filter(|sample| sample.value.is_finite());
            finite.filter_map(|sample| Some((model_key(&sample.labels)?, sample.value))).collect()
        };
        let in_flight = by_model(IN_FLIGHT);
        let models = by_model(HELD).into_iter().filter_map(|(key, waiting)| {
            let tokens = in_flight.get(&key)?;
            let model = GatewayModel { waiting: count(waiting), tokens_in_flight: Tokens(u64::from(count(*tokens))) };
            Some((key, model))
        });
        Self { at, models: models.collect() }
    }
}

/// `namespace/model`. A Prometheus that keeps its own `namespace` label calls the gateway's `exported_namespace`.
pub(super) fn model_key(labels: &BTreeMap<String, String>) -> Option<String> {
    let namespace = labels.get("exported_namespace").or_else(|| labels.get("namespace"))?;
    Some(crate::names::key(namespace, labels.get("model")?))
}

/// A count from a float: whole, not below zero, at most `u32::MAX`.
#[expect(clippy::as_conversions, reason = "the value is clamped into the range of u32 first")]
pub(crate) fn count(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page::parse(text, |_| true).unwrap()
    }

    #[test]
    fn a_pod_without_a_load_figure_has_no_reading() {
        let text = "vllm:num_requests_running{model_name=\"m\"} 2\nvllm:num_requests_waiting{model_name=\"m\"} 1\n";
        let reading = PodReading::of(&page(text), Millis(5)).unwrap();
        assert_eq!((reading.running, reading.waiting, reading.slots), (2, 1, None));
        assert_eq!(PodReading::of(&page("vllm:num_requests_running 2\n"), Millis(5)), None);
        assert_eq!(
            PodReading::of(&page("vllm:num_requests_running NaN\nvllm:num_requests_waiting 0\n"), Millis(5)),
            None
        );
    }

    #[test]
    fn a_gateway_names_its_models() {
        let text = "quartermaster_gateway_requests_waiting{namespace=\"demo\",model=\"chat\"} 3\n\
                    quartermaster_gateway_tokens_in_flight{namespace=\"demo\",model=\"chat\"} 512\n\
                    quartermaster_gateway_requests_waiting{namespace=\"demo\",model=\"half\"} 3\n";
        let reading = GatewayReading::of(&page(text), Millis(5));
        assert_eq!(reading.models.len(), 1);
        assert_eq!(reading.models["demo/chat"], GatewayModel { waiting: 3, tokens_in_flight: Tokens(512) });
    }

    #[test]
    fn counts_stay_in_range() {
        assert_eq!((count(-1.0), count(2.4), count(1e30)), (0, 2, u32::MAX));
    }
}
