//! What can be said of shares: intervals by the bootstrap, and whether a confidence tells right from wrong.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::Share;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::bench::float;
use crate::bench::inference::prompts::{STEP, mixed};

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 2000;
/// Where a share lies.
pub(super) const SHARE: RangeInclusive<f64> = 0.0..=1.0;
/// Where the difference of two shares lies.
pub(super) const DIFFERENCE: RangeInclusive<f64> = -1.0..=1.0;
/// Where a slope lies.
pub(super) const ANY: RangeInclusive<f64> = f64::NEG_INFINITY..=f64::INFINITY;
/// So many right answers and so many wrong ones make an area that says something.
const EACH_MIN: usize = 10;
/// Of so many items that are all alike, at most this many over their count may be others, with 95 % confidence.
const RULE_OF_THREE: f64 = 3.0;

/// The share that is true, and how far it would differ with other items and other training runs: `runs` are samples of the
/// same items, by item. Items are drawn with replacement, and one of the runs for all of them: a user has one.
pub(super) fn share(runs: &[BTreeMap<&str, f64>], within: &RangeInclusive<f64>) -> Result<Share> {
    let items: Vec<&str> = runs.first().context("no runs")?.keys().copied().collect();
    let missing = || "runs of one variant are of different items";
    anyhow::ensure!(runs.iter().all(|run| run.len() == items.len()), missing());
    let mut values = Vec::with_capacity(items.len());
    for item in &items {
        let of_runs: Option<Vec<f64>> = runs.iter().map(|run| run.get(item).copied()).collect();
        values.push(of_runs.with_context(missing)?);
    }
    let (item_count, run_count) = (values.len(), runs.len());
    let all: Vec<f64> = values.iter().flatten().copied().collect();
    let value = mean(&all)?;
    let mut random = Random::new();
    let mut means = Vec::new();
    for _ in 0..RESAMPLES {
        let run = random.below(run_count);
        let drawn = (0..item_count).filter_map(|_| values.get(random.below(item_count))?.get(run).copied());
        means.push(mean(&drawn.collect::<Vec<f64>>())?);
    }
    let (low, high) = interval(means)?;
    // Where all are alike every resample is, too; of shares more is known.
    let alike = within.end().is_finite() && all.iter().all(|each| *each == value);
    let unseen = if alike { RULE_OF_THREE / float(item_count.try_into()?)? } else { 0.0 };
    Ok(Share { value, low: (low - unseen).max(*within.start()), high: (high + unseen).min(*within.end()) })
}

/// Ends of the 95 % interval of resampled values.
fn interval(mut resampled: Vec<f64>) -> Result<(f64, f64)> {
    resampled.sort_by(f64::total_cmp);
    let at = |permille: usize| resampled.get(resampled.len() * permille / 1000).copied().context("no resamples");
    Ok((at(25)?, at(975)?))
}

/// Area under the ROC curve: how often a right answer has more confidence than a wrong one, in the mean over training runs.
/// None where a run has hardly any of one sort. As in [`share`], a run is drawn and then its answers.
pub(super) fn area(runs: &[Vec<(f64, bool)>]) -> Result<Option<Share>> {
    let mut sorted = runs.to_vec();
    sorted.iter_mut().for_each(|run| run.sort_by(|(a, _), (b, _)| a.total_cmp(b)));
    let enough = |run: &Vec<(f64, bool)>| {
        let right = run.iter().filter(|(_, right)| *right).count();
        right.min(run.len() - right) >= EACH_MIN
    };
    if sorted.is_empty() || !sorted.iter().all(enough) {
        return Ok(None);
    }
    let whole = sorted.iter().filter_map(|run| weighted_area(run, &vec![1.0; run.len()]));
    let value = mean(&whole.collect::<Vec<f64>>())?;
    let mut random = Random::new();
    let mut resampled = Vec::new();
    for _ in 0..RESAMPLES {
        let run = sorted.get(random.below(sorted.len())).context("no runs")?;
        let mut drawn = vec![0.0; run.len()];
        for _ in 0..run.len() {
            if let Some(count) = drawn.get_mut(random.below(run.len())) {
                *count += 1.0;
            }
        }
        resampled.extend(weighted_area(run, &drawn));
    }
    let (low, high) = interval(resampled)?;
    Ok(Some(Share { value, low, high }))
}

