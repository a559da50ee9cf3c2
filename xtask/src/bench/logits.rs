//! `bench logits`: whether our engine says what the reference implementation says, token by token, on the same weights.
//! Hugging Face's transformers on PyTorch, installed once in the user's cache: some gigabytes, so CI never runs it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Goal, Measurement, program};
use crate::{images, python, shell, workspace};

const ENGINE: &str = "quartermaster-inference-pod";
const SCRIPT: &str = "xtask/src/bench/logits.py";
const TEXT: &str = "inference-pod/testdata/perplexity.txt";
/// Tokens that are compared.
const WINDOW: &str = "1024";
/// What the reference takes as a model's folder.
const FILE: &str = "model.gguf";

pub(super) const GOALS: [Goal; 2] = [
    // Share of positions where both would say the same next, greedily.
    Goal::at_least("logits.f16_same", 0.99, "of positions"),
    // Our engine rounds activations to eight bits there, the reference does not.
    Goal::at_least("logits.q8_0_same", 0.95, "of positions"),
];

/// The likeliest token after each of `tokens`.
#[derive(Deserialize)]
struct Greedy {
    #[serde(default)]
    tokens: Vec<i32>,
    next: Vec<i32>,
}

/// Asks both for either precision.
pub(super) fn measure() -> Result<Measurement> {
    let engine = program(ENGINE)?;
    let python = python::environment()?;
    let mut values = Vec::new();
    for precision in ["f16", "q8_0"] {
        let same = same(&engine, &python, &images::models::cached(precision)?)?;
        values.push((format!("logits.{precision}_same"), same));
    }
    Ok(Measurement { values, failure: None })
}

fn same(engine: &Path, python: &Path, model: &Path) -> Result<f64> {
    let mut ask = Command::new(engine);
    ask.args(["perplexity", "--greedy", "--window", WINDOW, "--model"]).arg(model);
    let own = shell::capture(ask.arg("--text").arg(workspace::root().join(TEXT)))?;
    let own: Greedy = serde_json::from_str(&own).context("our engine's answer")?;
    let folder = tempfile::tempdir().context("making a folder for the model")?;
    let file = folder.path().join(FILE);
    std::os::unix::fs::symlink(model, &file).context("linking the model")?;
    let mut reference = Command::new(python);
    reference.arg(workspace::root().join(SCRIPT)).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = reference.spawn().context("starting the reference")?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(serde_json::json!({"tokens": own.tokens}).to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the reference ended with {}", output.status);
    let other: Greedy = serde_json::from_slice(&output.stdout).context("the reference's answer")?;
    share(&own.next, &other.next)
}

/// Share of places where both are the same.
fn share(own: &[i32], other: &[i32]) -> Result<f64> {
    ensure!(own.len() == other.len() && !own.is_empty(), "{} and {} tokens", own.len(), other.len());
    let same = own.iter().zip(other).filter(|(own, other)| own == other).count();
    let count = |count: usize| u32::try_from(count).map(f64::from);
    Ok(count(same)? / count(own.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_lengths_must_agree() {
        assert!((share(&[1, 2, 3, 4], &[1, 2, 9, 4]).unwrap() - 0.75).abs() < 1e-9);
        assert!(share(&[1], &[1, 2]).is_err() && share(&[], &[]).is_err());
    }
}
