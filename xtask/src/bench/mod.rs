//! `cargo xtask bench NAME`: measures, and prints one JSON line a figure. A figure that is not measured is an error,
//! never a made-up number.

mod engine;
mod figure;
mod logits;
mod peer;
mod skeleton;
mod soak;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo::{self, Build};
use crate::{images, shell};

pub use figure::{Figure, Goal};

/// A named set of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// The walking skeleton: the demo's time, the gateway's and the operator's appetite, the engine's speed.
    Skeleton,
    /// The inference server against llama.cpp's own, on the same files.
    Engine,
    /// Whether the inference server says what the reference implementation says, on the same weights.
    Logits,
    /// Half an hour of the inference server under clients of every manner; its plot goes to docs/soak-engine.svg.
    Soak,
}

/// What a program measured, and why it did not measure the rest.
#[derive(Debug)]
struct Measurement {
    values: Vec<(String, f64)>,
    failure: Option<Error>,
}

/// What `cargo xtask bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Which one.
    #[arg(value_enum)]
    pub name: Bench,
}

/// Measures and prints. Missing a goal is a result, not an error; failing to measure is one, after what was measured.
pub fn run(options: &Options) -> Result<()> {
    let (goals, measurement) = match options.name {
        Bench::Skeleton => (skeleton::GOALS.as_slice(), skeleton::measure()?),
        Bench::Engine => (engine::GOALS.as_slice(), engine::measure()?),
        Bench::Logits => (logits::GOALS.as_slice(), logits::measure()?),
        Bench::Soak => (soak::GOALS.as_slice(), soak::measure()?),
    };
    let (figures, problems) = judge(goals, &measurement.values);
    for figure in figures {
        println!("{}", serde_json::to_string(&figure)?);
    }
    match measurement.failure {
        Some(failure) => Err(failure.context(problems.join("; "))),
        None if problems.is_empty() => Ok(()),
        None => bail!("{}", problems.join("; ")),
    }
}

/// A program as cargo builds it, with the model files that it measures with.
fn program(name: &str) -> Result<PathBuf> {
    let built = cargo::programs(Build::Programs)?.remove(name).with_context(|| format!("cargo built no {name}"))?;
    images::run(&images::Options { models: true, ..images::Options::default() })?;
    Ok(built)
}

/// Runs a program of the e2e crate that prints one line a figure, its story on stderr.
fn figures(command: &mut Command) -> Result<Measurement> {
    let output = shell::capture(command.stderr(Stdio::inherit()))?;
    let values = output.lines().filter(|line| line.starts_with('{')).map(skeleton::parse).collect::<Result<_>>()?;
    Ok(Measurement { values, failure: None })
}

/// Every figure that has a goal and was measured, in the order of the goals; and what is wrong with the others.
fn judge(goals: &[Goal], measured: &[(String, f64)]) -> (Vec<Figure>, Vec<String>) {
    let known = |name: &str| goals.iter().any(|goal| goal.figure == name);
    let unknown = measured.iter().filter(|(name, _)| !known(name));
    let mut problems: Vec<String> = unknown.map(|(name, _)| format!("{name} was measured, but has no goal")).collect();
    let mut figures = Vec::new();
    for goal in goals {
        match measured.iter().find(|(name, _)| name == goal.figure) {
            Some((_, value)) if value.is_finite() => figures.push(goal.figure(*value)),
            Some((name, value)) => problems.push(format!("{name} was measured as {value}")),
            None => problems.push(format!("{} was not measured", goal.figure)),
        }
    }
    (figures, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: [Goal; 2] = [Goal::at_most("a.time_s", 10.0, "s"), Goal::at_least("a.speed", 5.0, "tok/s")];

    #[test]
    fn figures_are_judged_in_the_direction_of_their_goal() {
        let measured = [("a.speed".to_owned(), 4.0), ("a.time_s".to_owned(), 10.0)];
        let (figures, problems) = judge(&GOALS, &measured);
        assert!(problems.is_empty());
        assert_eq!(figures.iter().map(|figure| figure.met).collect::<Vec<_>>(), [true, false]);
        assert_eq!(
            serde_json::to_string(&figures[1]).unwrap(),
            r#"{"figure":"a.speed","value":4.0,"unit":"tok/s","goal":">= 5","met":false}"#
        );
    }

    #[test]
    fn what_is_missing_unknown_or_no_number_is_a_problem_and_the_rest_is_kept() {
        let judged = |measured: &[(&str, f64)]| {
            let owned: Vec<_> = measured.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let (figures, problems) = judge(&GOALS, &owned);
            (figures.len(), problems.join("; "))
        };
        assert_eq!(judged(&[("a.time_s", 1.0)]), (1, "a.speed was not measured".to_owned()));
        let (figures, problems) = judged(&[("a.other", 1.0)]);
        assert!(figures == 0 && problems.contains("a.other"));
        let (figures, problems) = judged(&[("a.time_s", f64::NAN), ("a.speed", 1.0)]);
        assert!(figures == 1 && problems.contains("NaN"));
    }
}
