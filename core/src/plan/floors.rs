//! What runs already is booked before anything is started for anybody: blind models whole, the others up to their minimum.

use super::GroupPlan;
use super::spend::{Books, DRAIN_TIME, PLAN_HORIZON};
use crate::snapshot::{Group, Model, Snapshot};
use crate::units::Millis;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Replicas that each model keeps whatever another one needs, by `namespace/name`.
pub(super) type Floors<'a> = BTreeMap<&'a str, Vec<GroupPlan>>;

/// The floors of `models`, which come in the order of their priority: when not all fit, the first ones have theirs.
pub(super) fn floors<'a>(snapshot: &'a Snapshot, models: &[(&'a String, &'a Model)]) -> Floors<'a> {
    let mut books = Books::open(snapshot);
    let (blind, seeing): (Vec<_>, Vec<_>) = models.iter().partition(|(_, model)| model.load.is_none());
    let mut floors = Floors::new();
    for (key, model) in blind {
        let groups = as_it_runs(model);
        book(&mut books, snapshot.now, model, &groups);
        floors.insert(key.as_str(), groups);
    }
    for (key, model) in seeing {
        let Some(group) = most_ready(model) else { continue };
        let (placement, replicas) = (&group.placement, group.wanted.min(model.min.max(1)));
        let affordable = books.afford(&model.namespace, placement, replicas).0;
        if affordable == replicas && books.room(placement, replicas) == replicas {
            let groups = vec![GroupPlan::new(placement.clone(), replicas)];
            book(&mut books, snapshot.now, model, &groups);
            floors.insert(key.as_str(), groups);
        }
    }
    floors
}

/// Groups that are asked for, in the order of their names: that of the list says nothing.
pub(super) fn running(model: &Model) -> impl Iterator<Item = &Group> {
    let mut groups: Vec<&Group> = model.groups.iter().filter(|group| group.wanted > 0).collect();
    groups.sort_by_key(|group| &group.placement);
    groups.into_iter()
}

/// The group that serves most.
pub(super) fn most_ready(model: &Model) -> Option<&Group> {
    running(model).min_by_key(|group| Reverse((group.serving, group.wanted)))
}

/// How long a replica stays whose successor starts now: until that one serves, and until it has drained itself.
pub(super) fn lead(model: &Model) -> Millis {
    model.groups.iter().map(|group| group.startup).max().unwrap_or(PLAN_HORIZON).saturating_add(DRAIN_TIME)
}

/// Writes groups down until their planned end.
pub(super) fn book(books: &mut Books<'_>, now: Millis, model: &Model, groups: &[GroupPlan]) {
    for group in groups {
        books.commit(&model.namespace, &group.placement, group.replicas, group.ends_in(now));
    }
}

/// A plan that changes nothing.
pub(super) fn as_it_runs(model: &Model) -> Vec<GroupPlan> {
    running(model).map(|group| GroupPlan::new(group.placement.clone(), group.wanted)).collect()
}
