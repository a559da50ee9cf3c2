//! `engine.overhead_cpu_percent`, `engine.overhead_rss_mb`: what the server takes beside the model, at sixteen streams.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

use super::Measured;
use super::host::Server;
use super::prefix::print;
use super::setting::{Bench, Precision};
use super::streams::{Load, Running};
use crate::bench::float;
use crate::bench::process::Thread;

const STREAMS: u32 = 16;
const PRECISION: Precision = Precision::Q8;
/// The thread that computes; llama.cpp's workers inherit its name.
const COMPUTES: &str = "engine";

/// Both figures, from one run.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    bench.narrator.chapter("What the server takes beside the model");
    let (load, variants) = (Load::fixed("overhead", STREAMS), bench.variants(&[PRECISION]));
    let server = Server::pod(&bench.pod(&variants, load.room())).await?;
    let process = server.process()?;
    let mut running = Running::start(server.base(), &load).await?;
    let (before, began) = (process.threads()?, process.cpu()?);
    running.work(bench.lengths.window).await;
    let all = process.cpu()?.saturating_sub(began);
    let spent = spent(&before, &process.threads()?);
    let resident = float(process.resident_kib()?)? * 1024.0;
    server.stop().await?;

    let room = load.room();
    let (context, slots) = (room.context.to_string(), room.slots.to_string());
    let arguments = ["estimate", "--context", &context, "--slots", &slots];
    let estimate = print(&bench.server, &arguments, bench.file(PRECISION)).await?;
    let bytes = |name: &str| float(estimate[name].as_u64().with_context(|| format!("`estimate` has no {name}"))?);
    let (weights, kv) = (bytes("weightsBytes")?, bytes("kvBytes")?);
    bench.narrator.say(format_args!(
        "resident {:.1} MB: weights {:.1}, KV {:.1}",
        resident / 1e6,
        weights / 1e6,
        kv / 1e6
    ));
    let percent = beside_computing(bench, all, &spent)?;
    let rest = (resident - weights - kv) / 1e6;
    Ok(vec![("engine.overhead_cpu_percent".into(), percent), ("engine.overhead_rss_mb".into(), rest)])
}

/// CPU time of each thread in between; threads that ended meanwhile are lost, those that began are whole.
fn spent(before: &[Thread], after: &[Thread]) -> Vec<Thread> {
    let earlier: BTreeMap<i32, Duration> = before.iter().map(|thread| (thread.id, thread.cpu)).collect();
    let since = |thread: &Thread| {
        let cpu = thread.cpu.saturating_sub(earlier.get(&thread.id).copied().unwrap_or_default());
        Thread { cpu, ..thread.clone() }
    };
    after.iter().map(since).collect()
}

/// The share of the process's CPU time that threads took that don't compute. The engine's own thread, which schedules and
/// draws tokens, counts as one that computes, and so do its workers while they spin.
fn beside_computing(bench: &Bench, all: Duration, threads: &[Thread]) -> Result<f64> {
    let (computing, others): (Vec<&Thread>, Vec<&Thread>) = threads.iter().partition(|thread| thread.name == COMPUTES);
    ensure!(computing.iter().any(|thread| !thread.cpu.is_zero()), "no thread named {COMPUTES} took time: {threads:?}");
    let others = others.iter().map(|thread| thread.cpu).sum::<Duration>();
    let (all, others) = (all.as_secs_f64(), others.as_secs_f64());
    bench.narrator.say(format_args!("{all:.2} s of CPU, {others:.2} of them not computing"));
    Ok(others / all * 100.0)
}

/// Time from start to readiness, in seconds: `engine.start_s`.
pub(super) async fn start(bench: &Bench) -> Result<Measured> {
    bench.narrator.chapter("From start to ready");
    let (load, variants) = (Load::fixed("start", STREAMS), bench.variants(&[Precision::Q4]));
    let mut seconds = Vec::new();
    // The first one fills the page cache and keeps its profile.
    for round in 0..=bench.lengths.repeats {
        let server = Server::pod(&bench.pod(&variants, load.room())).await?;
        let took = server.ready_after().as_secs_f64();
        server.stop().await?;
        bench.narrator.say(format_args!("start {round}: {took:.2} s"));
        if round > 0 {
            seconds.push(took);
        }
    }
    Ok(("engine.start_s".into(), super::ratio::percentile(&seconds, 50)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(id: i32, ms: u64) -> Thread {
        Thread { id, name: "engine".into(), cpu: Duration::from_millis(ms) }
    }

    #[test]
    fn only_the_time_in_between_counts() {
        let spent = spent(&[thread(1, 50), thread(2, 70)], &[thread(1, 80), thread(3, 10)]);
        assert_eq!(spent, [thread(1, 30), thread(3, 10)]);
    }
}
