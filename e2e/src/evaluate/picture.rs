//! Accuracy over tokens, and over answers that vote, as SVG.

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use quartermaster_core::capacity::quality_curve::{Fit, QualityCurve, Share, Votes};
use std::path::Path;

const SIZE: (u32, u32) = (900, 520);
/// Points of a drawn line.
const LINE_POINTS: u32 = 32;
const COLOURS: [RGBColor; 9] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
];

/// Points of one name, with their intervals, and a line where there is one.
struct Series {
    name: String,
    points: Vec<(f64, Share)>,
    line: Vec<(f64, f64)>,
}

/// Draws the curves of one difficulty: points, and the line that was fitted.
pub(super) fn tokens(path: &Path, difficulty: &str, curves: &[&QualityCurve]) -> Result<()> {
    let series: Vec<Series> = curves
        .iter()
        .map(|curve| Series {
            name: curve.variant.clone(),
            points: curve.points.iter().map(|point| (f64::from(point.tokens), point.accuracy)).collect(),
            line: curve.fit.map(line).unwrap_or_default(),
        })
        .collect();
    draw(path, &format!("Accuracy on {difficulty} tasks"), "tokens of an answer, at most", &series)
}

/// Draws what self-consistency buys: a series for each variant, difficulty and limit of tokens. Nothing where no curve has
/// votes.
pub(super) fn votes(path: &Path, curves: &[QualityCurve]) -> Result<()> {
    let mut series = Vec::new();
    for curve in curves {
        for of_limit in curve.votes.chunk_by(|one, other| one.tokens == other.tokens) {
            let tokens = of_limit.first().map_or(0, |votes| votes.tokens);
            let at = |votes: &Votes| (f64::from(votes.samples), votes.accuracy);
            series.push(Series {
                name: format!("{}, {}, {tokens} tokens", curve.variant, curve.difficulty),
                points: of_limit.iter().map(at).collect(),
                line: of_limit.iter().map(at).map(|(samples, accuracy)| (samples, accuracy.value)).collect(),
            });
        }
    }
    if series.is_empty() {
        return Ok(());
    }
    draw(path, "The most frequent of several answers", "answers drawn to a question", &series)
}

fn draw(path: &Path, caption: &str, x: &str, series: &[Series]) -> Result<()> {
    onto(path, caption, x, series).map_err(|error| anyhow!("could not draw {}: {error}", path.display()))
}

fn onto(path: &Path, caption: &str, x: &str, series: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let places = || series.iter().flat_map(|series| &series.points).map(|(place, _)| *place);
    let (least, most) = (places().reduce(f64::min).context("no points")?, places().fold(0.0, f64::max));
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d((least..most.max(least + 1.0)).log_scale().base(2.0), 0.0..1.0)?;
    let whole = |place: &f64| format!("{place:.0}");
    chart
        .configure_mesh()
        .x_desc(x)
        .x_label_formatter(&whole)
        .y_desc("share of right answers")
        .max_light_lines(1)
        .draw()?;
    for (Series { name, points, line }, colour) in series.iter().zip(COLOURS.iter().copied().cycle()) {
        let bar = |(at, share): &(f64, Share)| {
            PathElement::new(vec![(*at, share.low), (*at, share.high)], colour.stroke_width(2))
        };
        chart.draw_series(points.iter().map(bar))?;
        let dot = |(at, share): &(f64, Share)| Circle::new((*at, share.value), 4, colour.filled());
        let drawn = chart.draw_series(points.iter().map(dot))?;
        drawn.label(name).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
        chart.draw_series(LineSeries::new(line.iter().copied(), colour))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
    root.present()?;
    Ok(())
}

fn line(fit: Fit) -> Vec<(f64, f64)> {
    let (low, high) = (f64::from(fit.t_min).ln(), f64::from(fit.t_max).ln());
    let at = |part: u32| (low + (high - low) * f64::from(part) / f64::from(LINE_POINTS)).exp();
    (0..=LINE_POINTS).map(|part| (at(part), fit.accuracy(at(part)))).collect()
}
