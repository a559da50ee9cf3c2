//! What replicas have cost: cumulative per pod and UTC hour, out of the pods' lives and the classes' prices.
//!
//! Sending an entry again changes nothing at the ledger, so a restarted leader sends the past hours of every pod anew.

use crate::limits::SPEND_BACKFILL_HOURS;
use crate::state::PodView;
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::SpendEntry;
use std::collections::BTreeMap;

/// One pod from the moment when it holds its devices to the moment when it lets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    namespace: String,
    model: String,
    variant: String,
    class: String,
    price_per_hour: NanoUsd,
    start: Millis,
    end: Option<Millis>,
    /// Hours before this one are with the ledger.
    sent: Millis,
}

/// Lives of all pods that are not settled.
#[derive(Clone, Debug, Default)]
pub struct Meter(BTreeMap<String, Life>);

impl Meter {
    /// Takes note of the pods there are. A pod that is there no more ended now; one without a node has cost nothing.
    /// `price` is of one device and hour.
    pub fn observe<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a PodView>,
        price: impl Fn(&str) -> Option<NanoUsd>,
        now: Millis,
    ) {
        let mut ended: Vec<String> = self.0.keys().cloned().collect();
        for pod in pods {
            ended.retain(|uid| *uid != pod.uid);
            let Some(start) = pod.scheduled_at else { continue };
            let known = self.0.get(&pod.uid).map(|life| life.price_per_hour);
            let price = price(&pod.placement.class).map(|price| price.times(pod.placement.devices));
            let Some(price_per_hour) = price.or(known) else { continue };
            let life = self.0.entry(pod.uid.clone()).or_insert_with(|| life(pod, start, now));
            life.price_per_hour = price_per_hour;
            life.end = pod.finished_at;
        }
        for life in ended.iter().filter_map(|uid| self.0.remove_entry(uid)).collect::<Vec<_>>() {
            let (uid, life) = life;
            self.0.insert(uid, Life { end: life.end.or(Some(now)), ..life });
        }
    }

    /// Everything that the ledger has not seen in full.
    #[must_use]
    pub fn entries(&self, now: Millis) -> Vec<SpendEntry> {
        self.0.iter().flat_map(|(uid, life)| life.entries(uid, now)).collect()
    }

    /// The ledger has what [`Meter::entries`] gave for `now`.
    pub fn sent(&mut self, now: Millis) {
        let hour = hour_of(now);
        self.0.retain(|_, life| {
            life.sent = hour;
            // A pod that is gone stays until its end has been sent; what was asked for at `now` held it.
            life.end.is_none_or(|end| end > now)
        });
    }
}

fn life(pod: &PodView, start: Millis, now: Millis) -> Life {
    let oldest = hour_of(now).0 - SPEND_BACKFILL_HOURS * Millis::HOUR.0;
    Life {
        namespace: pod.namespace.clone(),
        model: pod.model.clone(),
        variant: pod.placement.variant.clone(),
        class: pod.placement.class.clone(),
        price_per_hour: NanoUsd::ZERO,
        start,
        end: None,
        sent: Millis(oldest),
    }
}

impl Life {
    fn entries(&self, uid: &str, now: Millis) -> Vec<SpendEntry> {
        let end = self.end.unwrap_or(now).min(now);
        let mut entries = Vec::new();
        let mut hour = hour_of(self.start.max(self.sent));
        while hour < end {
            let next = hour.saturating_add(Millis::HOUR);
            let time = end.min(next).since(self.start.max(hour));
            entries.push(SpendEntry {
                pod_uid: uid.to_owned(),
                namespace: self.namespace.clone(),
                model: self.model.clone(),
                variant: self.variant.clone(),
                hardware_class: self.class.clone(),
                hour_start: hour,
                nano_usd: self.price_per_hour.per_hour_for(time),
            });
            hour = next;
        }
        entries
    }
}

fn hour_of(at: Millis) -> Millis {
    Millis(at.0.div_euclid(Millis::HOUR.0) * Millis::HOUR.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::pod;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_000 * HOUR;

    fn price(class: &str) -> Option<NanoUsd> {
        (class == "cpu-small").then_some(NanoUsd(3_600_000))
    }

    fn costs(meter: &Meter, now: i64) -> Vec<(i64, i64)> {
        meter.entries(Millis(now)).iter().map(|e| ((e.hour_start.0 - START) / HOUR, e.nano_usd.0)).collect()
    }

    fn scheduled(at: i64) -> PodView {
        PodView { scheduled_at: Some(Millis(at)), ..pod("demo", "chat", "q4", "cpu-small", 2) }
    }

    #[test]
    fn hours_add_up_to_the_life() {
        let mut meter = Meter::default();
        let start = START + HOUR / 2;
        let now = START + 2 * HOUR + 1_000;
        meter.observe([scheduled(start)].iter(), price, Millis(now));
        // Two devices at 3.6 mUSD an hour: 2 nano-USD a millisecond.
        assert_eq!(costs(&meter, now), [(0, HOUR), (1, 2 * HOUR), (2, 2_000)]);
    }

    #[test]
    fn an_acknowledged_hour_is_not_sent_again_but_the_current_one_grows() {
        let mut meter = Meter::default();
        let pods = [scheduled(START)];
        meter.observe(pods.iter(), price, Millis(START + HOUR + 1_000));
        meter.sent(Millis(START + HOUR + 1_000));
        meter.observe(pods.iter(), price, Millis(START + HOUR + 5_000));
        assert_eq!(costs(&meter, START + HOUR + 5_000), [(1, 10_000)]);
    }

    #[test]
    fn a_pod_ends_when_it_is_gone_and_is_forgotten_once_sent() {
        let mut meter = Meter::default();
        meter.observe([scheduled(START)].iter(), price, Millis(START + 1_000));
        meter.observe([].iter(), price, Millis(START + 3_000));
        assert_eq!(costs(&meter, START + 9_000), [(0, 6_000)]);
        meter.sent(Millis(START + 9_000));
        assert!(meter.entries(Millis(START + 10_000)).is_empty());
    }

    #[test]
    fn a_pod_without_a_node_costs_nothing_and_one_without_a_price_waits_for_it() {
        let mut meter = Meter::default();
        let unscheduled = PodView { scheduled_at: None, ..scheduled(START) };
        meter.observe([unscheduled].iter(), price, Millis(START + 1_000));
        assert!(meter.entries(Millis(START + 1_000)).is_empty());
        meter.observe([scheduled(START)].iter(), |_| None, Millis(START + 1_000));
        assert!(meter.entries(Millis(START + 1_000)).is_empty());
        meter.observe([scheduled(START)].iter(), price, Millis(START + 2_000));
        assert_eq!(costs(&meter, START + 2_000), [(0, 4_000)]);
        meter.observe([scheduled(START)].iter(), |_| None, Millis(START + 3_000));
        assert_eq!(costs(&meter, START + 3_000), [(0, 6_000)], "a deleted class keeps its last price");
    }

    #[test]
    fn a_restart_sends_two_days_at_most() {
        let mut meter = Meter::default();
        let now = START + 500 * HOUR;
        meter.observe([scheduled(START)].iter(), price, Millis(now));
        assert_eq!(meter.entries(Millis(now)).len(), usize::try_from(SPEND_BACKFILL_HOURS).unwrap());
    }
}
