//! The interim rule, until the whole optimisation stands: models by priority, each its best affordable placement.

use super::choose::{consider, price, with_old};
use super::floors::{Floors, as_it_runs, book, floors, lead, most_ready, running};
use super::size::{Size, size};
use super::spend::{Books, DRAIN_TIME};
use super::start::{at_ceiling, start};
use super::{CeilingPlan, Considered, GroupPlan, ModelPlan, Plan, Reason, Verdict};
use crate::snapshot::{Group, Load, Model, Placement, Snapshot};
use crate::units::NanoUsd;
use std::cmp::Reverse;

/// The plan for a snapshot. The same snapshot always gives the same plan, in whatever order its lists are.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan {
    let mut order: Vec<_> = snapshot.models.iter().collect();
    order.sort_by_key(|(key, model)| (Reverse(model.priority), *key));
    let mut floors = floors(snapshot, &order);
    let mut planned = Books::open(snapshot);
    let mut plans = Vec::new();
    for (key, model) in &order {
        floors.remove(key.as_str());
        let books = with_floors(&planned, snapshot, &floors);
        let decided = decide_model(snapshot, model, &books);
        book(&mut planned, snapshot.now, model, &decided.groups);
        plans.push((*model, decided));
    }
    // What shall be is planned; what starts now is what there is room for beside all that has yet to leave.
    let books = start(snapshot, &mut plans);
    let ceilings = snapshot.ceilings.iter().zip(books.projected()).map(|(ceiling, projected)| CeilingPlan {
        policy: ceiling.policy.clone(),
        period: ceiling.period.clone(),
        projected,
        committed_above: projected > ceiling.amount,
    });
    let models = order.into_iter().zip(plans).map(|((key, _), (_, plan))| (key.clone(), costed(snapshot, plan)));
    Plan { models: models.collect(), ceilings: ceilings.collect() }
}

/// What the plan of one model will yet cost under each ceiling, in the snapshot's order; nothing where that does not bind
/// it. Settled and this, over all models, and what is on its way out, is the projected spend of a ceiling.
#[must_use]
pub fn yet_to_come(snapshot: &Snapshot, model: &Model, plan: &ModelPlan) -> Vec<NanoUsd> {
    let mut books = Books::ahead(snapshot);
    for group in &plan.groups {
        books.commit(&model.namespace, &group.placement, group.replicas, group.ends_in(snapshot.now));
    }
    books.projected()
}

/// What is planned, and what those who come later keep.
fn with_floors<'a>(planned: &Books<'a>, snapshot: &Snapshot, floors: &Floors<'_>) -> Books<'a> {
    let mut books = planned.clone();
    for (key, groups) in floors {
        if let Some(model) = snapshot.models.get(*key) {
            book(&mut books, snapshot.now, model, groups);
        }
    }
    books
}

fn decide_model(snapshot: &Snapshot, model: &Model, books: &Books<'_>) -> ModelPlan {
    let considered = consider(snapshot, model, books);
    let Some(load) = model.load else {
        return hold(model, considered);
    };
    let served = considered.iter().find(|considered| considered.verdict == Verdict::Served);
    let Some(target) = served.map(|considered| considered.placement.clone()) else {
        let last = last_stretch(snapshot, model, load, &considered, books);
        let nothing = || plan(None, Vec::new(), Some(0), nothing_fits(snapshot, &considered));
        return ModelPlan { considered: considered.clone(), ..last.unwrap_or_else(nothing) };
    };
    let (old, current): (Vec<&Group>, Vec<&Group>) =
        running(model).partition(|group| !group.placement.same_hardware(&target));
    let Size { needed, wanted, mut reason } = size(snapshot.now, model, load, &target);
    let ready: u32 = current.iter().filter(|group| group.placement == target).map(|group| group.ready).sum();
    // Make before break: a replica of the old placement goes for each that is ready of the new one, and all of them when as
    // many are ready as it had itself.
    let kept = |replicas: u32| old.iter().filter(move |group| ready < replicas.min(group.serving.max(1)));
    let books = with_old(model, kept(wanted).copied(), books);
    let (mut replicas, ceiling) = books.afford(&model.namespace, &target, wanted);
    if let Some(ceiling) = ceiling {
        reason = at_ceiling(ceiling, replicas, wanted, false);
    }
    if books.room(&target, replicas) < replicas {
        replicas = books.room(&target, replicas);
        reason = Reason::PoolExhausted { class: target.class.clone(), replicas, wanted, roll_out: false };
    }
    if let Some(from) = kept(replicas).chain(&current).map(|group| &group.placement).find(|from| **from != target) {
        reason = switching(from, &target, &considered);
    }
    let ending = |group: &&Group| {
        let left = group.wanted.saturating_sub(ready);
        GroupPlan::ending(group.placement.clone(), left, snapshot.now, lead(model))
    };
    let groups = std::iter::once(GroupPlan::new(target.clone(), replicas)).chain(kept(replicas).map(ending)).collect();
    ModelPlan { considered, ..plan(Some(target), groups, Some(needed), reason) }
}

