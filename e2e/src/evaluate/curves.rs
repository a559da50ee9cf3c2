//! From outcomes to curves: what `quality.json` says.

use anyhow::{Context, Result, ensure};
use quartermaster_core::capacity::quality_curve::{Fit, Point, QualityCurve, QualityCurves, Share, VERSION, Votes};
use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{Outcome, Run};
use super::statistics::{DIFFERENCE, SHARE, area, mean, share};

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
        let here = outcomes.iter().filter(|each| each.budget == budget);
        let spent = mean(&here.map(|each| each.completion_tokens).collect::<Vec<f64>>())?;
        points.push(Point { tokens: budget, spent, accuracy });
    }
    let sure: Vec<(f64, bool)> = outcomes
        .iter()
        .filter(|each| each.budget == most)
        .filter_map(|each| Some((each.mean_logprob?, each.right)))
        .collect();
    Ok(Some(QualityCurve {
        variant: variant.to_owned(),
        difficulty: difficulty.to_owned(),
        fit: Fit::through(&points),
        points,
        loss: loss(runs, best, difficulty, most)?,
        confidence_auc: area(&sure)?,
        votes,
    }))
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

/// What `runs` have less than the best variant, item by item. None where that was not asked the same.
fn loss(runs: &[&Run], best: &[&Run], difficulty: &str, budget: u32) -> Result<Option<Share>> {
    let Some(best) = truths(best, difficulty, budget).into_iter().next().filter(|best| !best.is_empty()) else {
        return Ok(None);
    };
    let mut differences = truths(runs, difficulty, budget);
    for run in &mut differences {
        for (item, value) in run {
            *value = best.get(item).with_context(|| format!("the best variant was not asked {item}"))? - *value;
        }
    }
    share(&differences, &DIFFERENCE).map(Some)
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
        assert_eq!(best.loss.unwrap(), Share { value: 0.0, low: -0.075, high: 0.075 }, "three of forty may be missed");
        // One item in ten, and always that one.
        let loss = student.loss.unwrap();
        assert!((loss.value - 0.1).abs() < 1e-9 && loss.low > 0.0 && loss.high < 0.25, "{loss:?}");
        assert_eq!(student.confidence_auc.unwrap().value, 1.0);
        let odd = Outcome { difficulty: "odd".into(), ..outcome("a", "easy", 8, true) };
        let mut asked = run("q8-0", 0);
        asked.outcomes.push(odd);
        let error = super::curves(&[asked], "test").unwrap_err().to_string();
        assert!(error.contains("item a: difficulty \"odd\" is none of"), "{error}");
        assert_eq!(student.fit.unwrap().t_max, 16, "32 is as good within its interval");
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
