//! A closed loop: streams that ask again as soon as they are answered. Tokens are counted while all of them are busy.

use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::host::Room;
use super::prompts::prompt;
use crate::bench::float;
use crate::trace::{Arrival, Scale, azure_conversations};

/// Longest time until every stream has its first token.
const FILLED_WITHIN: Duration = Duration::from_secs(180);
/// Pause of a stream whose request failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Of each request of the fixed loads.
const FIXED: Arrival = Arrival { at: Duration::ZERO, prompt_tokens: 64, output_tokens: 128 };
const FIXED_CONTEXT: u32 = 256;
/// The trace's mean is 964 + 259 tokens: an eighth of it is what two cores answer in half a second.
const AZURE: Scale = Scale { keep_every: 1, prompt_divisor: 8, output_divisor: 8 };
const AZURE_CONTEXT: u32 = 768;

/// Requests that a number of streams send.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Last part of the figure's name.
    pub(super) name: &'static str,
    streams: u32,
    requests: Arc<[Arrival]>,
    context: u32,
}

/// What a stream tells.
#[derive(Debug)]
enum Event {
    Text { stream: u32, nth: u64, at: Instant },
    Answered { pieces: u64, tokens: u64 },
    Failed(anyhow::Error),
}

impl Load {
    /// Requests of one length.
    pub(super) fn fixed(name: &'static str, streams: u32) -> Self {
        Self { name, streams, requests: Arc::new([FIXED]), context: FIXED_CONTEXT }
    }

    /// Lengths of a recorded conversation service, in its order.
    pub(super) fn azure(streams: u32) -> Result<Self> {
        let requests: Arc<[Arrival]> = azure_conversations(AZURE)?.into();
        Ok(Self { name: "azure", streams, requests, context: AZURE_CONTEXT })
    }

    /// What a server needs for it: a slot for each stream.
    pub(super) fn room(&self) -> Room {
        Room { slots: self.streams, context: self.context }
    }

    /// The `nth` request. The first of each stream are of different lengths, so that not all end at once.
    fn request(&self, nth: u64) -> Result<Arrival> {
        let count = u64::try_from(self.requests.len())?;
        let index = nth.checked_rem(count).context("a load without requests")?;
        let mut request = *self.requests.get(usize::try_from(index)?).context("no such request")?;
        let streams = u64::from(self.streams);
        if count == 1 && nth < streams {
            request.output_tokens = (request.output_tokens * (nth + 1)).div_ceil(streams);
        }
        Ok(request)
    }
}

/// What streams met while something was done to the server.
#[derive(Debug)]
pub(super) struct Endured<T> {
    /// What was done.
    pub(super) result: T,
    /// Longest time between two pieces of one answer, in ms.
    pub(super) longest_ms: f64,
    /// Requests that failed.
    pub(super) failed: u32,
}

/// Streams at work; dropping it ends them.
pub(super) struct Running {
    events: UnboundedReceiver<Event>,
    _tasks: JoinSet<()>,
    seen: Vec<Event>,
    /// When tokens counted.
    counted: Vec<Range<Instant>>,
}

impl Running {
    /// Starts the streams and waits until each has its first token.
    pub(super) async fn start(base: &str, load: &Load) -> Result<Self> {
        let (client, next) = (Client::new(base)?, Arc::new(AtomicU64::new(0)));
        let (sender, events) = unbounded_channel();
        let mut tasks = JoinSet::new();
        for stream in 0..load.streams {
            let (client, load, next, sender) = (client.clone(), load.clone(), Arc::clone(&next), sender.clone());
            tasks.spawn(async move {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = ask(stream, nth, &client, &load, &sender).await {
                        // Nobody listens once the measurement is over.
                        drop(sender.send(Event::Failed(error)));
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                }
            });
        }
        let mut running = Self { events, _tasks: tasks, seen: Vec::new(), counted: Vec::new() };
        let (mut busy, deadline) = (BTreeSet::new(), Instant::now() + FILLED_WITHIN);
        while u32::try_from(busy.len())? < load.streams {
            let event = timeout_at(deadline, running.events.recv()).await;
            let event = event.map_err(|_| anyhow!("{} of {} streams got a token", busy.len(), load.streams))?;
            match event.context("all streams ended")? {
                Event::Failed(error) => return Err(error.context("a stream failed")),
                event => {
                    if let Event::Text { stream, .. } = &event {
                        busy.insert(*stream);
                    }
                    running.seen.push(event);
                }
            }
        }
        Ok(running)
    }

