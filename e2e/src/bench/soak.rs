//! `soak.engine_*`: half an hour of mixed load with clients that leave, read slowly or ask for nonsense. What must not grow
//! does not: memory, slots, KV cache.

mod clients;
mod plot;

use super::float;
use super::inference::host::{Pod, Room, Server, Variant};
use crate::narrator::Narrator;
use anyhow::{Context, Result, ensure};
use clients::{Kind, Tally};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const ROOM: Room = Room { slots: 8, context: 768 };
/// More than there are slots, so that some always wait.
const CLIENTS: u64 = 12;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// What is in flight at the end may take so long.
const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// Memory of the second sixth of the time is compared with that of the last one: by then all has been seen once.
const PARTS: usize = 6;

/// What is soaked, and for how long.
#[derive(Debug)]
pub struct Soak {
    /// Our server.
    pub server: PathBuf,
    /// A model file.
    pub model: PathBuf,
    /// How long.
    pub time: Duration,
    /// Where the plot goes, as SVG.
    pub plot: PathBuf,
    /// Who hears of it.
    pub narrator: Narrator,
}

/// What was seen at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    resident_mb: f64,
    running: f64,
    waiting: f64,
    kv_tokens: f64,
}

/// All figures; a request that fails is counted, anything else that fails is an error.
pub async fn run(soak: &Soak) -> Result<Vec<(String, f64)>> {
    let minutes = soak.time.as_secs() / 60;
    soak.narrator.chapter(format_args!("Mixed load for {minutes} min, {CLIENTS} clients on {} slots", ROOM.slots));
    let variants = [Variant { name: "soaked", file: soak.model.clone() }];
    let cores = std::thread::available_parallelism().context("could not count the cores")?;
    let threads = u32::try_from(cores.get())?;
    let pod =
        Pod { program: &soak.server, variants: &variants, room: ROOM, threads, profiles: None, admin_token: None };
    let server = Server::pod(&pod).await?;
    let (begin, end) = (Instant::now(), Instant::now() + soak.time);
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        tasks.spawn(clients::work(server.base().to_owned(), client, CLIENTS, end));
    }
    let samples = watch(&server, begin, end, &soak.narrator).await?;
    let mut tally = Tally::default();
    while let Some(done) = tasks.join_next().await {
        tally.add(done.context("a client broke off")??);
    }
    let left = idle(&server, begin).await?;
    server.stop().await?;
    plot::draw(&soak.plot, &samples)?;
    for kind in Kind::ALL {
        soak.narrator.say(format_args!("{kind:?}: {}", tally.of(kind)));
    }
    if let Some(failure) = &tally.first_failure {
        soak.narrator.say(format_args!("the first failure: {failure}"));
    }
    ensure!(Kind::ALL.iter().all(|kind| tally.of(*kind) > 0), "a kind of request never came to its turn");
    Ok(vec![
        ("soak.engine_requests".into(), float(tally.done())?),
        ("soak.engine_failed".into(), float(tally.failed)?),
        ("soak.engine_rss_growth_mb".into(), growth(&samples)?),
        ("soak.engine_slots_left".into(), left.running + left.waiting),
        ("soak.engine_kv_left".into(), left.kv_tokens),
    ])
}

async fn watch(server: &Server, begin: Instant, end: Instant, narrator: &Narrator) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut told = 0.0;
    while Instant::now() < end {
        let sample = sample(server, begin).await?;
        if sample.minutes >= told {
            narrator.say(format_args!(
                "{:.0} min: {:.1} MB resident, {} run, {} wait",
                sample.minutes, sample.resident_mb, sample.running, sample.waiting
            ));
            told += 2.0;
        }
        samples.push(sample);
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    Ok(samples)
}

async fn sample(server: &Server, begin: Instant) -> Result<Sample> {
    let page = server.metrics().await?;
    let gauge = |name: &str| -> Result<f64> {
        let line = page.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        line.rsplit(' ').next().unwrap_or_default().parse().with_context(|| format!("no number in {line:?}"))
    };
    Ok(Sample {
        minutes: begin.elapsed().as_secs_f64() / 60.0,
        resident_mb: float(server.process()?.resident_kib()?)? * 1024.0 / 1e6,
        running: gauge("vllm:num_requests_running{")?,
        waiting: gauge("vllm:num_requests_waiting{")?,
        kv_tokens: gauge("quartermaster_engine_tokens_in_flight{")?,
    })
}

/// What is still held when nobody asks any more: the last look, once nothing is, or after [`IDLE_WITHIN`].
async fn idle(server: &Server, begin: Instant) -> Result<Sample> {
    let until = Instant::now() + IDLE_WITHIN;
    loop {
        let left = sample(server, begin).await?;
        if left.running + left.waiting + left.kv_tokens <= 0.0 || Instant::now() > until {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Median of the last part over that of the second.
fn growth(samples: &[Sample]) -> Result<f64> {
    let size = samples.len() / PARTS;
    ensure!(size > 0, "{} samples are too few", samples.len());
    let median = |part: &[Sample]| {
        let mut sizes: Vec<f64> = part.iter().map(|sample| sample.resident_mb).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.get(sizes.len() / 2).copied().context("no samples")
    };
    let part = |at: usize| samples.chunks_exact(size).nth(at).context("no such part");
    Ok(median(part(PARTS - 1)?)? - median(part(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_came_after_all_was_seen_once() {
        let sample = |at: u32| {
            // It fills up in the first sixth, then grows by one MB a sample.
            let resident_mb = if at < 10 { 100.0 } else { 200.0 + f64::from(at) };
            Sample { minutes: f64::from(at), resident_mb, running: 0.0, waiting: 0.0, kv_tokens: 0.0 }
        };
        let samples: Vec<Sample> = (0..60).map(sample).collect();
        assert!((growth(&samples).unwrap() - 40.0).abs() < 1e-9);
        assert!(growth(&samples[..5]).is_err());
    }
}