/// Blind is not idle: what runs goes on, nothing is started or stopped.
fn hold(model: &Model, considered: Vec<Considered>) -> ModelPlan {
    let because = model.blind_because.clone().unwrap_or_else(|| "the load is not known".to_owned());
    let serve = most_ready(model).map(|group| group.placement.clone());
    ModelPlan { considered, ..plan(serve, as_it_runs(model), None, Reason::SignalsBlind { because }) }
}

/// No ceiling pays for half an hour of anything, but one replica serves: it ends when the money does, not before.
fn last_stretch(
    snapshot: &Snapshot,
    model: &Model,
    load: Load,
    considered: &[Considered],
    books: &Books<'_>,
) -> Option<ModelPlan> {
    let group = most_ready(model).filter(|group| group.serving > 0)?;
    let placement = &group.placement;
    let Verdict::OverCeiling { policy, amount, .. } =
        &considered.iter().find(|considered| considered.placement == *placement)?.verdict
    else {
        return None;
    };
    let Size { needed, wanted, .. } = size(snapshot.now, model, load, placement);
    let drains = books.afford_for(&model.namespace, placement, 1, DRAIN_TIME).0 > 0;
    (wanted > 0 && drains).then(|| {
        let time = books.paid_for(&model.namespace, placement);
        let groups = vec![GroupPlan::ending(placement.clone(), 1, snapshot.now, time)];
        let (policy, amount) = (policy.clone(), *amount);
        let reason = Reason::AtCeiling { policy, replicas: 1, wanted, amount, roll_out: false };
        plan(Some(placement.clone()), groups, Some(needed), reason)
    })
}

fn switching(from: &Placement, to: &Placement, considered: &[Considered]) -> Reason {
    let verdict = considered.iter().find(|considered| considered.placement == *from).map(|found| found.verdict.clone());
    let because = verdict.unwrap_or_else(|| Verdict::Unusable { because: format!("{from} is no longer declared") });
    Reason::Switching { from: from.clone(), to: to.clone(), because: Box::new(because) }
}

fn nothing_fits(snapshot: &Snapshot, considered: &[Considered]) -> Reason {
    let mut considered: Vec<&Considered> = considered.iter().collect();
    considered.sort_by_key(|considered| (price(snapshot, &considered.placement), &considered.placement));
    let over = considered.iter().find_map(|considered| match &considered.verdict {
        Verdict::OverCeiling { policy, amount, .. } => {
            let (policy, amount) = (policy.clone(), *amount);
            Some(Reason::AtCeiling { policy, replicas: 0, wanted: 1, amount, roll_out: false })
        }
        _ => None,
    });
    over.unwrap_or_else(|| {
        let each = considered.iter().map(|considered| format!("{}: {}", considered.placement, considered.verdict));
        Reason::NoUsableVariant { because: each.collect::<Vec<_>>().join("; ") }
    })
}

fn plan(serve: Option<Placement>, groups: Vec<GroupPlan>, needed: Option<u32>, reason: Reason) -> ModelPlan {
    ModelPlan { serve, groups, needed, reason, considered: Vec::new(), cost_per_hour: NanoUsd::ZERO }
}

fn costed(snapshot: &Snapshot, plan: ModelPlan) -> ModelPlan {
    let costs = plan.groups.iter().map(|group| price(snapshot, &group.placement).times(group.replicas));
    ModelPlan { cost_per_hour: costs.fold(NanoUsd::ZERO, NanoUsd::saturating_add), ..plan }
}
