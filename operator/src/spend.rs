//! What replicas have cost: cumulative per pod and UTC hour, out of the pods' lives and the classes' prices.
//!
//! Time is metered once, at the price in force when it passed; a new price counts from the tick that sees it. A new leader
//! asks the ledger how far each pod is metered and goes on from there: it prices nothing again. Only time in which nobody
//! led gets the price that the new leader finds. Sending an entry again changes nothing at the ledger.

use crate::limits::{PRICES_MAX, SPEND_BACKFILL_HOURS};
use crate::state::PodView;
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::{Metered, SpendEntry};
use std::collections::{BTreeMap, BTreeSet};

/// One pod from the moment when it holds its devices to the moment when it lets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    namespace: String,
    model: String,
    variant: String,
    class: String,
    /// What was before is with the ledger.
    from: Millis,
    /// What the hour of `from` had cost by then.
    before: NanoUsd,
    /// Prices an hour, each from its instant on. The first counts for what was before it, too.
    prices: Vec<(Millis, NanoUsd)>,
    end: Option<Millis>,
}

/// Lives of all pods that are not settled.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    lives: BTreeMap<String, Life>,
    /// Where the ledger says that others have stopped, by pod; none before it has been asked.
    metered: Option<BTreeMap<String, Metered>>,
}

impl Meter {
    /// The oldest hour that is sent.
    #[must_use]
    pub fn oldest(now: Millis) -> Millis {
        Millis(hour_of(now).0 - SPEND_BACKFILL_HOURS * Millis::HOUR.0)
    }

    /// Whether the ledger has said what it has. Until then nothing is sent.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.metered.is_some()
    }

    /// Goes on where others have stopped.
    pub fn resume(&mut self, metered: Vec<Metered>) {
        for known in &metered {
            if let Some(life) = self.lives.get_mut(&known.pod_uid) {
                life.resume(known);
            }
        }
        self.metered = Some(metered.into_iter().map(|known| (known.pod_uid.clone(), known)).collect());
    }

    /// Takes note of the pods there are. A pod that is there no more ended now; one without a node has cost nothing.
    /// `price` is of one device and hour.
    pub fn observe<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a PodView>,
        price: impl Fn(&str) -> Option<NanoUsd>,
        now: Millis,
    ) {
        let Self { lives, metered } = self;
        let mut present = BTreeSet::new();
        for pod in pods {
            present.insert(pod.uid.as_str());
            let Some(start) = pod.scheduled_at else { continue };
            let price = price(&pod.placement.class).map(|price| price.times(pod.placement.devices));
            if price.is_none() && !lives.contains_key(&pod.uid) {
                continue;
            }
            let known = metered.as_ref().and_then(|metered| metered.get(&pod.uid));
            let life = lives.entry(pod.uid.clone()).or_insert_with(|| Life::of(pod, start, known, now));
            if let Some(price) = price {
                life.reprice(price, now);
            }
            // It may be told to serve another one; the hour's row bears the last.
            if !pod.placement.variant.is_empty() {
                life.variant.clone_from(&pod.placement.variant);
            }
            life.end = pod.finished_at;
        }
        for (_, life) in lives.iter_mut().filter(|(uid, _)| !present.contains(uid.as_str())) {
            life.end = life.end.or(Some(now));
        }
        if let Some(metered) = metered {
            metered.retain(|uid, _| present.contains(uid.as_str()));
        }
    }

    /// Everything that the ledger has not seen in full.
    #[must_use]
    pub fn entries(&self, now: Millis) -> Vec<SpendEntry> {
        let lives = self.lives.iter().filter(|_| self.resumed());
        lives.flat_map(|(uid, life)| life.entries(uid, now)).collect()
    }

    /// The ledger has what [`Meter::entries`] gave for `now`.
    pub fn sent(&mut self, now: Millis) {
        self.lives.retain(|_, life| {
            life.sent(hour_of(now));
            // A pod that is gone stays until its end has been sent; what was asked for at `now` held it.
            life.end.is_none_or(|end| end > now)
        });
    }
}

impl Life {
    fn of(pod: &PodView, start: Millis, known: Option<&Metered>, now: Millis) -> Self {
        let mut life = Self {
            namespace: pod.namespace.clone(),
            model: pod.model.clone(),
            variant: pod.placement.variant.clone(),
            class: pod.placement.class.clone(),
            from: start.max(Meter::oldest(now)),
            before: NanoUsd::ZERO,
            prices: Vec::new(),
            end: None,
        };
        if let Some(known) = known {
            life.resume(known);
        }
        life
    }

