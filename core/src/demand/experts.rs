//! Forecasters, each a small state that takes one value after another.

use std::collections::VecDeque;

/// Weight of the newest value in the moving average.
const SMOOTHING: f64 = 0.5;
/// Weights of the newest value in level and season. The level is slow: what moves within a day is the season's.
const LEVEL: f64 = 0.02;
const SEASON: f64 = 0.3;
/// What is left of the last error after each step.
const PERSISTS: f64 = 0.9;
/// A season's factor is taken for what it says only within these.
const FACTOR_MIN: f64 = 0.2;
const FACTOR_MAX: f64 = 5.0;

/// Who says what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expert {
    /// What was last.
    Last,
    /// The moving average.
    Average,
    /// The highest of the last hour.
    HighestOfHour,
    /// What was last, times how much more there was a day ago after as long.
    LastTimesSeason,
    /// Level and daily season after Holt and Winters, and Taylor's correction by the last error.
    HoltWinters,
}

impl Expert {
    /// From the simplest on.
    pub const ALL: [Self; 5] =
        [Self::Last, Self::Average, Self::HighestOfHour, Self::LastTimesSeason, Self::HoltWinters];
}

/// What all experts remember of one series.
#[derive(Clone, Debug)]
pub struct Experts {
    day: usize,
    hour: usize,
    /// The last day, oldest first.
    past: VecDeque<f64>,
    average: f64,
    seen: u32,
    level: f64,
    error: f64,
    /// Season of the last day's steps, oldest first, as a difference from the level.
    seasons: VecDeque<f64>,
}

impl Experts {
    /// For a series with so many steps a day; an hour is the 24th part.
    #[must_use]
    pub fn new(day: usize) -> Self {
        let (past, seasons) = (VecDeque::with_capacity(day + 1), VecDeque::with_capacity(day + 1));
        Self { day, hour: (day / 24).max(1), past, average: 0.0, seen: 0, level: 0.0, error: 0.0, seasons }
    }

    /// Takes the next value.
    pub fn observe(&mut self, value: f64) {
        if self.past.is_empty() {
            (self.average, self.level) = (value, value);
        }
        self.average += SMOOTHING * (value - self.average);
        // The season of this step is what was seen a day ago, once there was one.
        let season = if self.seasons.len() == self.day { self.seasons.pop_front().unwrap_or(0.0) } else { 0.0 };
        self.error = value - self.level - season;
        // At first the level is the mean of all.
        self.seen = self.seen.saturating_add(1);
        self.level += LEVEL.max(1.0 / f64::from(self.seen)) * self.error;
        let share = if self.past.len() < self.day { 1.0 } else { SEASON };
        self.seasons.push_back(season + share * (value - self.level - season));
        self.past.push_back(value);
        if self.past.len() > self.day {
            self.past.pop_front();
        }
    }

    /// The last value; none before the first.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.past.back().copied()
    }

    /// The highest of the last day.
    #[must_use]
    pub fn highest(&self) -> f64 {
        self.past.iter().copied().fold(0.0, f64::max)
    }

    /// What an expert expects `steps` after the last value; none where it has not seen enough. Never less than nothing.
    #[must_use]
    pub fn expect(&self, expert: Expert, steps: usize) -> Option<f64> {
        let last = self.last()?;
        let full = self.past.len() == self.day && steps <= self.day && steps > 0;
        let expected = match expert {
            Expert::Last => Some(last),
            Expert::Average => Some(self.average),
            Expert::HighestOfHour => Some(self.past.iter().rev().take(self.hour).copied().fold(0.0, f64::max)),
            Expert::LastTimesSeason => full.then(|| last * self.season_factor(steps)),
            Expert::HoltWinters => full.then(|| {
                let persists = (0..steps).fold(self.error, |error, _| error * PERSISTS);
                self.level + self.season_after(steps) + persists
            }),
        };
        expected.filter(|expected| expected.is_finite()).map(|expected| expected.max(0.0))
    }

    /// How much more there was a day ago after so many steps: hours are compared, single values say little.
    fn season_factor(&self, steps: usize) -> f64 {
        let half = self.hour / 2;
        let around = |at: usize| {
            let values = self.past.iter().skip(at.saturating_sub(half)).take(2 * half + 1);
            let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        // The oldest value is that of a day before the next one.
        let (then, now) = (around(steps - 1), around(0));
        if now > 0.0 { (then / now).clamp(FACTOR_MIN, FACTOR_MAX) } else { 1.0 }
    }

    fn season_after(&self, steps: usize) -> f64 {
        self.seasons.get(steps - 1).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: usize = 144;

    fn of(values: impl IntoIterator<Item = f64>) -> Experts {
        let mut experts = Experts::new(DAY);
        values.into_iter().for_each(|value| experts.observe(value));
        experts
    }

    fn wave(at: usize) -> f64 {
        let turn = f64::from(u32::try_from(at % DAY).unwrap()) / 144.0;
        10.0 + 8.0 * (turn * std::f64::consts::TAU).sin()
    }

    #[test]
    fn a_level_is_expected_to_stay_by_all() {
        let experts = of([7.0; 2 * DAY]);
        for expert in Expert::ALL {
            let expected = experts.expect(expert, 6).unwrap();
            assert!((expected - 7.0).abs() < 1e-9, "{expert:?}: {expected}");
        }
    }

    #[test]
    fn who_knows_a_day_foresees_the_next() {
        let experts = of((0..14 * DAY + 20).map(wave));
        let comes = wave(14 * DAY + 19 + 18);
        let off = |expert| (experts.expect(expert, 18).unwrap() - comes).abs();
        assert!(off(Expert::HoltWinters) < 0.6, "{}", off(Expert::HoltWinters));
        assert!(off(Expert::LastTimesSeason) < 1.0, "{}", off(Expert::LastTimesSeason));
        assert!(off(Expert::Last) > 2.0);
    }

    #[test]
    fn nobody_says_more_than_was_seen() {
        assert!(Expert::ALL.iter().all(|expert| Experts::new(DAY).expect(*expert, 1).is_none()));
        let young = of([3.0, 9.0, 4.0]);
        assert_eq!((young.expect(Expert::Last, 1), young.expect(Expert::HighestOfHour, 1)), (Some(4.0), Some(9.0)));
        assert_eq!(young.expect(Expert::HoltWinters, 1), None);
        let old = of((0..3 * DAY).map(wave));
        assert_eq!((old.expect(Expert::HoltWinters, 0), old.expect(Expert::LastTimesSeason, DAY + 1)), (None, None));
    }

    #[test]
    fn a_series_that_falls_is_not_expected_below_nothing() {
        let falling = (0..2 * DAY).map(|at| (200.0 - f64::from(u32::try_from(at).unwrap())).max(0.0));
        let experts = of(falling);
        for expert in Expert::ALL {
            assert!(experts.expect(expert, 12).unwrap() >= 0.0, "{expert:?}");
        }
    }
}
