//! `engine.throughput.*`: ours over `llama-server`'s, in interleaved pairs.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
    let mut ratios = Vec::new();
    for nth in 0..bench.lengths.pairs {
        let (own, peer) = pair(bench, precision, load, tuning, nth % 2 == 0).await?;
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

/// Tokens a second of a fresh inference pod and of a fresh `llama-server` that take turns: while one works the other is
/// stopped, so that both meet what else the machine does in these seconds.
async fn pair(bench: &Bench, precision: Precision, load: &Load, tuning: Tuning, own_first: bool) -> Result<(f64, f64)> {
    let variants = bench.variants(&[precision]);
    let own_server = Server::pod(&bench.pod(&variants, load.room())).await?;
    let mut own = Running::start(own_server.base(), load).await?;
    own_server.pause()?;
    let peer_server = grid::server(bench, precision, load, tuning).await?;
    let mut peer = Running::start(peer_server.base(), load).await?;
    peer_server.pause()?;
    let window = if load.name == "azure" { bench.lengths.azure_window } else { bench.lengths.window };
    for turn in 0..bench.lengths.turns {
        // First, second, second, first: a steady drift of the machine is no advantage.
        let own_begins = own_first == matches!(turn % 4, 0 | 3);
        let mut sides = [(&own_server, &mut own), (&peer_server, &mut peer)];
        if !own_begins {
            sides.reverse();
        }
        for (server, running) in sides {
            server.resume()?;
            running.work(window / bench.lengths.turns).await;
            server.pause()?;
        }
    }
    let speeds = (own.speed()?, peer.speed()?);
    own_server.stop().await?;
    peer_server.stop().await?;
    Ok(speeds)
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
