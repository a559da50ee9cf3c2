//! What the family is made to show, and whether it does.

use anyhow::Result;
use quartermaster_core::capacity::quality_curve::{Point, QualityCurves};
use std::fmt::Write as _;

use super::curves::{DIFFICULTIES, ahead, by_variant};
use super::outcome::Run;
use super::tables::{curve, megabytes, shown, variants};
use super::training::Training;
use crate::bench::float;

/// Right answers of the best variant at the most tokens, by difficulty: at least and at most.
const BANDS: [(&str, f64, f64); 3] = [("easy", 0.9, 1.0), ("medium", 0.5, 0.8), ("hard", 0.2, 0.5)];
/// On which the variants are told apart best.
const ORDERED_ON: &str = "medium";
/// What the last variant has less than the best one, at least.
const SPREAD_MIN: f64 = 0.05;
/// Share of the variance that a line must explain, and over what factor in tokens.
const FIT_MIN: f64 = 0.9;
const FACTOR_MIN: u32 = 8;
/// How often guesses are right at most: a quarter of the problems are hops, which end at one of three places or more, the others
/// have a hundred answers or more.
const CHANCE_MAX: f64 = 0.1;
/// All files together, in MB.
const WEIGHTS_MAX: f64 = 40.0;
/// Minutes of the whole evaluation, and of one variant for so many questions at one limit of tokens.
const EVALUATION_MAX: f64 = 60.0;
const VARIANT_MAX: f64 = 5.0;
const QUESTIONS: f64 = 500.0;
/// Minutes of a training, by the beginning of its name.
const TRAINING_MAX: [(&str, f64); 3] = [("teacher", 45.0), ("student", 20.0), ("pruned", 20.0)];

/// What is claimed, what was measured, and whether that is enough.
struct Claim {
    claim: String,
    measured: String,
    met: bool,
}

/// A row for each claim.
pub(super) fn claims(all: &QualityCurves, runs: &[Run], trainings: &[Training]) -> Result<String> {
    let mut text = String::from("| Claim | measured | |\n|---|---|---|\n");
    let quality = [bands(all), order(runs)?, spread(all), chance(all), lines(all)];
    let effort = [size(runs)?, time(runs)?, training(trainings)];
    for Claim { claim, measured, met } in quality.into_iter().chain(effort).flatten() {
        writeln!(text, "| {claim} | {measured} | {} |", if met { "met" } else { "missed" })?;
    }
    Ok(text)
}

/// What a variant has at the most tokens.
fn last(all: &QualityCurves, variant: &str, difficulty: &str) -> Option<Point> {
    curve(all, variant, difficulty).and_then(|curve| curve.points.last().copied())
}

/// The best variant is neither too good nor too bad for each difficulty.
fn bands(all: &QualityCurves) -> Vec<Claim> {
    let best = variants(all).first().copied().unwrap_or_default();
    let band = |(difficulty, low, high): (&str, f64, f64)| {
        let accuracy = last(all, best, difficulty).map(|point| point.accuracy);
        Claim {
            claim: format!("{best} on {difficulty}: {low} to {high}"),
            measured: accuracy.map_or_else(|| "not measured".into(), shown),
            met: accuracy.is_some_and(|accuracy| (low..=high).contains(&accuracy.value)),
        }
    };
    BANDS.map(band).into()
}

/// The variants in their order, with what they have at the most tokens.
fn ordered(all: &QualityCurves) -> Vec<(&str, Point)> {
    variants(all).into_iter().filter_map(|variant| Some((variant, last(all, variant, ORDERED_ON)?))).collect()
}

/// No file is better than one before it, by the items that both were asked. Which of the last two is better is left open.
fn order(runs: &[Run]) -> Result<Vec<Claim>> {
    let files: Vec<&Run> = by_variant(runs).into_iter().filter_map(|(_, runs)| runs.first().copied()).collect();
    let mut names: Vec<&str> = files.iter().map(|run| run.variant.as_str()).collect();
    let last = names.split_off(names.len().saturating_sub(2)).join(" and ");
    names.push(&last);
    let names = names.join(" ≥ ");
    let mut turned = Vec::new();
    for (place, better) in files.iter().enumerate().take(files.len().saturating_sub(2)) {
        for worse in files.iter().skip(place + 1) {
            for difficulty in DIFFICULTIES {
                if let Some(won) = ahead(worse, better, difficulty)?.filter(|won| won.low > 0.0) {
                    turned.push(format!(
                        "{} before {} on {difficulty} by {}",
                        worse.variant,
                        better.variant,
                        shown(won)
                    ));
                }
            }
        }
    }
    Ok(vec![Claim {
        claim: format!("{names} on all difficulties, wherever the files differ by more than their interval"),
        measured: if turned.is_empty() { "so".into() } else { turned.join(", ") },
        met: turned.is_empty(),
    }])
}

/// The ladder is worth climbing, from the last two to the first.
fn spread(all: &QualityCurves) -> Vec<Claim> {
    let values: Vec<f64> = ordered(all).iter().map(|(_, point)| point.accuracy.value).collect();
    let least = values.iter().rev().take(2).copied().fold(f64::INFINITY, f64::min);
    let spread = values.first().map_or(0.0, |first| first - least);
    vec![Claim {
        claim: format!("from the first to the last on {ORDERED_ON} at least {SPREAD_MIN}"),
        measured: format!("{spread:.3}"),
        met: spread >= SPREAD_MIN,
    }]
}

