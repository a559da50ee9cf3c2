//! The operator's process: see the library for what it does.

use clap::Parser;
use quartermaster_operator::args::Args;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    // Before any client is made; a second installation would be the only error.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("QM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    match quartermaster_operator::run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %quartermaster_operator::error::chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}
