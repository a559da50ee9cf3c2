//! The interim rule, until the whole optimisation stands: models by priority, each its best affordable placement.

use super::choose::consider;
use super::size::{Size, size};
use super::spend::Books;
use super::{CeilingPlan, Considered, GroupPlan, ModelPlan, PLAN_HORIZON, Plan, Reason, Verdict};
use crate::snapshot::{Group, Model, Placement, Snapshot};
use crate::units::NanoUsd;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Devices still free, by hardware class; a class without a limit is absent.
pub(super) type Pools = BTreeMap<String, u32>;

/// The plan for a snapshot. The same snapshot always gives the same plan.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Plan {
    let mut books = Books::open(snapshot);
    let mut pools: Pools =
        snapshot.classes.iter().filter_map(|(name, class)| Some((name.clone(), class.max_devices?))).collect();
    let mut order: Vec<_> = snapshot.models.iter().collect();
    order.sort_by_key(|(key, model)| (Reverse(model.priority), *key));
    let models = order
        .into_iter()
        .map(|(key, model)| (key.clone(), decide_model(snapshot, model, &mut books, &mut pools)))
        .collect();
    let ceilings = snapshot.ceilings.iter().zip(books.projected()).map(|(ceiling, projected)| CeilingPlan {
        policy: ceiling.policy.clone(),
        period: ceiling.period.clone(),
        projected,
        committed_above: projected > ceiling.amount,
    });
    Plan { models, ceilings: ceilings.collect() }
}

fn decide_model(snapshot: &Snapshot, model: &Model, books: &mut Books<'_>, pools: &mut Pools) -> ModelPlan {
    let considered = consider(snapshot, model, books, pools);
    let Some(load) = model.load else {
        return hold(snapshot, model, considered, books, pools);
    };
    let served = considered.iter().find(|considered| considered.verdict == Verdict::Served);
    let Some(target) = served.map(|considered| considered.placement.clone()) else {
        let reason = nothing_fits(&considered);
        return ModelPlan { considered, ..plan(snapshot, None, Vec::new(), Some(0), reason) };
    };
    let (old, current): (Vec<&Group>, Vec<&Group>) =
        model.groups.iter().filter(|group| group.wanted > 0).partition(|group| !group.placement.same_hardware(&target));
    let Size { needed, wanted, mut reason } = size(snapshot.now, model, load, &target);
    let (mut replicas, ceiling) = books.afford(&model.namespace, &target, wanted);
    if let Some(ceiling) = ceiling {
        reason = Reason::AtCeiling { policy: ceiling.policy.clone(), replicas, wanted, amount: ceiling.amount };
    }
    if let Some(free) =
        pools.get(&target.class).map(|free| free / target.devices.max(1)).filter(|free| *free < replicas)
    {
        replicas = free;
        reason = Reason::PoolExhausted { class: target.class.clone(), replicas, wanted };
    }
    let ready: u32 = current.iter().filter(|group| group.placement == target).map(|group| group.ready).sum();
    // Make before break: the old placement goes when as much of the new one is ready as it had itself.
    let kept: Vec<&Group> = old.into_iter().filter(|group| ready < replicas.min(group.ready.max(1))).collect();
    if let Some(from) = kept.iter().chain(&current).map(|group| &group.placement).find(|from| **from != target) {
        reason = switching(from, &target, &considered);
    }
    let groups: Vec<GroupPlan> = std::iter::once(GroupPlan { placement: target.clone(), replicas })
        .chain(kept.iter().map(|group| GroupPlan { placement: group.placement.clone(), replicas: group.wanted }))
        .collect();
    commit(model, &groups, Some(&target), books, pools);
    ModelPlan { considered, ..plan(snapshot, Some(target), groups, Some(needed), reason) }
}

/// Blind is not idle: what runs goes on, nothing is started or stopped.
fn hold(
    snapshot: &Snapshot,
    model: &Model,
    considered: Vec<Considered>,
    books: &mut Books<'_>,
    pools: &mut Pools,
) -> ModelPlan {
    let running = model.groups.iter().filter(|group| group.wanted > 0);
    let groups: Vec<GroupPlan> =
        running.map(|group| GroupPlan { placement: group.placement.clone(), replicas: group.wanted }).collect();
    commit(model, &groups, None, books, pools);
    let because = model.blind_because.clone().unwrap_or_else(|| "the load is not known".to_owned());
    let serve = groups.first().map(|group| group.placement.clone());
    ModelPlan { considered, ..plan(snapshot, serve, groups, None, Reason::SignalsBlind { because }) }
}

/// Books the groups: the target until the horizon, what it replaces until it has started.
fn commit(model: &Model, groups: &[GroupPlan], target: Option<&Placement>, books: &mut Books<'_>, pools: &mut Pools) {
    for group in groups {
        let replaced = target.is_some_and(|target| !target.same_hardware(&group.placement));
        let startup = model.groups.iter().map(|group| group.startup).max().unwrap_or(PLAN_HORIZON);
        let time = if replaced { startup } else { PLAN_HORIZON };
        books.commit(&model.namespace, &group.placement, group.replicas, time);
        if let Some(free) = pools.get_mut(&group.placement.class) {
            *free = free.saturating_sub(group.replicas.saturating_mul(group.placement.devices));
        }
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
