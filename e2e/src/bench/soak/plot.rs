//! Memory, requests and KV cache over time, as SVG.

use super::Sample;
use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 640);

/// Draws the samples into a file.
pub(super) fn draw(path: &Path, samples: &[Sample]) -> Result<()> {
    let last = samples.last().context("there is nothing to draw")?.minutes;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: String| anyhow!("could not draw {}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    let panels = root.split_evenly((2, 1));
    let memory: Vec<Line<'_>> = vec![("resident memory, MB", BLUE, &|sample| sample.resident_mb)];
    let work: Vec<Line<'_>> = vec![
        ("requests that run", BLUE, &|sample| sample.running),
        ("requests that wait", RED, &|sample| sample.waiting),
        ("tokens in the KV cache, hundreds", BLACK, &|sample| sample.kv_tokens / 100.0),
    ];
    for (panel, lines) in panels.iter().zip([memory, work]) {
        panel_of(panel, last, samples, &lines).map_err(|error| failed(error.to_string()))?;
    }
    root.present().map_err(|error| failed(error.to_string()))
}

type Line<'a> = (&'a str, RGBColor, &'a dyn Fn(&Sample) -> f64);
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel_of(
    panel: &Area<'_>,
    last: f64,
    samples: &[Sample],
    lines: &[Line<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let values = lines.iter().flat_map(|(.., value)| samples.iter().map(value));
    let most = values.fold(1.0_f64, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last.max(0.1), 0.0..most)?;
    chart.configure_mesh().x_desc("minutes").draw()?;
    for (name, colour, value) in lines {
        let points = samples.iter().map(|sample| (sample.minutes, value(sample)));
        let drawn = chart.draw_series(LineSeries::new(points, colour))?;
        let colour = *colour;
        drawn.label(*name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE).draw()?;
    Ok(())
}
