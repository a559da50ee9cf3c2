//! Curves as Markdown.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::{Fit, QualityCurve, QualityCurves, Share};
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::curves::{DIFFICULTIES, by_variant};
use super::outcome::{Outcome, Run};
use super::statistics::mean;
use crate::bench::float;

/// What stands where nothing was measured.
const NOTHING: &str = "–";
const NANO: f64 = 1e9;

/// A row for each variant at its most tokens: accuracy, and what is lost against the first one.
pub(super) fn quality(all: &QualityCurves) -> Result<String> {
    let mut text = String::from(
        "| Variant | easy | medium | hard | lost on medium | lost on hard | AUC on easy, medium, hard |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for variant in variants(all) {
        let of = |difficulty| curve(all, variant, difficulty);
        let [easy, medium, hard] = DIFFICULTIES.map(|difficulty| {
            let last = of(difficulty).and_then(|curve| curve.points.last());
            last.map_or_else(|| NOTHING.into(), |point| shown(point.accuracy))
        });
        let [medium_loss, hard_loss] = ["medium", "hard"]
            .map(|difficulty| of(difficulty).and_then(|curve| curve.loss).map_or_else(|| NOTHING.into(), shown));
        let auc = DIFFICULTIES.map(|difficulty| {
            let area = of(difficulty).and_then(|curve| curve.confidence_auc);
            area.map_or_else(|| NOTHING.into(), shown)
        });
        let auc = auc.join(", ");
        writeln!(text, "| {variant} | {easy} | {medium} | {hard} | {medium_loss} | {hard_loss} | {auc} |")?;
    }
    Ok(text)
}

/// A row for each variant at its most tokens: right answers by sort of task, on each difficulty.
pub(super) fn kinds(runs: &[Run]) -> Result<String> {
    let mut columns: BTreeSet<(usize, &str)> = BTreeSet::new();
    for outcome in runs.iter().flat_map(|run| &run.outcomes) {
        let place = DIFFICULTIES.iter().position(|difficulty| *difficulty == outcome.difficulty);
        columns.insert((place.context("an item of no difficulty")?, &outcome.kind));
    }
    let named = columns.iter().filter_map(|(place, kind)| Some((*DIFFICULTIES.get(*place)?, *kind)));
    let named: Vec<(&str, &str)> = named.collect();
    let head = named.iter().map(|(difficulty, kind)| format!("{difficulty}, {kind}")).collect::<Vec<_>>().join(" | ");
    let mut text = format!("| Variant | {head} |\n|---|{}\n", "---|".repeat(named.len()));
    for (variant, runs) in by_variant(runs) {
        let mut row = format!("| {variant} |");
        for (difficulty, kind) in &named {
            let mut right = Vec::new();
            for run in &runs {
                let here = run.at_most()?.into_iter();
                let here = here.filter(|each| each.difficulty == *difficulty && each.kind == *kind);
                right.extend(here.map(|each| f64::from(u8::from(each.right))));
            }
            let share = if right.is_empty() { NOTHING.to_owned() } else { format!("{:.2}", mean(&right)?) };
            write!(row, " {share} |")?;
        }
        writeln!(text, "{row}")?;
    }
    Ok(text)
}

/// A row for each variant and difficulty: answers that were cut off, by the most tokens that they might have.
pub(super) fn cuts(all: &QualityCurves) -> Result<String> {
    let mut text = String::from("| Variant | difficulty | share cut off, by T |\n|---|---|---|\n");
    for curve in &all.curves {
        let each: Vec<String> =
            curve.points.iter().map(|point| format!("{}: {:.2}", point.tokens, point.cut)).collect();
        writeln!(text, "| {} | {} | {} |", curve.variant, curve.difficulty, each.join(", "))?;
    }
    Ok(text)
}

