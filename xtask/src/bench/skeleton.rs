//! `bench skeleton`. The measuring needs the cluster, so a program of the e2e crate does it: it prints one line of
//! `{"figure": NAME, "value": NUMBER}` each; names, units and goals are here.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Goal;
use crate::cargo::{self, Build};
use crate::{images, shell};

/// The program of the e2e crate that measures.
const PROGRAM: &str = "bench-skeleton";

pub(super) const GOALS: [Goal; 4] = [
    // From `make demo` with warm caches to the end of its story.
    Goal::at_most("skeleton.demo_warm_s", 360.0, "s"),
    // CPU time that the gateway spends on a request that is not streamed, engine excluded.
    Goal::at_most("skeleton.gateway_cpu_us", 500.0, "us"),
    Goal::at_most("skeleton.operator_rss_mb", 64.0, "MB"),
    // Q8_0, eight streams, two cores. Differs from CPU to CPU; one with AVX2 and no more did 156.
    Goal::at_least("skeleton.engine_tok_s_c8", 150.0, "tok/s"),
];

#[derive(Deserialize)]
struct Line {
    figure: String,
    value: f64,
}

/// Runs the program and reads its figures.
pub(super) fn measure() -> Result<Vec<(String, f64)>> {
    let built = cargo::programs(Build::Programs)?;
    let program = built.get(PROGRAM).with_context(|| {
        format!("nothing measures this yet: e2e has no program {PROGRAM} (e2e/src/bin/{PROGRAM}.rs)")
    })?;
    images::run(&images::Options { models: true, ..images::Options::default() })?;
    let mut command = Command::new(program);
    let output = shell::capture(command.stderr(std::process::Stdio::inherit()))?;
    output.lines().filter(|line| line.starts_with('{')).map(parse).collect()
}

fn parse(line: &str) -> Result<(String, f64)> {
    let parsed: Line = serde_json::from_str(line).with_context(|| format!("{PROGRAM} printed {line:?}"))?;
    Ok((parsed.figure, parsed.value))
}
