//! The ledger's process: flags, logs, signals. Everything else is in the library.

use anyhow::Context as _;
use clap::Parser as _;
use quartermaster_ledger::args::Args;
use quartermaster_ledger::clock::Clock;
use quartermaster_ledger::server::Ledger;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("`--log {}` is no filter", args.log))?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't listen to SIGINT")?;
        let ledger = Ledger::open(&args, Clock::system()).await?;
        ledger
            .serve(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
    })
}
