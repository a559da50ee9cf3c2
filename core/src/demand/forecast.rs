//! From a series to what is expected and to what it will hardly exceed.
//!
//! The expert that is believed is the one that was least off of late. (By the pinball loss at 0.95 it would be one that is too high
//! on purpose: on ServeGen's rates that doubles the error of what is expected and makes the bound no lower.) The bound above it
//! is conformal: the quantile of its own past errors, each as a share of the series' scale, with
//! the level moved up after a miss and down after a hit (Gibbs and Candès), so that it holds as often as promised whatever
//! the series does.

use super::experts::{Expert, Experts};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The bound shall hold for this share of the time.
const HOLDS: f64 = 0.95;
/// How fast the level follows hits and misses.
const FOLLOW: f64 = 0.02;
/// Ends of the level: at the lowest the bound is the largest error of the window.
const LEVEL_MIN: f64 = 0.001;
const LEVEL_MAX: f64 = 0.5;
/// Another expert is believed when its loss is less by this share.
const MARGIN: f64 = 0.05;
/// Days after which losses and the scale are forgotten.
const MEMORY_DAYS: f64 = 2.0;
/// No bound is more above the highest value of the last day than this.
const ABOVE_HIGHEST: f64 = 1.2;
/// A series that is always zero has a scale, too.
const SCALE_MIN: f64 = 1e-9;

/// What is expected of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The most likely value.
    pub expected: f64,
    /// What it will hardly exceed.
    pub upper: f64,
}

/// The value `horizon` steps after the last one of a series with `day` steps a day. A gap is none. None where nothing was
/// measured, or something that is no rate.
#[must_use]
pub fn forecast(values: &[Option<f64>], horizon: usize, day: usize) -> Option<Forecast> {
    let mut forecaster = Forecaster::new(horizon.max(1), day.max(1));
    for value in values {
        if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
            return None;
        }
        forecaster.observe(*value);
    }
    forecaster.forecast()
}

/// A forecast that waits for the value it is of.
#[derive(Clone, Copy, Debug)]
struct Pending {
    by_expert: [Option<f64>; Expert::ALL.len()],
    expected: f64,
    upper: f64,
    scale: f64,
}

/// One series while it is read.
#[derive(Clone, Debug)]
pub struct Forecaster {
    horizon: usize,
    forget: f64,
    experts: Experts,
    pending: VecDeque<Option<Pending>>,
    losses: [Loss; Expert::ALL.len()],
    believed: usize,
    scale: f64,
    errors: Window,
    level: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    sum: f64,
    weight: f64,
}

