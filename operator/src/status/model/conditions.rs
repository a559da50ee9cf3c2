//! Conditions of a ModelDeployment.

use super::Facts;
use crate::status::{Conditions, not_implemented};
use crate::telemetry::signals::Blind;
use kube::ResourceExt;
use quartermaster_core::plan::{Reason as PlanReason, Verdict};
use quartermaster_core::snapshot::Candidate;
use quartermaster_crds::FieldPath;
use quartermaster_crds::condition::{ConditionType, Reason, Status};
use quartermaster_crds::v1alpha1::model_deployment::EngineKind;

/// Conditions whose change is an Event as well.
pub(super) const TOLD: [ConditionType; 5] = [
    ConditionType::Stalled,
    ConditionType::SignalsHealthy,
    ConditionType::AtCeiling,
    ConditionType::Degraded,
    ConditionType::CapacityBlocked,
];

/// Whether a person should look.
pub(super) fn worrying(reason: &PlanReason) -> bool {
    matches!(
        reason,
        PlanReason::AtCeiling { .. }
            | PlanReason::PoolExhausted { .. }
            | PlanReason::SignalsBlind { .. }
            | PlanReason::NoUsableVariant { .. }
    )
}

pub(super) fn set(facts: &Facts<'_>, list: &mut Conditions) {
    ready(facts, list);
    reconciling(facts, list);
    list.fault(ConditionType::Stalled, stalled(facts), Reason::AsExpected);
    signals(facts, list);
    list.fault(ConditionType::AtCeiling, at_ceiling(facts), Reason::BelowCeiling);
    list.fault(ConditionType::Degraded, degraded(facts), Reason::BestQuality);
    list.fault(ConditionType::CapacityBlocked, capacity(facts), Reason::CapacityAvailable);
    list.fault(ConditionType::Draining, draining(facts), Reason::AsExpected);
}

fn ready(facts: &Facts<'_>, list: &mut Conditions) {
    let (ready, wanted) = (facts.ready(), facts.wanted());
    let sentence = facts.plan.reason.to_string();
    let (status, reason, message) = match &facts.plan.reason {
        _ if ready > 0 => (Status::True, Reason::Serving, format!("{ready} of {wanted} replicas serve")),
        PlanReason::Asleep => (Status::True, Reason::ScaledToZero, sentence),
        _ if wanted > 0 => {
            let failing = facts.pods().find_map(|pod| pod.failure.as_ref());
            let why = failing.map(|failure| format!("; {}: {}", failure.reason, failure.message)).unwrap_or_default();
            (Status::False, Reason::Starting, format!("0 of {wanted} replicas are ready{why}"))
        }
        PlanReason::AtCeiling { .. } => (Status::False, Reason::CeilingReached, sentence),
        PlanReason::PoolExhausted { .. } => (Status::False, Reason::MaxDevicesReached, sentence),
        PlanReason::SignalsBlind { .. } => (Status::False, Reason::SignalsMissing, sentence),
        _ => (Status::False, Reason::NoCandidate, sentence),
    };
    list.set(ConditionType::Ready, status, reason, &message);
}

fn reconciling(facts: &Facts<'_>, list: &mut Conditions) {
    let wanted = usize::try_from(facts.wanted()).unwrap_or(usize::MAX);
    let live = facts.pods().filter(|pod| pod.live()).count();
    let planned =
        facts.pods().filter(|pod| pod.ready() && facts.plan.groups.iter().any(|g| g.placement == pod.placement));
    let fault = match &facts.plan.reason {
        PlanReason::Switching { .. } => Some((Reason::Switching, facts.plan.reason.to_string())),
        _ if planned.count() < wanted => Some((Reason::Progressing, format!("waiting for {wanted} ready replicas"))),
        _ if live > wanted => Some((Reason::Scaling, format!("going down to {wanted} replicas"))),
        _ => None,
    };
    list.fault(ConditionType::Reconciling, fault, Reason::AsExpected);
}

/// What needs a person: nothing can be served, a class does not exist, a field is not obeyed, an object is in the way.
fn stalled(facts: &Facts<'_>) -> Option<(Reason, String)> {
    if let Some(why) = facts.refused {
        return Some((Reason::InvalidSpec, why.to_owned()));
    }
    let served = facts.plan.considered.iter().any(|each| each.verdict == Verdict::Served);
    if !served {
        let broken = facts.plan.considered.iter().find_map(|each| {
            let (reason, message) = facts.failure(&each.placement)?;
            // No node yet is no dead end: the cluster may grow.
            (reason != Reason::Unschedulable).then(|| (reason, format!("{}: {message}", each.placement)))
        });
        if broken.is_some() {
            return broken;
        }
    }
    let unknown = facts.model.candidates.iter().find(|each| !facts.index.classes.contains_key(&each.placement.class));
    if let Some(candidate) = unknown {
        let (variant, class) = (&candidate.placement.variant, &candidate.placement.class);
        let message = format!("spec.variants[{variant}].hardware names HardwareClass {class}, which does not exist");
        return Some((Reason::UnknownHardwareClass, message));
    }
    if let Some(other) = shadowed_by(facts) {
        let (public, name) = (&facts.object.spec.model, &facts.model.name);
        let message = format!(
            "clients who ask for {public} get ModelDeployment {other}, and this one only as {name}: delete one of the two"
        );
        return Some((Reason::DuplicateModel, message));
    }
    let mut not_obeyed = facts.object.spec.not_implemented();
    not_obeyed.extend(idle_hardware(facts));
    if let Some(fault) = not_implemented(&not_obeyed) {
        return Some(fault);
    }
    let dead_end = !served && matches!(facts.plan.reason, PlanReason::NoUsableVariant { .. });
    dead_end.then(|| (Reason::NoCandidate, facts.plan.reason.to_string()))
}

