//! From outcomes to curves, tables and pictures.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::{Fit, Point, QualityCurve, QualityCurves, VERSION};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::outcome::{Outcome, Run};
use super::picture;
use super::statistics::{area, mean, share};

/// From the easiest on.
const DIFFICULTIES: [&str; 3] = ["easy", "medium", "hard"];

/// Writes `quality.json` into `data` and one picture for each difficulty into `pictures`; returns the tables as Markdown.
/// Runs of one variant count as training runs of it.
///
/// # Errors
/// Where runs of one variant are of different items, or a file can't be written.
pub fn report(runs: &[Run], tasks: &str, data: &Path, pictures: &Path) -> Result<String> {
    let by_variant = by_variant(runs);
    let mut curves = Vec::new();
    for (variant, runs) in &by_variant {
        for difficulty in DIFFICULTIES {
            curves.extend(curve(variant, difficulty, runs)?);
        }
    }
    let all = QualityCurves { version: VERSION, tasks: tasks.to_owned(), curves };
    let path = data.join("quality.json");
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&all)?))
        .with_context(|| format!("could not write {}", path.display()))?;
    for difficulty in DIFFICULTIES {
        let drawn: Vec<&QualityCurve> = all.curves.iter().filter(|curve| curve.difficulty == difficulty).collect();
        if !drawn.is_empty() {
            picture::draw(&pictures.join(format!("models-{difficulty}.svg")), difficulty, &drawn)?;
        }
    }
    Ok([variants(&by_variant, &all)?, lines(&all)?, votes(runs)?].join("\n"))
}

