//! `engine.prefix_compute_ratio`: prompts with one beginning, all at once, on a cache that is full of others.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::Value;
use std::path::Path;
use tokio::process::Command;

use super::Measured;
use super::client::{Client, Usage};
use super::host::{Room, Server};
use super::prompts::prompt;
use super::setting::{Bench, Precision};
use crate::bench::float;

const PROMPTS: u64 = 8;
const SHARED_TOKENS: u64 = 1000;
const OWN_TOKENS: u64 = 16;
const OUTPUT_TOKENS: u64 = 8;
const ROOM: Room = Room { slots: 8, context: 1280 };
/// Counts what was computed: tokens out of the cache are not in it.
const COMPUTED: &str = "vllm:prompt_tokens_total{";
const SHARED_SEED: u64 = 1000;
const OWN_SEED: u64 = 2000;
const PRECISION: Precision = Precision::Q8;

/// Prompt tokens computed over the least possible: the shared ones once, each prompt's own once.
pub(super) async fn measure(bench: &Bench) -> Result<Measured> {
    bench.narrator.chapter("Eight prompts with 1,000 tokens in common");
    let variants = bench.variants(&[PRECISION]);
    let server = Server::pod(&bench.pod(&variants, ROOM)).await?;
    let client = Client::new(server.base())?;
    let others = (0..PROMPTS).map(|seed| prompt(SHARED_TOKENS + OWN_TOKENS, seed));
    ask_all(&client, &others.collect::<Vec<_>>()).await.context("filling the cache")?;

    let shared = prompt(SHARED_TOKENS, SHARED_SEED);
    let own = (0..PROMPTS).map(|nth| format!("{shared} {}", prompt(OWN_TOKENS, OWN_SEED + nth)));
    let before = server.counter(COMPUTED).await?;
    let usages = ask_all(&client, &own.collect::<Vec<_>>()).await?;
    let computed = server.counter(COMPUTED).await?.checked_sub(before).context("the server counted backwards")?;
    server.stop().await?;

    let whole: u64 = usages.iter().map(|usage| usage.prompt_tokens).sum();
    let shared = tokens(&bench.server, bench.file(PRECISION), &shared).await?;
    let ideal = whole.checked_sub((PROMPTS - 1) * shared).context("prompts shorter than what they share")?;
    ensure!(computed > 0, "no prompt token was computed");
    bench.narrator.say(format_args!("{whole} prompt tokens, {computed} computed, {ideal} at the least"));
    Ok(("engine.prefix_compute_ratio".into(), float(computed)? / float(ideal)?))
}

async fn ask_all(client: &Client, prompts: &[String]) -> Result<Vec<Usage>> {
    try_join_all(prompts.iter().map(|prompt| client.stream(prompt, OUTPUT_TOKENS, |_| {}))).await
}

/// How many tokens the engine makes of this text.
async fn tokens(program: &Path, model: &Path, text: &str) -> Result<u64> {
    let printed = print(program, &["tokenize", "--text", text], model).await?;
    printed["count"].as_u64().context("`tokenize` printed no count")
}

/// What a subcommand of the inference pod prints about a model file.
pub(super) async fn print(program: &Path, arguments: &[&str], model: &Path) -> Result<Value> {
    let output = Command::new(program).args(arguments).arg("--model").arg(model).output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {errors}", program.display(), output.status);
    serde_json::from_slice(&output.stdout).context("it printed no JSON")
}
