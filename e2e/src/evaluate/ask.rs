//! Asks every item at every budget, many at once.

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

use super::items::Item;
use super::outcome::{Outcome, Run};
use super::prices::Price;
use super::verify;
use crate::narrator::Narrator;
use crate::openai::{Answer, OpenAi};

/// Attempts at one question, where the server is busy.
const ATTEMPTS: u32 = 8;
/// Longest pause between them.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two lines of progress.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What is asked of whom.
#[derive(Debug)]
pub struct Asking {
    /// Where the API is, without `/v1`.
    pub endpoint: String,
    /// API key; empty for none.
    pub key: String,
    /// `model` of each request.
    pub model: String,
    /// Name of the variant in the results and in the price book.
    pub variant: String,
    /// Most tokens of an answer, one pass over the items each.
    pub budgets: Vec<u32>,
    /// Answers to each question.
    pub choices: u32,
    /// Of the draw; 0 is greedy.
    pub temperature: f64,
    /// Requests at once.
    pub concurrency: usize,
    /// What its tokens cost.
    pub price: Price,
}

/// Asks all of it.
///
/// # Errors
/// Where the endpoint does not answer, or with what no OpenAI endpoint answers.
pub async fn run(asking: &Asking, items: &[Item], narrator: &Narrator) -> Result<Run> {
    ensure!(asking.concurrency > 0 && asking.choices > 0, "nothing is asked with a concurrency or choices of 0");
    ensure!(!asking.budgets.contains(&0), "an answer of 0 tokens says nothing: --budgets begin at 1");
    let client = OpenAi::new(asking.endpoint.trim_end_matches('/'), &asking.key)?;
    let questions: Vec<(&Item, u32)> =
        asking.budgets.iter().flat_map(|budget| items.iter().map(move |item| (item, *budget))).collect();
    let (count, begin) = (questions.len(), Instant::now());
    let (done, said) = (Cell::new(0_usize), Cell::new(Instant::now()));
    let (client, done, said) = (&client, &done, &said);
    let answers = stream::iter(questions).map(|(item, budget)| async move {
        let outcomes = question(asking, client, item, budget).await;
        let outcomes = outcomes.with_context(|| format!("item {} at {budget} tokens", item.id))?;
        done.set(done.get() + 1);
        if said.get().elapsed() > SAY_EVERY {
            said.set(Instant::now());
            narrator.say(format_args!("{}: {} of {count} questions", asking.variant, done.get()));
        }
        Ok::<_, anyhow::Error>(outcomes)
    });
    let outcomes: Vec<Vec<Outcome>> = answers.buffered(asking.concurrency).try_collect().await?;
    let outcomes = outcomes.into_iter().flatten().collect();
    Ok(Run::new(asking.variant.clone(), asking.price, begin.elapsed().as_secs_f64(), outcomes))
}

async fn question(asking: &Asking, client: &OpenAi, item: &Item, budget: u32) -> Result<Vec<Outcome>> {
    let body = json!({
        "model": asking.model,
        "messages": [{"role": "user", "content": item.prompt(budget)}],
        "max_tokens": budget,
        "n": asking.choices,
        "temperature": asking.temperature,
        "seed": seed(&item.id),
        // Ours; other servers ignore it.
        "confidence": true,
    });
    let begin = Instant::now();
    let answer = patiently(client, &body.to_string()).await?;
    outcomes(asking, item, budget, &answer.body, begin.elapsed())
}

/// Another one for each item, so that not all items meet the same draws.
fn seed(item: &str) -> u32 {
    item.bytes().fold(1_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Asks again, in a while, where the server is busy.
async fn patiently(client: &OpenAi, body: &str) -> Result<Answer> {
    let mut attempt = 1;
    loop {
        let answer = client.post("/v1/chat/completions", body.to_owned()).await?;
        match answer.status {
            StatusCode::OK => return Ok(answer),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if attempt < ATTEMPTS => {
                let wait = Duration::from_secs(answer.retry_after.unwrap_or(1));
                tokio::time::sleep(wait.min(PAUSE_MAX)).await;
                attempt += 1;
            }
            status => bail!("{status}: {}", answer.error()),
        }
    }
}

fn outcomes(asking: &Asking, item: &Item, budget: u32, body: &Value, took: Duration) -> Result<Vec<Outcome>> {
    let choices = body["choices"].as_array().context("no choices in the answer")?;
    ensure!(choices.len() == usize::try_from(asking.choices)?, "{} choices of {}", choices.len(), asking.choices);
    let used = |name: &str| {
        let count = body["usage"][name].as_u64().and_then(|count| u32::try_from(count).ok());
        count.with_context(|| format!("no usage.{name} in the answer"))
    };
    let (prompt_tokens, completion_tokens) = (used("prompt_tokens")?, used("completion_tokens")?);
    let cost = asking.price.of(prompt_tokens.into(), completion_tokens.into())?;
    let each = choices.iter().zip(0..).map(|(choice, number)| {
        let text = choice["message"]["content"].as_str().unwrap_or_default();
        let first = number == 0;
        Outcome {
            item: item.id.clone(),
            difficulty: item.difficulty.clone(),
            budget,
            choice: number,
            said: verify::said(text).map(str::to_owned),
            right: verify::is_right(text, &item.answer),
            prompt_tokens: if first { prompt_tokens } else { 0 },
            completion_tokens: f64::from(completion_tokens) / f64::from(asking.choices),
            // The question is paid for once.
            cost: if first { cost } else { Default::default() },
            latency_ms: took.as_secs_f64() * 1e3,
            mean_logprob: choice["confidence"]["mean_logprob"].as_f64(),
            min_logprob: choice["confidence"]["min_logprob"].as_f64(),
        }
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(choices: u32) -> Asking {
        Asking {
            endpoint: String::new(),
            key: String::new(),
            model: "m".into(),
            variant: "q8-0".into(),
            budgets: vec![8],
            choices,
            temperature: 0.0,
            concurrency: 1,
            price: Price::default(),
        }
    }

    fn item() -> Item {
        let question = "last two digits of @97 a plus 8".into();
        Item { id: "1".into(), kind: "sum".into(), difficulty: "easy".into(), steps: 1, question, answer: "05".into() }
    }

    #[test]
    fn answers_are_verified_and_the_question_is_paid_for_once() {
        let choice = |text: &str| json!({"message": {"content": text}, "confidence": {"mean_logprob": -0.25}});
        let body = json!({
            "choices": [choice("a05=05"), choice("=06")],
            "usage": {"prompt_tokens": 20, "completion_tokens": 9},
        });
        let got = outcomes(&asking(2), &item(), 8, &body, Duration::from_millis(3)).unwrap();
        assert_eq!((got[0].right, got[1].right, got[1].said.as_deref()), (true, false, Some("06")));
        assert_eq!((got[0].prompt_tokens, got[1].prompt_tokens, got[0].completion_tokens), (20, 0, 4.5));
        assert_eq!((got[0].mean_logprob, got[0].min_logprob), (Some(-0.25), None));
        assert!(outcomes(&asking(3), &item(), 8, &body, Duration::ZERO).is_err());
        let bare = json!({"choices": [choice("")]});
        let error = outcomes(&asking(1), &item(), 8, &bare, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("usage.prompt_tokens"), "{error}");
    }
}