/// In the order in which they were given.
fn by_variant(runs: &[Run]) -> Vec<(&str, Vec<&Run>)> {
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
fn curve(variant: &str, difficulty: &str, runs: &[&Run]) -> Result<Option<QualityCurve>> {
    let of_runs = || runs.iter().flat_map(|run| &run.outcomes).filter(|outcome| outcome.difficulty == difficulty);
    let budgets: BTreeSet<u32> = of_runs().map(|outcome| outcome.budget).collect();
    let mut points = Vec::new();
    for budget in budgets {
        let right: Vec<BTreeMap<&str, f64>> = runs
            .iter()
            .map(|run| {
                let here = run.outcomes.iter().filter(|each| each.difficulty == difficulty && each.budget == budget);
                here.map(|each| (each.item.as_str(), truth(each))).collect()
            })
            .collect();
        let share = share(&right).with_context(|| format!("{variant}, {difficulty}, {budget} tokens"))?;
        let spent: Vec<f64> =
            of_runs().filter(|each| each.budget == budget).map(|each| each.completion_tokens).collect();
        let spent = mean(&spent)?;
        points.push(Point { tokens: budget, spent, accuracy: share.value, low: share.low, high: share.high });
    }
    let fit = Fit::through(&points);
    let (variant, difficulty) = (variant.to_owned(), difficulty.to_owned());
    Ok((!points.is_empty()).then_some(QualityCurve { variant, difficulty, points, fit }))
}

fn truth(outcome: &Outcome) -> f64 {
    f64::from(u8::from(outcome.right))
}

/// A row for each variant at its most tokens: accuracy, confidence, and what an answer costs and takes.
fn variants(by_variant: &[(&str, Vec<&Run>)], all: &QualityCurves) -> Result<String> {
    let mut text = String::from(
        "| Variant | easy | medium | hard | confidence's AUC | tokens an answer | $ for 1,000 answers | ms an answer |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (variant, runs) in by_variant {
        let outcomes: Vec<&Outcome> = runs.iter().flat_map(|run| &run.outcomes).collect();
        let most = outcomes.iter().map(|outcome| outcome.budget).max().context("a run without outcomes")?;
        let at_most: Vec<&Outcome> = outcomes.into_iter().filter(|outcome| outcome.budget == most).collect();
        let cells = DIFFICULTIES.map(|difficulty| {
            let mut of = all.curves.iter().filter(|curve| curve.variant == *variant && curve.difficulty == difficulty);
            of.next().and_then(|curve| curve.points.last()).map_or_else(|| "–".into(), shown)
        });
        // By difficulty: over all of them it would only tell hard questions from easy ones.
        let mut auc = Vec::new();
        for difficulty in DIFFICULTIES {
            let here = at_most.iter().filter(|outcome| outcome.difficulty == difficulty);
            let sure: Vec<(f64, bool)> =
                here.filter_map(|outcome| Some((outcome.mean_logprob?, outcome.right))).collect();
            auc.push(area(&sure)?.map_or_else(|| "–".into(), |area| format!("{area:.3}")));
        }
        let auc = auc.join(", ");
        let of = |value: &dyn Fn(&Outcome) -> Result<f64>| {
            mean(&at_most.iter().map(|outcome| value(outcome)).collect::<Result<Vec<f64>>>()?)
        };
        let tokens = of(&|outcome| Ok(outcome.completion_tokens))?;
        let nano = of(&|outcome| Ok(f64::from(u32::try_from(outcome.cost.0)?)))?;
        let latency = of(&|outcome| Ok(outcome.latency_ms))?;
        let [easy, medium, hard] = cells;
        writeln!(
            text,
            "| {variant} | {easy} | {medium} | {hard} | {auc} | {tokens:.1} | {:.5} | {latency:.0} |",
            nano / 1e6
        )?;
    }
    Ok(text)
}

fn shown(point: &Point) -> String {
    format!("{:.3} ({:.3} to {:.3})", point.accuracy, point.low, point.high)
}

/// A row for each line through a curve.
fn lines(all: &QualityCurves) -> Result<String> {
    let mut text = String::from("| Variant | difficulty | A(T) | R² | holds for T |\n|---|---|---|---|---|\n");
    for curve in &all.curves {
        let (variant, difficulty) = (&curve.variant, &curve.difficulty);
        match curve.fit {
            Some(Fit { a, b, r_squared, t_min, t_max }) => writeln!(
                text,
                "| {variant} | {difficulty} | {a:.3} + {b:.3} ln T | {r_squared:.3} | {t_min} to {t_max} |"
            )?,
            None => writeln!(text, "| {variant} | {difficulty} | no line | – | – |")?,
        }
    }
    Ok(text)
}

/// A row for each run that drew several answers: accuracy of the most frequent one among the first k.
fn votes(runs: &[Run]) -> Result<String> {
    let mut text = String::new();
    for run in runs.iter().filter(|run| draws_several(run)) {
        if text.is_empty() {
            text.push_str(
                "| Variant | difficulty | T | answers | accuracy | tokens in all |\n|---|---|---|---|---|---|\n",
            );
        }
        let mut by_question: BTreeMap<(&str, u32, &str), Vec<&Outcome>> = BTreeMap::new();
        for outcome in &run.outcomes {
            let key = (outcome.difficulty.as_str(), outcome.budget, outcome.item.as_str());
            by_question.entry(key).or_default().push(outcome);
        }
        let kinds: BTreeSet<(&str, u32)> =
            by_question.keys().map(|(difficulty, budget, _)| (*difficulty, *budget)).collect();
        for difficulty in DIFFICULTIES {
            for (_, budget) in kinds.iter().filter(|(other, _)| *other == difficulty) {
                let questions = || by_question.iter().filter(|((of, at, _), _)| *of == difficulty && at == budget);
                let most = questions().map(|(_, choices)| choices.len()).min().context("no questions")?;
                for count in [1, 3, 5, 9, 17].into_iter().filter(|count| *count <= most) {
                    let right: BTreeMap<&str, f64> = questions()
                        .map(|((.., item), choices)| (*item, f64::from(u8::from(vote(choices, count)))))
                        .collect();
                    let tokens: Vec<f64> = questions()
                        .map(|(_, choices)| choices.iter().take(count).map(|choice| choice.completion_tokens).sum())
                        .collect();
                    let share = share(&[right])?;
                    writeln!(
                        text,
                        "| {} | {difficulty} | {budget} | {count} | {:.3} ({:.3} to {:.3}) | {:.1} |",
                        run.variant,
                        share.value,
                        share.low,
                        share.high,
                        mean(&tokens)?
                    )?;
                }
            }
        }
    }
    Ok(text)
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
    use super::super::outcome::outcome;
    use super::*;

    /// A tenth of 40 items is right at 2 tokens, and another tenth each time they double.
    fn run(variant: &str) -> Run {
        let outcomes = (1_u32..6).flat_map(|place| {
            (0..40).map(move |item| outcome(&format!("i{item:02}"), "medium", 1 << place, item < place * 4))
        });
        Run::new(variant.into(), 1.0, outcomes.collect())
    }

    #[test]
    fn a_family_gets_curves_tables_and_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            report(&[run("q8-0"), run("student"), run("student")], "test", folder.path(), folder.path()).unwrap();
        assert!(text.contains("| q8-0 | – | 0.500 (0."), "{text}");
        assert!(text.contains("| student | medium | 0.000 + 0.144 ln T | 1.000 | 2 to 16 |"), "{text}");
        assert_eq!(text.matches("| student |").count(), 2, "two training runs are one variant: {text}");
        let written = fs::read(folder.path().join("quality.json")).unwrap();
        let curves: QualityCurves = serde_json::from_slice(&written).unwrap();
        assert_eq!((curves.curves.len(), curves.curves[0].points.len()), (2, 5));
        let picture = fs::read_to_string(folder.path().join("models-medium.svg")).unwrap();
        assert!(picture.contains("<svg") && picture.contains("q8-0"), "{picture}");
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
}
