//! Measures for `cargo xtask bench skeleton`: one JSON line a figure on stdout, the story on stderr.

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use quartermaster_e2e::bench;
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::Stage;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Name of the cluster that is made for the measuring and taken down after it.
const CLUSTER: &str = "bench";

/// Measures the walking skeleton, the cluster's part of it on a fresh cluster named `bench` that is taken down again.
#[derive(Debug, Parser)]
struct Args {
    /// The demo's model in Q8_0, for the engine alone.
    #[arg(long, value_name = "GGUF")]
    model: PathBuf,
    /// The inference server; by default the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Only these figures; none means all.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Engine,
    Demo,
    Operator,
    Gateway,
    Replicas,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let narrator = Narrator::on_stderr();
    if args.wants(Part::Engine) {
        let server = match &args.server {
            Some(server) => server.clone(),
            None => std::env::current_exe()?.with_file_name("quartermaster-inference-pod"),
        };
        print("skeleton.engine_tok_s_c8", bench::tokens_per_second(&server, &args.model, &narrator).await?);
    }
    if Part::value_variants().iter().any(|part| *part != Part::Engine && args.wants(*part)) {
        take_down().await.context("could not take an earlier cluster down")?;
        let measured = tokio::select! {
            measured = on_the_cluster(&args, &narrator) => measured,
            interrupted = interrupted() => interrupted,
        };
        let down = take_down().await;
        measured.and(down)?;
    }
    Ok(())
}

async fn on_the_cluster(args: &Args, narrator: &Narrator) -> Result<()> {
    let stage = if args.wants(Part::Demo) {
        let (stage, seconds) = bench::demo(CLUSTER, narrator).await?;
        print("skeleton.demo_warm_s", seconds);
        stage
    } else {
        Stage::set_up(CLUSTER, narrator).await?
    };
    if args.wants(Part::Gateway) {
        print("skeleton.gateway_cpu_us", bench::gateway_cpu(&stage, narrator).await?);
    }
    if args.wants(Part::Replicas) {
        print("skeleton.two_replicas_ratio", bench::two_replicas(&stage, narrator).await?);
    }
    // Last, when it has the most behind it.
    if args.wants(Part::Operator) {
        print("skeleton.operator_rss_mb", bench::operator_memory(&stage)?);
    }
    Ok(())
}

fn print(figure: &str, value: f64) {
    println!("{}", bench::line(figure, value));
}

async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}

async fn take_down() -> Result<()> {
    tokio::task::spawn_blocking(|| quartermaster_cluster::lifecycle::down(CLUSTER)).await?
}
