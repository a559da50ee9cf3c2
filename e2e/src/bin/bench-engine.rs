//! Measures for `cargo xtask bench engine`: one JSON line a figure on stdout, the story and the table on stderr.

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use quartermaster_e2e::bench;
use quartermaster_e2e::bench::inference::{self, Bench, Lengths, Part};
use quartermaster_e2e::narrator::Narrator;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Measures the inference pod beside llama.cpp's server, on the same files with the same threads.
#[derive(Debug, Parser)]
struct Args {
    /// The model in Q8_0.
    #[arg(long, value_name = "GGUF")]
    q8_0: PathBuf,
    /// The model in Q4_1.
    #[arg(long, value_name = "GGUF")]
    q4_1: PathBuf,
    /// llama.cpp's `llama-server`.
    #[arg(long, value_name = "PROGRAM")]
    peer: PathBuf,
    /// The inference server; by default the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Threads of either engine; by default one for each core.
    #[arg(long)]
    threads: Option<u32>,
    /// Only these parts; none means all.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Only the throughput at these loads: c1, c8, c16, c32, azure.
    #[arg(long)]
    load: Vec<String>,
    /// Where the table of llama-server's options goes, in Markdown.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// See that everything runs, in a few minutes. What this prints is no figure.
    #[arg(long)]
    smoke: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    tokio::select! {
        measured = measure(&args) => measured,
        interrupted = interrupted() => interrupted,
    }
}

async fn measure(args: &Args) -> Result<()> {
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("quartermaster-inference-pod"));
    let cores = std::thread::available_parallelism().context("could not count the cores")?;
    let bench = Bench {
        server: args.server.clone().map_or_else(beside, Ok)?,
        peer: args.peer.clone(),
        q8_0: args.q8_0.clone(),
        q4_1: args.q4_1.clone(),
        profiles: tempfile::tempdir().context("no temporary folder")?,
        threads: args.threads.map_or_else(|| u32::try_from(cores.get()), Ok)?,
        lengths: if args.smoke { Lengths::SMOKE } else { Lengths::FULL },
        narrator: Narrator::on_stderr(),
    };
    let parts = if args.only.is_empty() { Part::value_variants() } else { args.only.as_slice() };
    let mut print = |figure: &str, value: f64| println!("{}", bench::line(figure, value));
    let (table, measured) = inference::measure(&bench, parts, &args.load, &mut print).await;
    eprintln!("\n{table}");
    if let Some(file) = &args.table {
        std::fs::write(file, table).with_context(|| format!("could not write {}", file.display()))?;
    }
    measured
}

async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}
