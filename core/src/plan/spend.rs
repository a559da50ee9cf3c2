//! Projected spend, the one formula: settled in the period + Σ over replicas of price × the time until their planned
//! end; without a planned end, until the period's end or the plan horizon, whichever is sooner.

use crate::snapshot::{Ceiling, Placement, Snapshot};
use crate::units::{Millis, NanoUsd};
use std::collections::BTreeMap;

/// How far ahead a replica without a planned end counts.
pub const PLAN_HORIZON: Millis = Millis(30 * 60_000);
/// A replica that is told to go may hold its devices for so long. None counts for less: clouds bill a minute at least.
pub const DRAIN_TIME: Millis = Millis(120_000);
/// A roll-out holds up to so many replicas more than are wanted: one that starts, and the one before it that drains.
pub const ROLL_OVERLAP: u32 = 2;

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
    let time = until.max(DRAIN_TIME).min(PLAN_HORIZON).min(ceiling.period_end.since(snapshot.now));
    snapshot.classes.get(&placement.class).map_or(NanoUsd(i64::MAX), |class| {
        class.price_per_hour.times(placement.devices).per_hour_for(time).times(replicas)
    })
}

/// What a ceiling or a pool is promised to.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// To what has no planned end.
    staying: i128,
    /// To what goes.
    ending: i128,
}

impl Promised {
    fn add(&mut self, amount: i128, ends: bool) {
        *(if ends { &mut self.ending } else { &mut self.staying }) += amount;
    }

    fn sum(self) -> i128 {
        self.staying + self.ending
    }
}

/// What is promised under each ceiling and of each pool while a plan is being made.
#[derive(Clone, Debug)]
pub struct Books<'a> {
    snapshot: &'a Snapshot,
    money: Vec<Promised>,
    /// Devices in use, by class. More than the class has where more run already than a lowered maximum allows.
    devices: BTreeMap<&'a str, Promised>,
}

impl<'a> Books<'a> {
    /// Books in which only the past stands.
    #[must_use]
    pub fn open(snapshot: &'a Snapshot) -> Self {
        let settled = |ceiling: &Ceiling| Promised { staying: i128::from(ceiling.settled.0), ending: 0 };
        Self {
            snapshot,
            money: snapshot.ceilings.iter().map(settled).collect(),
            devices: snapshot.classes.keys().map(|class| (class.as_str(), Promised::default())).collect(),
        }
    }

    /// Books without the past: what they project is what is yet to come.
    #[must_use]
    pub fn ahead(snapshot: &'a Snapshot) -> Self {
        Self { money: vec![Promised::default(); snapshot.ceilings.len()], ..Self::open(snapshot) }
    }

    /// Writes down replicas that go after `ends_in`, or have no planned end.
    pub fn commit(&mut self, namespace: &str, placement: &Placement, replicas: u32, ends_in: Option<Millis>) {
        self.pay(namespace, placement, replicas, ends_in, 1);
        self.hold(placement, replicas, ends_in.is_some());
    }

    /// Takes back replicas that were committed without a planned end.
    pub fn release(&mut self, namespace: &str, placement: &Placement, replicas: u32) {
        self.pay(namespace, placement, replicas, None, -1);
        if let Some(used) = self.devices.get_mut(placement.class.as_str()) {
            used.staying -= devices(placement, replicas);
        }
    }

    /// Writes down that `replaced` replicas are replaced one by one: each is there beside its successor for `time`.
    pub fn overlap(&mut self, namespace: &str, placement: &Placement, replaced: u32, time: Millis) {
        self.pay(namespace, placement, replaced, Some(time), 1);
        self.hold(placement, replaced.min(ROLL_OVERLAP), true);
    }

    fn pay(&mut self, namespace: &str, placement: &Placement, replicas: u32, ends_in: Option<Millis>, sign: i128) {
        if replicas == 0 {
            return;
        }
        let time = ends_in.unwrap_or(PLAN_HORIZON);
        for (ceiling, money) in self.snapshot.ceilings.iter().zip(&mut self.money) {
            if binds(ceiling, namespace) {
                let cost = projected(self.snapshot, placement, replicas, ceiling, time);
                money.add(i128::from(cost.0) * sign, ends_in.is_some());
            }
        }
    }

    /// Writes down devices alone.
    pub fn hold(&mut self, placement: &Placement, replicas: u32, ends: bool) {
        if let Some(used) = self.devices.get_mut(placement.class.as_str()) {
            used.add(devices(placement, replicas), ends);
        }
    }

    /// The books once everything has gone that goes.
    #[must_use]
    pub fn steady(mut self) -> Self {
        for promised in self.money.iter_mut().chain(self.devices.values_mut()) {
            promised.ending = 0;
        }
        self
    }

