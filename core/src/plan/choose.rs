//! Which placement of a model is the best one now.

use super::floors::{lead, running};
use super::size::need;
use super::spend::Books;
use super::{Considered, Verdict};
use crate::snapshot::{Candidate, Group, Model, Objective, Placement, Snapshot};
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
    let class = snapshot.classes.get(&placement.class);
    if class.is_none_or(|class| class.gone && !serves_now(model, placement)) {
        let because = format!("there is no HardwareClass {}", placement.class);
        return Some(Verdict::Unusable { because });
    }
    if let Some(floor) = model.quality_floor.filter(|floor| candidate.quality < *floor) {
        return Some(Verdict::BelowQualityFloor { quality: candidate.quality, floor });
    }
    let overlapping = with_old(model, running(model).filter(|group| !group.placement.same_hardware(placement)), books);
    if overlapping.room(placement, 1) == 0 {
        return Some(Verdict::Pool { class: placement.class.clone() });
    }
    over_ceiling(model, placement, &overlapping)
}

/// A replica that serves is better evidence than one beside it that failed.
fn serves_now(model: &Model, placement: &Placement) -> bool {
    running(model).any(|group| group.placement == *placement && group.ready > 0)
}

/// The books with what a model serves from until a newcomer serves and that has drained: make before break stays inside
/// the ceiling, unless what runs is itself above it. Its devices are in use in any case.
pub(super) fn with_old<'a, 'b>(model: &Model, old: impl Iterator<Item = &'b Group>, books: &Books<'a>) -> Books<'a> {
    let mut overlapping = books.clone();
    for group in old {
        if books.afford(&model.namespace, &group.placement, 1).0 > 0 {
            overlapping.commit(&model.namespace, &group.placement, group.wanted, Some(lead(model)));
        } else {
            overlapping.hold(&group.placement, group.wanted, true);
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
