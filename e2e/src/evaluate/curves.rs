//! From outcomes to curves: what `quality.json` says.

use anyhow::{Context, Result, ensure};
use quartermaster_core::capacity::quality_curve::{Fit, Point, QualityCurve, QualityCurves, Share, VERSION, Votes};
use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{Outcome, Run};
use super::statistics::{ANY, DIFFERENCE, SHARE, area, mean, share};

/// From the easiest on.
pub(super) const DIFFICULTIES: [&str; 3] = ["easy", "medium", "hard"];
/// Answers that are tried as the number of votes.
const SAMPLES: [usize; 5] = [1, 3, 5, 9, 15];

/// Curves of all variants, in the order in which they were given; the first one is what the others are compared with.
pub(super) fn curves(runs: &[Run], tasks: &str) -> Result<QualityCurves> {
    let by_variant = by_variant(runs);
    for outcome in runs.iter().flat_map(|run| &run.outcomes) {
        let (item, difficulty) = (&outcome.item, outcome.difficulty.as_str());
        ensure!(
            DIFFICULTIES.contains(&difficulty),
            "item {item}: difficulty {difficulty:?} is none of {DIFFICULTIES:?}"
        );
    }
    let mut curves: Vec<QualityCurve> = Vec::new();
    for difficulty in DIFFICULTIES {
        let best = by_variant.first().context("no runs")?.1.as_slice();
        for (variant, of_variant) in &by_variant {
            let votes = votes(runs.iter().filter(|run| run.variant == *variant && draws_several(run)), difficulty)?;
            curves.extend(curve(variant, difficulty, of_variant, best, votes)?);
        }
    }
    Ok(QualityCurves { version: VERSION, tasks: tasks.to_owned(), curves })
}

/// Runs of one answer to each question; several of one variant are training runs of it.
pub(super) fn by_variant(runs: &[Run]) -> Vec<(&str, Vec<&Run>)> {
    let mut grouped: Vec<(&str, Vec<&Run>)> = Vec::new();
    for run in runs.iter().filter(|run| !draws_several(run)) {
        match grouped.iter_mut().find(|(variant, _)| *variant == run.variant) {
            Some((_, runs)) => runs.push(run),
            None => grouped.push((&run.variant, vec![run])),
        }
    }
    grouped
}

fn draws_several(run: &Run) -> bool {
    run.outcomes.iter().any(|outcome| outcome.choice > 0)
}

/// None where a variant was not tried on this difficulty.
fn curve(
    variant: &str,
    difficulty: &str,
    runs: &[&Run],
    best: &[&Run],
    votes: Vec<Votes>,
) -> Result<Option<QualityCurve>> {
    let outcomes: Vec<&Outcome> =
        runs.iter().flat_map(|run| &run.outcomes).filter(|each| each.difficulty == difficulty).collect();
    let budgets: BTreeSet<u32> = outcomes.iter().map(|outcome| outcome.budget).collect();
    let Some(most) = budgets.last().copied() else { return Ok(None) };
    let mut points = Vec::new();
    for budget in budgets {
        let accuracy = share(&truths(runs, difficulty, budget), &SHARE)
            .with_context(|| format!("{variant}, {difficulty}, {budget} tokens"))?;
        let here: Vec<&&Outcome> = outcomes.iter().filter(|each| each.budget == budget).collect();
        let spent = mean(&here.iter().map(|each| each.completion_tokens).collect::<Vec<f64>>())?;
        let cut = mean(&here.iter().map(|each| truth(each.cut)).collect::<Vec<f64>>())?;
        points.push(Point { tokens: budget, spent, cut, accuracy });
    }
    let sure = |run: &&Run| {
        let here = run.outcomes.iter().filter(|each| each.difficulty == difficulty && each.budget == most);
        here.filter_map(|each| Some((each.mean_logprob?, each.right))).collect()
    };
    let sure: Vec<Vec<(f64, bool)>> = runs.iter().map(sure).collect();
    let fit = Fit::through(&points, saturation(runs, difficulty, &points)?);
    let slope = fit.map(|fit| slope(runs, difficulty, &points, fit)).transpose()?;
    Ok(Some(QualityCurve {
        variant: variant.to_owned(),
        difficulty: difficulty.to_owned(),
        fit,
        slope,
        points,
        loss: loss(runs, best, difficulty, most)?,
        confidence_auc: area(&sure)?,
        votes,
    }))
}

