//! What `bench-engine` measures: the inference pod beside `llama-server`, on the same file with the same threads.

mod client;
mod grid;
pub(crate) mod host;
mod latency;
mod overhead;
mod prefix;
pub(crate) mod prompts;
mod ratio;
mod setting;
mod streams;
mod swap;
mod throughput;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub use setting::{Bench, Lengths};

/// A figure's name and value.
pub type Measured = (String, f64);

/// A part that can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Tokens a second against `llama-server`.
    Throughput,
    /// Gaps between tokens while a long prompt arrives, against `llama-server`.
    Latency,
    /// Prompts with a common beginning.
    Prefix,
    /// CPU and memory beside the model.
    Overhead,
    /// From start to ready.
    Start,
    /// Another variant in a running pod.
    Swap,
}

/// Measures these parts, each figure told to `print` as soon as it is known. A part that fails does not stop the others;
/// returns the table of `llama-server`'s options.
///
/// # Errors
/// Names every part that failed.
pub async fn measure(
    bench: &Bench,
    parts: &[Part],
    loads: &[String],
    print: &mut dyn FnMut(&str, f64),
) -> (String, Result<()>) {
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for part in parts {
        let measured = match part {
            Part::Throughput => throughput::measure(bench, loads, &mut rows).await,
            Part::Latency => latency::measure(bench, &mut rows).await.map(|figure| vec![figure]),
            Part::Prefix => prefix::measure(bench).await.map(|figure| vec![figure]),
            Part::Overhead => overhead::measure(bench).await,
            Part::Start => overhead::start(bench).await.map(|figure| vec![figure]),
            Part::Swap => swap::measure(bench).await,
        };
        match measured {
            Ok(figures) => figures.iter().for_each(|(name, value)| print(name, *value)),
            Err(error) => {
                bench.narrator.say(format_args!("FAILED: {error:#}"));
                failures.push(format!("{part:?}: {error:#}"));
            }
        }
    }
    let table = match grid::table(&rows) {
        Ok(table) => table,
        Err(error) => {
            failures.push(format!("{error:#}"));
            String::new()
        }
    };
    let verdict = if failures.is_empty() { Ok(()) } else { failed(&failures) };
    (table, verdict)
}

fn failed(failures: &[String]) -> Result<()> {
    bail!("could not be measured: {}", failures.join("; "))
}