    /// Lets them work for a while that counts.
    pub(super) async fn work(&mut self, while_: Duration) {
        let begin = Instant::now();
        tokio::time::sleep_until(begin + while_).await;
        self.counted.push(begin..Instant::now());
        self.catch_up();
    }

    /// Tokens a second in all that counts.
    pub(super) fn speed(&self) -> Result<f64> {
        let (mut pieces, mut answered_pieces, mut answered_tokens) = (0_u64, 0_u64, 0_u64);
        for event in &self.seen {
            match event {
                Event::Text { at, .. } => pieces += u64::from(self.counted.iter().any(|while_| while_.contains(at))),
                Event::Answered { pieces, tokens } => {
                    answered_pieces += pieces;
                    answered_tokens += tokens;
                }
                Event::Failed(error) => bail!("a stream failed: {error:#}"),
            }
        }
        let seconds: f64 = self.counted.iter().map(|while_| (while_.end - while_.start).as_secs_f64()).sum();
        ensure!(pieces > 0, "no token came in {seconds} s");
        // A token without text, such as half a character, comes with the next one: `usage` knows how many there were.
        let share = if answered_pieces == 0 { 1.0 } else { float(answered_tokens)? / float(answered_pieces)? };
        Ok(float(pieces)? * share / seconds)
    }

    /// Lets them work while `work` is done.
    pub(super) async fn during<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<Endured<T>> {
        let begin = Instant::now();
        let result = work.await?;
        self.catch_up();
        let failures = self.seen.iter().filter(|event| matches!(event, Event::Failed(_)));
        let failed = u32::try_from(failures.count())?;
        Ok(Endured { result, longest_ms: longest_gap_ms(&self.seen, begin), failed })
    }

    fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
    }
}

/// One request of a stream.
async fn ask(stream: u32, nth: u64, client: &Client, load: &Load, events: &UnboundedSender<Event>) -> Result<()> {
    let request = load.request(nth)?;
    let mut pieces = 0;
    let on_text = |at| {
        pieces += 1;
        drop(events.send(Event::Text { stream, nth, at }));
    };
    let usage = client.stream(&prompt(request.prompt_tokens, nth), request.output_tokens, on_text).await?;
    let (made, asked) = (usage.completion_tokens, request.output_tokens);
    ensure!(made == asked, "{made} tokens were generated where {asked} were asked for");
    drop(events.send(Event::Answered { pieces, tokens: made }));
    Ok(())
}

/// Longest time, in ms, between two pieces of one answer, of those that ended after `begin`.
fn longest_gap_ms(events: &[Event], begin: Instant) -> f64 {
    let mut last: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for event in events {
        if let Event::Text { nth, at, .. } = event
            && let Some(earlier) = last.insert(*nth, *at)
            && *at > begin
        {
            longest = longest.max(at.duration_since(earlier));
        }
    }
    longest.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_requests_are_staggered_and_later_ones_whole() {
        let load = Load::fixed("c4", 4);
        let lengths: Vec<u64> = (0..6).map(|nth| load.request(nth).unwrap().output_tokens).collect();
        assert_eq!(lengths, [32, 64, 96, 128, 128, 128]);
        assert_eq!(load.room(), Room { slots: 4, context: 256 });
    }

    #[test]
    fn gaps_are_those_of_one_answer_that_end_after_the_beginning() {
        let start = Instant::now();
        let text = |nth, ms| Event::Text { stream: 0, nth, at: start + Duration::from_millis(ms) };
        let events = [text(1, 0), text(2, 5), text(1, 90), text(2, 110), text(1, 150), text(3, 900)];
        assert!((longest_gap_ms(&events, start + Duration::from_millis(100)) - 105.0).abs() < 1e-6);
        assert_eq!(longest_gap_ms(&events, start + Duration::from_secs(1)), 0.0);
    }

    #[test]
    fn every_request_of_the_trace_fits_its_room() {
        let load = Load::azure(16).unwrap();
        let longest = load.requests.iter().map(|request| request.prompt_tokens + request.output_tokens).max().unwrap();
        // Words are tokens, but for the first few odd ones.
        assert!(longest + 64 < u64::from(load.context), "{longest}");
        assert!(load.requests.len() > 100);
    }
}
