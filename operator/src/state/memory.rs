//! What is remembered from tick to tick, all of it bounded. A restarted operator starts without: it holds until it has
//! seen enough, and measures anew.

use crate::build::Fault;
use crate::limits;
use crate::state::{Burn, Known, PodView};
use crate::telemetry::{PodReading, Readings};
use quartermaster_core::plan::{ModelPlan, Plan};
use quartermaster_core::snapshot::{Capacity, Need, Placement};
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::gateway::TokenizerRef;
use quartermaster_core::wire::ledger::{Balance, SpendTotal};
use quartermaster_crds::condition::Reason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A placement that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The condition's reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it keeps from happening.
    pub fault: Fault,
    /// Hash of what failed, with that variant's file alone; something else may well work.
    pub config_hash: String,
    /// Generation of the model's spec.
    pub generation: i64,
    /// When it was last seen.
    pub at: Millis,
}

/// A pod that could not be told to serve a variant; it serves on what it served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `namespace/name` of the model.
    pub model: String,
    /// What it was to serve.
    pub placement: Placement,
    /// Generation of the spec that the order was given for.
    pub generation: i64,
    /// The pod's own words.
    pub message: String,
}

/// A sum from the ledger, and when it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The sum.
    pub amount: NanoUsd,
    /// Part of each model, by `namespace/name`.
    pub models: Arc<BTreeMap<String, NanoUsd>>,
    /// When.
    pub at: Millis,
}

/// What is remembered of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelMemory {
    /// Past needs, oldest first.
    pub needs: VecDeque<Need>,
    /// Since when they have been observed without a break.
    pub observed_since: Option<Millis>,
    /// Last measured capacity.
    pub capacity: BTreeMap<Placement, Capacity>,
    /// Last failure.
    pub failures: BTreeMap<Placement, Failed>,
    /// Groups that the plan names no more, and since when: (class, devices).
    pub retiring: BTreeMap<(String, u32), Millis>,
    /// Measured start-ups, oldest first.
    pub startups: BTreeMap<Placement, VecDeque<Millis>>,
    /// The last plan.
    pub plan: Option<ModelPlan>,
    /// Its tokenizer.
    pub tokenizer: Option<TokenizerRef>,
}

/// Everything remembered.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By `namespace/name`.
    pub models: BTreeMap<String, ModelMemory>,
    /// When a gateway last asked for a model.
    pub wakes: BTreeMap<String, Millis>,
    /// Settled sums by (namespace or all, start of the period).
    pub settled: BTreeMap<(Option<String>, Millis), Settled>,
    /// The ledger's balances, and when they came.
    pub balances: Option<(Vec<Balance>, Millis)>,
    /// How fast budgets are spent.
    pub burn: Burn,
    /// Why the ledger could not be asked.
    pub ledger_failed: Option<String>,
    started: BTreeSet<String>,
}

