//! Open-loop load: requests leave when the trace says so, whatever became of those before.

use crate::openai::{Answer, OpenAi};
use crate::trace::Arrival;
use anyhow::{Result, anyhow, ensure};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Words that prompts are made of; each is about one token.
const WORDS: [&str; 16] = [
    "the", "ship", "sails", "north", "with", "bread", "and", "water", "for", "ten", "days", "under", "a", "calm",
    "grey", "sky",
];

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests sent.
    pub sent: usize,
    /// Requests answered with 200 and a usage.
    pub answered: usize,
    /// Prompt and completion tokens of the answers.
    pub tokens: u64,
    /// From first request to last answer.
    pub took: Duration,
    /// Time to the whole answer, sorted.
    pub latencies: Vec<Duration>,
    /// What went wrong, one line a request.
    pub failures: Vec<String>,
}

impl Outcome {
    /// The latency that `percent` of the answers did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent.min(100) / 100).copied().unwrap_or_default()
    }

    /// Tokens a second over the whole load.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        f64::from(u32::try_from(self.tokens).unwrap_or(u32::MAX)) / self.took.as_secs_f64().max(0.001)
    }

    /// Fails, with the first loss, where a request was lost or none was sent.
    pub fn ensure_lossless(&self) -> Result<()> {
        ensure!(self.sent > 0, "no request was sent");
        ensure!(
            self.failures.is_empty() && self.answered == self.sent,
            "{} of {} requests were lost: {:?}",
            self.sent - self.answered,
            self.sent,
            self.failures.first()
        );
        Ok(())
    }

    fn add(&mut self, answer: Result<Answer>, latency: Duration) {
        self.sent += 1;
        match answer.and_then(served) {
            Ok(answer) => {
                self.answered += 1;
                self.tokens += answer.total_tokens();
                self.latencies.push(latency);
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn join(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.tokens += other.tokens;
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
    }
}

fn served(answer: Answer) -> Result<Answer> {
    match (answer.status.as_u16(), answer.total_tokens()) {
        (200, 1..) => Ok(answer),
        (status, _) => Err(anyhow!("status {status}: {}", answer.body)),
    }
}

/// A prompt of about `tokens` tokens, another one for each `seed`.
#[must_use]
pub fn prompt(tokens: u64, seed: usize) -> String {
    let words = (0..usize::try_from(tokens).unwrap_or(1))
        .filter_map(|at| WORDS.get((at * 7 + seed * 5 + at / 16) % WORDS.len()));
    words.copied().collect::<Vec<_>>().join(" ")
}

/// Replays `arrivals` and waits for every answer.
pub async fn replay(client: &OpenAi, model: &str, arrivals: &[Arrival]) -> Outcome {
    let start = Instant::now();
    let mut open = JoinSet::new();
    for (seed, arrival) in arrivals.iter().copied().enumerate() {
        let (client, model) = (client.clone(), model.to_owned());
        open.spawn(async move {
            tokio::time::sleep_until(start + arrival.at).await;
            let sent = Instant::now();
            let answer = client.chat(&model, &prompt(arrival.prompt_tokens, seed), arrival.output_tokens).await;
            (answer, sent.elapsed())
        });
    }
    collect(open, start).await
}

/// `streams` clients that ask again as soon as they are answered, until `until` has passed.
pub async fn saturate(client: &OpenAi, model: &str, streams: usize, until: Duration, shape: Arrival) -> Outcome {
    let start = Instant::now();
    closed_loop(client, model, streams, shape, move |_| start.elapsed() < until).await
}

/// `streams` clients that ask again as soon as they are answered, `rounds` times each.
pub async fn repeat(client: &OpenAi, model: &str, streams: usize, rounds: usize, shape: Arrival) -> Outcome {
    closed_loop(client, model, streams, shape, move |round| round < rounds).await
}

async fn closed_loop(
    client: &OpenAi,
    model: &str,
    streams: usize,
    shape: Arrival,
    more: impl Fn(usize) -> bool + Copy + Send + 'static,
) -> Outcome {
    let start = Instant::now();
    let mut open = JoinSet::new();
    for stream in 0..streams {
        let (client, model) = (client.clone(), model.to_owned());
        open.spawn(async move {
            let mut own = Outcome::default();
            for round in (0..).take_while(move |round| more(*round)) {
                let sent = Instant::now();
                let text = prompt(shape.prompt_tokens, stream * 31 + round);
                let answer = client.chat(&model, &text, shape.output_tokens).await;
                own.add(answer, sent.elapsed());
            }
            own
        });
    }
    let mut all = Outcome::default();
    while let Some(one) = open.join_next().await {
        match one {
            Ok(one) => all.join(one),
            Err(error) => all.add(Err(error.into()), Duration::ZERO),
        }
    }
    finish(all, start)
}

async fn collect(mut open: JoinSet<(Result<Answer>, Duration)>, start: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(done) = open.join_next().await {
        match done {
            Ok((answer, latency)) => outcome.add(answer, latency),
            Err(error) => outcome.add(Err(error.into()), Duration::ZERO),
        }
    }
    finish(outcome, start)
}

fn finish(mut outcome: Outcome, start: Instant) -> Outcome {
    outcome.took = start.elapsed();
    outcome.latencies.sort_unstable();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_length_asked_for_and_differ() {
        assert_eq!(prompt(40, 1).split(' ').count(), 40);
        assert_ne!(prompt(40, 1), prompt(40, 2));
    }

    #[test]
    fn a_loss_is_an_error_and_so_is_a_load_of_nothing() {
        let usage = serde_json::json!({"usage": {"total_tokens": 9}});
        let answer = |status| Answer { status, retry_after: None, variant: None, body: usage.clone() };
        let mut outcome = Outcome::default();
        assert!(outcome.ensure_lossless().is_err());
        outcome.add(Ok(answer(reqwest::StatusCode::OK)), Duration::ZERO);
        assert_eq!(outcome.tokens, 9);
        outcome.ensure_lossless().unwrap();
        outcome.add(Ok(answer(reqwest::StatusCode::BAD_GATEWAY)), Duration::ZERO);
        assert!(outcome.ensure_lossless().unwrap_err().to_string().contains("1 of 2"));
    }

    #[test]
    fn percentiles_of_nothing_are_zero() {
        assert_eq!(Outcome::default().percentile(99), Duration::ZERO);
        let latencies = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(Outcome { latencies, ..Outcome::default() }.percentile(50), Duration::from_millis(50));
    }
}
