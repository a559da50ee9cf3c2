//! `bench skeleton`. The measuring needs the cluster, so a program of the e2e crate does it: it prints one line of
//! `{"figure": NAME, "value": NUMBER}` each; names, units and goals are here.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Goal, Measurement, figures, program};
use crate::images;

/// The program of the e2e crate that measures.
const PROGRAM: &str = "bench-skeleton";

pub(super) const GOALS: [Goal; 5] = [
    // From nothing but built programs and images to the end of the demo's story.
    Goal::at_most("skeleton.demo_warm_s", 360.0, "s"),
    // CPU time of the gateway per request that is not streamed, engine excluded.
    Goal::at_most("skeleton.gateway_cpu_us", 500.0, "us"),
    Goal::at_most("skeleton.operator_rss_mb", 64.0, "MB"),
    // Q8_0, eight streams, two cores. Differs from CPU to CPU; one with AVX2 and no more did 156.
    Goal::at_least("skeleton.engine_tok_s_c8", 150.0, "tok/s"),
    // Tokens a second of two replicas over those of one, in one run.
    Goal::at_least("skeleton.two_replicas_ratio", 1.5, "x"),
];

#[derive(Deserialize)]
struct Line {
    figure: String,
    value: f64,
}

/// Runs the program and reads its figures.
pub(super) fn measure() -> Result<Measurement> {
    let mut command = Command::new(program(PROGRAM)?);
    figures(command.arg("--model").arg(images::models::cached("q8_0")?))
}

/// A line that a measuring program printed.
pub(super) fn parse(line: &str) -> Result<(String, f64)> {
    let parsed: Line = serde_json::from_str(line).with_context(|| format!("no figure: {line:?}"))?;
    Ok((parsed.figure, parsed.value))
}
