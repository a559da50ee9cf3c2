//! The binary: parse, log, run.

use clap::Parser;
use quartermaster_inference_pod::args::Args;
use quartermaster_inference_pod::commands;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

/// glibc's allocator keeps what a load, a swap or a burst of requests has freed; this one, as `.cargo/config.toml` sets it,
/// gives it back at once.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("QM_LOG").unwrap_or_else(|_| EnvFilter::new("info,llama-cpp-2=warn"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    match commands::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(reason = ?failure.reason, "{}", failure.message);
            failure.exit_code()
        }
    }
}
