//! `engine.itl_p99_under_prefill`: what four running answers notice when a long prompt arrives.

use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Measured;
use super::client::Client;
use super::grid::{Extra, Row, Tuning};
use super::host::{Peer, Room, Server};
use super::prompts::prompt;
use super::ratio::percentile;
use super::setting::{Bench, Precision};

const STREAMS: u64 = 4;
const PROMPT_TOKENS: u64 = 64;
/// Enough to go on for longer than the prompt takes.
const OUTPUT_TOKENS: u64 = 1500;
const LONG_PROMPT_TOKENS: u64 = 2000;
/// A slot for each stream and one for the long prompt, which all of them must have room for.
const ROOM: Room = Room { slots: 5, context: 2304 };
/// Tokens of every stream before the long prompt comes.
const SETTLED_TOKENS: usize = 8;
const TOKEN_WITHIN: Duration = Duration::from_secs(120);
const PERCENT: usize = 99;
const PRECISION: Precision = Precision::Q8;

/// Our p99 over `llama-server`'s, the median of interleaved repetitions.
pub(super) async fn measure(bench: &Bench, rows: &mut Vec<Row>) -> Result<Measured> {
    bench.narrator.chapter("Gaps between tokens while a 2,000-token prompt arrives");
    let tuning = calmest(bench, rows).await?;
    let mut ratios = Vec::new();
    for _ in 0..bench.lengths.repeats {
        let own = own(bench).await?;
        let peer = peer(bench, tuning).await?;
        bench.narrator.say(format_args!("p99: ours {own:.0}, llama-server {peer:.0} ms, {:.3}", own / peer));
        ratios.push(own / peer);
    }
    Ok(("engine.itl_p99_under_prefill".into(), percentile(&ratios, 50)?))
}

/// `llama-server` with the shortest gaps. A small logical batch is none of the stated grid: it is shown, not taken.
async fn calmest(bench: &Bench, rows: &mut Vec<Row>) -> Result<Tuning> {
    let mut best: Option<(f64, Tuning)> = None;
    for tuning in Tuning::grid().into_iter().take(bench.lengths.grid) {
        let value = row(bench, tuning, rows).await?;
        if best.is_none_or(|(least, _)| value < least) {
            best = Some((value, tuning));
        }
    }
    let (_, tuning) = best.context("an empty grid")?;
    row(bench, Tuning { extra: Extra::SmallBatch, ..tuning }, rows).await?;
    Ok(tuning)
}

async fn row(bench: &Bench, tuning: Tuning, rows: &mut Vec<Row>) -> Result<f64> {
    let value = peer(bench, tuning).await?;
    rows.push(Row { what: format!("{} itl p99", PRECISION.name()), tuning, value, unit: "ms" });
    Ok(value)
}

async fn own(bench: &Bench) -> Result<f64> {
    let variants = bench.variants(&[PRECISION]);
    let server = Server::pod(&bench.pod(&variants, ROOM)).await?;
    let gaps = gaps(server.base()).await?;
    server.stop().await?;
    percentile(&gaps, PERCENT)
}

async fn peer(bench: &Bench, tuning: Tuning) -> Result<f64> {
    let (program, file) = (&bench.peer, bench.file(PRECISION));
    let server = Server::peer(&Peer { program, file, room: ROOM, threads: bench.threads, tuning }).await?;
    let gaps = gaps(server.base()).await?;
    server.stop().await?;
    percentile(&gaps, PERCENT)
}

/// Every gap, in ms, that ended after the long prompt was sent and began before its first token came.
async fn gaps(base: &str) -> Result<Vec<f64>> {
    let client = Client::new(base)?;
    let mut tasks = JoinSet::new();
    let mut streams: Vec<Stream> = (0..STREAMS).map(|seed| Stream::start(&client, &mut tasks, seed)).collect();
    for stream in &mut streams {
        stream.until(|times| times.len() >= SETTLED_TOKENS).await?;
    }
    let (sent, mut first) = (Instant::now(), None);
    let long = prompt(LONG_PROMPT_TOKENS, STREAMS);
    let usage = client.stream(&long, 1, |at| first = Some(at)).await.context("the long prompt")?;
    ensure!(usage.completion_tokens == 1, "the long prompt got {} tokens", usage.completion_tokens);
    // A token without text: the answer's end is as good.
    let first = first.unwrap_or_else(Instant::now);
    let mut gaps = Vec::new();
    for stream in &mut streams {
        stream.until(|times| times.last().is_some_and(|last| *last >= first)).await?;
        gaps.extend(within(&stream.times, sent, first));
    }
    Ok(gaps)
}

fn within(times: &[Instant], sent: Instant, first: Instant) -> Vec<f64> {
    let pairs = times.iter().zip(times.iter().skip(1)).filter(|(from, to)| **to > sent && **from < first);
    pairs.map(|(from, to)| to.duration_since(*from).as_secs_f64() * 1e3).collect()
}

struct Stream {
    arrivals: UnboundedReceiver<Instant>,
    times: Vec<Instant>,
}

impl Stream {
    fn start(client: &Client, tasks: &mut JoinSet<Result<()>>, seed: u64) -> Self {
        let (client, (sender, arrivals)) = (client.clone(), unbounded_channel());
        tasks.spawn(async move {
            // The receiver goes when the measurement is over.
            let on_text = |at| sender.send(at).unwrap_or_default();
            let usage = client.stream(&prompt(PROMPT_TOKENS, seed), OUTPUT_TOKENS, on_text).await?;
            bail!("a stream ended after {} tokens", usage.completion_tokens)
        });
        Self { arrivals, times: Vec::new() }
    }

    async fn until(&mut self, done: impl Fn(&[Instant]) -> bool) -> Result<()> {
        while !done(&self.times) {
            let next = timeout(TOKEN_WITHIN, self.arrivals.recv()).await.context("no token came")?;
            self.times.push(next.context("a stream ended before its time")?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_touch_the_prompts_time_count() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let times = [at(0), at(10), at(30), at(130), at(140)];
        assert_eq!(within(&times, at(20), at(125)), [20.0, 100.0]);
        assert!(within(&times, at(200), at(300)).is_empty());
    }
}
