//! `cargo xtask`: the developer's tasks.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, ci, family, generate, images, tidy};

/// Developer tasks of Quartermaster.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the files that are generated from code: CRDs, the references of fields and metrics, the charts' goldens.
    Gen,
    /// Build container images as OCI tars, without a container engine.
    Images(images::Options),
    /// Check the house rules.
    Tidy,
    /// Run what CI runs, or only the steps named.
    Ci(ci::Options),
    /// Train and measure the model family under models/; hours of work.
    Models(family::Options),
    /// Measure, and print one JSON line a figure.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Gen => generate::run(),
        Task::Images(options) => images::run(&options),
        Task::Tidy => tidy::run(),
        Task::Ci(options) => ci::run(&options),
        Task::Models(options) => family::run(&options),
        Task::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
