//! Status of a ModelDeployment. Pure.

mod conditions;

use super::{Conditions, Draft, whole};
use crate::actuate::Note;
use crate::state::{Index, Memory, PodView, snapshot};
use crate::telemetry::signals::Blind;
use crate::{clock, limits, names};
use kube::ResourceExt;
use quartermaster_core::plan::{CeilingPlan, ModelPlan, Verdict as CoreVerdict, yet_to_come};
use quartermaster_core::snapshot::{Ceiling, Model, Placement, Snapshot};
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_crds::condition::Reason;
use quartermaster_crds::v1alpha1::ModelDeployment;
use quartermaster_crds::v1alpha1::model_deployment::{
    Considered, Cost, Decision, ModelDeploymentStatus, Outcome, Plan, PoolReplicas, Verdict,
};
use quartermaster_crds::{Currency, Money, Score};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that the status of one model is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `namespace/name`.
    pub key: &'a str,
    /// The object.
    pub object: &'a ModelDeployment,
    /// The cluster.
    pub index: &'a Index,
    /// What is remembered.
    pub memory: &'a Memory,
    /// What the plan was made of.
    pub snapshot: &'a Snapshot,
    /// The model in it.
    pub model: &'a Model,
    /// The plan.
    pub plan: &'a ModelPlan,
    /// Ceilings under the plan.
    pub ceilings: &'a [CeilingPlan],
    /// What each model has cost in the period of each of them.
    pub settled: &'a [Arc<BTreeMap<String, NanoUsd>>],
    /// Why the load is not known.
    pub blind: Option<&'a Blind>,
    /// Why objects could not be written.
    pub refused: Option<&'a str>,
    /// Now.
    pub now: Millis,
}

impl<'a> Facts<'a> {
    fn pods(&self) -> impl Iterator<Item = &'a PodView> {
        self.index.pods_of(&self.model.namespace, &self.model.name)
    }

    /// Whether a ceiling holds the model back.
    fn bound_by(&self, ceiling: &Ceiling) -> bool {
        let namespace = ceiling.namespace.as_deref();
        ceiling.enforced && namespace.is_none_or(|namespace| namespace == self.model.namespace)
    }

    fn wanted(&self) -> u32 {
        self.plan.groups.iter().map(|group| group.replicas).sum()
    }

    fn ready(&self) -> usize {
        self.pods().filter(|pod| pod.ready()).count()
    }

    /// The failure in force of a placement.
    fn failure(&self, placement: &Placement) -> Option<(Reason, &'a str)> {
        let failed = self.memory.models.get(self.key)?.failures.get(placement)?;
        let fresh = self.now.since(failed.at) < limits::FAILURE_BACKOFF;
        fresh.then_some((failed.reason, failed.message.as_str()))
    }
}

/// The status, and what to tell.
#[must_use]
pub fn status(facts: &Facts<'_>) -> (ModelDeploymentStatus, Vec<Note>) {
    let old = facts.object.status.clone().unwrap_or_default();
    let generation = facts.object.metadata.generation;
    let mut list = Conditions::new(&old.conditions, generation, facts.now);
    conditions::set(facts, &mut list);
    let (conditions, mut notes) = list.finish(&conditions::TOLD, "Plan");
    let plan = plan(facts, old.plan.as_ref());
    // That a model which gateways have only just heard of has no figures yet is no news.
    let first_look = facts.blind.is_some() && facts.object.status.is_none();
    let by_pool = by_pool(facts);
    let last = old.cost.as_ref().and_then(|cost| cost.projected.clone());
    // What was last known stays while the ledger is silent.
    let projected = projected(facts).map(money).or(last.filter(|_| facts.memory.ledger_failed.is_some()));
    if !first_look && changed(old.plan.as_ref().map(|plan| plan.reason.as_str()), facts) {
        let (reason, message) = (facts.plan.reason.name().to_owned(), facts.plan.reason.to_string());
        notes.insert(0, Note { warning: conditions::worrying(&facts.plan.reason), reason, message, action: "Plan" });
    }
    let status = ModelDeploymentStatus {
        observed_generation: generation,
        conditions,
        served_variants: served_variants(&by_pool),
        replicas: whole(facts.pods().filter(|pod| pod.live()).count()),
        ready_replicas: whole(facts.ready()),
        selector: Some(names::model_selector(&facts.object.name_any())),
        replicas_by_pool: by_pool,
        considered: facts
            .plan
            .considered
            .iter()
            .map(|each| considered(facts, &each.placement, &each.verdict))
            .collect(),
        decisions: decisions(facts, &old, plan.as_ref()),
        plan,
        cost: Some(Cost { per_hour: money(cost_now(facts)), projected, currency: Currency::USD }),
        slo_attainment: None,
    };
    (status, notes)
}

