//! Asks every item at every budget, many at once.

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::items::Item;
use super::journal::Journal;
use super::outcome::{Outcome, Run};
use super::prices::Price;
use super::statistics::mean;
use super::verify;
use crate::narrator::Narrator;
use crate::openai::{Answer, OpenAi};

/// Most answers to one question.
pub const CHOICES_MAX: u32 = 16;
/// Attempts at one question, where the server is busy or away.
const ATTEMPTS: u32 = 8;
/// Pause after the first of them; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause, whatever a server asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
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
    pub concurrency: u32,
    /// A system message that says how to answer; empty for models that know the tasks.
    pub instruction: String,
    /// What its tokens cost.
    pub price: Price,
    /// Whether log probabilities are asked for: some servers refuse.
    pub logprobs: bool,
    /// Name of the limit in a request: `max_tokens`, or what a server calls it.
    pub limit_name: String,
}

/// Asks all of it; what `journal` has already is not asked again.
///
/// # Errors
/// Where the endpoint does not answer, or with what no OpenAI endpoint answers.
pub async fn run(asking: &Asking, items: &[Item], journal: Journal, narrator: &Narrator) -> Result<Run> {
    ensure!(asking.concurrency > 0 && asking.choices > 0, "nothing is asked with a concurrency or choices of 0");
    ensure!(!asking.budgets.contains(&0), "an answer of 0 tokens says nothing: --budgets begin at 1");
    let at_once = usize::try_from(asking.concurrency)?;
    let client = OpenAi::new(asking.endpoint.trim_end_matches('/'), &asking.key)?;
    let all = asking.budgets.iter().flat_map(|budget| items.iter().map(move |item| (item, *budget)));
    let all: Vec<(&Item, u32)> = all.collect();
    let (count, before, begin) = (all.len(), journal.seconds(), Instant::now());
    let missing: Vec<(&Item, u32)> =
        all.iter().copied().filter(|(item, budget)| !journal.has(&item.id, *budget)).collect();
    if missing.len() < count {
        narrator.say(format_args!("{} of {count} questions were asked before", count - missing.len()));
    }
    let (done, said) = (Cell::new(count - missing.len()), Cell::new(Instant::now()));
    let journal = RefCell::new(journal);
    let (client, done, said, kept) = (&client, &done, &said, &journal);
    let answers = stream::iter(missing).map(|(item, budget)| async move {
        let asked = before + begin.elapsed().as_secs_f64();
        let outcomes = question(asking, client, item, (budget, asked), narrator).await;
        let outcomes = outcomes.with_context(|| format!("item {} at {budget} tokens", item.id))?;
        done.set(done.get() + 1);
        if said.get().elapsed() > SAY_EVERY {
            said.set(Instant::now());
            narrator.say(format_args!("{}: {} of {count} questions", asking.variant, done.get()));
        }
        kept.borrow_mut().add(&outcomes)
    });
    // Whoever is first is next: a slow answer holds nobody up.
    answers.buffer_unordered(at_once).try_collect::<Vec<()>>().await?;
    let seconds = before + begin.elapsed().as_secs_f64();
    let outcomes = all.iter().flat_map(|(item, budget)| journal.borrow().of(&item.id, *budget)).collect();
    Ok(Run::new(asking.variant.clone(), asking.price, asking.concurrency, seconds, outcomes))
}

async fn question(
    asking: &Asking,
    client: &OpenAi,
    item: &Item,
    (budget, asked): (u32, f64),
    narrator: &Narrator,
) -> Result<Vec<Outcome>> {
    let question = json!({"role": "user", "content": item.prompt(budget)});
    let instruction = json!({"role": "system", "content": asking.instruction});
    let messages = if asking.instruction.is_empty() { vec![question] } else { vec![instruction, question] };
    let mut body = json!({
        "model": asking.model,
        "messages": messages,
        "n": asking.choices,
        "temperature": asking.temperature,
        "seed": seed(&item.id),
    });
    body[&asking.limit_name] = budget.into();
    if asking.logprobs {
        body["logprobs"] = true.into();
    }
    let begin = Instant::now();
    let answer = patiently(client, &body.to_string(), narrator).await?;
    outcomes(asking, item, (budget, asked), &answer.body, begin.elapsed())
}

