//! Accuracy over tokens, as SVG.

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use quartermaster_core::capacity::quality_curve::{Fit, QualityCurve};
use std::path::Path;

const SIZE: (u32, u32) = (900, 520);
/// Points of a drawn line.
const LINE_POINTS: u32 = 32;
const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
];

/// Draws the curves of one difficulty: points with their intervals, and the line where there is one.
pub(super) fn draw(path: &Path, difficulty: &str, curves: &[&QualityCurve]) -> Result<()> {
    onto(path, difficulty, curves).map_err(|error| anyhow!("could not draw {}: {error}", path.display()))
}

fn onto(path: &Path, difficulty: &str, curves: &[&QualityCurve]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let tokens =
        || curves.iter().flat_map(|curve| &curve.points).map(|point| point.tokens).filter(|tokens| *tokens > 0);
    let (least, most) = (tokens().min().context("no points")?, tokens().max().context("no points")?);
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Accuracy on {difficulty} tasks"), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d((f64::from(least)..f64::from(most.max(least + 1))).log_scale().base(2.0), 0.0..1.0)?;
    chart.configure_mesh().x_desc("tokens of an answer, at most").y_desc("share of right answers").draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().copied().cycle()) {
        let points = || curve.points.iter().filter(|point| point.tokens > 0);
        let bars = points().map(|point| {
            let at = f64::from(point.tokens);
            PathElement::new(vec![(at, point.accuracy.low), (at, point.accuracy.high)], colour.stroke_width(2))
        });
        chart.draw_series(bars)?;
        let dots =
            points().map(|point| Circle::new((f64::from(point.tokens), point.accuracy.value), 4, colour.filled()));
        let drawn = chart.draw_series(dots)?;
        drawn.label(&curve.variant).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        if let Some(fit) = curve.fit {
            chart.draw_series(LineSeries::new(line(fit), colour))?;
        }
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

fn line(fit: Fit) -> Vec<(f64, f64)> {
    let (low, high) = (f64::from(fit.t_min).ln(), f64::from(fit.t_max).ln());
    let at = |part: u32| (low + (high - low) * f64::from(part) / f64::from(LINE_POINTS)).exp();
    (0..=LINE_POINTS).map(|part| (at(part), fit.accuracy(at(part)))).collect()
}
