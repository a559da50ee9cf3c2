//! `bench engine`. A program of the e2e crate measures, our inference pod and `llama-server` in turn; here are names,
//! units and goals, and where both servers and the model files come from.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::skeleton::parse;
use super::{Goal, Measurement, peer, program};
use crate::{images, workspace};

/// The program of the e2e crate that measures.
const PROGRAM: &str = "bench-engine";
/// The table of `llama-server`'s options, in cargo's target folder.
const TABLE: &str = "bench-engine-grid.md";

pub(super) const GOALS: [Goal; 12] = [
    // Lower end of the 95 % interval of our tokens a second over llama-server's, at its best of a grid.
    Goal::at_least("engine.throughput.c1", 0.97, "x"),
    Goal::at_least("engine.throughput.c8", 0.97, "x"),
    Goal::at_least("engine.throughput.c16", 0.97, "x"),
    Goal::at_least("engine.throughput.c32", 0.97, "x"),
    Goal::at_least("engine.throughput.azure", 1.05, "x"),
    // p99 of the gaps between tokens while a 2,000-token prompt is computed, ours over llama-server's.
    Goal::at_most("engine.itl_p99_under_prefill", 0.5, "x"),
    // Prompt tokens computed over the least possible.
    Goal::at_most("engine.prefix_compute_ratio", 1.1, "x"),
    Goal::at_most("engine.overhead_cpu_percent", 3.0, "%"),
    Goal::at_most("engine.overhead_rss_mb", 40.0, "MB"),
    Goal::at_most("engine.start_s", 2.0, "s"),
    Goal::at_most("engine.swap_failed", 0.0, "requests"),
    Goal::at_most("engine.swap_stall_ms", 1000.0, "ms"),
];

/// Builds what is missing, runs the program and reads its figures: all those it printed, even if it fails then.
pub(super) fn measure() -> Result<Measurement> {
    let program = program(PROGRAM)?;
    let q8_0 = images::models::cached("q8_0")?;
    let table = program.with_file_name(TABLE);
    let mut command = Command::new(&program);
    command.arg("--peer").arg(peer::llama_server()?).arg("--q4-1").arg(q4_1(&q8_0)?).arg("--q8-0").arg(q8_0);
    command.arg("--table").arg(&table);
    let measurement = run(&mut command)?;
    eprintln!("llama-server's grid: {}", table.display());
    Ok(measurement)
}

/// The file as the model's package carries it: it lies beside the folder of those that are derived from it.
fn q4_1(derived: &std::path::Path) -> Result<PathBuf> {
    let folder = derived.ancestors().nth(2).context("a model file without a folder")?;
    let file = folder.join("original.gguf");
    anyhow::ensure!(file.exists(), "{} is missing: make it with `cargo xtask images --models`", file.display());
    Ok(file)
}

fn run(command: &mut Command) -> Result<Measurement> {
    let mut child = command
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {PROGRAM}"))?;
    let output = child.stdout.take().context("no output")?;
    let lines = BufReader::new(output).lines().collect::<std::io::Result<Vec<_>>>();
    let status = child.wait().with_context(|| format!("waiting for {PROGRAM}"))?;
    let values = lines?.iter().filter(|line| line.starts_with('{')).map(|line| parse(line)).collect::<Result<_>>()?;
    Ok(Measurement { values, failure: (!status.success()).then(|| anyhow!("{PROGRAM} ended with {status}")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_before_a_failure_is_kept() {
        let script = r#"echo '{"figure":"engine.start_s","value":1.5}'; exit 3"#;
        let measurement = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(measurement.values, [("engine.start_s".to_owned(), 1.5)]);
        assert!(measurement.failure.unwrap().to_string().contains('3'));
    }
}
