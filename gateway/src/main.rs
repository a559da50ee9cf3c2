//! The gateway's process: flags, logs, signals. Everything else is in the library.

use clap::Parser;
use quartermaster_gateway::Gateway;
use quartermaster_gateway::args::Args;
use quartermaster_gateway::limits::UNROUTE_LAG;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("QM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if args.threads > 0 {
        runtime.worker_threads(args.threads);
    }
    runtime.enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let gateway = Gateway::start(&args).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(drain_seconds = args.drain_seconds, "stopping");
    gateway.stop(UNROUTE_LAG, Duration::from_secs(args.drain_seconds)).await;
    Ok(())
}
