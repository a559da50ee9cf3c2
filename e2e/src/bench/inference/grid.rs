//! `llama-server` at its best: a grid of its options, measured, and the table that says so.

use anyhow::{Context, Result};
use std::fmt::Write as _;

use super::Bench;
use super::host::{Peer, Server};
use super::setting::Precision;
use super::streams::{Load, Running};

/// Rows of a physical batch that are tried.
const UBATCHES: [u32; 2] = [128, 512];
/// Shortest piece of a prompt that is reused where cache reuse is on.
const REUSE_TOKENS: u32 = 64;

/// What differs between one `llama-server` and another. Slots are as many as streams, batching is continuous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// One KV buffer for all slots.
    pub(super) unified: bool,
    /// Flash attention.
    pub(super) flash: bool,
    /// Rows of a physical batch.
    pub(super) ubatch: u32,
    /// What else.
    pub(super) extra: Extra,
}

/// One more option that is tried on the best of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// None: `llama-server`'s defaults.
    None,
    /// Pieces of prompts are reused by shifting the KV cache.
    Reuse,
    /// No cache of idle slots in host memory.
    NoHostCache,
    /// The logical batch is no larger than the physical one.
    SmallBatch,
}

impl Extra {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Reuse => "cache reuse",
            Self::NoHostCache => "no host cache",
            Self::SmallBatch => "batch = ubatch",
        }
    }
}

impl Tuning {
    /// Every combination, without extras.
    pub(super) fn grid() -> Vec<Self> {
        let both = [false, true];
        let flash = move |unified| both.into_iter().map(move |flash| (unified, flash));
        let pairs = both.into_iter().flat_map(flash);
        let all = pairs.flat_map(|(unified, flash)| UBATCHES.map(|ubatch| (unified, flash, ubatch)));
        all.map(|(unified, flash, ubatch)| Self { unified, flash, ubatch, extra: Extra::None }).collect()
    }

    /// The command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut line = vec![
            "--cont-batching".to_owned(),
            if self.unified { "--kv-unified" } else { "--no-kv-unified" }.to_owned(),
            "--flash-attn".to_owned(),
            if self.flash { "on" } else { "off" }.to_owned(),
            "--ubatch-size".to_owned(),
            self.ubatch.to_string(),
        ];
        let mut more = |flag: &str, value: u32| line.extend([flag.to_owned(), value.to_string()]);
        match self.extra {
            Extra::None => {}
            Extra::Reuse => more("--cache-reuse", REUSE_TOKENS),
            Extra::NoHostCache => more("--cache-ram", 0),
            Extra::SmallBatch => more("--batch-size", self.ubatch),
        }
        line
    }

    /// Three cells and what is extra, for the table.
    fn cells(&self) -> String {
        let kv = if self.unified { "unified" } else { "per slot" };
        let flash = if self.flash { "on" } else { "off" };
        format!("{kv} | {flash} | {} | {}", self.ubatch, self.extra.name())
    }
}

/// One measured row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) tuning: Tuning,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

/// The table in Markdown; the rows that were taken are marked by the caller's order.
pub(super) fn table(rows: &[Row]) -> Result<String> {
    let mut text =
        String::from("| load | KV | flash attention | ubatch | extra | value |\n|---|---|---|---|---|---|\n");
    for Row { what, tuning, value, unit } in rows {
        writeln!(text, "| {what} | {} | {value:.1} {unit} |", tuning.cells()).context("could not write the table")?;
    }
    Ok(text)
}

/// The fastest tuning for this load and file, with all that was tried.
pub(super) async fn fastest(bench: &Bench, precision: Precision, load: &Load) -> Result<(Tuning, Vec<Row>)> {
    let mut rows = Vec::new();
    for tuning in Tuning::grid().into_iter().take(bench.lengths.grid) {
        rows.push(row(bench, precision, load, tuning).await?);
    }
    let plain = best(&rows)?;
    for extra in [Extra::Reuse, Extra::NoHostCache] {
        rows.push(row(bench, precision, load, Tuning { extra, ..plain }).await?);
    }
    Ok((best(&rows)?, rows))
}

fn best(rows: &[Row]) -> Result<Tuning> {
    let best = rows.iter().max_by(|left, right| left.value.total_cmp(&right.value));
    Ok(best.context("an empty grid")?.tuning)
}

async fn row(bench: &Bench, precision: Precision, load: &Load, tuning: Tuning) -> Result<Row> {
    let value = speed(bench, precision, load, tuning).await?;
    let what = format!("{} {}", precision.name(), load.name);
    bench.narrator.say(format_args!("{what} | {} | {value:.1} tok/s", tuning.cells()));
    Ok(Row { what, tuning, value, unit: "tok/s" })
}

/// Tokens a second of a fresh `llama-server`.
async fn speed(bench: &Bench, precision: Precision, load: &Load, tuning: Tuning) -> Result<f64> {
    let server = server(bench, precision, load, tuning).await?;
    let mut running = Running::start(server.base(), load).await?;
    running.work(bench.lengths.grid_window).await;
    let speed = running.speed()?;
    server.stop().await?;
    Ok(speed)
}

/// A fresh `llama-server` for this load.
pub(super) async fn server(bench: &Bench, precision: Precision, load: &Load, tuning: Tuning) -> Result<Server> {
    let (file, room) = (bench.file(precision), load.room());
    Server::peer(&Peer { program: &bench.peer, file, room, threads: bench.threads, tuning }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ubatch: u32, value: f64) -> Row {
        let tuning = Tuning { unified: true, flash: false, ubatch, extra: Extra::None };
        Row { what: "q8_0 c1".into(), tuning, value, unit: "tok/s" }
    }

    #[test]
    fn the_grid_is_whole_and_its_best_is_taken() {
        let grid = Tuning::grid();
        assert_eq!(grid.len(), 8);
        assert!(grid.iter().all(|one| grid.iter().filter(|other| one == *other).count() == 1));
        assert_eq!(best(&[row(128, 3.0), row(512, 4.0)]).unwrap().ubatch, 512);
        assert!(best(&[]).is_err());
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let text = table(&[row(128, 3.04)]).unwrap();
        assert_eq!(text.lines().last(), Some("| q8_0 c1 | unified | off | 128 |  | 3.0 tok/s |"));
    }

    #[test]
    fn extras_are_passed_on() {
        let tuning = Tuning { unified: false, flash: true, ubatch: 128, extra: Extra::SmallBatch };
        let line = tuning.arguments().join(" ");
        assert_eq!(line, "--cont-batching --no-kv-unified --flash-attn on --ubatch-size 128 --batch-size 128");
    }
}