impl Memory {
    /// Forgets models that are gone.
    pub fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.models.retain(|key, _| known(key));
        self.wakes.retain(|key, _| known(key));
    }

    /// Notes measured capacity and start-up times. What a replica measures is of the variant that it said it serves.
    pub fn measure<'a>(&mut self, pods: impl Iterator<Item = &'a PodView>, readings: &Readings) {
        let mut measured: BTreeMap<(String, Placement), Capacity> = BTreeMap::new();
        let mut present = BTreeSet::new();
        for pod in pods {
            present.insert(pod.uid.clone());
            let key = crate::names::key(&pod.namespace, &pod.model);
            if let Some(capacity) =
                readings.pods.get(&pod.uid).and_then(capacity).filter(|_| pod.ready() && pod.known == Known::Said)
            {
                let best = measured.entry((key.clone(), pod.placement.clone())).or_insert(capacity);
                if capacity.tokens_per_second > best.tokens_per_second {
                    *best = capacity;
                }
            }
            self.startup(key, pod);
        }
        for ((key, placement), capacity) in measured {
            self.models.entry(key).or_default().capacity.insert(placement, capacity);
        }
        self.started.retain(|uid| present.contains(uid));
    }

    /// The first time that a pod is ready, without a restart, its start-up is measured.
    fn startup(&mut self, key: String, pod: &PodView) {
        let Some(ready) = pod.ready_since.filter(|_| pod.restarts == 0) else { return };
        if self.started.len() >= limits::SEEN_PODS_MAX || !self.started.insert(pod.uid.clone()) {
            return;
        }
        let startups = self.models.entry(key).or_default().startups.entry(pod.placement.clone()).or_default();
        startups.push_back(ready.since(pod.created));
        while startups.len() > limits::STARTUPS_MAX {
            startups.pop_front();
        }
    }

    /// Notes a plan: what was needed, what it names no more. `spans` is how long the needs of a model matter.
    pub fn plan(&mut self, plan: &Plan, now: Millis, spans: impl Fn(&str) -> Millis) {
        for (key, planned) in &plan.models {
            let model = self.models.entry(key.clone()).or_default();
            match planned.needed {
                Some(replicas) => model.need(Need { at: now, replicas }, spans(key)),
                // What was needed while blind is not known; a quiet window starts anew.
                None => model.observed_since = Some(now),
            }
            model.plan = Some(planned.clone());
        }
    }

    /// When a gateway asked for a model so recently that it still waits.
    #[must_use]
    pub fn awake(&self, key: &str, now: Millis) -> bool {
        self.wakes.get(key).is_some_and(|at| now.since(*at) <= limits::WAKE_FRESH)
    }

    /// A settled sum that is fresh enough.
    #[must_use]
    pub fn settled(&self, namespace: Option<&str>, start: Millis, now: Millis) -> Option<&Settled> {
        let settled = self.settled.get(&(namespace.map(str::to_owned), start))?;
        (now.since(settled.at) <= limits::SETTLED_FRESH).then_some(settled)
    }

    /// Notes the ledger's balances.
    pub fn balance(&mut self, rows: Vec<Balance>, now: Millis) {
        self.burn.note(self.balances.as_ref().map(|(rows, at)| (rows.as_slice(), *at)), &rows, now);
        self.balances = Some((rows, now));
    }
}

impl Settled {
    /// As the ledger says it.
    #[must_use]
    pub fn of(total: SpendTotal, at: Millis) -> Self {
        let models = total.models.into_iter().map(|sum| (crate::names::key(&sum.namespace, &sum.model), sum.nano_usd));
        Self { amount: total.nano_usd, models: Arc::new(models.collect()), at }
    }
}

impl ModelMemory {
    /// Adds a need. Needs so close together that memory would not hold the span are one, the higher.
    fn need(&mut self, need: Need, span: Millis) {
        self.observed_since.get_or_insert(need.at);
        let buckets = i64::try_from(limits::NEEDS_MAX).unwrap_or(i64::MAX) - 1;
        let width = (span.0.min(limits::NEEDS_SPAN.0) / buckets).max(1);
        match self.needs.back_mut().filter(|last| last.at.0.div_euclid(width) == need.at.0.div_euclid(width)) {
            Some(last) => *last = Need { at: need.at, replicas: need.replicas.max(last.replicas) },
            None => self.needs.push_back(need),
        }
        while self.needs.len() > limits::NEEDS_MAX
            || self.needs.front().is_some_and(|first| need.at.since(first.at) > span)
        {
            self.needs.pop_front();
        }
    }

    /// The start-up to expect of a placement: the longest measured, on this placement or else on any.
    #[must_use]
    pub fn startup(&self, placement: &Placement) -> Option<Millis> {
        let own = self.startups.get(placement).and_then(|times| times.iter().max());
        let hardware = || {
            let same = self.startups.iter().filter(|(other, _)| other.same_hardware(placement));
            same.flat_map(|(_, times)| times).max()
        };
        own.or_else(hardware).copied()
    }

    /// Why a placement can't be served now: it failed with this very config, not long ago.
    #[must_use]
    pub fn failed(&self, placement: &Placement, config_hash: &str, generation: i64, now: Millis) -> Option<&Failed> {
        let failed = self.failures.get(placement)?;
        let same = failed.config_hash == config_hash && failed.generation == generation;
        (same && now.since(failed.at) < limits::FAILURE_BACKOFF).then_some(failed)
    }
}