/// The model of the namespace that gateways take `spec.model` for, if it is another: the name of an object goes before the
/// public name of another, and of two with one public name the first by name has it.
fn shadowed_by(facts: &Facts<'_>) -> Option<String> {
    let (public, own) = (&facts.object.spec.model, &facts.model.name);
    let living = facts.index.models.values().filter(|other| other.metadata.deletion_timestamp.is_none());
    let neighbours = living.filter(|other| other.namespace().as_ref() == Some(&facts.model.namespace));
    let mut others = neighbours.map(|other| (other.name_any(), &other.spec.model)).filter(|(name, _)| name != own);
    let shadow = others.find(|(name, model)| name == public || (*model == public && own != public && name < own));
    shadow.map(|(name, _)| name)
}

/// Hardware on which the bundled engine does not compute.
fn idle_hardware(facts: &Facts<'_>) -> Vec<FieldPath> {
    if facts.object.spec.engine.kind != EngineKind::Bundled {
        return vec![];
    }
    let placements = facts.model.candidates.iter().map(|candidate| &candidate.placement);
    let idle = placements.filter(|placement| {
        let class = facts.index.classes.get(&placement.class);
        class.is_some_and(|class| !class.spec.bundled_engine_computes_on_it())
    });
    idle.map(|placement| FieldPath(format!("spec.variants[{}].hardware[{}]", placement.variant, placement.class)))
        .collect()
}

fn signals(facts: &Facts<'_>, list: &mut Conditions) {
    let (status, reason, message) = match facts.blind {
        Some(blind) if facts.object.status.is_none() => (Status::Unknown, Reason::SignalsMissing, blind.sentence()),
        None => (Status::True, Reason::SignalsFresh, ""),
        Some(Blind::Missing(why)) => (Status::False, Reason::SignalsMissing, why.as_str()),
        Some(Blind::Stale(why)) => (Status::False, Reason::SignalsStale, why.as_str()),
    };
    list.set(ConditionType::SignalsHealthy, status, reason, message);
}

fn at_ceiling(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let ceilings = facts.snapshot.ceilings.iter().zip(facts.ceilings);
    for (ceiling, plan) in ceilings.filter(|(ceiling, _)| facts.bound_by(ceiling)) {
        let (policy, period, amount) = (&ceiling.policy, &ceiling.period, ceiling.amount);
        if ceiling.settled >= ceiling.amount {
            let message = format!("CostPolicy {policy}: the {amount} USD of this {period} are spent");
            return Some((Reason::PeriodSpent, message));
        }
        if plan.committed_above {
            let projected = plan.projected;
            let message = format!(
                "CostPolicy {policy}: {projected} USD are projected for this {period}, the ceiling is {amount} USD"
            );
            return Some((Reason::CommittedAboveCeiling, message));
        }
    }
    if let PlanReason::AtCeiling { .. } = facts.plan.reason {
        return Some((Reason::CeilingReached, facts.plan.reason.to_string()));
    }
    let over = facts.plan.considered.iter().find(|each| matches!(each.verdict, Verdict::OverCeiling { .. }))?;
    Some((Reason::CeilingReached, over.verdict.to_string()))
}

/// A better candidate is declared, and something other than the objective keeps it from being served.
fn degraded(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let serve = facts.plan.serve.as_ref()?;
    let quality = |candidate: &&Candidate| candidate.quality;
    let served = facts.model.candidates.iter().find(|candidate| candidate.placement == *serve)?;
    let kept_away = |candidate: &&Candidate| {
        let found = facts.plan.considered.iter().find(|each| each.placement == candidate.placement);
        found.is_some_and(|each| {
            matches!(each.verdict, Verdict::OverCeiling { .. } | Verdict::Unusable { .. } | Verdict::Pool { .. })
        })
    };
    let best = facts.model.candidates.iter().filter(kept_away).max_by_key(quality)?;
    if best.quality <= served.quality {
        return None;
    }
    let verdict = facts.plan.considered.iter().find(|each| each.placement == best.placement)?;
    let message = format!(
        "serving {serve} (quality {}) instead of {} (quality {}): {}",
        served.quality, best.placement, best.quality, verdict.verdict
    );
    Some((Reason::QualityLowered, message))
}

fn capacity(facts: &Facts<'_>) -> Option<(Reason, String)> {
    if let PlanReason::PoolExhausted { .. } = facts.plan.reason {
        return Some((Reason::MaxDevicesReached, facts.plan.reason.to_string()));
    }
    let failures = facts.pods().filter(|pod| pod.live()).filter_map(|pod| pod.failure.as_ref());
    let homeless = failures.into_iter().find(|failure| failure.reason == Reason::Unschedulable)?;
    Some((Reason::Unschedulable, homeless.message.clone()))
}

fn draining(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let leaving = facts.pods().filter(|pod| pod.deleting).count();
    (leaving > 0).then(|| (Reason::RequestsInFlight, format!("{leaving} replicas finish their requests")))
}
