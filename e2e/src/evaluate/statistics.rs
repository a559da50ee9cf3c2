//! What can be said of shares: intervals by the bootstrap, and whether a confidence tells right from wrong.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::Share;
use std::collections::BTreeMap;

use crate::bench::float;
use crate::bench::inference::prompts::{STEP, mixed};

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 2000;

/// The share that is true, and how far it would differ with other items and other training runs: `runs` are samples of the
/// same items, by item. Items are drawn with replacement, and one of the runs for all of them: a user has one. The values
/// may be differences, too.
pub(super) fn share(runs: &[BTreeMap<&str, f64>]) -> Result<Share> {
    let items: Vec<&str> = runs.first().context("no runs")?.keys().copied().collect();
    let missing = || "a run lacks an item";
    let mut values = Vec::with_capacity(items.len());
    for item in &items {
        let of_runs: Option<Vec<f64>> = runs.iter().map(|run| run.get(item).copied()).collect();
        values.push(of_runs.with_context(missing)?);
    }
    let (item_count, run_count) = (values.len(), runs.len());
    let all: Vec<f64> = values.iter().flatten().copied().collect();
    let value = mean(&all)?;
    let mut random = Random(0x5EED);
    let mut means = Vec::new();
    for _ in 0..RESAMPLES {
        let run = random.below(run_count);
        let drawn = (0..item_count).filter_map(|_| values.get(random.below(item_count))?.get(run).copied());
        means.push(mean(&drawn.collect::<Vec<f64>>())?);
    }
    means.sort_by(f64::total_cmp);
    let at = |permille: usize| means.get(means.len() * permille / 1000).copied().context("no resamples");
    Ok(Share { value, low: at(25)?, high: at(975)? })
}

/// Area under the ROC curve: how often a right answer has more confidence than a wrong one. None where all are right, or
/// none is.
pub(super) fn area(samples: &[(f64, bool)]) -> Result<Option<f64>> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let right = float(u64::try_from(sorted.iter().filter(|(_, right)| *right).count())?)?;
    let wrong = float(u64::try_from(sorted.len())?)? - right;
    if right == 0.0 || wrong == 0.0 {
        return Ok(None);
    }
    // Ties count half: each group of equals at once.
    let (mut below, mut pairs) = (0.0, 0.0);
    for group in sorted.chunk_by(|(a, _), (b, _)| a == b) {
        let right = float(u64::try_from(group.iter().filter(|(_, right)| *right).count())?)?;
        let wrong = float(u64::try_from(group.len())?)? - right;
        pairs += right * (below + wrong / 2.0);
        below += wrong;
    }
    Ok(Some(pairs / (right * wrong)))
}

pub(super) fn mean(values: &[f64]) -> Result<f64> {
    anyhow::ensure!(!values.is_empty(), "the mean of nothing");
    Ok(values.iter().sum::<f64>() / float(u64::try_from(values.len())?)?)
}

/// Numbers that are the same each time: a table that is made again is the same table.
struct Random(u64);

impl Random {
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
        let share = share(&[run(&names(), 120)]).unwrap();
        assert!((share.value - 0.3).abs() < 1e-9);
        assert!((share.low - (0.3 - 1.96 * 0.0229)).abs() < 0.008, "{share:?}");
        assert!((share.high - (0.3 + 1.96 * 0.0229)).abs() < 0.008, "{share:?}");
    }

    #[test]
    fn runs_that_differ_widen_it() {
        let names = names();
        let share = share(&[run(&names, 80), run(&names, 160), run(&names, 120)]).unwrap();
        assert!((share.value - 0.3).abs() < 1e-9 && share.low < 0.2 && share.high > 0.4, "{share:?}");
        assert!(super::share(&[]).is_err());
        assert!(super::share(&[run(&names, 80), BTreeMap::new()]).is_err());
    }

    #[test]
    fn the_area_says_how_often_the_right_ones_are_surer() {
        assert_eq!(area(&[(0.1, false), (0.2, true), (0.3, true)]).unwrap(), Some(1.0));
        assert_eq!(area(&[(0.1, true), (0.2, false)]).unwrap(), Some(0.0));
        assert_eq!(area(&[(0.1, true), (0.1, false)]).unwrap(), Some(0.5));
        assert_eq!(area(&[(0.1, false), (0.2, true), (0.3, false), (0.4, true)]).unwrap(), Some(0.75));
        assert_eq!(area(&[(0.1, true)]).unwrap(), None);
    }
}