fn capacity(reading: &PodReading) -> Option<Capacity> {
    Some(Capacity { slots: reading.slots?, tokens_per_second: reading.tokens_per_second? })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{placement, ready_pod};
    use super::*;

    #[test]
    fn needs_are_bounded_and_keep_the_highest() {
        let mut model = ModelMemory::default();
        let span = Millis(3_600_000);
        for tick in 0..5_000_i64 {
            let replicas = if tick == 4_000 { 9 } else { 1 };
            model.need(Need { at: Millis(tick * 5_000), replicas }, span);
        }
        assert!(model.needs.len() <= limits::NEEDS_MAX);
        let now = Millis(4_999 * 5_000);
        assert!(model.needs.iter().all(|need| now.since(need.at) <= span));
        let highest =
            |window: i64| model.needs.iter().filter(|n| now.since(n.at).0 <= window).map(|n| n.replicas).max();
        assert_eq!(highest(3_600_000), Some(1), "the peak is older than an hour");
        let mut model = ModelMemory::default();
        for tick in 0..1_000_i64 {
            model.need(Need { at: Millis(tick * 100), replicas: u32::from(tick == 500) * 7 }, span);
        }
        assert_eq!(model.needs.iter().map(|need| need.replicas).max(), Some(7));
        assert_eq!(model.observed_since, Some(Millis(0)));
    }

    #[test]
    fn a_blind_tick_breaks_the_observation() {
        let planned = |needed| ModelPlan {
            serve: None,
            groups: vec![],
            needed,
            reason: quartermaster_core::plan::Reason::Asleep,
            considered: vec![],
            cost_per_hour: NanoUsd::ZERO,
        };
        let mut memory = Memory::default();
        for (at, needed) in [(1, Some(1)), (2, None), (3, Some(2))] {
            let plan = Plan { models: [("demo/a".to_owned(), planned(needed))].into(), ceilings: vec![] };
            memory.plan(&plan, Millis(at), |_| Millis(1_000));
        }
        assert_eq!(memory.models["demo/a"].observed_since, Some(Millis(2)));
        assert_eq!(memory.models["demo/a"].needs.len(), 2);
    }

    #[test]
    fn capacity_stays_when_the_pod_is_gone_and_a_startup_counts_once() {
        let mut memory = Memory::default();
        let pod = ready_pod("demo", "chat", "q4", "cpu-small", 1);
        let reading =
            PodReading { at: Millis(0), running: 0, waiting: 0, slots: Some(4), tokens_per_second: Some(33.0) };
        let readings = Readings { pods: [(pod.uid.clone(), reading)].into(), ..Readings::default() };
        for _ in 0..3 {
            memory.measure([&pod].into_iter(), &readings);
        }
        memory.measure([].into_iter(), &Readings::default());
        let model = &memory.models["demo/chat"];
        let on = placement("q4", "cpu-small", 1);
        assert_eq!(model.capacity[&on], Capacity { slots: 4, tokens_per_second: 33.0 });
        assert_eq!(model.startups[&on], [Millis(9_000)]);
        assert_eq!(
            model.startup(&placement("q8", "cpu-small", 1)),
            Some(Millis(9_000)),
            "same hardware is a fair guess"
        );
        assert_eq!(model.startup(&placement("q8", "gpu", 1)), None);
    }

    #[test]
    fn a_failure_binds_until_the_config_the_spec_or_the_time_changes() {
        let on = placement("q4", "cpu-small", 1);
        let failed = Failed {
            reason: Reason::ModelCorrupt,
            message: "x".into(),
            fault: Fault::Start,
            config_hash: "h".into(),
            generation: 3,
            at: Millis(0),
        };
        let model = ModelMemory { failures: [(on.clone(), failed)].into(), ..ModelMemory::default() };
        let later = limits::FAILURE_BACKOFF;
        assert!(model.failed(&on, "h", 3, Millis(later.0 - 1)).is_some());
        for (hash, generation, now) in [("g", 3, Millis(0)), ("h", 4, Millis(0)), ("h", 3, later)] {
            assert!(model.failed(&on, hash, generation, now).is_none());
        }
    }
}