impl Loss {
    fn mean(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Forecaster {
    /// For values `horizon` steps ahead.
    #[must_use]
    pub fn new(horizon: usize, day: usize) -> Self {
        let steps = f64::from(u32::try_from(day).unwrap_or(u32::MAX));
        Self {
            horizon,
            forget: 1.0 - 1.0 / (MEMORY_DAYS * steps),
            experts: Experts::new(day),
            pending: VecDeque::with_capacity(horizon + 1),
            losses: [Loss::default(); Expert::ALL.len()],
            believed: 0,
            scale: 0.0,
            errors: Window::new(day),
            level: 1.0 - HOLDS,
        }
    }

    /// Takes the next value, or that there is none.
    pub fn observe(&mut self, value: Option<f64>) {
        let due = if self.pending.len() == self.horizon { self.pending.pop_front().flatten() } else { None };
        if let (Some(value), Some(due)) = (value, due) {
            self.score(value, &due);
        }
        // Over a gap the day goes on, and nobody is judged.
        if let Some(value) = value.or_else(|| self.experts.last()) {
            if self.experts.last().is_none() {
                self.scale = value;
            }
            self.experts.observe(value);
            self.scale = self.forget * self.scale + (1.0 - self.forget) * value;
        }
        let next = self.next();
        self.pending.push_back(next);
    }

    fn score(&mut self, value: f64, due: &Pending) {
        for (loss, said) in self.losses.iter_mut().zip(due.by_expert) {
            if let Some(said) = said {
                let off = (value - said).abs();
                *loss = Loss { sum: self.forget * loss.sum + off, weight: self.forget * loss.weight + 1.0 };
            }
        }
        self.believe();
        self.errors.push((value - due.expected) / due.scale);
        let missed = if value > due.upper { 1.0 } else { 0.0 };
        self.level = (self.level + FOLLOW * (1.0 - HOLDS - missed)).clamp(LEVEL_MIN, LEVEL_MAX);
    }

    /// Changes whom it believes where that would have paid.
    fn believe(&mut self) {
        let mean = |at: usize| self.losses.get(at).copied().and_then(Loss::mean).unwrap_or(f64::INFINITY);
        let best = (0..self.losses.len()).min_by(|a, b| mean(*a).total_cmp(&mean(*b)));
        self.believed = best.filter(|best| mean(*best) < (1.0 - MARGIN) * mean(self.believed)).unwrap_or(self.believed);
    }

    fn next(&self) -> Option<Pending> {
        let by_expert = Expert::ALL.map(|expert| self.experts.expect(expert, self.horizon));
        let expected = by_expert.get(self.believed).copied().flatten().or_else(|| self.experts.last())?;
        let scale = self.scale.max(SCALE_MIN);
        let above = expected + scale * self.errors.quantile(1.0 - self.level);
        let upper = above.clamp(0.0, ABOVE_HIGHEST * self.experts.highest());
        Some(Pending { by_expert, expected, upper, scale })
    }

    /// What it says now; none before the first value.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let next = self.pending.back().copied().flatten()?;
        Some(Forecast { expected: next.expected, upper: next.upper })
    }
}

/// The last errors, and the same in order.
#[derive(Clone, Debug)]
struct Window {
    most: usize,
    latest: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl Window {
    fn new(most: usize) -> Self {
        Self { most, latest: VecDeque::with_capacity(most + 1), sorted: Vec::with_capacity(most + 1) }
    }

    fn push(&mut self, error: f64) {
        self.latest.push_back(error);
        let place = |sorted: &[f64], error: f64| sorted.partition_point(|other| other.total_cmp(&error).is_lt());
        self.sorted.insert(place(&self.sorted, error), error);
        if self.latest.len() > self.most
            && let Some(oldest) = self.latest.pop_front()
        {
            self.sorted.remove(place(&self.sorted, oldest));
        }
    }

    /// The error that is not exceeded by this share; nothing while there are none.
    fn quantile(&self, share: f64) -> f64 {
        let count = f64::from(u32::try_from(self.sorted.len()).unwrap_or(u32::MAX));
        let wanted = (count + 1.0) * share;
        // The first place with as many at or before it.
        let mut places = (1..).map(f64::from).zip(&self.sorted);
        let found = places.find(|(place, _)| *place >= wanted).map(|(_, error)| *error);
        found.or_else(|| self.sorted.last().copied()).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: usize = 144;

    fn float(count: usize) -> f64 {
        f64::from(u32::try_from(count).unwrap())
    }

    /// Even noise in [0, 1).
    fn noise(at: usize) -> f64 {
        let mixed = u32::try_from(at).unwrap().wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x85EB_CA6B);
        f64::from(mixed ^ (mixed >> 15)) / f64::from(u32::MAX)
    }

    /// Share of values that the bound of so many steps before held.
    fn held(values: &[f64], horizon: usize) -> f64 {
        let mut forecaster = Forecaster::new(horizon, DAY);
        let mut uppers = Vec::new();
        for value in values {
            forecaster.observe(Some(*value));
            uppers.push(forecaster.forecast().unwrap().upper);
        }
        let judged = values.iter().skip(DAY + horizon).zip(&uppers[DAY..]);
        let held = judged.clone().filter(|(value, upper)| value <= upper).count();
        float(held) / float(judged.count())
    }

    #[test]
    fn the_bound_holds_about_as_often_as_promised() {
        let even: Vec<f64> = (0..20 * DAY).map(|at| 10.0 + 4.0 * noise(at)).collect();
        let waves = (0..20 * DAY).map(|at| 20.0 + 10.0 * (float(at) / 23.0).sin() + 6.0 * noise(at));
        for (values, horizon) in [(even.clone(), 1), (even, 6), (waves.collect(), 3)] {
            let held = held(&values, horizon);
            assert!((0.92..=0.98).contains(&held), "{held} at {horizon}");
        }
    }

    #[test]
    fn an_idle_series_stays_at_nothing() {
        let idle = vec![Some(0.0); 3 * DAY];
        assert_eq!(forecast(&idle, 3, DAY), Some(Forecast { expected: 0.0, upper: 0.0 }));
        let mut woken = idle.clone();
        woken[100] = Some(50.0);
        let after = forecast(&woken, 3, DAY).unwrap();
        assert!(after.upper <= 60.0, "one burst a day ago and more is no reason for {after:?}");
        assert_eq!(forecast(&[], 3, DAY), None);
    }

    #[test]
    fn a_gap_is_no_zero() {
        let mut values = vec![Some(10.0); DAY];
        values.extend([None; 12]);
        let over = forecast(&values, 2, DAY).unwrap();
        assert!((over.expected - 10.0).abs() < 1e-9, "{over:?}");
        assert_eq!(forecast(&[None, None], 1, DAY), None);
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(forecast(&[Some(1.0), Some(bad)], 1, DAY), None, "{bad}");
        }
    }

    #[test]
    fn a_season_is_believed_where_it_pays() {
        let wave = |at: usize| 10.0 + 9.0 * (float(at % DAY) / float(DAY) * std::f64::consts::TAU).sin();
        let values: Vec<Option<f64>> = (0..8 * DAY + 30).map(|at| Some(wave(at))).collect();
        let said = forecast(&values, 24, DAY).unwrap().expected;
        let comes = wave(8 * DAY + 29 + 24);
        assert!((said - comes).abs() < 1.5, "{said}, and {comes} comes");
    }

    proptest! {
        #[test]
        fn no_bound_is_far_above_what_was_seen(
            values in proptest::collection::vec(proptest::option::weighted(0.9, 0.0..100.0_f64), 1..400),
            horizon in 1..40_usize,
        ) {
            let highest = values.iter().flatten().copied().fold(0.0, f64::max);
            if let Some(said) = forecast(&values, horizon, DAY) {
                prop_assert!(said.upper <= ABOVE_HIGHEST * highest + 1e-9 && said.upper >= 0.0);
                prop_assert!(said.expected.is_finite() && said.expected >= 0.0);
            } else {
                prop_assert!(values.iter().all(Option::is_none));
            }
        }
    }
}
