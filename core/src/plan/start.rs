//! What starts now. A plan says what shall be; devices and money of a replica that leaves are free once it has drained, not
//! before. So growth waits for them, and a roll-out begins when old and new fit side by side.

use super::floors::{lead, running};
use super::spend::{Books, DRAIN_TIME, ROLL_OVERLAP};
use super::{GroupPlan, ModelPlan, Reason};
use crate::snapshot::{Ceiling, Group, Model, Placement, Snapshot};
use crate::units::Millis;

/// Holds back what there is no room for, in the order of `plans`. Gives the books of all that is there then.
pub(super) fn start<'a>(snapshot: &'a Snapshot, plans: &mut [(&Model, ModelPlan)]) -> Books<'a> {
    let mut books = Books::open(snapshot);
    for orphan in &snapshot.orphans {
        books.commit(&orphan.namespace, &orphan.placement, orphan.replicas, Some(DRAIN_TIME));
    }
    let mut as_it_stands = books.clone();
    for (model, plan) in plans.iter() {
        for group in &model.groups {
            goes_on(model, group, (group.wanted, None), &mut as_it_stands);
            let planned = plan.groups.iter().find(|planned| planned.placement.same_hardware(&group.placement));
            let stays = planned.map_or((0, None), |planned| (planned.replicas, planned.ends_in(snapshot.now)));
            goes_on(model, group, stays, &mut books);
        }
    }
    let passed = as_it_stands.passed();
    let mut hold_back = |(model, plan): &mut (&Model, ModelPlan)| {
        roll_out(model, plan, &mut books);
        grow(model, plan, snapshot.now, &passed, &mut books);
    };
    // Above a ceiling the way down comes first: its overlap takes the room that others would start in.
    let (down, others): (Vec<_>, Vec<_>) =
        plans.iter_mut().partition(|(_, plan)| passed.contains(&true) && switches(plan).is_some());
    down.into_iter().chain(others).for_each(&mut hold_back);
    books
}

/// Writes down what a group has: what stays, what has yet to leave, and what a roll-out under way has beside it.
fn goes_on(model: &Model, group: &Group, (most, ends_in): (u32, Option<Millis>), books: &mut Books<'_>) {
    let stays = group.wanted.min(most);
    let (namespace, placement) = (&model.namespace, &group.placement);
    books.commit(namespace, placement, stays, ends_in);
    books.overlap(namespace, placement, group.replacing, lead(model));
    // A roll-out's newcomer is in its overlap already.
    let surplus = group.surplus.saturating_sub(group.replacing.min(ROLL_OVERLAP));
    let leaves = (group.wanted - stays).saturating_add(surplus).saturating_add(group.draining);
    books.commit(namespace, placement, leaves, Some(DRAIN_TIME));
}

/// A group whose pods would be replaced on the same hardware; those that hold the variant's file are told to serve it, which
/// takes no room. Without room for it, as many go first as make room; the last
/// one that serves never does.
fn roll_out(model: &Model, plan: &mut ModelPlan, books: &mut Books<'_>) {
    let blind = plan.needed.is_none();
    for planned in plan.groups.iter_mut().filter(|planned| !planned.hold) {
        let Some(group) = running(model).find(|group| group.placement.same_hardware(&planned.placement)) else {
            continue;
        };
        let replaced = planned.replicas.min(group.wanted);
        let stays_as_it_is = match group.placement == planned.placement {
            true => !group.outdated,
            false => group.holds.contains(&planned.placement.variant),
        };
        if replaced == 0 || stays_as_it_is {
            continue;
        }
        let Some(reason) = no_room_beside(books, model, &group.placement, replaced) else {
            books.overlap(&model.namespace, &group.placement, replaced, lead(model));
            continue;
        };
        let serves = group.serving > 0 || group.replacing > 0;
        let stays = match (blind, serves) {
            (true, _) => replaced,
            (false, true) => most_that_roll(books, model, &group.placement, replaced),
            (false, false) => 0,
        };
        books.release(&model.namespace, &group.placement, replaced - stays);
        books.commit(&model.namespace, &group.placement, replaced - stays, Some(DRAIN_TIME));
        if plan.serve.as_ref() == Some(&planned.placement) {
            plan.serve = Some(group.placement.clone());
        }
        *planned = GroupPlan { hold: true, ..GroupPlan::new(group.placement.clone(), stays) };
        if !blind {
            plan.reason = reason;
        }
    }
}