/// Another one for each item, so that not all items meet the same draws; our server counts on from it, one for each choice.
fn seed(item: &str) -> u32 {
    let hash = item.bytes().fold(1_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    hash.wrapping_mul(CHOICES_MAX)
}

/// Asks again, in a while, where the server is busy or away: a run may be an hour of answers that are paid for.
async fn patiently(client: &OpenAi, body: &str, narrator: &Narrator) -> Result<Answer> {
    let mut pause = PAUSE_MIN;
    for _ in 1..ATTEMPTS {
        let (why, wait) = match client.post("/v1/chat/completions", body.to_owned()).await {
            Ok(answer) if answer.status == StatusCode::OK => return Ok(answer),
            Ok(answer) if is_busy(answer.status) => (answer.status.to_string(), answer.retry_after),
            Ok(answer) => bail!("{}: {}", answer.status, answer.error()),
            Err(error) => (format!("{error:#}"), None),
        };
        let wait = wait.map_or(pause, Duration::from_secs).min(PAUSE_MAX);
        narrator.say(format_args!("{why}; asked again in {} s", wait.as_secs()));
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    let answer = client.post("/v1/chat/completions", body.to_owned()).await?;
    ensure!(answer.status == StatusCode::OK, "{}: {}, {ATTEMPTS} times", answer.status, answer.error());
    Ok(answer)
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Mean and least log probability of a choice's tokens, where the server tells.
fn confidence(choice: &Value) -> Option<(f64, f64)> {
    let tokens = choice["logprobs"]["content"].as_array()?;
    let each: Vec<f64> = tokens.iter().map(|token| token["logprob"].as_f64()).collect::<Option<_>>()?;
    Some((mean(&each).ok()?, each.iter().copied().reduce(f64::min)?))
}

fn outcomes(
    asking: &Asking,
    item: &Item,
    (budget, asked): (u32, f64),
    body: &Value,
    took: Duration,
) -> Result<Vec<Outcome>> {
    let choices = body["choices"].as_array().context("no choices in the answer")?;
    ensure!(choices.len() == usize::try_from(asking.choices)?, "{} choices of {}", choices.len(), asking.choices);
    let used = |name: &str| {
        let count = body["usage"][name].as_u64().and_then(|count| u32::try_from(count).ok());
        count.with_context(|| format!("no usage.{name} in the answer"))
    };
    let (prompt_tokens, completion_tokens) = (used("prompt_tokens")?, used("completion_tokens")?);
    let cost = asking.price.of(prompt_tokens.into(), completion_tokens.into())?;
    let each = choices.iter().zip(0..).map(|(choice, number)| {
        // What was cut off has not ended with an answer, whatever its last words are.
        let cut = choice["finish_reason"] == "length";
        let text = choice["message"]["content"].as_str().filter(|_| !cut).unwrap_or_default();
        let first = number == 0;
        let confidence = confidence(choice);
        Outcome {
            item: item.id.clone(),
            kind: item.kind.clone(),
            difficulty: item.difficulty.clone(),
            budget,
            choice: number,
            cut,
            said: verify::said(text).map(str::to_owned),
            right: item.is_right(text),
            prompt_tokens: if first { prompt_tokens } else { 0 },
            completion_tokens: f64::from(completion_tokens) / f64::from(asking.choices),
            // The question is paid for once.
            cost: if first { cost } else { Default::default() },
            begun_ms: asked * 1e3,
            latency_ms: took.as_secs_f64() * 1e3,
            mean_logprob: confidence.map(|(mean, _)| mean),
            min_logprob: confidence.map(|(_, least)| least),
        }
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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
            instruction: String::new(),
            price: Price::default(),
            logprobs: true,
            limit_name: "max_tokens".into(),
        }
    }

    fn item() -> Item {
        let question = "last two digits of @97 a +8".into();
        Item { id: "1".into(), kind: "sum".into(), difficulty: "easy".into(), steps: 1, question, answer: "05".into() }
    }

    #[test]
    fn answers_are_verified_and_the_question_is_paid_for_once() {
        let logprobs = json!({"content": [{"token": "=", "logprob": -0.5}, {"token": "0", "logprob": 0.0}]});
        let choice = |text: &str| json!({"message": {"content": text}, "logprobs": logprobs});
        let body = json!({
            "choices": [choice("a05=05"), choice("=06")],
            "usage": {"prompt_tokens": 20, "completion_tokens": 9},
        });
        let got = outcomes(&asking(2), &item(), (8, 1.5), &body, Duration::from_millis(3)).unwrap();
        assert_eq!((got[0].right, got[1].right, got[1].said.as_deref()), (true, false, Some("06")));
        assert_eq!((got[0].prompt_tokens, got[1].prompt_tokens, got[0].completion_tokens), (20, 0, 4.5));
        assert_eq!((got[0].mean_logprob, got[0].min_logprob), (Some(-0.25), Some(-0.5)));
        assert_eq!((got[0].begun_ms, got[0].latency_ms, got[0].cut), (1500.0, 3.0, false));
        let broken = json!({"message": {"content": "a05=05"}, "finish_reason": "length"});
        let body_of_one = json!({"choices": [broken], "usage": body["usage"]});
        let got = outcomes(&asking(1), &item(), (8, 1.5), &body_of_one, Duration::ZERO).unwrap();
        assert_eq!((got[0].cut, got[0].right, &got[0].said), (true, false, &None), "cut off is no answer");
        assert!(outcomes(&asking(3), &item(), (8, 1.5), &body, Duration::ZERO).is_err());
        let silent = json!({"choices": [{"message": {"content": "=05"}}], "usage": body["usage"]});
        let got = outcomes(&asking(1), &item(), (8, 1.5), &silent, Duration::ZERO).unwrap();
        assert_eq!((got[0].right, got[0].mean_logprob), (true, None));
        let bare = json!({"choices": [choice("")]});
        let error = outcomes(&asking(1), &item(), (8, 1.5), &bare, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("usage.prompt_tokens"), "{error}");
    }

    #[test]
    fn no_two_answers_are_drawn_alike() {
        let seeds: BTreeSet<u32> = (0..500)
            .flat_map(|item| (0..CHOICES_MAX).map(move |choice| seed(&format!("easy-{item:03}")).wrapping_add(choice)))
            .collect();
        assert_eq!(seeds.len(), 500 * 16);
    }
}