/// The area where each of the samples, which are sorted, was seen so often.
fn weighted_area(sorted: &[(f64, bool)], counts: &[f64]) -> Option<f64> {
    let (mut right, mut wrong, mut pairs) = (0.0, 0.0, 0.0);
    let mut seen = sorted.iter().zip(counts).peekable();
    while let Some(((confidence, _), _)) = seen.peek().copied() {
        // Ties count half: each group of equals at once.
        let (mut right_here, mut wrong_here) = (0.0, 0.0);
        while let Some(((_, is_right), count)) = seen.next_if(|((other, _), _)| other == confidence) {
            *(if *is_right { &mut right_here } else { &mut wrong_here }) += *count;
        }
        pairs += right_here * (wrong + wrong_here / 2.0);
        right += right_here;
        wrong += wrong_here;
    }
    (right > 0.0 && wrong > 0.0).then(|| pairs / (right * wrong))
}

pub(super) fn mean(values: &[f64]) -> Result<f64> {
    anyhow::ensure!(!values.is_empty(), "the mean of nothing");
    Ok(values.iter().sum::<f64>() / float(u64::try_from(values.len())?)?)
}

/// Numbers that are the same each time: a table that is made again is the same table.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x5EED)
    }

    fn below(&mut self, count: usize) -> usize {
        let number = mixed(self.0);
        self.0 = self.0.wrapping_add(STEP);
        usize::try_from(number >> 1).unwrap_or(0).checked_rem(count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        (0..400).map(|at| format!("item {at:03}")).collect()
    }

    /// Of 400 items the first ones are right.
    fn run(names: &[String], right: usize) -> BTreeMap<&str, f64> {
        names.iter().enumerate().map(|(at, name)| (name.as_str(), f64::from(u8::from(at < right)))).collect()
    }

    #[test]
    fn the_interval_of_a_share_is_the_binomials() {
        // sqrt(0.3 * 0.7 / 400) = 0.0229.
        let share = share(&[run(&names(), 120)], &SHARE).unwrap();
        assert!((share.value - 0.3).abs() < 1e-9);
        assert!((share.low - (0.3 - 1.96 * 0.0229)).abs() < 0.008, "{share:?}");
        assert!((share.high - (0.3 + 1.96 * 0.0229)).abs() < 0.008, "{share:?}");
    }

    #[test]
    fn runs_that_differ_widen_it() {
        let names = names();
        let share = share(&[run(&names, 80), run(&names, 160), run(&names, 120)], &SHARE).unwrap();
        assert!((share.value - 0.3).abs() < 1e-9 && share.low < 0.2 && share.high > 0.4, "{share:?}");
        assert!(super::share(&[], &SHARE).is_err());
        assert!(super::share(&[run(&names, 80), BTreeMap::new()], &SHARE).is_err());
    }

    #[test]
    fn what_was_never_seen_may_still_be() {
        let names = names();
        assert_eq!(
            share(&[run(&names, 400)], &SHARE).unwrap(),
            Share { value: 1.0, low: 1.0 - 3.0 / 400.0, high: 1.0 }
        );
        assert_eq!(share(&[run(&names, 0)], &SHARE).unwrap(), Share { value: 0.0, low: 0.0, high: 3.0 / 400.0 });
        let none = share(&[run(&names, 0)], &DIFFERENCE).unwrap();
        assert_eq!((none.low, none.high), (-3.0 / 400.0, 3.0 / 400.0));
    }

    #[test]
    fn the_area_says_how_often_the_right_ones_are_surer() {
        // Ten of each make enough.
        let tenfold = |samples: &[(f64, bool)]| samples.repeat(10);
        let value = |samples: &[(f64, bool)]| area(&[tenfold(samples)]).unwrap().map(|area| area.value);
        assert_eq!(value(&[(0.1, false), (0.2, true), (0.3, true)]), Some(1.0));
        assert_eq!(value(&[(0.1, true), (0.2, false)]), Some(0.0));
        assert_eq!(value(&[(0.1, true), (0.1, false)]), Some(0.5));
        assert_eq!(value(&[(0.1, false), (0.2, true), (0.3, false), (0.4, true)]), Some(0.75));
        assert_eq!(value(&[(0.1, true)]), None);
        assert_eq!(area(&[vec![(0.1, false), (0.2, true)]]).unwrap(), None, "too few to say anything");
        assert_eq!(area(&[]).unwrap(), None);
        let runs = [tenfold(&[(0.1, false), (0.2, true)]), tenfold(&[(0.1, true), (0.2, false)])];
        let Share { value: between, low, high } = area(&runs).unwrap().unwrap();
        assert_eq!((between, low, high), (0.5, 0.0, 1.0), "trainings that differ widen it");
        // A right answer is surer in three of four pairs, whichever items are drawn.
        let many: Vec<(f64, bool)> =
            (0..400).map(|at| (f64::from(at * 7 % 10), at * 7 % 10 >= 5 || at % 4 == 0)).collect();
        let Share { value, low, high } = area(&[many]).unwrap().unwrap();
        assert!(low < value && value < high && high - low < 0.12, "{value} {low} {high}");
    }
}
