//! `engine.throughput.*`: ours over `llama-server`'s, in interleaved pairs.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::grid::{self, Row, Tuning};
use super::host::Server;
use super::setting::{Bench, Precision};
use super::streams::{Load, Running};
use super::{Measured, ratio};

/// A load, the files it is measured with, and the load whose best tuning `llama-server` runs with.
struct Plan {
    load: Load,
    files: &'static [Precision],
    tuned_at: &'static str,
}

/// The grid takes long, so neighbours share its result. Q4_1, too, is measured at one stream and at sixteen.
fn plans() -> Result<Vec<Plan>> {
    const Q8: &[Precision] = &[Precision::Q8];
    const BOTH: &[Precision] = &[Precision::Q8, Precision::Q4];
    let fixed = |name, streams, files, tuned_at| Plan { load: Load::fixed(name, streams), files, tuned_at };
    Ok(vec![
        fixed("c1", 1, BOTH, "c1"),
        fixed("c16", 16, BOTH, "c16"),
        fixed("c8", 8, Q8, "c16"),
        fixed("c32", 32, Q8, "c16"),
        Plan { load: Load::azure(16)?, files: Q8, tuned_at: "azure" },
    ])
}

/// Measures the loads that are named, or all. Of two files the lesser bound is the figure.
pub(super) async fn measure(bench: &Bench, only: &[String], rows: &mut Vec<Row>) -> Result<Vec<Measured>> {
    bench.narrator.chapter("Throughput against llama-server");
    let mut best: BTreeMap<(Precision, &str), Tuning> = BTreeMap::new();
    let mut measured = Vec::new();
    let plans = plans()?;
    for plan in plans.iter().filter(|plan| only.is_empty() || only.iter().any(|name| name == plan.load.name)) {
        let mut bounds = Vec::new();
        for precision in plan.files.iter().copied() {
            let key = (precision, plan.tuned_at);
            if let Entry::Vacant(place) = best.entry(key) {
                let tuned = plans.iter().find(|other| other.load.name == plan.tuned_at);
                let (tuning, tried) = grid::fastest(bench, precision, &tuned.context("no such load")?.load).await?;
                rows.extend(tried);
                place.insert(tuning);
            }
            let tuning = best.get(&key).context("no tuning")?;
            bounds.push(bound(bench, precision, &plan.load, *tuning).await?);
        }
        let least = bounds.into_iter().min_by(f64::total_cmp).context("no file")?;
        measured.push((format!("engine.throughput.{}", plan.load.name), least));
    }
    Ok(measured)
}

/// The lower bound of the ratio over all pairs. Who is first changes from pair to pair.
async fn bound(bench: &Bench, precision: Precision, load: &Load, tuning: Tuning) -> Result<f64> {
    let window = if load.name == "azure" { bench.lengths.azure_window } else { bench.lengths.window };
    let mut ratios = Vec::new();
    for pair in 0..bench.lengths.pairs {
        let (own, peer) = if pair % 2 == 0 {
            let own = speed(bench, precision, load, window).await?;
            (own, grid::speed(bench, precision, load, tuning, window).await?)
        } else {
            let peer = grid::speed(bench, precision, load, tuning, window).await?;
            (speed(bench, precision, load, window).await?, peer)
        };
        bench.narrator.say(format_args!(
            "{} {}: ours {own:.1}, llama-server {peer:.1} tok/s, {:.3}",
            precision.name(),
            load.name,
            own / peer
        ));
        ratios.push(own / peer);
    }
    let (mean, bound) = (ratio::mean(&ratios)?, ratio::lower_bound(&ratios)?);
    bench.narrator.say(format_args!("{} {}: mean {mean:.3}, at least {bound:.3}", precision.name(), load.name));
    Ok(bound)
}

/// Tokens a second of a fresh inference pod.
async fn speed(bench: &Bench, precision: Precision, load: &Load, window: Duration) -> Result<f64> {
    let variants = bench.variants(&[precision]);
    let server = Server::pod(&bench.pod(&variants, load.room())).await?;
    let speed = Running::start(server.base(), load).await?.speed(window).await?;
    server.stop().await?;
    Ok(speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_tuned_at_one_that_is_measured_with_its_files() {
        let plans = plans().unwrap();
        for plan in &plans {
            let tuned = plans.iter().find(|other| other.load.name == plan.tuned_at).unwrap();
            assert!(plan.files.iter().all(|file| tuned.files.contains(file)), "{}", plan.load.name);
        }
    }
}
