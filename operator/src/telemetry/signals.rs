//! Load of one model out of the readings, or why it can't be told.

use super::Readings;
use quartermaster_core::snapshot::Load;
use quartermaster_core::units::Millis;

/// Why there is no load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blind {
    /// A signal never came.
    Missing(String),
    /// A signal is too old.
    Stale(String),
}

impl Blind {
    /// For people.
    #[must_use]
    pub fn sentence(&self) -> &str {
        match self {
            Self::Missing(text) | Self::Stale(text) => text,
        }
    }
}

/// A ready replica whose signals count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// UID of the pod.
    pub uid: String,
    /// Its name.
    pub name: String,
}

/// Load of `model` (`namespace/name`) over its ready replicas and the gateways.
pub fn load(readings: &Readings, model: &str, pods: &[Witness], now: Millis, fresh_for: Millis) -> Result<Load, Blind> {
    let mut load = Load::default();
    for pod in pods {
        let reading = readings.pods.get(&pod.uid);
        let Some(reading) = reading else {
            return Err(Blind::Missing(format!(
                "pod {} has not answered on port {}/metrics; see its log and the NetworkPolicies",
                pod.name,
                crate::names::POD_PORT
            )));
        };
        let age = now.since(reading.at);
        if age > fresh_for {
            return Err(Blind::Stale(format!("pod {} last answered {} s ago", pod.name, age.0 / 1_000)));
        }
        load.running = load.running.saturating_add(reading.running);
        load.waiting = load.waiting.saturating_add(reading.waiting);
    }
    gateways(readings, model, now, fresh_for, load)
}

fn gateways(readings: &Readings, model: &str, now: Millis, fresh_for: Millis, mut load: Load) -> Result<Load, Blind> {
    if !readings.gateways_expected {
        return Ok(load);
    }
    if readings.gateways.is_empty() {
        let why = readings.gateways_failed.clone().unwrap_or_else(|| "no gateway has been asked yet".to_owned());
        return Err(Blind::Missing(why));
    }
    if let Some(address) = readings.gateways_silent.first() {
        let why = readings.gateways_failed.as_deref().unwrap_or("it has not been asked yet");
        return Err(Blind::Missing(format!("gateway {address} has never answered: {why}")));
    }
    for (address, reading) in &readings.gateways {
        let age = now.since(reading.at);
        if age > fresh_for {
            let why = readings.gateways_failed.as_deref().unwrap_or("it stopped answering");
            return Err(Blind::Stale(format!("gateway {address} last answered {} s ago: {why}", age.0 / 1_000)));
        }
        let Some(said) = reading.models.get(model) else {
            return Err(Blind::Missing(format!("gateway {address} has no figures of {model} yet")));
        };
        load.waiting = load.waiting.saturating_add(said.waiting);
        load.tokens_in_flight = load.tokens_in_flight.saturating_add(said.tokens_in_flight);
    }
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::super::{GatewayModel, GatewayReading, PodReading};
    use super::*;
    use quartermaster_core::units::Tokens;
    use std::collections::BTreeSet;

    const FRESH: Millis = Millis(15_000);

    #[test]
    fn a_gateway_that_never_answered_is_no_idle_one() {
        let mut readings = readings();
        readings.gateways_silent.insert("g3".into());
        let blind = gateways(&readings, "demo/chat", Millis(100_000), FRESH, Load::default()).unwrap_err();
        assert!(matches!(&blind, Blind::Missing(why) if why.contains("g3")), "{blind:?}");
    }

    fn readings() -> Readings {
        let pod =
            |running| PodReading { at: Millis(100_000), running, waiting: 1, slots: None, tokens_per_second: None };
        let model = GatewayModel { waiting: 2, tokens_in_flight: Tokens(50) };
        let gateway = GatewayReading { at: Millis(100_000), models: [("demo/chat".to_owned(), model)].into() };
        Readings {
            pods: [("a".to_owned(), pod(3)), ("b".to_owned(), pod(4))].into(),
            gateways: [("g1".to_owned(), gateway.clone()), ("g2".to_owned(), gateway)].into(),
            gateways_expected: true,
            gateways_failed: None,
            gateways_silent: BTreeSet::new(),
        }
    }

    fn pods(uids: &[&str]) -> Vec<Witness> {
        uids.iter().map(|uid| Witness { uid: (*uid).into(), name: format!("pod-{uid}") }).collect()
    }

    #[test]
    fn sums_over_replicas_and_gateways() {
        let load = load(&readings(), "demo/chat", &pods(&["a", "b"]), Millis(110_000), FRESH);
        assert_eq!(load, Ok(Load { running: 7, waiting: 6, tokens_in_flight: Tokens(100) }));
    }

    #[test]
    fn blind_is_not_idle() {
        let blind = |readings: &Readings, model, uids: &[&str], now| {
            load(readings, model, &pods(uids), Millis(now), FRESH).unwrap_err()
        };
        assert!(
            matches!(blind(&readings(), "demo/chat", &["a", "c"], 100_000), Blind::Missing(why) if why.contains("pod-c"))
        );
        assert!(matches!(blind(&readings(), "demo/chat", &["a"], 115_001), Blind::Stale(_)));
        assert!(
            matches!(blind(&readings(), "demo/other", &[], 100_000), Blind::Missing(why) if why.contains("demo/other"))
        );
        let none = Readings {
            gateways_expected: true,
            gateways_failed: Some("http://g:9090/metrics: refused".into()),
            ..Readings::default()
        };
        assert_eq!(blind(&none, "demo/chat", &[], 0), Blind::Missing("http://g:9090/metrics: refused".into()));
    }

    #[test]
    fn without_gateways_configured_replicas_suffice() {
        let readings = Readings { gateways_expected: false, gateways: Default::default(), ..readings() };
        let load = load(&readings, "demo/chat", &pods(&["a"]), Millis(100_000), FRESH).unwrap();
        assert_eq!((load.running, load.waiting), (3, 1));
    }
}
