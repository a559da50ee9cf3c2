//! The engine alone: the inference server as a process of the host, with all its cores.

use super::float;
use super::inference::host::{MODEL, Pod, Room, Server, Variant};
use crate::load::saturate;
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::trace::Arrival;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const ROOM: Room = Room { slots: 8, context: 512 };
const STREAMS: usize = 8;
/// All streams are busy while it is counted: the clients begin before and end after.
const WARM: Duration = Duration::from_secs(3);
const COUNTED: Duration = Duration::from_secs(20);
/// The server counts each token as it is drawn.
const COUNTER: &str = "vllm:generation_tokens_total{";
/// Long answers to short prompts: it is decoding that is measured.
const SHAPE: Arrival = Arrival { at: Duration::ZERO, prompt_tokens: 8, output_tokens: 96 };

/// Tokens a second that `server` generates from the Q8_0 file `model` for eight clients at once.
pub async fn tokens_per_second(server: &Path, model: &Path, narrator: &Narrator) -> Result<f64> {
    narrator.chapter("The engine alone: Q8_0, eight streams, all cores");
    let variants = [Variant { name: "q8_0", file: model.to_owned() }];
    let cores = std::thread::available_parallelism().context("could not count the cores")?;
    let threads = u32::try_from(cores.get())?;
    let pod = Pod { program: server, variants: &variants, room: ROOM, threads, profiles: None, admin_token: None };
    let server = Server::pod(&pod).await?;
    let load = tokio::spawn({
        let client = OpenAi::new(server.base(), "")?;
        async move { saturate(&client, MODEL, STREAMS, WARM + COUNTED, SHAPE).await }
    });
    let (tokens, took) = count(&server).await?;
    let outcome = load.await.context("the load broke off")?;
    server.stop().await?;
    outcome.ensure_lossless()?;
    ensure!(tokens > 0, "not a token was generated");
    let speed = float(tokens)? / took.as_secs_f64();
    narrator.say(format_args!("{tokens} tokens generated in {:.1} s: {speed:.1} tokens/s", took.as_secs_f64()));
    Ok(speed)
}

/// Tokens that the server draws in a while, and that while.
async fn count(server: &Server) -> Result<(u64, Duration)> {
    tokio::time::sleep(WARM).await;
    let (start, before) = (Instant::now(), server.counter(COUNTER).await?);
    tokio::time::sleep(COUNTED).await;
    let (took, after) = (start.elapsed(), server.counter(COUNTER).await?);
    Ok((after.checked_sub(before).context("the server counted backwards")?, took))
}
