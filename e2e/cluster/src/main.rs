//! Command line of the cluster harness; everything is in the library.

use std::process::ExitCode;

use clap::Parser;
use quartermaster_cluster::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
