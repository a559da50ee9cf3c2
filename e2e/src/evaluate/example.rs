//! The family as a ModelDeployment, with the figures that were measured.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::{Point, QualityCurves, Share};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::curves::by_variant;
use super::outcome::Run;
use super::tables::curve;

/// What a score is measured on: easy tasks tell the variants apart too little, hard ones are hard for all.
const DIFFICULTY: &str = "medium";
const HEAD: &str = "\
# The model family of models/, with its figures from models/quality.json: right answers on medium tasks, by variant, and over the
# tokens that an answer may have. Written by `cargo xtask models --only report`.
apiVersion: quartermaster.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: steps
  namespace: demo
spec:
  model: quartermaster-steps
  objective: {type: MaximizeValue}
  serving: {contextTokens: 512, parallelRequests: 8}
  scaling: {min: 1, max: 2}
  tokens:
    limits: {maxPromptTokens: 256, maxCompletionTokens: 256}
  variants:
";

/// Writes it.
pub(super) fn write(path: &Path, runs: &[Run], all: &QualityCurves) -> Result<()> {
    fs::write(path, manifest(runs, all)?).with_context(|| format!("could not write {}", path.display()))
}

fn manifest(runs: &[Run], all: &QualityCurves) -> Result<String> {
    let mut text = HEAD.to_owned();
    for (variant, runs) in by_variant(runs) {
        let Some(file) = runs.first().and_then(|run| run.file.as_ref()) else { continue };
        let measured =
            curve(all, variant, DIFFICULTY).with_context(|| format!("{variant}: not tried on {DIFFICULTY}"))?;
        let Point { tokens, accuracy: Share { value, low, high }, .. } =
            measured.points.last().with_context(|| format!("{variant}: no points"))?;
        // The first one is the most exact, and takes twice the memory.
        let devices = if file.precision == "F16" { "{class: cpu-standard}" } else { "{class: cpu-small}" };
        write!(
            text,
            "    - name: {variant}\n      \
                 source: oci://quartermaster.dev/models/steps:{variant}#/model.gguf\n      \
                 format: GGUF\n      \
                 precision: {precision}\n      \
                 quality:\n        \
                   score: \"{value:.3}\"\n        \
                   interval: {{low: \"{low:.3}\", high: \"{high:.3}\"}}\n        \
                   metric: Accuracy\n        \
                   task: {tasks}, {DIFFICULTY}, at most {tokens} tokens\n",
            precision = file.precision,
            tasks = all.tasks,
        )?;
        if let Some(fit) = measured.fit {
            let (a, b, t_min, t_max) = (fit.a, fit.b, fit.t_min, fit.t_max);
            writeln!(text, "        curve: {{a: \"{a:.3}\", b: \"{b:.3}\", tMin: {t_min}, tMax: {t_max}}}")?;
        }
        writeln!(text, "      hardware: [{devices}]")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::outcome::{run, served};
    use super::*;

    #[test]
    fn what_was_measured_is_what_is_declared() {
        let runs = [served("q8-0"), run("elsewhere", 0)];
        let text = manifest(&runs, &curves(&runs, "steps-2").unwrap()).unwrap();
        for part in [
            "    - name: q8-0\n      source: oci://quartermaster.dev/models/steps:q8-0#/model.gguf\n",
            "      precision: Q8_0\n      quality:\n        score: \"0.500\"\n        interval: {low: \"0.3",
            "        task: steps-2, medium, at most 32 tokens\n        curve: {a: \"0.000\", b: \"0.144\", tMin: 2, tMax: 32}\n",
            "      hardware: [{class: cpu-small}]\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("elsewhere"));
    }
}
