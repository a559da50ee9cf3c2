//! The interim rule, until the whole optimisation stands: models by priority, each its best affordable placement.

use super::choose::{consider, fits_alone};
use super::floors::{Floors, as_it_runs, book, floors, running};
use super::size::{Size, size};
use super::spend::Books;
use super::{CeilingPlan, Considered, GroupPlan, ModelPlan, PLAN_HORIZON, Plan, Reason, Verdict};
use crate::snapshot::{Group, Model, Placement, Snapshot};
use crate::units::NanoUsd;
use std::cmp::Reverse;

/// The plan for a snapshot. The same snapshot always gives the same plan.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan {
    let mut order: Vec<_> = snapshot.models.iter().collect();
    order.sort_by_key(|(key, model)| (Reverse(model.priority), *key));
    let mut floors = floors(snapshot, &order);
    let mut planned = Books::open(snapshot);
    let mut plan = Plan::default();
    for (key, model) in order {
        floors.remove(key.as_str());
        let mut books = with_floors(&planned, snapshot, &floors);
        let decided = decide_model(snapshot, model, &mut books);
        commit(model, &decided, &mut planned);
        plan.models.insert(key.clone(), decided);
    }
    let ceilings = snapshot.ceilings.iter().zip(planned.projected()).map(|(ceiling, projected)| CeilingPlan {
        policy: ceiling.policy.clone(),
        period: ceiling.period.clone(),
        projected,
        committed_above: projected > ceiling.amount,
    });
    plan.ceilings = ceilings.collect();
    plan
}

/// What the plan of one model will yet cost under each ceiling, in the snapshot's order; nothing where that does not bind
/// it. Settled and this, over all models, is the projected spend of a ceiling.
#[must_use]
pub fn yet_to_come(snapshot: &Snapshot, model: &Model, plan: &ModelPlan) -> Vec<NanoUsd> {
    let mut books = Books::ahead(snapshot);
    commit(model, plan, &mut books);
    books.projected()
}

/// What is planned, and what those who come later keep.
fn with_floors<'a>(planned: &Books<'a>, snapshot: &Snapshot, floors: &Floors<'_>) -> Books<'a> {
    let mut books = planned.clone();
    for (key, groups) in floors {
        if let Some(model) = snapshot.models.get(*key) {
            book(&mut books, model, groups);
        }
    }
    books
}

fn decide_model(snapshot: &Snapshot, model: &Model, books: &mut Books<'_>) -> ModelPlan {
    let considered = consider(snapshot, model, books);
    let Some(load) = model.load else {
        return hold(snapshot, model, considered);
    };
    let served = considered.iter().find(|considered| considered.verdict == Verdict::Served);
    let Some(target) = served.map(|considered| considered.placement.clone()) else {
        let reason = nothing_fits(&considered);
        return ModelPlan { considered, ..plan(snapshot, None, Vec::new(), Some(0), reason) };
    };
    let (old, current): (Vec<&Group>, Vec<&Group>) =
        running(model).partition(|group| !group.placement.same_hardware(&target));
    let Size { needed, wanted, mut reason } = size(snapshot.now, model, load, &target);
    let ready: u32 = current.iter().filter(|group| group.placement == target).map(|group| group.ready).sum();
    // Make before break: the old placement goes when as much of the new one is ready as it had itself.
    let kept = |replicas: u32| old.iter().filter(move |group| ready < replicas.min(group.ready.max(1)));
    for group in kept(wanted).filter(|group| fits_alone(model, &group.placement, books)).collect::<Vec<_>>() {
        books.commit(&model.namespace, &group.placement, group.wanted, group.startup);
    }
    let (mut replicas, ceiling) = books.afford(&model.namespace, &target, wanted);
    if let Some(ceiling) = ceiling {
        reason = Reason::AtCeiling { policy: ceiling.policy.clone(), replicas, wanted, amount: ceiling.amount };
    }
    if books.room(&target, replicas) < replicas {
        replicas = books.room(&target, replicas);
        reason = Reason::PoolExhausted { class: target.class.clone(), replicas, wanted };
    }
    if let Some(from) = kept(replicas).chain(&current).map(|group| &group.placement).find(|from| **from != target) {
        reason = switching(from, &target, &considered);
    }
    let groups: Vec<GroupPlan> = std::iter::once(GroupPlan { placement: target.clone(), replicas })
        .chain(kept(replicas).map(|group| GroupPlan { placement: group.placement.clone(), replicas: group.wanted }))
        .collect();
    ModelPlan { considered, ..plan(snapshot, Some(target), groups, Some(needed), reason) }
}

/// Blind is not idle: what runs goes on, nothing is started or stopped.
fn hold(snapshot: &Snapshot, model: &Model, considered: Vec<Considered>) -> ModelPlan {
    let groups = as_it_runs(model);
    let because = model.blind_because.clone().unwrap_or_else(|| "the load is not known".to_owned());
    let serve = groups.first().map(|group| group.placement.clone());
    ModelPlan { considered, ..plan(snapshot, serve, groups, None, Reason::SignalsBlind { because }) }
}

/// Books a plan: what it serves until the horizon, what that replaces until it has started.
fn commit(model: &Model, plan: &ModelPlan, books: &mut Books<'_>) {
    let startup = model.groups.iter().map(|group| group.startup).max().unwrap_or(PLAN_HORIZON);
    for group in &plan.groups {
        let kept =
            plan.needed.is_some() && plan.serve.as_ref().is_some_and(|serve| !serve.same_hardware(&group.placement));
        books.commit(&model.namespace, &group.placement, group.replicas, if kept { startup } else { PLAN_HORIZON });
    }
}

fn switching(from: &Placement, to: &Placement, considered: &[Considered]) -> Reason {
    let verdict = considered.iter().find(|considered| considered.placement == *from).map(|found| found.verdict.clone());
    let because = verdict.unwrap_or_else(|| Verdict::Unusable { because: format!("{from} is no longer declared") });
    Reason::Switching { from: from.clone(), to: to.clone(), because: Box::new(because) }
}

fn nothing_fits(considered: &[Considered]) -> Reason {
    let over = considered.iter().rev().find_map(|considered| match &considered.verdict {
        Verdict::OverCeiling { policy, amount, .. } => {
            Some(Reason::AtCeiling { policy: policy.clone(), replicas: 0, wanted: 1, amount: *amount })
        }
        _ => None,
    });
    over.unwrap_or_else(|| {
        let each = considered.iter().map(|considered| format!("{}: {}", considered.placement, considered.verdict));
        Reason::NoUsableVariant { because: each.collect::<Vec<_>>().join("; ") }
    })
}

fn plan(
    snapshot: &Snapshot,
    serve: Option<Placement>,
    groups: Vec<GroupPlan>,
    needed: Option<u32>,
    reason: Reason,
) -> ModelPlan {
    let cost_per_hour = groups
        .iter()
        .map(|group| super::choose::price(snapshot, &group.placement).times(group.replicas))
        .fold(NanoUsd::ZERO, NanoUsd::saturating_add);
    ModelPlan { serve, groups, needed, reason, considered: Vec::new(), cost_per_hour }
}