/// The draft of the status.
pub fn draft(facts: &Facts<'_>) -> serde_json::Result<Draft> {
    let (status, notes) = status(facts);
    Draft::new(facts.object, facts.object.status.as_ref(), &status, notes)
}

/// Whether the reason is another than before. Without a plan before, the first plan is news.
fn changed(old: Option<&str>, facts: &Facts<'_>) -> bool {
    let last = facts.object.status.as_ref().and_then(|status| status.decisions.first());
    let before = old.or(last.map(|decision| decision.reason.as_str()));
    before != Some(facts.plan.reason.name())
}

fn money(amount: NanoUsd) -> Money {
    Money::from_nanos(amount.0)
}

/// What runs and holds devices costs so much an hour.
fn cost_now(facts: &Facts<'_>) -> NanoUsd {
    let running = facts.pods().filter(|pod| pod.scheduled_at.is_some() && pod.finished_at.is_none());
    let price = |pod: &PodView| {
        let class = facts.snapshot.classes.get(&pod.placement.class);
        class.map_or(NanoUsd::ZERO, |class| class.price_per_hour.times(pod.placement.devices))
    };
    running.map(price).fold(NanoUsd::ZERO, NanoUsd::saturating_add)
}

/// The model's own projected spend in the period of the ceiling with the least share left.
fn projected(facts: &Facts<'_>) -> Option<NanoUsd> {
    let yet = yet_to_come(facts.snapshot, facts.model, facts.plan);
    let each = facts.snapshot.ceilings.iter().zip(facts.ceilings).zip(facts.settled.iter().zip(yet));
    let binding = each.filter(|((ceiling, _), _)| facts.bound_by(ceiling));
    let used = |((ceiling, plan), _): &((&Ceiling, &CeilingPlan), _)| {
        i128::from(plan.projected.0) * 1_000 / i128::from(ceiling.amount.0.max(1))
    };
    // The first of equals.
    let (_, (settled, yet)) = binding.min_by_key(|each| Reverse(used(each)))?;
    Some(settled.get(facts.key).copied().unwrap_or(NanoUsd::ZERO).saturating_add(yet))
}

fn by_pool(facts: &Facts<'_>) -> Vec<PoolReplicas> {
    let mut pools: BTreeMap<Placement, (i32, i32)> = BTreeMap::new();
    for pod in facts.pods().filter(|pod| pod.live()) {
        let pool = pools.entry(pod.placement.clone()).or_default();
        pool.0 = pool.0.saturating_add(1);
        pool.1 = pool.1.saturating_add(i32::from(pod.ready()));
    }
    let mut pools: Vec<PoolReplicas> = pools
        .into_iter()
        .map(|(placement, (replicas, ready))| PoolReplicas {
            variant: placement.variant,
            class: placement.class,
            devices: whole(placement.devices),
            replicas,
            ready,
        })
        .collect();
    pools.sort_by_key(|pool| (Reverse(pool.ready), Reverse(pool.replicas)));
    pools
}

fn served_variants(pools: &[PoolReplicas]) -> Vec<String> {
    let mut variants: Vec<String> = Vec::new();
    for pool in pools.iter().filter(|pool| pool.ready > 0) {
        if !variants.contains(&pool.variant) {
            variants.push(pool.variant.clone());
        }
    }
    variants
}

/// The plan in force; `since` stays while the plan does.
fn plan(facts: &Facts<'_>, old: Option<&Plan>) -> Option<Plan> {
    let serve = facts.plan.serve.as_ref()?;
    let quality = facts.model.candidates.iter().find(|candidate| candidate.placement == *serve);
    let replicas =
        facts.plan.groups.iter().filter(|group| group.placement == *serve).map(|group| group.replicas).sum::<u32>();
    let mut plan = Plan {
        variant: serve.variant.clone(),
        class: serve.class.clone(),
        devices: whole(serve.devices),
        replicas: whole(replicas),
        reason: facts.plan.reason.name().to_owned(),
        message: facts.plan.reason.to_string(),
        quality: Score::from_millionths(quality.map_or(0, |candidate| candidate.quality.0)),
        cost_per_hour: money(facts.plan.cost_per_hour),
        since: clock::time(facts.now),
    };
    if let Some(old) = old {
        let what =
            |plan: &Plan| (plan.variant.clone(), plan.class.clone(), plan.devices, plan.replicas, plan.reason.clone());
        if what(old) == what(&plan) {
            plan.since = old.since.clone();
        }
    }
    Some(plan)
}