    /// The books in which what goes costs nothing under the ceilings that are passed already: the way down leads over one
    /// overlap. Its devices still count.
    #[must_use]
    pub fn forgiving(&self, passed: &[bool]) -> Self {
        let mut books = self.clone();
        for (money, _) in books.money.iter_mut().zip(passed).filter(|(_, passed)| **passed) {
            money.ending = 0;
        }
        books
    }

    /// Whether each ceiling is passed, in the snapshot's order.
    #[must_use]
    pub fn passed(&self) -> Vec<bool> {
        let each = self.snapshot.ceilings.iter().zip(&self.money);
        each.map(|(ceiling, money)| money.sum() > i128::from(ceiling.amount.0)).collect()
    }

    /// The most replicas up to `wanted` that the pool has devices for.
    #[must_use]
    pub fn room(&self, placement: &Placement, wanted: u32) -> u32 {
        let Some(limit) = self.snapshot.classes.get(&placement.class).and_then(|class| class.device_limit()) else {
            return wanted;
        };
        let used = self.devices.get(placement.class.as_str()).copied().unwrap_or_default().sum();
        let free = (i128::from(limit) - used).max(0) / i128::from(placement.devices.max(1));
        u32::try_from(free).map_or(wanted, |free| free.min(wanted))
    }

    /// The most replicas up to `wanted` that every enforced ceiling affords, and the ceiling that stops at fewer.
    #[must_use]
    pub fn afford(&self, namespace: &str, placement: &Placement, wanted: u32) -> (u32, Option<&'a Ceiling>) {
        self.afford_for(namespace, placement, wanted, PLAN_HORIZON)
    }

    /// The same, for replicas that go after `time`.
    #[must_use]
    pub fn afford_for(
        &self,
        namespace: &str,
        placement: &Placement,
        wanted: u32,
        time: Millis,
    ) -> (u32, Option<&'a Ceiling>) {
        let most = |ceiling: &Ceiling, headroom: i128| {
            let fits = |count: u32| i128::from(projected(self.snapshot, placement, count, ceiling, time).0) <= headroom;
            let mut most = wanted;
            while most > 0 && !fits(most) {
                most -= 1;
            }
            most
        };
        let each = self.enforced(namespace).map(|(ceiling, headroom)| (most(ceiling, headroom), ceiling));
        // The names break ties: the order of the list says nothing.
        let tightest = each
            .filter(|(most, _)| *most < wanted)
            .min_by_key(|(most, ceiling)| (*most, &ceiling.policy, &ceiling.period, ceiling.amount));
        tightest.map_or((wanted, None), |(most, ceiling)| (most, Some(ceiling)))
    }

    /// How long every enforced ceiling pays for one replica, up to the horizon.
    #[must_use]
    pub fn paid_for(&self, namespace: &str, placement: &Placement) -> Millis {
        let price = self.snapshot.classes.get(&placement.class).map_or(NanoUsd(i64::MAX), |class| class.price_per_hour);
        let price = i128::from(price.times(placement.devices).0).max(1);
        let time = |(ceiling, headroom): (&Ceiling, i128)| {
            if i128::from(projected(self.snapshot, placement, 1, ceiling, PLAN_HORIZON).0) <= headroom {
                return PLAN_HORIZON;
            }
            let time = headroom.max(0) * i128::from(Millis::HOUR.0) / price;
            Millis(i64::try_from(time).unwrap_or(PLAN_HORIZON.0))
        };
        self.enforced(namespace).map(time).fold(PLAN_HORIZON, Millis::min)
    }

    /// Projected spend under each ceiling, in the snapshot's order.
    #[must_use]
    pub fn projected(&self) -> Vec<NanoUsd> {
        self.money.iter().map(|money| NanoUsd(i64::try_from(money.sum()).unwrap_or(i64::MAX))).collect()
    }

    /// The enforced ceilings of a namespace, each with what is left under it.
    fn enforced(&self, namespace: &str) -> impl Iterator<Item = (&'a Ceiling, i128)> {
        let each = self.snapshot.ceilings.iter().zip(&self.money);
        each.filter(move |(ceiling, _)| ceiling.enforced && binds(ceiling, namespace))
            .map(|(ceiling, money)| (ceiling, i128::from(ceiling.amount.0) - money.sum()))
    }
}

fn devices(placement: &Placement, replicas: u32) -> i128 {
    i128::from(replicas) * i128::from(placement.devices)
}

fn binds(ceiling: &Ceiling, namespace: &str) -> bool {
    ceiling.namespace.as_deref().is_none_or(|bound| bound == namespace)
}
