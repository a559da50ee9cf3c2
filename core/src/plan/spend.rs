//! Projected spend, the one formula: settled in the period + Σ over replicas of price × the time until their planned
//! end; without a planned end, until the period's end or the plan horizon, whichever is sooner.

use crate::snapshot::{Ceiling, Placement, Snapshot};
use crate::units::{Millis, NanoUsd};
use std::collections::BTreeMap;

/// How far ahead a replica without a planned end counts.
pub const PLAN_HORIZON: Millis = Millis(30 * 60_000);

/// Cost of `replicas` of `placement` until `end` of the period or the horizon. An unknown class costs everything:
/// nothing may start on it.
#[must_use]
pub fn projected(
    snapshot: &Snapshot,
    placement: &Placement,
    replicas: u32,
    ceiling: &Ceiling,
    until: Millis,
) -> NanoUsd {
    let time = until.min(PLAN_HORIZON).min(ceiling.period_end.since(snapshot.now));
    snapshot.classes.get(&placement.class).map_or(NanoUsd(i64::MAX), |class| {
        class.price_per_hour.times(placement.devices).per_hour_for(time).times(replicas)
    })
}

/// What is promised under each ceiling and of each pool while a plan is being made.
#[derive(Clone, Debug)]
pub struct Books<'a> {
    snapshot: &'a Snapshot,
    committed: Vec<NanoUsd>,
    /// Devices in use, by class. More than the class has where more run already than a lowered maximum allows.
    devices: BTreeMap<&'a str, u32>,
}

impl<'a> Books<'a> {
    /// Books in which only the past stands.
    #[must_use]
    pub fn open(snapshot: &'a Snapshot) -> Self {
        let committed = snapshot.ceilings.iter().map(|ceiling| ceiling.settled).collect();
        Self { snapshot, committed, devices: snapshot.classes.keys().map(|class| (class.as_str(), 0)).collect() }
    }

    /// Books without the past: what they project is what is yet to come.
    #[must_use]
    pub fn ahead(snapshot: &'a Snapshot) -> Self {
        let committed = vec![NanoUsd::ZERO; snapshot.ceilings.len()];
        Self { committed, ..Self::open(snapshot) }
    }

    /// Writes down replicas that will run for `time`.
    pub fn commit(&mut self, namespace: &str, placement: &Placement, replicas: u32, time: Millis) {
        for (ceiling, committed) in self.snapshot.ceilings.iter().zip(&mut self.committed) {
            if binds(ceiling, namespace) {
                *committed = committed.saturating_add(projected(self.snapshot, placement, replicas, ceiling, time));
            }
        }
        if let Some(used) = self.devices.get_mut(placement.class.as_str()) {
            *used = used.saturating_add(replicas.saturating_mul(placement.devices));
        }
    }

    /// The most replicas up to `wanted` that the pool has devices for.
    #[must_use]
    pub fn room(&self, placement: &Placement, wanted: u32) -> u32 {
        let most = self.snapshot.classes.get(&placement.class).and_then(|class| class.max_devices);
        let used = self.devices.get(placement.class.as_str()).copied().unwrap_or(0);
        most.map_or(wanted, |most| wanted.min(most.saturating_sub(used) / placement.devices.max(1)))
    }

    /// The most replicas up to `wanted` that every enforced ceiling affords, and the ceiling that stops at fewer.
    #[must_use]
    pub fn afford(&self, namespace: &str, placement: &Placement, wanted: u32) -> (u32, Option<&'a Ceiling>) {
        let fits = |count: u32, ceiling: &Ceiling, committed: NanoUsd| {
            count == 0
                || committed.saturating_add(projected(self.snapshot, placement, count, ceiling, PLAN_HORIZON))
                    <= ceiling.amount
        };
        let mut most = (wanted, None);
        for (ceiling, committed) in self.snapshot.ceilings.iter().zip(&self.committed) {
            if ceiling.enforced && binds(ceiling, namespace) {
                while !fits(most.0, ceiling, *committed) {
                    most = (most.0.saturating_sub(1), Some(ceiling));
                }
            }
        }
        most
    }

    /// Projected spend under each ceiling, in the snapshot's order.
    #[must_use]
    pub fn projected(self) -> Vec<NanoUsd> {
        self.committed
    }
}

fn binds(ceiling: &Ceiling, namespace: &str) -> bool {
    ceiling.namespace.as_deref().is_none_or(|bound| bound == namespace)
}
