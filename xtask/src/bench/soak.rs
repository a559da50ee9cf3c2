//! `bench soak`: half an hour of the inference server under clients of every manner. CI never runs it; `make soak` does.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::skeleton::parse;
use super::{Goal, Measurement};
use crate::cargo::{self, Build};
use crate::{images, shell, workspace};

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
    let built = cargo::programs(Build::Programs)?;
    let program = built.get(PROGRAM).with_context(|| format!("cargo built no {PROGRAM}"))?;
    images::run(&images::Options { models: true, ..images::Options::default() })?;
    let plot = workspace::root().join(PLOT);
    let mut command = Command::new(program);
    command.arg("--model").arg(images::models::cached("q8_0")?).arg("--plot").arg(&plot);
    let output = shell::capture(command.stderr(Stdio::inherit()))?;
    ensure!(plot.exists(), "{} was not drawn", plot.display());
    let values = output.lines().filter(|line| line.starts_with('{')).map(parse).collect::<Result<_>>()?;
    Ok(Measurement { values, failure: None })
}