/// A row for each variant at its most tokens: what an answer costs and takes.
pub(super) fn costs(runs: &[Run]) -> Result<String> {
    let mut text = String::from(
        "| Variant | file, MB | tokens/s | $ a million tokens of questions / answers | tokens an answer | \
         $ for 1,000 answers | ms an answer, waiting included | minutes of the evaluation |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (variant, runs) in by_variant(runs) {
        let at_most: Vec<&Outcome> = runs.iter().map(|run| run.at_most()).collect::<Result<Vec<_>>>()?.concat();
        let of = |value: &dyn Fn(&Outcome) -> Result<f64>| {
            mean(&at_most.iter().map(|outcome| value(outcome)).collect::<Result<Vec<f64>>>()?)
        };
        let tokens = of(&|outcome| Ok(outcome.completion_tokens))?;
        let dollars = of(&|outcome| Ok(f64::from(u32::try_from(outcome.cost.0)?) / NANO))? * 1e3;
        let latency = of(&|outcome| Ok(outcome.latency_ms))?;
        let first = runs.first().context("no run")?;
        let size = first.file.as_ref().map(|file| megabytes(file.size)).transpose()?;
        let size = size.map_or_else(|| NOTHING.into(), |size| format!("{size:.2}"));
        let speed = mean(&runs.iter().map(|run| run.tokens_per_second()).collect::<Result<Vec<f64>>>()?)?;
        let minutes = mean(&runs.iter().map(|run| run.seconds / 60.0).collect::<Vec<f64>>())?;
        let price = first.price;
        writeln!(
            text,
            "| {variant} | {size} | {speed:.0} | {} / {} | {tokens:.1} | {dollars:.5} | {latency:.0} | {minutes:.1} |",
            price.prompt, price.completion
        )?;
    }
    Ok(text)
}

/// A file's size.
pub(super) fn megabytes(bytes: u64) -> Result<f64> {
    Ok(float(bytes / 10_000)? / 100.0)
}

/// A row for each line through a curve.
pub(super) fn lines(all: &QualityCurves) -> Result<String> {
    let mut text = String::from("| Variant | difficulty | A(T) | b | R² | holds for T |\n|---|---|---|---|---|---|\n");
    for curve in &all.curves {
        let (variant, difficulty) = (&curve.variant, &curve.difficulty);
        let slope = curve.slope.map_or_else(|| NOTHING.into(), shown);
        match curve.fit {
            Some(Fit { a, b, r_squared, t_min, t_max }) => writeln!(
                text,
                "| {variant} | {difficulty} | {a:.3} + {b:.3} ln T | {slope} | {r_squared:.3} | {t_min} to {t_max} |"
            )?,
            None => writeln!(text, "| {variant} | {difficulty} | no line | {slope} | {NOTHING} | {NOTHING} |")?,
        }
    }
    Ok(text)
}

/// A row for each number of answers that were voted on.
pub(super) fn votes(all: &QualityCurves) -> Result<String> {
    let mut text =
        String::from("| Variant | difficulty | T | answers | accuracy | tokens in all |\n|---|---|---|---|---|---|\n");
    for curve in &all.curves {
        for votes in &curve.votes {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.1} |",
                curve.variant,
                curve.difficulty,
                votes.tokens,
                votes.samples,
                shown(votes.accuracy),
                votes.spent
            )?;
        }
    }
    Ok(text)
}

/// Names of the variants, in their order.
pub(super) fn variants(all: &QualityCurves) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for curve in &all.curves {
        if !found.contains(&curve.variant.as_str()) {
            found.push(&curve.variant);
        }
    }
    found
}

pub(super) fn curve<'a>(all: &'a QualityCurves, variant: &str, difficulty: &str) -> Option<&'a QualityCurve> {
    all.curves.iter().find(|curve| curve.variant == variant && curve.difficulty == difficulty)
}

pub(super) fn shown(share: Share) -> String {
    format!("{:.3} ({:.3} to {:.3})", share.value, share.low, share.high)
}
