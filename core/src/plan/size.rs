//! How many replicas the load needs, and how many it gets while it rises and falls.

use super::Reason;
use crate::snapshot::{Capacity, Load, Model, Placement};
use crate::units::Millis;

/// A backlog shall be decoded within so many seconds.
const BACKLOG_SECONDS: f64 = 10.0;

/// Replicas for the load, and why.
pub(super) struct Size {
    /// What the load needs now.
    pub(super) needed: u32,
    /// What it gets, before money and devices.
    pub(super) wanted: u32,
    pub(super) reason: Reason,
}

/// Replicas that a load needs: a slot for every open request, and its tokens decoded in [`BACKLOG_SECONDS`].
pub(super) fn need(load: Load, capacity: Option<Capacity>) -> u32 {
    let open = load.running.saturating_add(load.waiting);
    let Some(capacity) = capacity else {
        return open.min(1);
    };
    let by_slots = open.div_ceil(capacity.slots.max(1));
    if capacity.tokens_per_second <= 0.0 {
        return by_slots;
    }
    let mut by_tokens = 0;
    // Counted up rather than divided: no float is ever turned into a replica count.
    while f64::from(by_tokens) * capacity.tokens_per_second * BACKLOG_SECONDS < tokens(load) && by_tokens < open {
        by_tokens += 1;
    }
    by_slots.max(by_tokens)
}

fn tokens(load: Load) -> f64 {
    f64::from(u32::try_from(load.tokens_in_flight.0).unwrap_or(u32::MAX))
}

pub(super) fn size(now: Millis, model: &Model, load: Load, target: &Placement) -> Size {
    let capacity = model.candidates.iter().find(|candidate| candidate.placement == *target).and_then(|c| c.capacity);
    let needed = need(load, capacity);
    let current: u32 = model.groups.iter().map(|group| group.wanted).max().unwrap_or(0);
    if let Some(pinned) = model.pinned {
        let wanted = pinned.clamp(model.min, model.max);
        return Size { needed, wanted, reason: Reason::ReplicasPinned { replicas: wanted } };
    }
    let kept = highest_need(now, model, model.scale_down_after).unwrap_or(current).max(needed);
    let asleep = model.idle_after.is_some_and(|idle| needed == 0 && highest_need(now, model, idle) == Some(0));
    let never_ran = model.idle_after.is_some() && needed == 0 && current == 0;
    let fewest = if asleep || never_ran { model.min } else { model.min.max(1) };
    let wanted = kept.clamp(fewest, model.max.max(fewest));
    let reason = match () {
        () if wanted == 0 => Reason::Asleep,
        () if needed > wanted => Reason::AtMaximum { replicas: wanted, needed },
        () if wanted > current => Reason::ScalingUp { from: current, to: wanted, needed },
        () if wanted < current => Reason::ScalingDown { from: current, to: wanted },
        () if needed.max(fewest) < wanted => Reason::QuietWindow { replicas: wanted, needed },
        () => Reason::Steady { replicas: wanted },
    };
    Size { needed, wanted, reason }
}

/// The highest need of the last `window`; none while it has not been observed for that long.
fn highest_need(now: Millis, model: &Model, window: Millis) -> Option<u32> {
    if now.since(model.observed_since) < window {
        return None;
    }
    let recent = model.needs.iter().filter(|need| now.since(need.at) <= window);
    Some(recent.map(|need| need.replicas).max().unwrap_or(0))
}
