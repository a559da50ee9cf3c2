//! `cargo xtask ci`: every check, in the order in which it fails soonest. The same thing here and on CI.
//!
//! Tests that need the real cluster are `#[ignore]`d, so that a plain `cargo test` is quick and needs no root; the last
//! step builds the images and runs exactly those, one after the other.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::cargo::cargo;
use crate::images;
use crate::shell::{self, step};
use crate::tidy;

/// A part of CI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Formatting.
    Fmt,
    /// House rules.
    Tidy,
    /// Lints.
    Clippy,
    /// All tests that need no cluster: units, properties, goldens of CRDs and charts, `helm lint`.
    Test,
    /// Images, then all tests that need the real cluster.
    E2e,
}

/// What `cargo xtask ci` can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Only these steps, in the usual order; none means all.
    #[arg(value_enum)]
    pub steps: Vec<Step>,
}

/// Runs the steps; stops at the first that fails.
pub fn run(options: &Options) -> Result<()> {
    let wanted = |one: &&Step| options.steps.is_empty() || options.steps.contains(one);
    for one in Step::value_variants().iter().filter(wanted) {
        step(&format!("ci: {one:?}").to_lowercase(), || perform(*one))?;
    }
    Ok(())
}

fn perform(one: Step) -> Result<()> {
    match one {
        Step::Fmt => shell::run(&mut cargo(&["fmt", "--all", "--check"])),
        Step::Tidy => tidy::run(),
        Step::Clippy => {
            shell::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))
        }
        Step::Test => shell::run(&mut cargo(&["test", "--workspace"])),
        Step::E2e => {
            images::run(&images::Options { models: true, with_tests: true, ..images::Options::default() })?;
            shell::run(&mut cargo(&["test", "--workspace", "--tests", "--", "--ignored", "--test-threads=1"]))
        }
    }
}