    fn resume(&mut self, known: &Metered) {
        self.from = self.from.max(known.until);
        // An hour that has ended is the ledger's alone.
        self.before = if hour_of(self.from) == known.hour_start { known.nano_usd } else { NanoUsd::ZERO };
    }

    fn reprice(&mut self, price: NanoUsd, now: Millis) {
        if self.prices.last().is_some_and(|(_, last)| *last == price) {
            return;
        }
        if self.prices.len() >= PRICES_MAX {
            self.prices.pop();
        }
        self.prices.push((now, price));
    }

    fn sent(&mut self, hour: Millis) {
        if self.from < hour {
            self.from = hour;
            self.before = NanoUsd::ZERO;
        }
        let past = self.prices.iter().skip(1).take_while(|(since, _)| *since <= self.from).count();
        self.prices.drain(..past);
    }

    fn entries(&self, uid: &str, now: Millis) -> Vec<SpendEntry> {
        let end = self.end.unwrap_or(now).min(now);
        let mut entries = Vec::new();
        let (mut hour, mut before) = (hour_of(self.from), self.before);
        while hour < end {
            let next = hour.saturating_add(Millis::HOUR);
            let until = end.min(next);
            entries.push(SpendEntry {
                pod_uid: uid.to_owned(),
                namespace: self.namespace.clone(),
                model: self.model.clone(),
                variant: self.variant.clone(),
                hardware_class: self.class.clone(),
                hour_start: hour,
                until,
                nano_usd: before.saturating_add(self.cost(self.from.max(hour), until)),
            });
            (hour, before) = (next, NanoUsd::ZERO);
        }
        entries
    }