fn considered(facts: &Facts<'_>, placement: &Placement, verdict: &CoreVerdict) -> Considered {
    let word = match verdict {
        CoreVerdict::Served => Verdict::Chosen,
        CoreVerdict::BelowQualityFloor { .. } => Verdict::BelowFloor,
        CoreVerdict::OverCeiling { .. } => Verdict::OverCeiling,
        CoreVerdict::Dominated { .. } => Verdict::Dominated,
        CoreVerdict::LowerQuality { .. } | CoreVerdict::Dearer { .. } => Verdict::Eligible,
        CoreVerdict::Pool { .. } => Verdict::NoCapacity,
        CoreVerdict::Unusable { .. } => unusable(facts, placement),
    };
    Considered {
        variant: placement.variant.clone(),
        class: placement.class.clone(),
        devices: whole(placement.devices),
        verdict: word,
        message: verdict.to_string(),
    }
}

fn unusable(facts: &Facts<'_>, placement: &Placement) -> Verdict {
    if !facts.index.classes.contains_key(&placement.class) {
        return Verdict::UnknownClass;
    }
    match facts.failure(placement).map(|(reason, _)| reason) {
        None => Verdict::NotImplemented,
        Some(Reason::ModelTooLarge) => Verdict::DoesNotFit,
        Some(Reason::Unschedulable) => Verdict::NoCapacity,
        Some(_) => Verdict::SourceFailed,
    }
}

/// The last decisions; a new one when what is served, or in how many replicas, changed.
fn decisions(facts: &Facts<'_>, old: &ModelDeploymentStatus, plan: Option<&Plan>) -> Vec<Decision> {
    let mut decisions = old.decisions.clone();
    let what = plan.map(|plan| (plan.variant.clone(), plan.class.clone(), plan.replicas)).unwrap_or_default();
    let last = decisions.first().map(|last| (last.variant.clone(), last.class.clone(), last.replicas_after));
    let (variant, class, replicas) = what.clone();
    let nothing_yet = last.is_none() && plan.is_none();
    if last.as_ref() != Some(&what) && !nothing_yet {
        let ready_after = plan
            .and(facts.plan.serve.as_ref())
            .map(|serve| snapshot::startup(facts.index, facts.memory, facts.key, serve).0.div_euclid(1_000));
        let capacity =
            facts.model.candidates.iter().find(|candidate| Some(&candidate.placement) == facts.plan.serve.as_ref());
        let tokens = capacity
            .and_then(|candidate| candidate.capacity)
            .map(|capacity| i64::from(crate::telemetry::count(capacity.tokens_per_second * f64::from(replicas))));
        let decision = Decision {
            at: clock::time(facts.now),
            reason: facts.plan.reason.name().to_owned(),
            message: facts.plan.reason.to_string(),
            variant,
            class,
            replicas_before: last.map_or(0, |(_, _, replicas)| replicas),
            replicas_after: replicas,
            predicted: Some(Outcome {
                ready_after_seconds: ready_after,
                cost_per_hour: Some(money(facts.plan.cost_per_hour)),
                tokens_per_second: tokens,
            }),
            realised: None,
        };
        decisions.insert(0, decision);
    }
    decisions.truncate(limits::DECISIONS_MAX);
    realised(facts, &mut decisions);
    decisions
}

/// The newest decision is realised when as many replicas as it asked for are ready.
fn realised(facts: &Facts<'_>, decisions: &mut [Decision]) {
    let Some(newest) = decisions.first_mut().filter(|newest| newest.realised.is_none()) else { return };
    let served =
        |pod: &&PodView| pod.ready() && pod.placement.variant == newest.variant && pod.placement.class == newest.class;
    let ready = whole(facts.pods().filter(served).count());
    if ready == newest.replicas_after {
        newest.realised = Some(Outcome {
            ready_after_seconds: Some(facts.now.since(clock::millis(&newest.at)).0.div_euclid(1_000)),
            cost_per_hour: Some(money(cost_now(facts))),
            tokens_per_second: None,
        });
    }
}

#[cfg(test)]
mod tests;