/// What stops a roll-out of so many replicas.
fn no_room_beside(books: &Books<'_>, model: &Model, placement: &Placement, replaced: u32) -> Option<Reason> {
    let beside = replaced.min(ROLL_OVERLAP);
    let room = books.room(placement, beside);
    if room < beside {
        let (replicas, wanted) = (replaced.saturating_add(room), replaced.saturating_add(beside));
        return Some(Reason::PoolExhausted { class: placement.class.clone(), replicas, wanted, roll_out: true });
    }
    let (affordable, ceiling) = books.afford_for(&model.namespace, placement, replaced, lead(model));
    let (replicas, wanted) = (replaced.saturating_add(affordable), replaced.saturating_mul(2));
    ceiling.map(|ceiling| at_ceiling(ceiling, replicas, wanted, true))
}

/// The most replicas up to `replaced` that could roll once everything has gone that goes; all of them where none could.
fn most_that_roll(books: &Books<'_>, model: &Model, placement: &Placement, replaced: u32) -> u32 {
    let mut drained = books.clone().steady();
    for stays in (1..=replaced).rev() {
        if no_room_beside(&drained, model, placement, stays).is_none() {
            return stays;
        }
        drained.release(&model.namespace, placement, 1);
    }
    replaced
}

/// What a plan serves from until something else does.
fn switches(plan: &ModelPlan) -> Option<&Placement> {
    plan.groups.iter().find(|planned| planned.planned_end.is_some()).map(|old| &old.placement)
}

/// Replicas that are not there yet start as far as devices and money go.
fn grow(model: &Model, plan: &mut ModelPlan, now: Millis, passed: &[bool], books: &mut Books<'_>) {
    // The old ones of a switch go when the new ones serve: above a ceiling that is the way down.
    let old = switches(plan).cloned();
    for planned in plan.groups.iter_mut().filter(|planned| !planned.hold) {
        let group = running(model).find(|group| group.placement.same_hardware(&planned.placement));
        let there = group.map_or(0, |group| group.wanted);
        let (more, wanted) = (planned.replicas.saturating_sub(there), planned.replicas);
        let judged = if old.is_some() { books.forgiving(passed) } else { books.clone() };
        let (affordable, ceiling) = judged.afford(&model.namespace, &planned.placement, more);
        let starts = books.room(&planned.placement, affordable);
        books.commit(&model.namespace, &planned.placement, starts, planned.ends_in(now));
        if starts == more {
            continue;
        }
        planned.replicas = there.saturating_add(starts);
        if old.is_some() && planned.replicas > 0 {
            continue;
        }
        let (class, replicas) = (planned.placement.class.clone(), planned.replicas);
        plan.reason = match ceiling {
            Some(ceiling) if starts == affordable => at_ceiling(ceiling, replicas, wanted, false),
            _ => Reason::PoolExhausted { class, replicas, wanted, roll_out: false },
        };
        // Nothing of the new is there, so the old is what serves.
        plan.serve = old.clone().or(plan.serve.take());
    }
}

/// A ceiling that stops at fewer replicas than are wanted.
pub(super) fn at_ceiling(ceiling: &Ceiling, replicas: u32, wanted: u32, roll_out: bool) -> Reason {
    Reason::AtCeiling { policy: ceiling.policy.clone(), replicas, wanted, amount: ceiling.amount, roll_out }
}