/// Even the coarsest variant can do something.
fn chance(all: &QualityCurves) -> Vec<Claim> {
    let least = ordered(all).into_iter().min_by(|(_, one), (_, other)| one.accuracy.low.total_cmp(&other.accuracy.low));
    let claim = |(variant, point): (&str, Point)| Claim {
        claim: format!("{variant} on {ORDERED_ON}: better than guessing, {CHANCE_MAX} at most"),
        measured: shown(point.accuracy),
        met: point.accuracy.low > CHANCE_MAX,
    };
    least.map(claim).into_iter().collect()
}

/// Files that lie in the repository.
fn size(runs: &[Run]) -> Result<Vec<Claim>> {
    let variants = by_variant(runs);
    let files = variants.iter().filter_map(|(_, runs)| runs.first()?.file.as_ref());
    let sum = files.map(|file| megabytes(file.size)).sum::<Result<f64>>()?;
    let claim = format!("all files: {WEIGHTS_MAX} MB at most");
    Ok(vec![Claim { claim, measured: format!("{sum:.1} MB"), met: sum <= WEIGHTS_MAX }])
}

/// It is measured again without a night's wait.
fn time(runs: &[Run]) -> Result<Vec<Claim>> {
    let whole = runs.iter().map(|run| run.seconds).sum::<f64>() / 60.0;
    let mut longest: f64 = 0.0;
    for run in by_variant(runs).into_iter().flat_map(|(_, runs)| runs) {
        let questions = float(run.outcomes.len().try_into()?)?;
        longest = longest.max(run.seconds / 60.0 * QUESTIONS / questions);
    }
    let minutes = |claim: String, minutes: f64, most: f64| Claim {
        claim: format!("{claim}: {most} min at most"),
        measured: format!("{minutes:.1} min"),
        met: minutes <= most,
    };
    Ok(vec![
        minutes("the whole evaluation".into(), whole, EVALUATION_MAX),
        minutes(format!("the slowest variant on {QUESTIONS} questions, in the mean over limits"), longest, VARIANT_MAX),
    ])
}

fn training(trainings: &[Training]) -> Vec<Claim> {
    let claim = |(name, most): (&str, f64)| {
        let minutes = trainings.iter().filter(|each| each.name.starts_with(name)).map(|each| each.seconds / 60.0);
        let longest = minutes.reduce(f64::max);
        Claim {
            claim: format!("training of {name}: {most} min at most"),
            measured: longest.map_or_else(|| "not measured".into(), |minutes| format!("{minutes:.1} min")),
            met: longest.is_some_and(|minutes| minutes <= most),
        }
    };
    TRAINING_MAX.map(claim).into()
}

/// More tokens buy more right answers, by a line in their logarithm.
fn lines(all: &QualityCurves) -> Vec<Claim> {
    // The variant that was asked at the most budgets tells most of the curve.
    let asked = |variant: &&str| curve(all, variant, ORDERED_ON).map_or(0, |curve| curve.points.len());
    let closest = variants(all).into_iter().rev().max_by_key(asked).unwrap_or_default();
    let line = |difficulty| {
        let fit = curve(all, closest, difficulty).and_then(|curve| curve.fit);
        Claim {
            claim: format!("{closest} on {difficulty}: log-linear, R² at least {FIT_MIN} over a factor {FACTOR_MIN}"),
            measured: fit.map_or_else(
                || "no line".into(),
                |fit| format!("R² {:.3} from {} to {} tokens", fit.r_squared, fit.t_min, fit.t_max),
            ),
            met: fit.is_some_and(|fit| fit.r_squared >= FIT_MIN && fit.t_max >= fit.t_min * FACTOR_MIN),
        }
    };
    ["medium", "hard"].map(line).into()
}

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::outcome::{run, served};
    use super::super::training::training;
    use super::*;

    fn claims_of(runs: &[Run], trainings: &[Training]) -> String {
        claims(&curves(runs, "test").unwrap(), runs, trainings).unwrap()
    }

    #[test]
    fn a_claim_of_quality_is_met_or_missed() {
        let text = claims_of(&[run("f16", 1), run("student", 0), run("q2", 0)], &[]);
        for row in [
            "| f16 on easy: 0.9 to 1 | not measured | missed |",
            "| f16 on medium: 0.5 to 0.8 | 0.600 (",
            "| f16 ≥ student and q2 on all difficulties, wherever the files differ by more than their interval | so | met |",
            "at least 0.05 | 0.100 | met |",
            "| student on medium: better than guessing, 0.1 at most | 0.500 (",
            "on medium: log-linear, R² at least 0.9 over a factor 8 | R² 0.973 from 2 to 32 tokens | met |",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let turned = claims_of(&[run("f16", 0), run("student", 20), run("q2", 0)], &[]);
        assert!(turned.contains("| student before f16 on medium by 0.500 (0."), "{turned}");
        let open = claims_of(&[run("f16", 20), run("pruned", 0), run("q2", 20)], &[]);
        assert!(open.contains("by more than their interval | so | met |"), "the last two may be in any order: {open}");
        assert!(open.contains("from the first to the last on medium at least 0.05 | 0.500 | met |"), "{open}");
    }

    #[test]
    fn a_claim_of_effort_is_met_or_missed() {
        let text = claims_of(
            &[served("f16")],
            &[training("teacher", 31.0), training("student-1", 9.0), training("student-2", 21.0)],
        );
        for row in [
            "| all files: 40 MB at most | 0.0 MB | met |",
            "| the whole evaluation: 60 min at most | 0.0 min | met |",
            "| the slowest variant on 500 questions, in the mean over limits: 5 min at most | 0.0 min | met |",
            "| training of teacher: 45 min at most | 31.0 min | met |",
            "| training of student: 20 min at most | 21.0 min | missed |",
            "| training of pruned: 20 min at most | not measured | missed |",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
    }
}
