//! What the family is made to show, and whether it does.

use anyhow::Result;
use quartermaster_core::capacity::quality_curve::{Point, QualityCurves};
use std::fmt::Write as _;

use super::tables::{curve, shown, variants};

/// Right answers of the best variant at the most tokens, by difficulty: at least and at most.
const BANDS: [(&str, f64, f64); 3] = [("easy", 0.9, 1.0), ("medium", 0.5, 0.8), ("hard", 0.2, 0.5)];
/// What the last variant has less than the best one, on medium tasks, at least.
const SPREAD_MIN: f64 = 0.05;
/// Share of the variance that a line must explain, and over what factor in tokens.
const FIT_MIN: f64 = 0.9;
const FACTOR_MIN: u32 = 8;

/// A row for each claim.
pub(super) fn claims(all: &QualityCurves) -> Result<String> {
    let mut text = String::from("| Claim | measured | |\n|---|---|---|\n");
    let mut row = |claim: &str, measured: &str, met: bool| {
        writeln!(text, "| {claim} | {measured} | {} |", if met { "met" } else { "missed" })
    };
    let names = variants(all);
    let last = |variant: &str, difficulty: &str| -> Option<Point> {
        curve(all, variant, difficulty).and_then(|curve| curve.points.last().copied())
    };
    let best = names.first().copied().unwrap_or_default();
    for (difficulty, low, high) in BANDS {
        if let Some(point) = last(best, difficulty) {
            let value = point.accuracy.value;
            let claim = format!("{best} on {difficulty}: {low} to {high}");
            row(&claim, &shown(point.accuracy), (low..=high).contains(&value))?;
        }
    }
    let medium: Vec<(&str, Point)> =
        names.iter().filter_map(|variant| Some((*variant, last(variant, "medium")?))).collect();
    for (place, (better, ahead)) in medium.iter().enumerate() {
        for (worse, behind) in medium.iter().skip(place + 1) {
            if behind.accuracy.low > ahead.accuracy.high {
                let measured = format!("{:.3} and {:.3}", ahead.accuracy.value, behind.accuracy.value);
                row(&format!("{better} at least as good as {worse} on medium"), &measured, false)?;
            }
        }
    }
    let values = || medium.iter().map(|(_, point)| point.accuracy.value);
    let spread = values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min);
    row(
        &format!("from the best to the worst on medium at least {SPREAD_MIN}"),
        &format!("{spread:.3}"),
        spread >= SPREAD_MIN,
    )?;
    // The variant that was asked at the most budgets tells most of the curve.
    let asked = |variant: &&str| curve(all, variant, "medium").map_or(0, |curve| curve.points.len());
    let closest = names.iter().rev().max_by_key(|variant| asked(variant)).copied().unwrap_or_default();
    for difficulty in ["medium", "hard"] {
        let fit = curve(all, closest, difficulty).and_then(|curve| curve.fit);
        let measured = fit.map_or_else(
            || "no line".into(),
            |fit| format!("R² {:.3} from {} to {} tokens", fit.r_squared, fit.t_min, fit.t_max),
        );
        let met = fit.is_some_and(|fit| fit.r_squared >= FIT_MIN && fit.t_max >= fit.t_min * FACTOR_MIN);
        let claim = format!("{closest} on {difficulty}: log-linear, R² at least {FIT_MIN} over a factor {FACTOR_MIN}");
        row(&claim, &measured, met)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::outcome::run;
    use super::*;

    #[test]
    fn a_claim_is_met_or_missed() {
        let text = claims(&curves(&[run("f16", 1), run("q2", 0)], "test").unwrap()).unwrap();
        assert!(
            text.contains("| f16 on medium: 0.5 to 0.8 | 0.600 (") && text.contains("at least 0.05 | 0.100 | met |")
        );
        assert!(
            text.contains(
                "on medium: log-linear, R² at least 0.9 over a factor 8 | R² 0.966 from 4 to 32 tokens | met |"
            ),
            "{text}"
        );
        let turned = claims(&curves(&[run("f16", 0), run("q2", 20)], "test").unwrap()).unwrap();
        assert!(turned.contains("| f16 at least as good as q2 on medium | 0.500 and 1.000 | missed |"), "{turned}");
    }
}