/// The fewest tokens than which the best point is no better, as far as the items can tell: each is asked at all of them.
fn saturation(runs: &[&Run], difficulty: &str, points: &[Point]) -> Result<u32> {
    let best = points.iter().max_by(|a, b| a.accuracy.value.total_cmp(&b.accuracy.value)).context("no points")?;
    let at_best = truths(runs, difficulty, best.tokens);
    for point in points.iter().filter(|point| point.tokens < best.tokens) {
        let gain = difference(&at_best, &truths(runs, difficulty, point.tokens))?;
        if gain.low <= 0.0 {
            return Ok(point.tokens);
        }
    }
    Ok(best.tokens)
}

/// What one has more than another, item by item.
fn difference(one: &[BTreeMap<&str, f64>], other: &[BTreeMap<&str, f64>]) -> Result<Share> {
    let mut differences = one.to_vec();
    for (run, other) in differences.iter_mut().zip(other.iter().cycle()) {
        for (item, value) in run {
            *value -= other.get(item).with_context(|| format!("{item} was not asked of both"))?;
        }
    }
    share(&differences, &DIFFERENCE)
}

/// What the file of one run has more than that of another, at the most tokens of both; none where they were not asked alike.
pub(super) fn ahead(one: &Run, other: &Run, difficulty: &str) -> Result<Option<Share>> {
    let most = |run: &Run| run.outcomes.iter().map(|outcome| outcome.budget).max();
    let Some(budget) = most(one).filter(|budget| Some(*budget) == most(other)) else { return Ok(None) };
    let [one, other] = [one, other].map(|run| truths(&[run], difficulty, budget));
    let asked = [&one, &other].iter().all(|runs| runs.iter().all(|run| !run.is_empty()));
    asked.then(|| difference(&one, &other)).transpose()
}

/// By run, what is true of each item: 1 where it was answered right, else 0.
fn truths<'a>(runs: &[&'a Run], difficulty: &str, budget: u32) -> Vec<BTreeMap<&'a str, f64>> {
    let of = |run: &&'a Run| {
        let here = run.outcomes.iter().filter(|each| each.difficulty == difficulty && each.budget == budget);
        here.map(|each| (each.item.as_str(), truth(each.right))).collect()
    };
    runs.iter().map(of).collect()
}

fn truth(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// The slope of the line through the points at these budgets. It is a weighted sum of their accuracies, and so the mean of
/// the same sum of each item's own truths: what the bootstrap wants.
fn slope(runs: &[&Run], difficulty: &str, points: &[Point], fit: Fit) -> Result<Share> {
    let tokens = points.iter().map(|point| point.tokens);
    let budgets: Vec<u32> = tokens.filter(|tokens| (fit.t_min..=fit.t_max).contains(tokens)).collect();
    let logs: Vec<f64> = budgets.iter().map(|budget| f64::from(*budget).ln()).collect();
    let center = mean(&logs)?;
    let spread: f64 = logs.iter().map(|log| (log - center).powi(2)).sum();
    let mut slopes: Vec<BTreeMap<&str, f64>> = runs.iter().map(|_| BTreeMap::new()).collect();
    for (budget, log) in budgets.iter().zip(logs) {
        for (slopes, truths) in slopes.iter_mut().zip(truths(runs, difficulty, *budget)) {
            for (item, truth) in truths {
                *slopes.entry(item).or_default() += (log - center) / spread * truth;
            }
        }
    }
    share(&slopes, &ANY)
}

/// What `runs` have less than the best variant, item by item. None for the best one itself, and where that was not asked the
/// same.
fn loss(runs: &[&Run], best: &[&Run], difficulty: &str, budget: u32) -> Result<Option<Share>> {
    let is_best = runs.first().zip(best.first()).is_some_and(|(run, best)| std::ptr::eq(*run, *best));
    let best: Vec<_> = truths(best, difficulty, budget).into_iter().take(1).collect();
    if is_best || best.iter().all(BTreeMap::is_empty) {
        return Ok(None);
    }
    let Share { value, low, high } = difference(&truths(runs, difficulty, budget), &best)?;
    // Nothing is no negative nothing.
    Ok(Some(Share { value: 0.0 - value, low: 0.0 - high, high: 0.0 - low }))
}

/// Accuracy of the most frequent one among the first answers, for each budget and number of answers.
fn votes<'a>(runs: impl Iterator<Item = &'a Run>, difficulty: &str) -> Result<Vec<Votes>> {
    let mut by_question: BTreeMap<u32, BTreeMap<&str, Vec<&Outcome>>> = BTreeMap::new();
    for outcome in runs.flat_map(|run| &run.outcomes).filter(|each| each.difficulty == difficulty) {
        by_question.entry(outcome.budget).or_default().entry(&outcome.item).or_default().push(outcome);
    }
    let mut found = Vec::new();
    for (tokens, questions) in by_question {
        let most = questions.values().map(Vec::len).min().unwrap_or(0);
        for samples in SAMPLES.into_iter().filter(|samples| *samples <= most) {
            let right = questions.iter().map(|(item, choices)| (*item, truth(vote(choices, samples)))).collect();
            let spent: Vec<f64> = questions
                .values()
                .map(|choices| choices.iter().take(samples).map(|choice| choice.completion_tokens).sum())
                .collect();
            let (accuracy, spent) = (share(&[right], &SHARE)?, mean(&spent)?);
            found.push(Votes { tokens, samples: samples.try_into()?, spent, accuracy });
        }
    }
    Ok(found)
}

