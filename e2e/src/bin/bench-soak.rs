//! Soaks the inference server for `cargo xtask bench soak`: one JSON line a figure on stdout, the story on stderr.

use anyhow::Result;
use clap::Parser;
use quartermaster_e2e::bench::{self, Soak};
use quartermaster_e2e::narrator::Narrator;
use std::path::PathBuf;
use std::time::Duration;

/// Lets clients of every manner loose on the inference server, and looks at what it holds.
#[derive(Debug, Parser)]
struct Args {
    /// A model file.
    #[arg(long, value_name = "GGUF")]
    model: PathBuf,
    /// The inference server; by default the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Where the plot goes, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("quartermaster-inference-pod"));
    let soak = Soak {
        server: args.server.map_or_else(beside, Ok)?,
        model: args.model,
        time: Duration::from_secs(args.minutes.saturating_mul(60)),
        plot: args.plot,
        narrator: Narrator::on_stderr(),
    };
    for (figure, value) in bench::soak(&soak).await? {
        println!("{}", bench::line(&figure, value));
    }
    Ok(())
}
