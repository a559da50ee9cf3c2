//! `bench soak`: half an hour of the inference server under clients of every manner. CI never runs it; `make soak` does.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{Goal, Measurement, figures, program};
use crate::{images, workspace};

/// The program of the e2e crate that soaks.
const PROGRAM: &str = "bench-soak";
/// The plot, from the project's folder.
const PLOT: &str = "docs/soak-engine.svg";

pub(super) const GOALS: [Goal; 5] = [
    // All that ended as they should, those included whose clients left.
    Goal::at_least("soak.engine_requests", 1000.0, "requests"),
    Goal::at_most("soak.engine_failed", 0.0, "requests"),
    // Median of the last sixth of the time over that of the second.
    Goal::at_most("soak.engine_rss_growth_mb", 5.0, "MB"),
    Goal::at_most("soak.engine_slots_left", 0.0, "requests"),
    Goal::at_most("soak.engine_kv_left", 0.0, "tokens"),
];

/// Runs the program and reads its figures.
pub(super) fn measure() -> Result<Measurement> {
    let mut command = Command::new(program(PROGRAM)?);
    let plot = workspace::root().join(PLOT);
    let measured = figures(command.arg("--model").arg(images::models::cached("q8_0")?).arg("--plot").arg(&plot))?;
    ensure!(plot.exists(), "{} was not drawn", plot.display());
    Ok(measured)
}