/// Whether the most frequent answer among the first ones is right; of equally frequent ones the first that was said.
fn vote(choices: &[&Outcome], count: usize) -> bool {
    let mut tally: Vec<(&str, bool, u32)> = Vec::new();
    for choice in choices.iter().take(count) {
        let Some(said) = choice.said.as_deref() else { continue };
        match tally.iter_mut().find(|(other, ..)| *other == said) {
            Some((.., votes)) => *votes += 1,
            None => tally.push((said, choice.right, 1)),
        }
    }
    tally.iter().rev().max_by_key(|(.., votes)| *votes).is_some_and(|(_, right, _)| *right)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{outcome, run};
    use super::*;

    #[test]
    fn runs_of_a_variant_are_one_curve_and_are_compared_item_by_item() {
        let runs = [run("q8-0", 1), run("student", 0), run("student", 0)];
        let curves = curves(&runs, "test").unwrap().curves;
        assert_eq!(curves.iter().map(|curve| curve.variant.as_str()).collect::<Vec<_>>(), ["q8-0", "student"]);
        let (best, student) = (&curves[0], &curves[1]);
        assert_eq!((best.points.len(), best.points[4].accuracy.value), (5, 0.6));
        assert_eq!(best.loss, None, "against itself");
        // One item in ten, and always that one.
        let loss = student.loss.unwrap();
        assert!((loss.value - 0.1).abs() < 1e-9 && loss.low > 0.0 && loss.high < 0.25, "{loss:?}");
        assert_eq!(student.confidence_auc.unwrap().value, 1.0);
        let odd = Outcome { difficulty: "odd".into(), ..outcome("a", "easy", 8, true) };
        let mut asked = run("q8-0", 0);
        asked.outcomes.push(odd);
        let error = super::curves(&[asked], "test").unwrap_err().to_string();
        assert!(error.contains("item a: difficulty \"odd\" is none of"), "{error}");
        assert_eq!(
            (student.fit.unwrap().t_max, student.points[4].cut),
            (32, 0.0),
            "each doubling wins a tenth of the items"
        );
        let (fit, slope) = (best.fit.unwrap(), best.slope.unwrap());
        assert!((slope.value - fit.b).abs() < 1e-9 && slope.low < fit.b && fit.b < slope.high, "{fit:?} {slope:?}");
    }

    #[test]
    fn the_most_frequent_answer_is_voted_for() {
        let said =
            |said: Option<&str>, right| Outcome { said: said.map(str::to_owned), ..outcome("a", "easy", 8, right) };
        let choices = [said(Some("7"), false), said(Some("8"), true), said(None, false), said(Some("8"), true)];
        let choices: Vec<&Outcome> = choices.iter().collect();
        assert!(!vote(&choices, 1));
        assert!(!vote(&choices, 2), "of two that are as frequent the first one counts");
        assert!(vote(&choices, 4));
        assert!(!vote(&[], 1));
    }

    #[test]
    fn votes_are_counted_for_each_number_of_answers() {
        let mut several = run("q8-0", 0);
        let again: Vec<Outcome> =
            several.outcomes.iter().flat_map(|each| [1, 2].map(|choice| Outcome { choice, ..each.clone() })).collect();
        several.outcomes.extend(again);
        let votes = votes([&several].into_iter(), "medium").unwrap();
        assert_eq!(votes.len(), 10, "1 and 3 answers at five budgets");
        assert_eq!((votes[1].samples, votes[1].tokens, votes[1].spent), (3, 2, 18.0));
        assert!(super::votes([&several].into_iter(), "hard").unwrap().is_empty());
        assert!(by_variant(&[several]).is_empty());
    }
}
