//! Which placement of a model is the best one now.

use super::floors::running;
use super::size::need;
use super::spend::Books;
use super::{Considered, Verdict};
use crate::snapshot::{Candidate, Model, Objective, Placement, Snapshot};
use crate::units::{NanoUsd, QualityPpm};
use std::cmp::Reverse;

/// Price of one replica for an hour.
pub(super) fn price(snapshot: &Snapshot, placement: &Placement) -> NanoUsd {
    let class = snapshot.classes.get(&placement.class);
    class.map_or(NanoUsd::ZERO, |class| class.price_per_hour.times(placement.devices))
}

/// A verdict on every candidate; at most one is [`Verdict::Served`].
pub(super) fn consider(snapshot: &Snapshot, model: &Model, books: &Books<'_>) -> Vec<Considered> {
    let barred: Vec<Option<Verdict>> =
        model.candidates.iter().map(|candidate| bar(snapshot, model, candidate, books)).collect();
    let open: Vec<_> =
        model.candidates.iter().zip(&barred).filter(|(_, bar)| bar.is_none()).map(|(candidate, _)| candidate).collect();
    let top = open.iter().map(|candidate| candidate.quality).max().unwrap_or_default();
    let best = open.iter().copied().min_by_key(|candidate| rank(snapshot, model, candidate, top));
    let verdicts = model.candidates.iter().zip(barred).map(|(candidate, bar)| {
        let verdict = match (bar, best) {
            (Some(verdict), _) => verdict,
            (None, Some(best)) => compare(snapshot, model, candidate, best, top),
            (None, None) => Verdict::Served,
        };
        Considered { placement: candidate.placement.clone(), verdict }
    });
    verdicts.collect()
}

type Rank = (Reverse<QualityPpm>, NanoUsd, Reverse<QualityPpm>, Placement);

/// Quality as far as it can be told apart: whose interval reaches the top score ties with it.
fn told_apart(candidate: &Candidate, top: QualityPpm) -> QualityPpm {
    if candidate.quality_high >= top { top } else { candidate.quality }
}

/// The least is the best; ties go to the cheaper, then to the name, never to the order of the list.
fn rank(snapshot: &Snapshot, model: &Model, candidate: &Candidate, top: QualityPpm) -> Rank {
    let price = price(snapshot, &candidate.placement);
    let quality = Reverse(candidate.quality);
    match model.objective {
        Objective::MaximizeValue => (Reverse(told_apart(candidate, top)), price, quality, candidate.placement.clone()),
        Objective::MinimizeCost => {
            let load = model.load.unwrap_or_default();
            let replicas = need(load, candidate.capacity).clamp(model.min.max(1), model.max.max(1));
            (Reverse(top), price.times(replicas), quality, candidate.placement.clone())
        }
    }
}

/// What speaks against a candidate, whatever the others are.
fn bar(snapshot: &Snapshot, model: &Model, candidate: &Candidate, books: &Books<'_>) -> Option<Verdict> {
    let placement = &candidate.placement;
    if let Some(because) = candidate.unusable.as_ref().filter(|_| !serves_now(model, placement)) {
        return Some(Verdict::Unusable { because: because.clone() });
    }
    if !snapshot.classes.contains_key(&placement.class) {
        let because = format!("there is no HardwareClass {}", placement.class);
        return Some(Verdict::Unusable { because });
    }
    if let Some(floor) = model.quality_floor.filter(|floor| candidate.quality < *floor) {
        return Some(Verdict::BelowQualityFloor { quality: candidate.quality, floor });
    }
    let overlapping = beside_what_runs(model, placement, books);
    if overlapping.room(placement, 1) == 0 {
        return Some(Verdict::Pool { class: placement.class.clone() });
    }
    over_ceiling(model, placement, &overlapping)
}

/// A replica that serves is better evidence than one beside it that failed.
fn serves_now(model: &Model, placement: &Placement) -> bool {
    running(model).any(|group| group.placement == *placement && group.ready > 0)
}

/// Whether one replica is affordable with nothing else of the model beside it.
pub(super) fn fits_alone(model: &Model, placement: &Placement, books: &Books<'_>) -> bool {
    books.afford(&model.namespace, placement, 1).0 > 0
}

/// The books with what the model runs on other hardware, for as long as a newcomer takes to start: make before break stays
/// inside the ceiling, unless what runs is itself above it.
fn beside_what_runs<'a>(model: &Model, placement: &Placement, books: &Books<'a>) -> Books<'a> {
    let mut overlapping = books.clone();
    for group in running(model).filter(|group| !group.placement.same_hardware(placement)) {
        if fits_alone(model, &group.placement, books) {
            overlapping.commit(&model.namespace, &group.placement, group.wanted, group.startup);
        }
    }
    overlapping
}

fn over_ceiling(model: &Model, placement: &Placement, overlapping: &Books<'_>) -> Option<Verdict> {
    let (affordable, ceiling) = overlapping.afford(&model.namespace, placement, 1);
    ceiling.filter(|_| affordable == 0).map(|ceiling| Verdict::OverCeiling {
        placement: placement.clone(),
        policy: ceiling.policy.clone(),
        amount: ceiling.amount,
    })
}

fn compare(snapshot: &Snapshot, model: &Model, candidate: &Candidate, best: &Candidate, top: QualityPpm) -> Verdict {
    if candidate.placement == best.placement {
        return Verdict::Served;
    }
    let than = best.placement.clone();
    let saves_per_hour = price(snapshot, &candidate.placement).saturating_sub(price(snapshot, &than));
    match model.objective {
        _ if told_apart(best, top) >= candidate.quality && saves_per_hour >= NanoUsd::ZERO => {
            Verdict::Dominated { by: than, saves_per_hour }
        }
        Objective::MaximizeValue => Verdict::LowerQuality { than },
        Objective::MinimizeCost => Verdict::Dearer { than },
    }
}
