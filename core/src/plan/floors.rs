//! What runs already is booked before anything is started for anybody: blind models whole, the others up to their minimum.

use super::GroupPlan;
use super::spend::{Books, PLAN_HORIZON};
use crate::snapshot::{Group, Model, Snapshot};
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
        book(&mut books, model, &groups);
        floors.insert(key.as_str(), groups);
    }
    for (key, model) in seeing {
        let Some(group) = running(model).max_by_key(|group| group.ready) else { continue };
        let (placement, replicas) = (&group.placement, group.wanted.min(model.min.max(1)));
        let affordable = books.afford(&model.namespace, placement, replicas).0;
        if affordable == replicas && books.room(placement, replicas) == replicas {
            let groups = vec![GroupPlan { placement: placement.clone(), replicas }];
            book(&mut books, model, &groups);
            floors.insert(key.as_str(), groups);
        }
    }
    floors
}

/// Groups that are asked for.
pub(super) fn running(model: &Model) -> impl Iterator<Item = &Group> {
    model.groups.iter().filter(|group| group.wanted > 0)
}

/// Writes groups down until the horizon.
pub(super) fn book(books: &mut Books<'_>, model: &Model, groups: &[GroupPlan]) {
    for group in groups {
        books.commit(&model.namespace, &group.placement, group.replicas, PLAN_HORIZON);
    }
}

/// A plan that changes nothing.
pub(super) fn as_it_runs(model: &Model) -> Vec<GroupPlan> {
    running(model).map(|group| GroupPlan { placement: group.placement.clone(), replicas: group.wanted }).collect()
}