    /// What the time between two instants costs, each part of it at its price.
    fn cost(&self, start: Millis, end: Millis) -> NanoUsd {
        let mut cost = NanoUsd::ZERO;
        for (at, (since, price)) in self.prices.iter().enumerate() {
            let begin = if at == 0 { start } else { start.max(*since) };
            let until = self.prices.get(at + 1).map_or(end, |(next, _)| end.min(*next));
            cost = cost.saturating_add(price.per_hour_for(until.since(begin)));
        }
        cost
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

    /// A meter of whose pods the ledger knows nothing.
    fn fresh() -> Meter {
        let mut meter = Meter::default();
        meter.resume(vec![]);
        meter
    }

    fn costs(meter: &Meter, now: i64) -> Vec<(i64, i64)> {
        meter.entries(Millis(now)).iter().map(|e| ((e.hour_start.0 - START) / HOUR, e.nano_usd.0)).collect()
    }

    fn scheduled(at: i64) -> PodView {
        PodView { scheduled_at: Some(Millis(at)), ..pod("demo", "chat", "q4", "cpu-small", 2) }
    }

    #[test]
    fn hours_add_up_to_the_life() {
        let mut meter = fresh();
        let start = START + HOUR / 2;
        let now = START + 2 * HOUR + 1_000;
        meter.observe([scheduled(start)].iter(), price, Millis(now));
        // Two devices at 3.6 mUSD an hour: 2 nano-USD a millisecond.
        assert_eq!(costs(&meter, now), [(0, HOUR), (1, 2 * HOUR), (2, 2_000)]);
    }

    #[test]
    fn an_acknowledged_hour_is_not_sent_again_but_the_current_one_grows() {
        let mut meter = fresh();
        let pods = [scheduled(START)];
        meter.observe(pods.iter(), price, Millis(START + HOUR + 1_000));
        meter.sent(Millis(START + HOUR + 1_000));
        meter.observe(pods.iter(), price, Millis(START + HOUR + 5_000));
        assert_eq!(costs(&meter, START + HOUR + 5_000), [(1, 10_000)]);
    }

    #[test]
    fn a_pod_ends_when_it_is_gone_and_is_forgotten_once_sent() {
        let mut meter = fresh();
        meter.observe([scheduled(START)].iter(), price, Millis(START + 1_000));
        meter.observe([].iter(), price, Millis(START + 3_000));
        assert_eq!(costs(&meter, START + 9_000), [(0, 6_000)]);
        meter.sent(Millis(START + 9_000));
        assert!(meter.entries(Millis(START + 10_000)).is_empty());
    }

    #[test]
    fn a_pod_without_a_node_costs_nothing_and_one_without_a_price_waits_for_it() {
        let mut meter = fresh();
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

    /// Two devices, so twice as many nano-USD for each millisecond.
    fn per_milli(nano: i64) -> impl Fn(&str) -> Option<NanoUsd> {
        move |_| Some(NanoUsd(nano * HOUR))
    }

    #[test]
    fn a_price_counts_from_when_it_is_seen() {
        let mut meter = fresh();
        let pods = [scheduled(START)];
        meter.observe(pods.iter(), per_milli(1), Millis(START + HOUR / 2));
        meter.observe(pods.iter(), per_milli(10), Millis(START + HOUR / 2 + 100));
        meter.observe(pods.iter(), per_milli(10), Millis(START + HOUR + 100));
        assert_eq!(costs(&meter, START + HOUR + 100), [(0, 2 * (HOUR / 2 + 100) + 20 * (HOUR / 2 - 100)), (1, 2_000)]);
        meter.sent(Millis(START + HOUR + 100));
        meter.observe(pods.iter(), per_milli(1), Millis(START + HOUR + 200));
        assert_eq!(costs(&meter, START + HOUR + 300), [(1, 4_200)], "a lower one lowers nothing that has passed");
    }

    /// The ledger: the largest figure of a pod and hour wins.
    fn record(book: &mut BTreeMap<i64, SpendEntry>, entries: Vec<SpendEntry>) {
        for entry in entries {
            let known = book.entry(entry.hour_start.0).or_insert_with(|| entry.clone());
            if known.nano_usd < entry.nano_usd {
                *known = entry;
            }
        }
    }

    fn metered(book: &BTreeMap<i64, SpendEntry>) -> Vec<Metered> {
        let last = book.values().next_back().cloned();
        let known = last.map(|SpendEntry { pod_uid, hour_start, until, nano_usd, .. }| Metered {
            pod_uid,
            hour_start,
            until,
            nano_usd,
        });
        known.into_iter().collect()
    }

    #[test]
    fn a_new_leader_prices_nothing_again() {
        let pods = [scheduled(START)];
        let taken_over = Millis(START + 2 * HOUR + 1_000);
        for (price, first_look) in [(10, true), (10, false), (0, true)] {
            let mut book = BTreeMap::new();
            let mut old = fresh();
            old.observe(pods.iter(), per_milli(1), taken_over);
            record(&mut book, old.entries(taken_over));
            let mut new = Meter::default();
            let now = Millis(taken_over.0 + 100);
            if first_look {
                new.observe(pods.iter(), per_milli(price), now);
                assert!(new.entries(now).is_empty(), "what the ledger has is not known yet");
            }
            new.resume(metered(&book));
            new.observe(pods.iter(), per_milli(price), now);
            record(&mut book, new.entries(now));
            let amounts: Vec<i64> = book.values().map(|entry| entry.nano_usd.0).collect();
            assert_eq!(amounts, [2 * HOUR, 2 * HOUR, 2_000 + 2 * price * 100], "now {price}");
        }
    }

    #[test]
    fn hours_that_nobody_metered_are_made_up_for() {
        let pods = [scheduled(START)];
        let mut book = BTreeMap::new();
        let mut old = fresh();
        old.observe(pods.iter(), per_milli(1), Millis(START + HOUR));
        record(&mut book, old.entries(Millis(START + HOUR)));
        let mut new = Meter::default();
        new.resume(metered(&book));
        new.observe(pods.iter(), per_milli(3), Millis(START + 2 * HOUR + 10));
        assert_eq!(costs(&new, START + 2 * HOUR + 10), [(1, 6 * HOUR), (2, 60)]);
    }

    #[test]
    fn prices_are_bounded() {
        let mut meter = fresh();
        for tick in 1..1_000 {
            meter.observe([scheduled(START)].iter(), per_milli(tick), Millis(START + tick));
        }
        assert_eq!(meter.lives.values().next().unwrap().prices.len(), PRICES_MAX);
    }

    #[test]
    fn a_restart_sends_two_days_at_most() {
        let mut meter = fresh();
        let now = START + 500 * HOUR;
        meter.observe([scheduled(START)].iter(), price, Millis(now));
        assert_eq!(meter.entries(Millis(now)).len(), usize::try_from(SPEND_BACKFILL_HOURS).unwrap());
    }
}
